"""Shared by all tests."""

import signal

import pytest
import torch

# The tests' problems are small: more threads would only wait for each other, most of all on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def signals() -> None:
    """Let Ctrl-C and SIGTERM act as ever: the shell of a background job ignores the one, Dask handles both."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

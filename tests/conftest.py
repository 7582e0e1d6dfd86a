"""Shared by all tests."""

import torch

# The tests' problems are small: more threads would only wait for each other, most of all on a busy machine.
torch.set_num_threads(1)

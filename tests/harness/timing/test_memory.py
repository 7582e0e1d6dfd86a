"""Peak memory of a step, against sizes that can be counted by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.methods import Method, Problem
from harness.methods.registry import registry
from harness.timing.interleaved import trainer_on_noise
from harness.timing.memory import peak_bytes
from harness.training.configuration import TrainingConfig


def peak(method: Method, problem: Problem, **config: Any) -> int:
    trainer, batch = trainer_on_noise(method, problem, TrainingConfig(**config))
    trainer.step(batch)
    return peak_bytes(trainer, batch)


def test_a_temporary_counts_while_it_lives(fake_method: Callable[..., Method], fake_model: type) -> None:
    class Wasteful(fake_model):
        def training_loss(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
            first = torch.ones(1_000_000)
            del first
            second = torch.ones(2_000_000)
            del second
            return super().training_loss(x, generator)

    problem = Problem(shape=(3,), batch=4)
    extra = peak(fake_method(build=Wasteful), problem) - peak(fake_method(), problem)
    assert extra == pytest.approx(8_000_000, rel=1e-3)


_REPLACING = """
import torch
from torch import nn
from harness.methods import Method, Model, Problem
from harness.timing.interleaved import trainer_on_noise
from harness.timing.memory import peak_bytes
from harness.training.configuration import TrainingConfig

class Replacing(Model):
    def __init__(self, problem):
        self.module = nn.Linear(3, 3)
        self.kept = torch.ones(100_000)
    def init_batch(self, x):
        pass
    def training_loss(self, x, generator=None):
        return self.module(x).square().mean()
    def after_step(self):
        self.kept = torch.ones(100_000)
    def to_latent(self, x):
        return x, x.new_zeros(len(x))

method = Method(name="replacing", build=Replacing, objective="ml", linear="dense", architectures=("fc",))
trainer, batch = trainer_on_noise(method, Problem(shape=(3,), batch=4), TrainingConfig())
trainer.step(batch)
assert peak_bytes(trainer, batch) > 400_000
"""


def test_the_profiler_has_nothing_to_warn_of() -> None:
    """It warns where a step frees what was there before, as an inverse that is computed anew does."""
    environment = {**os.environ, "TORCH_CPP_LOG_LEVEL": "WARNING", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _REPLACING], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_amortised_likelihood_holds_two_copies_more_than_the_exact_one() -> None:
    """One of the gradients of log Z, and one of the weights."""
    problem = Problem(shape=(256,), batch=4)
    weights = 4 * 2 * (256**2 + 256)
    exact = peak(registry().find("ebflow-ml"), problem)
    for refresh in (1, 1000):
        amortised = peak(registry().find("ebflow-aml"), problem.replace(refresh=refresh))
        assert exact + 0.5 * weights < amortised < exact + 2.01 * weights


def test_dsm_holds_four_copies_of_its_weights_and_its_own_products() -> None:
    method = registry().find("ebflow-dsm")
    problem = Problem(shape=(512,), batch=4)
    weights = 4 * 2 * (512**2 + 512)
    with_average, without = (peak(method, problem, ema_decay=decay) for decay in (0.999, None))
    assert with_average - without == pytest.approx(weights, rel=0.01)
    assert 4 * weights < with_average < 6 * weights

"""Peak memory of a step, against sizes that can be counted by hand."""

from __future__ import annotations

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

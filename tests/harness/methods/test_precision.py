"""Lower precision is on where it was declared, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from harness.errors import InputError
from harness.methods import Method, Problem
from harness.methods.density import build
from harness.methods.precision import allow_tf32, tf32_where_declared
from harness.timing.interleaved import trainer_on_noise
from harness.training.configuration import TrainingConfig


def flags() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def flags_as_before() -> Iterator[None]:
    before = flags()
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def test_the_whole_process_is_at_full_precision() -> None:
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")
    allow_tf32(False)
    assert flags() == ("highest", False)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bf16"])
def test_tf32_is_off_in_a_step_even_where_the_process_has_it_on(dtype: str) -> None:
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    with tf32_where_declared(dtype):
        assert flags() == ("highest", False)
    assert flags() == ("high", True)


def test_tf32_is_on_in_forward_and_backward_where_declared_and_off_again_after_an_error(
    fake_method: Callable[..., Method], fake_model: type
) -> None:
    allow_tf32(False)
    seen = []

    class Watching(fake_model):
        def training_loss(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
            loss = super().training_loss(x, generator)
            seen.append(flags())
            loss.register_hook(lambda gradient: seen.append(flags()))
            return loss

    trainer, batch = trainer_on_noise(fake_method(build=Watching), Problem(shape=(3,), batch=4), TrainingConfig())
    trainer.step(batch)
    trainer.dtype = "tf32"
    trainer.step(batch)
    assert seen == [("highest", False)] * 2 + [("high", True)] * 2
    trainer.loss = lambda x, generator: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.step(batch)
    assert flags() == ("highest", False)


def test_tf32_needs_a_device_that_has_it() -> None:
    with pytest.raises(InputError, match="tf32 is a CUDA device's arithmetic"):
        Problem(dtype="tf32")
    assert Problem(dtype="tf32", device="cuda").dtype == "tf32"


def test_bf16_multiplies_in_bfloat16_and_keeps_and_scores_in_float32(
    fake_method: Callable[..., Method], fake_model: type
) -> None:
    seen: list[Any] = []

    class Watching(fake_model):
        def training_loss(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
            seen.append((x.dtype, (x @ x.mT).dtype))
            return super().training_loss(x, generator)

    method = fake_method(build=Watching)
    problem = Problem(shape=(3,), batch=4, dtype="bf16")
    assert {p.dtype for p in build(method, problem).module.parameters()} == {torch.float32}
    trainer, batch = trainer_on_noise(method, problem, TrainingConfig())
    trainer.step(batch)
    assert seen == [(torch.float32, torch.bfloat16)]
    assert (batch @ batch.mT).dtype == torch.float32

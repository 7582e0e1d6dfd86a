"""Every optimiser on offer steps as torch's own of that name does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from harness.training.configuration import OPTIMIZERS
from harness.training.optimizers import CONSTRUCTORS

TORCH = {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_torch_s(name: str, weight_decay: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator, dtype=dtype) for shape in [(3, 5), (4,)]]
    ours, theirs = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    optimizer = CONSTRUCTORS[name](ours, 0.01, weight_decay)
    torch_optimizer = TORCH[name](theirs, lr=0.01, weight_decay=weight_decay)
    for step in range(30):
        gradients = [
            torch.randn(value.shape, generator=generator, dtype=dtype) * 10.0 ** (step % 5 - 3) for value in start
        ]
        for parameters in (ours, theirs):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
        if step % 7 == 3:  # a parameter without a gradient is left as it is
            ours[1].grad = theirs[1].grad = None
        optimizer.step()
        torch_optimizer.step()
        optimizer.learning_rate *= 0.95  # as a schedule does
        torch_optimizer.param_groups[0]["lr"] *= 0.95
        if not weight_decay:  # the training loop reads the norm of the gradient after the step
            assert all(torch.equal(p.grad, g) for p, g in zip(ours, gradients, strict=True) if p.grad is not None)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    assert not torch.allclose(ours[0], start[0], atol=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_goes_on_where_it_was_saved(name: str) -> None:
    def trained(steps: int, resumed: bool) -> torch.Tensor:
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = CONSTRUCTORS[name]([parameter], 0.1)
        for step in range(steps):
            if resumed and step == 2:
                state = optimizer.state
                optimizer = CONSTRUCTORS[name]([parameter], 0.1)
                for own, saved in zip(optimizer.state, state, strict=True):
                    assert own.keys() == saved.keys()
                    own |= saved
            parameter.grad = torch.full((3,), 1.0 + step)
            optimizer.step()
        return parameter.detach()

    assert torch.equal(trained(5, resumed=True), trained(5, resumed=False))


def test_every_name_that_a_recipe_may_have_makes_an_optimiser() -> None:
    assert set(OPTIMIZERS) == set(CONSTRUCTORS)


def test_a_recipe_needs_no_torch() -> None:
    code = "import sys, harness.training.configuration; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": os.pathsep.join(sys.path)}).returncode == 0

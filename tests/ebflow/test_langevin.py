"""Langevin chains against Gaussians whose mean, covariance and conditionals are known."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from torch import Tensor

from ebflow import EBFlow, architectures, langevin
from ebflow.layers import Dense, Reshape

DOUBLE = torch.float64
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=DOUBLE)
FACTOR = torch.tensor([[1.0, 0, 0], [0.8, 1.2, 0], [-0.5, 0.6, 0.7]], dtype=DOUBLE)
COVARIANCE = FACTOR @ FACTOR.mT
MASK = torch.tensor([True, False, True])
CHAINS = 8000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def gaussian() -> EBFlow:
    """N(MEAN, COVARIANCE) as one dense layer."""
    flow = architectures.fc((3,), layers=1).double()
    whitening = torch.linalg.inv(FACTOR)
    flow.layers[0].weight.data.copy_(whitening)
    flow.layers[0].bias.data.copy_(-whitening @ MEAN)
    return flow


@pytest.fixture
def images() -> EBFlow:
    """Standard normal images, 1 x 4 x 5."""
    return EBFlow((1, 4, 5), [Reshape((1, 4, 5), (20,)), Dense(20)]).double()


def log_density(flow: EBFlow):
    return lambda x: -flow.energy(x)


def last(iterates) -> Tensor:
    *_, x = iterates
    return x


def assert_gaussian(x: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Within five standard errors of independent draws, N(mean, covariance)."""
    n = len(x)
    spread = covariance.diagonal().sqrt()
    assert ((x.mean(0) - mean).abs() < 5 * spread / math.sqrt(n)).all()
    error = (covariance.square() + torch.outer(spread, spread).square()).sqrt() / math.sqrt(n)
    assert ((x.mT.cov() - covariance).abs() < 5 * error).all()


class TestLangevin:
    def test_the_plain_chain_samples_the_density_but_for_its_step(self, gaussian: EBFlow) -> None:
        # x <- x - a A (x - mean) + sqrt(2 a) n, with A the precision, keeps the covariance (A - a A^2 / 2)^-1.
        x = torch.zeros(CHAINS, 3, dtype=DOUBLE)
        x = last(langevin.chain(gaussian.score, x, steps=100, step_size=0.2, generator=generator()))
        precision = torch.linalg.inv(COVARIANCE)
        assert_gaussian(x, MEAN, torch.linalg.inv(precision - 0.1 * precision @ precision))

    def test_with_the_covariance_thirty_steps_are_enough(self, gaussian: EBFlow) -> None:
        # In the whitened space it is x <- (1 - a) x + sqrt(2 a) n, of variance 1 / (1 - a / 2), whatever the scales.
        x = torch.zeros(CHAINS, 3, dtype=DOUBLE)
        iterates = langevin.chain(
            gaussian.score, x, steps=30, step_size=0.5, covariance=COVARIANCE, generator=generator()
        )
        assert_gaussian(last(iterates), MEAN, COVARIANCE / 0.75)

    @pytest.mark.parametrize("leapfrog", [1, 4])
    @pytest.mark.parametrize("covariance", [None, COVARIANCE, torch.eye(3)], ids=["none", "its own", "wrong"])
    def test_the_adjusted_chain_is_exact_at_a_large_step(
        self, gaussian: EBFlow, covariance: Tensor | None, leapfrog: int
    ) -> None:
        step_size = 0.5 if covariance is COVARIANCE else 0.1
        iterates = langevin.chain(
            gaussian.score,
            gaussian.sample(CHAINS, generator(1)),
            steps=40,
            step_size=step_size,
            covariance=covariance,
            log_density=log_density(gaussian),
            leapfrog=leapfrog,
            generator=generator(),
        )
        assert_gaussian(last(iterates), MEAN, COVARIANCE)

    def test_iterates_of_a_quarter_period_are_independent(self, gaussian: EBFlow) -> None:
        # In the whitened space a trajectory is a rotation of position and momentum: after pi / 2 nothing is left of
        # the start, where a chain of the same scores, one an iterate, is still near it.
        def correlation(steps: int, leapfrog: int) -> float:
            x = gaussian.sample(CHAINS, generator(1))
            options = {"step_size": 0.5 * (math.pi / 2 / 10) ** 2, "leapfrog": leapfrog, "covariance": COVARIANCE}
            options["log_density"] = log_density(gaussian)
            found = last(langevin.chain(gaussian.score, x, steps=steps, generator=generator(), **options))
            return torch.stack([x[:, 0], found[:, 0]]).corrcoef()[0, 1].item()

        assert abs(correlation(1, 10)) < 5 / math.sqrt(CHAINS)
        assert correlation(10, 1) > 0.8

    def test_the_adjusted_chain_finds_the_density_from_elsewhere(self, gaussian: EBFlow) -> None:
        iterates = langevin.chain(
            gaussian.score,
            torch.zeros(CHAINS, 3, dtype=DOUBLE),
            steps=60,
            step_size=0.5,
            covariance=COVARIANCE,
            log_density=log_density(gaussian),
            generator=generator(),
        )
        assert_gaussian(last(iterates), MEAN, COVARIANCE)

    @pytest.mark.parametrize("step_size", [1e-3, 30.0], ids=["small", "large"])
    def test_the_warm_up_finds_the_step(self, step_size: float, gaussian: EBFlow) -> None:
        x = torch.zeros(CHAINS // 4, 3, dtype=DOUBLE)
        iterates = langevin.chain(
            gaussian.score,
            x,
            steps=500,
            step_size=step_size,
            covariance=COVARIANCE,
            log_density=log_density(gaussian),
            warmup=400,
            generator=generator(),
        )
        after = torch.stack(list(iterates)[400:])
        assert_gaussian(after[-1], MEAN, COVARIANCE)
        # Each chain has a step of its own: the share that moves is near 57 % in every one, and so in the mean.
        moved = (after.diff(dim=0) != 0).any(-1).double().mean(0)
        assert moved.mean() == pytest.approx(0.574, abs=0.03)
        assert ((moved - 0.574).abs() < 0.25).double().mean() > 0.95

    def test_after_the_warm_up_the_step_is_fixed(self, gaussian: EBFlow) -> None:
        # The first iterate is made with the step that was given; a warm-up of one changes the second.
        def iterates(warmup: int) -> list[Tensor]:
            x, options = torch.zeros(50, 3, dtype=DOUBLE), {"log_density": log_density(gaussian), "warmup": warmup}
            return list(langevin.chain(gaussian.score, x, steps=3, step_size=0.1, generator=generator(), **options))

        without, one, two = iterates(0), iterates(1), iterates(2)
        assert torch.equal(without[0], one[0])
        assert not torch.equal(without[1], one[1])
        assert torch.equal(one[1], two[1])
        assert not torch.equal(one[2], two[2])

    def test_a_refused_sample_stays_where_it_is(self, gaussian: EBFlow) -> None:
        x = gaussian.sample(200, generator(1))
        iterates = langevin.chain(
            gaussian.score, x, steps=1, step_size=1.0, log_density=log_density(gaussian), generator=generator()
        )
        stayed = (last(iterates) == x).all(1)
        assert 0 < stayed.sum() < 200

    def test_a_proposal_without_a_density_is_refused(self) -> None:
        x = torch.zeros(3, 1)
        iterates = langevin.chain(
            torch.neg, x, steps=2, step_size=0.1, log_density=lambda x: x[:, 0] / 0, generator=generator()
        )
        assert torch.equal(last(iterates), x)

    @pytest.mark.parametrize("preconditioned", [False, True])
    def test_with_a_mask_it_samples_the_conditional(self, gaussian: EBFlow, preconditioned: bool) -> None:
        held = 3.0
        x = torch.tensor([9.0, held, 9.0], dtype=DOUBLE).expand(CHAINS, 3)
        across = COVARIANCE[MASK][:, 1]
        mean = MEAN[MASK] + across * (held - MEAN[1]) / COVARIANCE[1, 1]
        covariance = COVARIANCE[MASK][:, MASK] - torch.outer(across, across) / COVARIANCE[1, 1]
        iterates = langevin.chain(
            gaussian.score,
            x,
            steps=50,
            step_size=0.5 if preconditioned else 0.3,
            mask=MASK,
            covariance=COVARIANCE if preconditioned else None,
            log_density=log_density(gaussian),
            generator=generator(),
        )
        found = last(iterates)
        assert (found[:, 1] == held).all()
        assert_gaussian(found[:, MASK], mean, covariance)

    def test_iterates_are_new_tensors_and_follow_the_seed(self, gaussian: EBFlow) -> None:
        x = torch.ones(4, 3, dtype=DOUBLE)

        def run(seed: int) -> list[Tensor]:
            return list(
                langevin.chain(gaussian.score, x, steps=3, step_size=0.01, mask=MASK, generator=generator(seed))
            )

        first, again, other = run(0), run(0), run(1)
        assert len(first) == 3
        assert torch.equal(x, torch.ones(4, 3))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(first[0], other[0])
        assert not torch.equal(first[0], first[1])
        assert all((a[:, 1] == 1).all() and (a[:, MASK] != 1).all() for a in first)

    def test_it_takes_images_and_gives_the_caller_his_gradients(self, images: EBFlow) -> None:
        x = torch.zeros(2, 1, 4, 5, dtype=DOUBLE)
        mask = torch.zeros(1, 4, 5, dtype=torch.bool)
        mask[:, 2:] = True
        for y in langevin.chain(images.score, x, steps=2, step_size=0.1, mask=mask, covariance=torch.eye(20)):
            assert torch.is_grad_enabled()
            assert not y.requires_grad
            assert y.shape == x.shape
            assert (y[..., :2, :] == 0).all()
            assert (y[..., 2:, :] != 0).all()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"mask": torch.ones(2, dtype=torch.bool)}, r"boolean of the samples' shape \(3,\)"),
            ({"mask": torch.ones(3)}, r"not torch.float32"),
            ({"covariance": torch.eye(2)}, r"no covariance of shape \(2, 2\)"),
            ({"covariance": torch.ones(3, 3).tril() + torch.eye(3)}, "not symmetric"),
            ({"covariance": -torch.eye(3)}, "not positive definite"),
            ({"covariance": math.nan * torch.eye(3)}, "the covariance holds numbers that are not finite"),
            ({"covariance": torch.ones(3, 3), "mask": torch.tensor([True, False, False])}, "not positive definite"),
            ({"step_size": 0.0}, "above 0, not 0.0"),
            ({"step_size": math.nan}, "above 0, not nan"),
            ({"warmup": 1}, "needs log_density"),
            ({"leapfrog": 0}, "at least 1 leapfrog step, not 0"),
        ],
    )
    def test_what_does_not_fit_is_refused_at_once(self, changes: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            langevin.chain(torch.neg, torch.zeros(5, 3), **{"steps": 1, "step_size": 0.1, **changes})


class TestReleased:
    def test_a_step_is_its_formula_and_the_last_has_no_noise(self, images: EBFlow) -> None:
        x = torch.randn(3, 1, 4, 5, generator=generator(1), dtype=DOUBLE)
        flat = torch.ones_like(x)  # a blur leaves it as it is
        noisy, final = langevin.released_chain(
            images.score, flat, steps=2, step_size=0.3, noise_to_signal=0.2, generator=generator()
        )
        n = torch.randn(x.shape, generator=generator(), dtype=DOUBLE)
        ratio = n.flatten(1).norm(dim=1).mean() / math.sqrt(20)
        torch.testing.assert_close(noisy, flat * (1 - 0.045) + 0.2 * ratio**2 * 0.3 * n)
        (alone,) = langevin.released_chain(images.score, noisy, steps=1, step_size=0.3)
        torch.testing.assert_close(final, alone)
        (again,) = langevin.released_chain(images.score, noisy, steps=1, step_size=0.3, generator=generator(5))
        assert torch.equal(again, alone)

    def test_smoothing_pulls_towards_a_blur(self) -> None:
        x = torch.zeros(1, 2, 9, 9, dtype=DOUBLE)
        x[0, 0, 4, 4] = 1
        (y,) = langevin.released_chain(torch.zeros_like, x, steps=1, smoothing=0.5)
        weights = torch.exp(-0.5 * (torch.arange(-2.0, 3, dtype=DOUBLE) / 1.1) ** 2)
        weights = weights / weights.sum()
        expected = 0.5 * x
        expected[0, 0, 2:7, 2:7] += 0.5 * torch.outer(weights, weights)
        torch.testing.assert_close(y, expected)

    def test_the_masked_components_never_move(self, images: EBFlow) -> None:
        x = torch.randn(2, 1, 4, 5, generator=generator(1), dtype=DOUBLE)
        mask = torch.zeros(1, 4, 5, dtype=torch.bool)
        mask[:, 2:] = True
        steps = list(islice(langevin.released_chain(images.score, x, mask=mask, generator=generator()), 4))
        assert all(torch.equal(y[..., :2, :], x[..., :2, :]) and (y[..., 2:, :] != x[..., 2:, :]).all() for y in steps)
        assert sum(1 for _ in langevin.released_chain(images.score, x)) == 500

    def test_what_does_not_fit_is_refused_at_once(self) -> None:
        with pytest.raises(ValueError, match="blurs images"):
            langevin.released_chain(torch.neg, torch.zeros(5, 3))
        with pytest.raises(ValueError, match="boolean"):
            langevin.released_chain(torch.neg, torch.zeros(5, 1, 4, 4), mask=torch.ones(4, 4, dtype=torch.bool))

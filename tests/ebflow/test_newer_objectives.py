"""The self-normalised likelihood and local curvature smoothing, against closed forms, autograd and other objectives."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ebflow import LCSS, ML, SNL, EBFlow
from ebflow.layers import ActNorm, AffineCoupling, Convolution, Dense, SmoothLeakyReLU, Squeeze

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense(dimension: int = 3) -> EBFlow:
    return EBFlow((dimension,), [Dense(dimension), SmoothLeakyReLU(), Dense(dimension)])


def coupling() -> EBFlow:
    layer = AffineCoupling(torch.tensor([1.0, 0]), nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Linear(2, 2))
    return EBFlow((2,), [Dense(2), layer, ActNorm((2,))])


def image() -> EBFlow:
    shape = (1, 2, 4)
    return EBFlow(shape, [Convolution(shape, 3), SmoothLeakyReLU(residual=True), Squeeze(), Convolution((4, 1, 2), 3)])


EVERY_FLOW = pytest.mark.parametrize("build", [dense, coupling, image])


def batch(flow: EBFlow, n: int = 5) -> Tensor:
    return 1.5 * torch.randn(n, *flow.shape, generator=generator(3), dtype=DOUBLE)


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


class TestLCSS:
    def test_sigma_changes_nothing_for_a_quadratic_energy(self, randomise) -> None:
        flow = randomise(EBFlow((4,), [Dense(4)]))
        x = batch(flow)
        values = torch.stack([LCSS(sigma)(flow, x, generator()) for sigma in (0.01, 0.1, 1.0, 10.0)])
        v = torch.randn(x.shape, generator=generator(), dtype=DOUBLE)
        weight = flow.layers[0].weight
        expected = (0.5 * flow.score(x).square().sum() - (v @ weight.mT).square().sum()) / x.numel()
        torch.testing.assert_close(values, expected.expand(4), rtol=1e-9, atol=1e-9)

    @EVERY_FLOW
    def test_small_perturbations_give_the_curvature_along_them(self, build: Callable[[], EBFlow], randomise) -> None:
        flow = randomise(build())
        x = batch(flow)
        v = torch.randn(x.shape, generator=generator(), dtype=DOUBLE)
        score, curvature = flow.score_and_curvature(x, v)
        expected = (0.5 * score.square().sum() + curvature.sum()) / x.numel()
        torch.testing.assert_close(LCSS(1e-5)(flow, x, generator()), expected, rtol=1e-4, atol=1e-4)

    @EVERY_FLOW
    def test_it_is_the_papers_loss_less_a_term_of_mean_zero(self, build: Callable[[], EBFlow], randomise) -> None:
        flow, sigma = randomise(build()), 0.4
        x = batch(flow)
        v = torch.randn(x.shape, generator=generator(), dtype=DOUBLE)
        papers = (0.5 * flow.score(x).square().sum() + (v * flow.score(x + sigma * v)).sum() / sigma) / x.numel()
        mean_zero = (v * flow.score(x)).sum() / sigma / x.numel()
        torch.testing.assert_close(LCSS(sigma)(flow, x, generator()), papers - mean_zero, rtol=1e-10, atol=1e-10)

    def test_the_trace_is_that_of_the_smoothed_score(self, randomise) -> None:
        """Mean over 50 groups of 2,000 draws, within five standard errors of a Gauss-Hermite quadrature of s'."""
        flow, sigma = randomise(dense(1)), 0.8
        x = batch(flow, 4)
        nodes, weights = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(60))
        points = (x[:, 0, None] + sigma * nodes).reshape(-1, 1).requires_grad_()
        (slopes,) = torch.autograd.grad(flow.score(points).sum(), points)
        smoothed = (slopes.view(4, -1) * weights).sum(1) / weights.sum()
        expected = (0.5 * flow.score(x).square().sum() + smoothed.sum()).detach() / 4
        source, copies = generator(5), x.repeat(500, 1)
        losses = torch.stack([LCSS(sigma)(flow, copies, source).detach() for _ in range(50)])
        error = losses.std() / math.sqrt(50)
        assert error < 0.02 * expected.abs().clamp(min=1)
        assert (losses.mean() - expected).abs() < 5 * error

    @EVERY_FLOW
    def test_gradients(self, build: Callable[[], EBFlow], randomise, linear_algebra) -> None:
        flow = randomise(build())
        x = batch(flow, 3)
        parameters = tuple(flow.parameters())
        assert torch.autograd.gradcheck(lambda *_: LCSS(0.3)(flow, x, generator()), parameters, fast_mode=True)
        with linear_algebra:
            LCSS(0.3)(flow, x, generator()).backward()
        assert linear_algebra.calls == []


def started(flow: EBFlow, x: Tensor, seed: int = 0, draws: int = 4) -> SNL:
    """An objective after its first call, with b at the exact log Z."""
    objective = SNL(draws)
    objective(flow, x, generator(seed))
    state = objective.get_state()
    objective.set_state({**state, "b": flow.log_normalizer().detach()})
    return objective


class TestSNL:
    @EVERY_FLOW
    def test_at_log_z_it_is_the_nll_in_expectation(self, build: Callable[[], EBFlow], randomise) -> None:
        """Within five standard errors of 20,000 draws, which the flow moved away from the start to."""
        flow = randomise(build())
        x = batch(flow)
        objective = SNL(draws=4000)
        objective(flow, x, generator())
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.mul_(1.05)
        log_z = flow.log_normalizer().detach()
        objective.set_state({**objective.get_state(), "b": log_z})
        loss = objective(flow, x, generator(1)).detach()
        # The draws are made from a pool of as many, whose own error counts once more.
        error = (objective.get_state()["log_weights"] - log_z).exp().std() * math.sqrt(2 / 20_000)
        assert error < 0.05
        assert (loss + flow.log_prob(x).mean()).detach().abs() < 5 * error

    @EVERY_FLOW
    def test_the_gradient_is_that_of_the_likelihood_in_expectation(
        self, build: Callable[[], EBFlow], randomise
    ) -> None:
        """Mean over 40 pools, a step each, within six standard errors, parameter by parameter."""
        flow = randomise(build())
        x = batch(flow)
        parameters = tuple(flow.parameters())
        exact = flat(torch.autograd.grad(ML()(flow, x), parameters))
        found = torch.stack(
            [
                flat(torch.autograd.grad(started(flow, x, seed, 200)(flow, x, generator(seed)), parameters))
                for seed in range(40)
            ]
        )
        error = found.std(0) / math.sqrt(len(found))
        assert (error < 0.1 * exact.norm()).all()
        assert ((found.mean(0) - exact).abs() < 6 * error + 1e-9).all()

    def test_every_other_b_gives_a_larger_loss(self, randomise) -> None:
        flow = randomise(dense())
        x = batch(flow)
        objective = started(flow, x, draws=4000)
        state = objective.get_state()
        losses = []
        for b in torch.arange(-3.0, 3.1, 0.25, dtype=DOUBLE):
            objective.set_state({**state, "b": state["b"] + b})
            losses.append(objective(flow, x, generator(1)).item())
        assert losses.index(min(losses)) == 12
        assert losses[0] > losses[12] + 10

    def test_b_comes_to_log_z(self, randomise) -> None:
        """Of 300 steps the average remembers 50, of 2,000 draws each, from a pool of 20,000: 1 % each."""
        flow = randomise(dense())
        x = batch(flow)
        objective, source = SNL(draws=400), generator(1)
        for _ in range(300):
            objective(flow, x, source)
        assert abs(objective.observations(flow)["b_minus_log_z"]) < 0.05
        assert objective.observations(flow)["effective_draws"] > 0.5

    def test_b_does_not_see_the_draws_of_its_own_step(self, randomise) -> None:
        flow = randomise(dense())
        x = batch(flow)
        objective = started(flow, x)
        b = objective.get_state()["b"]
        loss = objective(flow, x, generator(7)).detach()
        log_weights = objective.get_state()["log_weights"]
        expected = flow.energy(x).mean() + b + (log_weights - b).exp().mean() - 1
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-10, atol=1e-10)
        after = torch.log(0.98 * b.exp() + 0.02 * log_weights.exp().mean())
        torch.testing.assert_close(objective.get_state()["b"], after, rtol=1e-10, atol=1e-10)

    @EVERY_FLOW
    def test_gradients_need_no_determinant(self, build: Callable[[], EBFlow], randomise, linear_algebra) -> None:
        flow = randomise(build())
        x = batch(flow, 3)
        state = started(flow, x).get_state()

        def loss(*_: Tensor) -> Tensor:
            objective = SNL()
            objective.set_state(state)
            return objective(flow, x, generator())

        assert torch.autograd.gradcheck(loss, tuple(flow.parameters()), fast_mode=True)
        with linear_algebra:
            loss().backward()
        assert linear_algebra.calls == []

    def test_draws_whose_energy_overflows_count_as_zero(self, randomise) -> None:
        flow = randomise(dense())
        x = batch(flow)
        objective = started(flow, x, draws=40)
        state = objective.get_state()
        near = objective(flow, x, generator(1)).detach()
        objective.set_state(state)
        chosen = torch.randint(20_000, (200,), generator=generator(1))
        pool = state["pool"].clone()
        pool[chosen[:50]] = 1e200
        weights = state["log_weights"]
        objective.set_state({**state, "pool": pool})
        loss = objective(flow, x, generator(1))
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in flow.parameters())
        told = objective.get_state()["log_weights"]
        assert weights.isfinite().all()
        assert told.isinf().sum() == 50
        torch.testing.assert_close(loss.detach() - near, -self.share(flow, state, chosen[:50]), rtol=1e-8, atol=1e-8)

    @staticmethod
    def share(flow: EBFlow, state: dict[str, Tensor], rows: Tensor) -> Tensor:
        """Return what these draws add to a loss of 200 draws."""
        log_weights = -flow.energy(state["pool"][rows]) - state["log_q"][rows]
        return ((log_weights - state["b"]).exp().sum() / 200).detach()

    def test_training_goes_on_from_its_state(self, randomise) -> None:
        flow = randomise(dense())
        x = batch(flow)
        first, other = SNL(), SNL()
        assert first.get_state() == {}
        assert first.observations(flow) == {}
        for seed in range(3):
            first(flow, x, generator(seed))
        other.set_state(first.get_state())
        for seed in range(3, 6):
            assert torch.equal(first(flow, x, generator(seed)), other(flow, x, generator(seed)))

    def test_no_draws_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one draw a sample, not 0"):
            SNL(0)

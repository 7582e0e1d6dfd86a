"""The objectives against closed forms, and what they converge to.

For a flow of one dense layer p is Gaussian: with P = W^T W the score is -P (x - mu), and every objective has a closed
form. One-dimensional flows have a single direction, so that sliced score matching is exact there whatever the flow.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ebflow import DSM, FDSSM, LCSS, ML, SML, SSM, EBFlow, Objective
from ebflow.layers import ActNorm, AffineCoupling, Convolution, Dense, Permutation, SmoothLeakyReLU, Squeeze

DOUBLE = torch.float64
OBJECTIVES: dict[str, Objective] = {
    "ML": ML(),
    "SML": SML(),
    "SSM": SSM(),
    "DSM": DSM(sigma=0.3),
    "FDSSM": FDSSM(epsilon=0.1),
}
EVERY_OBJECTIVE = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
NOISY = pytest.mark.parametrize("objective", [OBJECTIVES[name] for name in ("SML", "SSM", "DSM", "FDSSM")], ids=repr)
SCORE_MATCHING = pytest.mark.parametrize("objective", [OBJECTIVES[name] for name in ("SSM", "DSM", "FDSSM")], ids=repr)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(dimension: int) -> EBFlow:
    return EBFlow((dimension,), [Dense(dimension)])


def dense(dimension: int) -> EBFlow:
    return EBFlow((dimension,), [Dense(dimension), SmoothLeakyReLU(), Dense(dimension)])


def coupling() -> EBFlow:
    layer = AffineCoupling(torch.tensor([1.0, 0]), nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Linear(2, 2))
    return EBFlow((2,), [Dense(2), layer, ActNorm((2,)), Permutation(torch.tensor([1, 0]))])


def image() -> EBFlow:
    shape = (1, 2, 4)
    return EBFlow(shape, [Convolution(shape, 3), SmoothLeakyReLU(residual=True), Squeeze(), Convolution((4, 1, 2), 3)])


FLOWS: dict[str, Callable[[], EBFlow]] = {"dense": lambda: dense(3), "coupling": coupling, "image": image}
EVERY_FLOW = pytest.mark.parametrize("build", FLOWS.values(), ids=FLOWS.keys())


def batch(flow: EBFlow, n: int = 5, dtype: torch.dtype = DOUBLE) -> Tensor:
    return 1.5 * torch.randn(n, *flow.shape, generator=generator(3), dtype=dtype)


def closed_form(flow: EBFlow, x: Tensor) -> tuple[Tensor, Tensor]:
    """Score and precision matrix of a flow of one dense layer, without autograd."""
    weight, bias = (parameter.detach() for parameter in (flow.layers[0].weight, flow.layers[0].bias))
    precision = weight.mT @ weight
    mean = -torch.linalg.solve(weight, bias)
    return -(x - mean) @ precision, precision


def mean_and_error(objective: Objective, flow: EBFlow, x: Tensor, draws: int) -> tuple[float, float]:
    """Expectation over the noise of the loss on x, and its standard error, from `draws` copies of x in 50 groups."""
    source, groups = generator(11), 50
    copies = x.repeat(draws // groups, *(1 for _ in flow.shape))
    losses = torch.stack([objective(flow, copies, source).detach() for _ in range(groups)])
    return losses.mean().item(), losses.std().item() / math.sqrt(groups)


def assert_expectation(objective: Objective, flow: EBFlow, x: Tensor, expected: Tensor) -> None:
    """Within five standard errors, which must be small enough for the test to mean something."""
    mean, error = mean_and_error(objective, flow, x, 10_000)
    assert error < 0.02 * max(1.0, abs(expected.item()))
    assert abs(mean - expected.item()) < 5 * error + 1e-12


class TestValues:
    @pytest.mark.parametrize("dimension", [1, 2, 5])
    def test_ml_is_the_mean_negative_log_likelihood(self, dimension: int, randomise) -> None:
        flow = randomise(gaussian(dimension))
        x = batch(flow)
        _, precision = closed_form(flow, x)
        mean = -torch.linalg.solve(flow.layers[0].weight, flow.layers[0].bias)
        exact = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)
        torch.testing.assert_close(ML()(flow, x), -exact.log_prob(x).mean(), rtol=1e-10, atol=1e-10)

    @EVERY_FLOW
    def test_ml_is_minus_log_prob_for_any_flow(self, build, randomise) -> None:
        flow = randomise(build())
        x = batch(flow)
        torch.testing.assert_close(ML()(flow, x), -flow.log_prob(x).mean(), rtol=1e-12, atol=1e-12)

    def test_ssm_is_exact_where_the_precision_is_diagonal(self, randomise) -> None:
        # v^T P v = tr P for every vector of signs, so there is no noise left.
        flow = randomise(gaussian(3))
        rotation = torch.linalg.qr(torch.randn(3, 3, dtype=DOUBLE)).Q
        flow.layers[0].weight.data = rotation @ torch.diag(torch.tensor([0.5, 1.0, 3.0], dtype=DOUBLE))
        x = batch(flow)
        score, precision = closed_form(flow, x)
        expected = (0.5 * score.square().sum(1).mean() - precision.trace()) / 3
        torch.testing.assert_close(SSM()(flow, x), expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("objective", [SSM(), FDSSM(0.01), FDSSM(3.0)], ids=repr)
    def test_sliced_expectation_of_a_gaussian(self, objective: Objective, randomise) -> None:
        flow = randomise(gaussian(3))
        x = batch(flow, 4)
        score, precision = closed_form(flow, x)
        assert_expectation(objective, flow, x, (0.5 * score.square().sum(1).mean() - precision.trace()) / 3)

    @EVERY_FLOW
    def test_ssm_expectation_of_a_nonlinear_flow(self, build, randomise) -> None:
        flow = randomise(build())
        x = batch(flow, 4)
        dimension = x[0].numel()

        def score(one: Tensor) -> Tensor:
            return torch.func.grad(lambda one: -flow.energy(one[None])[0])(one)

        trace = torch.stack([torch.func.jacrev(score)(one).reshape(dimension, dimension).trace() for one in x])
        norm = torch.stack([score(one).square().sum() for one in x])
        assert_expectation(SSM(), flow, x, ((0.5 * norm + trace) / dimension).mean().detach())

    @pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
    def test_dsm_expectation_of_a_gaussian(self, sigma: float, randomise) -> None:
        flow = randomise(gaussian(3))
        x = batch(flow, 4)
        score, precision = closed_form(flow, x)
        # s(x + sigma n) + n / sigma = s(x) + (1 / sigma - sigma P) n.
        spread = torch.eye(3, dtype=DOUBLE) / sigma - sigma * precision
        expected = 0.5 * (score.square().sum(1).mean() + spread.square().sum()) / 3
        assert_expectation(DSM(sigma), flow, x, expected)

    def test_fdssm_is_exact_for_a_quadratic_energy_whatever_the_step(self, randomise) -> None:
        flow = randomise(gaussian(4))
        x = batch(flow)
        values = torch.stack([FDSSM(epsilon)(flow, x, generator()) for epsilon in (0.01, 0.1, 1.0, 10.0)])
        torch.testing.assert_close(values, values[0].expand(4), rtol=1e-9, atol=1e-9)

    def test_one_dimension_leaves_no_noise(self, randomise) -> None:
        flow = randomise(dense(1))
        x = batch(flow)
        ones = x.clone().requires_grad_()
        score = flow.score(ones)
        (curvature,) = torch.autograd.grad(score.sum(), ones)
        exact = (0.5 * score.square() + curvature).mean().detach()
        torch.testing.assert_close(SSM()(flow, x), exact, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(FDSSM(1e-3)(flow, x), exact, rtol=1e-5, atol=1e-5)
        # The error of finite differences falls with the square of the step.
        errors = [abs(FDSSM(epsilon)(flow, x) - exact).item() for epsilon in (0.2, 0.1, 0.05)]
        assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
        assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)

    @EVERY_FLOW
    def test_fdssm_tends_to_the_derivatives_along_its_direction(self, build, randomise) -> None:
        flow = randomise(build())
        x = batch(flow)
        # The batch's directions, found by looking at where the energy is asked for.
        seen: list[Tensor] = []
        handle = flow.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        value = FDSSM(1e-3)(flow, x, generator())
        handle.remove()
        ahead, here, behind = seen[0].chunk(3)
        assert torch.equal(here, x)
        torch.testing.assert_close(ahead - here, here - behind, rtol=1e-9, atol=1e-12)
        v = (ahead - here) / 1e-3
        torch.testing.assert_close(v.flatten(1).norm(dim=1), torch.ones(len(x), dtype=DOUBLE), rtol=1e-9, atol=0)
        leaf = x.clone().requires_grad_()
        slope = (flow.score(leaf) * v).flatten(1).sum(1)
        (change,) = torch.autograd.grad(slope.sum(), leaf)
        expected = (0.5 * slope.square() + (change * v).flatten(1).sum(1)).mean().detach()
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)

    @EVERY_FLOW
    def test_sml_is_the_gap_in_energy_between_data_and_samples(self, build, randomise) -> None:
        flow = randomise(build())
        x = batch(flow)
        expected = flow.energy(x).mean() - flow.energy(flow.sample(len(x), generator(4))).mean()
        torch.testing.assert_close(SML()(flow, x, generator(4)), expected, rtol=1e-12, atol=1e-12)


class TestGradients:
    # SML holds its samples fixed on purpose; the test below looks after it.
    @pytest.mark.parametrize("objective", [ML(), SSM(), DSM(0.3), FDSSM(0.1)], ids=repr)
    @EVERY_FLOW
    def test_against_finite_differences(self, objective: Objective, build, randomise) -> None:
        flow = randomise(build())
        x = batch(flow, 3)
        assert torch.autograd.gradcheck(
            lambda *_: objective(flow, x, generator()), tuple(flow.parameters()), fast_mode=True
        )

    @pytest.mark.parametrize(
        "build", [lambda: gaussian(2), lambda: dense(2), coupling], ids=["gaussian", "dense", "coupling"]
    )
    def test_that_of_sml_is_that_of_ml_in_expectation(self, build, randomise) -> None:
        """Mean over 60 seeds of 500 samples each, within five standard errors, parameter by parameter."""
        flow = randomise(build())
        x = batch(flow, 4)
        parameters = tuple(flow.parameters())
        exact = torch.cat([g.flatten() for g in torch.autograd.grad(ML()(flow, x), parameters)])
        copies, source = x.repeat(125, 1), generator(8)
        draws = torch.stack(
            [
                torch.cat([g.flatten() for g in torch.autograd.grad(SML()(flow, copies, source), parameters)])
                for _ in range(60)
            ]
        )
        error = draws.std(0) / math.sqrt(len(draws))
        assert (error < 0.1 * exact.norm()).all()
        assert ((draws.mean(0) - exact).abs() < 5 * error + 1e-9).all()

    @SCORE_MATCHING
    @EVERY_FLOW
    def test_score_matching_needs_no_determinant_forwards_or_backwards(
        self, objective: Objective, build, randomise, linear_algebra
    ) -> None:
        flow = randomise(build())
        x = batch(flow)
        with linear_algebra:
            objective(flow, x, generator()).backward()
        assert linear_algebra.calls == []

    @pytest.mark.parametrize("objective", [ML(), SML()], ids=repr)
    def test_the_likelihood_objectives_do(self, objective: Objective, randomise, linear_algebra) -> None:
        # Without this, the test above would pass if the watch saw nothing.
        flow = randomise(dense(3))
        with linear_algebra:
            objective(flow, batch(flow), generator())
        assert len(linear_algebra.calls) >= 2

    @EVERY_OBJECTIVE
    @EVERY_FLOW
    def test_every_parameter_that_matters_gets_one(self, objective: Objective, build, randomise) -> None:
        flow = randomise(build())
        objective(flow, batch(flow), generator()).backward()
        for name, parameter in flow.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).any(), name


class TestOptima:
    """Fitted to a large sample of a Gaussian: to what does each objective converge?"""

    mean = torch.tensor([1.0, -2.0], dtype=DOUBLE)
    covariance = torch.tensor([[2.0, 0.9], [0.9, 1.0]], dtype=DOUBLE)

    def data(self) -> Tensor:
        """20,000 points of exactly this mean and covariance, so that the noise of the data is no part of the test."""
        z = torch.randn(20_000, 2, generator=generator(1), dtype=DOUBLE)
        z = z - z.mean(0)
        whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(z.mT @ z / len(z)), z.mT, upper=False).mT
        return self.mean + whitened @ torch.linalg.cholesky(self.covariance).mT

    def fit(self, objective: Objective, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the flow that minimises the loss on x under one fixed draw of the noise."""
        flow = gaussian(2).double()
        optimiser = torch.optim.LBFGS(
            flow.parameters(), max_iter=200, tolerance_grad=1e-8, tolerance_change=1e-15, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = objective(flow, x, generator(2))
            loss.backward()
            return loss

        optimiser.step(closure)
        assert all(parameter.grad.abs().max() < 1e-5 for parameter in flow.parameters())
        weight, bias = (parameter.detach() for parameter in flow.parameters())
        return -torch.linalg.solve(weight, bias), torch.linalg.inv(weight.mT @ weight)

    def test_ml(self) -> None:
        mean, covariance = self.fit(ML(), self.data())
        torch.testing.assert_close(mean, self.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(covariance, self.covariance, rtol=0, atol=1e-5)

    # One direction a point leaves v v^T within 1 / sqrt(20,000) = 0.7 % of the identity: five times that and more.
    @pytest.mark.parametrize("objective", [SSM(), FDSSM(0.5)], ids=repr)
    def test_sliced_score_matching_finds_the_maximum_of_the_likelihood(self, objective: Objective) -> None:
        mean, covariance = self.fit(objective, self.data())
        torch.testing.assert_close(mean, self.mean, rtol=0, atol=0.1)
        torch.testing.assert_close(covariance, self.covariance, rtol=0, atol=0.1)

    @pytest.mark.parametrize("sigma", [0.7, 1.5])
    def test_denoising_score_matching_finds_the_blurred_data(self, sigma: float) -> None:
        mean, covariance = self.fit(DSM(sigma), self.data())
        blurred = self.covariance + sigma**2 * torch.eye(2, dtype=DOUBLE)
        torch.testing.assert_close(mean, self.mean, rtol=0, atol=0.1)
        torch.testing.assert_close(covariance, blurred, rtol=0, atol=0.2)

    def gradient(self, flow: EBFlow) -> Tensor:
        gradients = torch.autograd.grad(SML()(flow, self.data(), generator(2)), tuple(flow.parameters()))
        return torch.cat([gradient.flatten() for gradient in gradients])

    def test_sml(self) -> None:
        # Its samples move with the flow, so there is no fixed loss to minimise; its gradient is zero at ML's optimum.
        flow = gaussian(2).double()
        weight = torch.linalg.inv(torch.linalg.cholesky(self.covariance))
        flow.layers[0].weight.data = weight
        flow.layers[0].bias.data = -weight @ self.mean
        at_optimum = self.gradient(flow)
        flow.layers[0].weight.data = 1.3 * weight
        elsewhere = self.gradient(flow)
        assert at_optimum.norm() < 0.1  # 20,000 samples: standard errors of about 0.01
        assert elsewhere.norm() > 0.5


class TestNoise:
    @NOISY
    def test_a_generator_decides_and_the_global_one_is_untouched(self, objective: Objective, randomise) -> None:
        flow = randomise(dense(3))
        x = batch(flow)
        state = torch.get_rng_state()
        first = objective(flow, x, generator(1))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(objective(flow, x, generator(1)), first)
        assert not torch.equal(objective(flow, x, generator(2)), first)

    @NOISY
    def test_without_a_generator_the_global_seed_decides(self, objective: Objective, randomise) -> None:
        flow = randomise(dense(3))
        x = batch(flow)
        torch.manual_seed(1)
        first = objective(flow, x)
        assert not torch.equal(objective(flow, x), first)
        torch.manual_seed(1)
        assert torch.equal(objective(flow, x), first)

    @NOISY
    def test_one_generator_gives_new_noise_every_time(self, objective: Objective, randomise) -> None:
        flow, source = randomise(dense(3)), generator()
        x = batch(flow)
        assert not torch.equal(objective(flow, x, source), objective(flow, x, source))

    def test_ml_has_none(self, randomise) -> None:
        flow, source = randomise(dense(3)), generator()
        before = source.get_state()
        assert torch.equal(ML()(flow, batch(flow), source), ML()(flow, batch(flow)))
        assert torch.equal(source.get_state(), before)


class TestContract:
    @EVERY_OBJECTIVE
    @EVERY_FLOW
    @pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
    def test_a_finite_scalar_of_the_batchs_dtype(self, objective, build, dtype: torch.dtype, randomise) -> None:
        flow = randomise(build(), dtype=dtype)
        for n in (1, 4):
            loss = objective(flow, batch(flow, n, dtype), generator())
            assert loss.shape == ()
            assert loss.dtype == dtype
            assert loss.isfinite()
            assert loss.requires_grad

    @EVERY_OBJECTIVE
    def test_leaves_batch_and_weights_alone(self, objective: Objective, randomise) -> None:
        flow = randomise(dense(3))
        weights = copy.deepcopy(flow.state_dict())
        x = batch(flow)
        before = x.clone()
        objective(flow, x, generator())
        assert torch.equal(x, before)
        assert not x.requires_grad
        for name, tensor in flow.state_dict().items():
            assert torch.equal(tensor, weights[name])
        assert all(parameter.grad is None for parameter in flow.parameters())

    @EVERY_OBJECTIVE
    @EVERY_FLOW
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_non_finite_sample_makes_the_loss_non_finite(self, objective, build, value: float, randomise) -> None:
        flow = randomise(build())
        x = batch(flow)
        x[2].view(-1)[0] = value
        assert not objective(flow, x, generator()).isfinite()

    @pytest.mark.parametrize("objective", [ML(), SSM(), DSM(0.3), FDSSM(0.1)], ids=repr)
    def test_refuses_batches_of_another_shape(self, objective: Objective) -> None:
        with pytest.raises(ValueError, match="shape"):
            objective(dense(3), torch.zeros(3, 1), generator())

    @EVERY_OBJECTIVE
    def test_runs_on_meta(self, objective: Objective) -> None:
        flow = dense(3).to("meta")
        loss = objective(flow, torch.empty(4, 3, device="meta"))
        loss.backward()
        assert loss.shape == ()
        assert all(parameter.grad.shape == parameter.shape for parameter in flow.parameters())

    @pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
    @pytest.mark.parametrize("build", [DSM, FDSSM, LCSS])
    def test_noise_must_have_a_scale(self, build: type[Objective], value: float) -> None:
        with pytest.raises(ValueError, match="above 0"):
            build(value)

    def test_hyper_parameters_cannot_change_unseen(self) -> None:
        for objective in (DSM(0.3), FDSSM(0.1)):
            field = dataclasses.fields(objective)[0].name
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(objective, field, -1.0)
        assert DSM(sigma=0.3) == DSM(0.3)
        assert FDSSM(epsilon=0.1) != FDSSM(0.2)

"""Starts from data and the closed-form last layer: optimal where they say so, and the same family of densities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ebflow import DSM, ML, SSM, Behind, EBFlow, LowEnergy, architectures
from ebflow.initialization import calibrate, fold, from_data
from ebflow.layers import Dense, SmoothLeakyReLU, Whitening

DOUBLE = torch.float64


@pytest.fixture
def skewed() -> Tensor:
    """Correlated, heavy to one side: what a Gaussian does not fit."""
    generator = torch.Generator().manual_seed(3)
    sources = -torch.rand(4000, 4, generator=generator, dtype=DOUBLE).log()
    return sources @ torch.randn(4, 4, generator=generator, dtype=DOUBLE) + 2


@pytest.fixture
def flow() -> EBFlow:
    return architectures.whitened_fc((4,)).double()


def nll(flow: EBFlow, x: Tensor) -> float:
    return -flow.log_prob(x).mean().item()


def gaussian_nll(x: Tensor) -> float:
    covariance = torch.cov(x.mT, correction=0)
    return torch.distributions.MultivariateNormal(x.mean(0), covariance).log_prob(x).mean().neg().item()


def moments_are_standard(x: Tensor) -> None:
    torch.testing.assert_close(x.mean(0), torch.zeros_like(x[0]), rtol=0, atol=1e-8)
    torch.testing.assert_close(torch.cov(x.mT, correction=0), torch.eye(x.shape[1], dtype=DOUBLE), rtol=0, atol=1e-8)


class TestWhitening:
    def test_whitens_and_is_symmetric(self, skewed: Tensor) -> None:
        layer = Whitening(4).double()
        layer.initialize(skewed)
        moments_are_standard(layer(skewed)[0])
        torch.testing.assert_close(layer.matrix, layer.matrix.mT)
        assert list(layer.parameters()) == []

    def test_a_singular_covariance_is_refused(self) -> None:
        with pytest.raises(ValueError, match="the covariance is singular: 3 samples are too few in 4 dimensions"):
            Whitening(4).initialize(torch.randn(3, 4))

    def test_the_component_that_spoils_a_covariance_is_named(self, skewed: Tensor) -> None:
        for spoil, message in [
            (lambda x: x[:, 0] + x[:, 1], r"component 3 depends linearly on others \(0, 1\)"),
            (lambda x: x[:, 2], r"component 3 depends linearly on others \(2\)"),
            (lambda x: torch.full_like(x[:, 0], 0.1), "component 3 is 0.1 in all 4000 samples"),
            (lambda x: 1e-9 * x[:, 3], "variances are too far apart: scale the components"),
        ]:
            x = skewed.clone()
            x[:, 3] = spoil(x)
            with pytest.raises(ValueError, match=f"the covariance is singular: .*{message}"):
                Whitening(4).initialize(x)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_number_that_is_not_finite_is_named(self, value: float, flow: EBFlow, skewed: Tensor) -> None:
        skewed[70, 2] = value
        for start in (Whitening(4).initialize, flow.initialize, lambda x: from_data(flow, x)):
            with pytest.raises(ValueError, match=f"the data hold {value} at component 2 of sample 70"):
                start(skewed)

    @pytest.mark.parametrize("dimension", [0, -1])
    def test_a_dimension_is_needed(self, dimension: int) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            Whitening(dimension)


class TestFromData:
    def test_the_latent_is_standard_and_the_density_better_than_a_gaussian(self, flow: EBFlow, skewed: Tensor) -> None:
        from_data(flow, skewed)
        moments_are_standard(flow(skewed)[0])
        # Linear in the middle, the units could do no better than the Gaussian; they find the skew.
        assert nll(flow, skewed) < gaussian_nll(skewed) - 0.1

    def test_no_single_unit_gets_better_on_the_grid(self, flow: EBFlow, skewed: Tensor) -> None:
        from_data(flow, skewed)
        found = nll(flow, skewed)
        dense = flow.layers[1]
        for unit in range(4):
            for slope in (0.5, 2.0):
                weight = dense.weight.detach().clone()
                with torch.no_grad():
                    dense.weight[unit] *= slope
                # The last layer follows suit, as it does in the search.
                calibrate(flow, skewed)
                assert nll(flow, skewed) > found - 0.02
                with torch.no_grad():
                    dense.weight.copy_(weight)

    def test_images_deeper_flows_and_float32(self, skewed: Tensor) -> None:
        x = skewed.reshape(-1, 1, 2, 2).float()
        flow = architectures.whitened_fc((1, 2, 2), layers=3, residual=True)
        from_data(flow, x)
        z = flow(x)[0]
        torch.testing.assert_close(z.std(0), torch.ones(4), rtol=1e-3, atol=0)

    def test_meta_device(self) -> None:
        with torch.device("meta"):
            flow = architectures.whitened_fc((4,))
            assert flow.log_prob(torch.empty(3, 4)).shape == (3,)

    def test_a_dense_layer_without_a_bias_is_refused(self, skewed: Tensor) -> None:
        with pytest.raises(ValueError, match="without a bias"):
            from_data(EBFlow((4,), [Dense(4, bias=False)]).double(), skewed)


class TestCalibrate:
    def test_is_the_optimum_of_the_last_layer(self, flow: EBFlow, skewed: Tensor, randomise) -> None:
        from_data(flow, skewed)
        randomise(flow)
        before = nll(flow, skewed)
        calibrate(flow, skewed)
        after = nll(flow, skewed)
        assert after < before
        loss = ML()(flow, skewed)
        last = flow.layers[-1]
        for gradient in torch.autograd.grad(loss, [last.weight, last.bias]):
            assert gradient.abs().max() < 1e-8

    def test_repairs_the_scales_that_dsm_learns(self, flow: EBFlow, skewed: Tensor) -> None:
        from_data(flow, skewed)
        start = nll(flow, skewed)
        objective = Behind(DSM(sigma=1.0), 1)
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
        generator = torch.Generator().manual_seed(0)
        for _ in range(200):
            optimizer.zero_grad()
            objective(flow, skewed[:1000], generator).backward()
            optimizer.step()
        blurred = nll(flow, skewed)
        calibrate(flow, skewed)
        assert blurred > start + 0.1
        assert nll(flow, skewed) < blurred - 0.1

    def test_needs_a_dense_layer_at_the_end(self, skewed: Tensor) -> None:
        flow = EBFlow((4,), [Dense(4), SmoothLeakyReLU()]).double()
        with pytest.raises(ValueError, match="where it is dense, with a bias"):
            calibrate(flow, skewed)


class TestFold:
    def test_is_the_same_density_with_the_published_layers(self, flow: EBFlow, skewed: Tensor, randomise) -> None:
        from_data(flow, skewed)
        randomise(flow)
        folded = fold(flow)
        assert [type(layer) for layer in folded.layers] == [Dense, SmoothLeakyReLU, Dense]
        torch.testing.assert_close(folded.log_prob(skewed), flow.log_prob(skewed), rtol=1e-10, atol=1e-10)
        numbers = sum(p.numel() for p in architectures.fc((4,)).parameters())
        assert sum(p.numel() for p in folded.parameters()) == sum(p.numel() for p in flow.parameters()) == numbers

    def test_a_flow_without_whitening_is_itself(self) -> None:
        flow = architectures.fc((4,))
        assert fold(flow) is flow


class TestBehind:
    @pytest.mark.parametrize("objective", [ML(), DSM(0.3), SSM()])
    def test_is_the_objective_on_transformed_data(self, objective, flow: EBFlow, skewed: Tensor) -> None:
        from_data(flow, skewed)
        behind = Behind(objective, 1)(flow, skewed, torch.Generator().manual_seed(0))
        inner = EBFlow((4,), flow.layers[1:])
        expected = objective(inner, flow.layers[0](skewed)[0], torch.Generator().manual_seed(0))
        torch.testing.assert_close(behind, expected)

    def test_leaves_maximum_likelihood_as_it_is_up_to_a_constant(self, flow: EBFlow, skewed: Tensor) -> None:
        from_data(flow, skewed)
        difference = ML()(flow, skewed) - Behind(ML(), 1)(flow, skewed)
        torch.testing.assert_close(difference, -flow.layers[0].log_abs_det())
        parameters = list(flow.parameters())
        whole = torch.autograd.grad(ML()(flow, skewed), parameters)
        behind = torch.autograd.grad(Behind(ML(), 1)(flow, skewed), parameters)
        for a, b in zip(whole, behind, strict=True):
            torch.testing.assert_close(a, b)

    @pytest.mark.parametrize("layers", [4, 9])
    def test_it_leaves_something_to_train(self, layers: int, flow: EBFlow, skewed: Tensor) -> None:
        with pytest.raises(ValueError, match=f"behind {layers} of the flow.s 4 layers there are no weights"):
            Behind(ML(), layers)(flow, skewed)

    def test_a_negative_number_of_layers_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 0, not -1"):
            Behind(ML(), -1)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_low_energy_has_a_weight(weight: float) -> None:
    with pytest.raises(ValueError, match=f"finite number, not {weight}"):
        LowEnergy(ML(), weight)


def test_low_energy_adds_the_weighted_mean_energy(flow: EBFlow, skewed: Tensor) -> None:
    loss = LowEnergy(SSM(), 0.25)(flow, skewed, torch.Generator().manual_seed(0))
    plain = SSM()(flow, skewed, torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss - plain, 0.25 * flow.energy(skewed).mean())


def test_the_energies_of_denoising_are_those_of_the_noised_samples(flow: EBFlow, skewed: Tensor) -> None:
    loss = LowEnergy(DSM(0.7), 0.25)(flow, skewed, torch.Generator().manual_seed(0))
    plain = DSM(0.7)(flow, skewed, torch.Generator().manual_seed(0))
    noise = torch.randn(skewed.shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    torch.testing.assert_close(loss - plain, 0.25 * flow.energy(skewed + 0.7 * noise).mean())

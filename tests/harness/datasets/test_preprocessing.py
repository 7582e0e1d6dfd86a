"""The maps to model space: their noise, their inverse, their log-determinant."""

from __future__ import annotations

import pytest
import torch
from scipy.integrate import quad
from scipy.special import logit
from scipy.stats import kstest, norm
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, SigmoidTransform

from harness.datasets.preprocessing import (
    Dequantize,
    GaussianNoise,
    Identity,
    LogitPreprocessing,
    Preprocessing,
    Standardize,
)
from harness.errors import InputError

MAPS = [
    Identity(),
    GaussianNoise(0.375),
    Dequantize(17),
    LogitPreprocessing(17),
    LogitPreprocessing(256, 1e-3, 0.75),
    Dequantize(17, smooth=1.25),
    LogitPreprocessing(17, smooth=0.5),
]


def smooth_noise(scale: float) -> TransformedDistribution:
    transforms = [AffineTransform(0.0, torch.tensor(scale, dtype=torch.float64)), SigmoidTransform()]
    return TransformedDistribution(Normal(torch.tensor(0.0, dtype=torch.float64), 1.0), transforms)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("preprocessing", MAPS, ids=repr)
def test_log_determinant_is_that_of_the_autograd_jacobian(preprocessing: Preprocessing) -> None:
    raw = torch.tensor([0.0, 3.0, 9.0, 16.0], dtype=torch.float64).reshape(1, 2, 2)

    def to_model_space(values: torch.Tensor) -> torch.Tensor:
        return preprocessing(values, generator(), torch.float64)[0]

    jacobian = torch.autograd.functional.jacobian(to_model_space, raw).reshape(4, 4)
    x, ladj = preprocessing(raw, generator(), torch.float64)
    inverse_jacobian = torch.autograd.functional.jacobian(preprocessing.inverse, x).reshape(4, 4)
    assert ladj.shape == (1,)
    if (smooth := getattr(preprocessing, "smooth", None)) is not None:
        ladj = ladj + smooth_noise(smooth).log_prob(preprocessing.inverse(x) - raw).sum()
    torch.testing.assert_close(ladj[0], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ladj[0], -torch.linalg.slogdet(inverse_jacobian).logabsdet, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("preprocessing", MAPS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtypes_and_inverse(preprocessing: Preprocessing, dtype: torch.dtype) -> None:
    raw = torch.arange(16, dtype=torch.uint8).reshape(2, 1, 2, 4)
    x, ladj = preprocessing(raw, generator(), dtype)
    data = preprocessing.inverse(x)
    assert x.shape == data.shape == raw.shape
    assert ladj.shape == (2,)
    assert x.dtype == data.dtype == ladj.dtype == dtype
    # The data are the raw values plus the noise alone: the same noise in both dtypes.
    exact = preprocessing.inverse(preprocessing(raw, generator(), torch.float64)[0])
    torch.testing.assert_close(data.double(), exact, rtol=0, atol=1e-4)


def test_dequantised_levels_stay_in_their_bins() -> None:
    raw = torch.arange(256, dtype=torch.uint8).repeat(200, 1)
    for preprocessing in (Dequantize(256), LogitPreprocessing(256)):
        noise = preprocessing.inverse(preprocessing(raw, generator(), torch.float64)[0]) - raw
        assert noise.min() > -1e-6
        assert noise.max() < 1 + 1e-6
        # 51,200 draws of U(0, 1): their mean has standard error 0.0013, their variance 0.0004.
        assert abs(noise.mean() - 0.5) < 5 * 0.0013
        assert abs(noise.var() - 1 / 12) < 5 * 0.0004


@pytest.mark.parametrize("scale", [0.5, 1.25])
def test_smooth_noise_stays_in_its_bin_and_has_the_stated_density(scale: float) -> None:
    raw = torch.arange(17, dtype=torch.uint8).repeat(3000, 1)
    data, ladj = Dequantize(17, smooth=scale)(raw, generator(), torch.float64)
    noise = data - raw
    assert noise.min() > 0
    assert noise.max() < 1
    # 51,000 draws: an exact test at one in 10,000, the seed fixed.
    assert kstest(noise.flatten(), lambda u: norm.cdf(logit(u) / scale)).pvalue > 1e-4
    torch.testing.assert_close(ladj, -smooth_noise(scale).log_prob(noise).sum(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("smooth", [None, 0.5, 1.25])
def test_a_density_of_noised_levels_bounds_their_probability(smooth: float | None) -> None:
    # A model that spreads probability P evenly over the bin of each level: uniform noise is exact, another noise costs
    # its distance from the uniform one, and the best model for a noise, p(v) = P q(v - level), is exact again.
    raw = torch.zeros(20_000, 1)
    data, ladj = Dequantize(17, smooth=smooth)(raw, generator(), torch.float64)
    cost = -ladj.mean()
    if smooth is None:
        assert cost == 0
        return
    q = smooth_noise(smooth)
    exact, _ = quad(lambda u: float(q.log_prob(torch.tensor(u)).exp() * q.log_prob(torch.tensor(u))), 1e-12, 1 - 1e-12)
    assert exact > 0
    assert abs(cost - exact) < 5 * ladj.std() / len(raw) ** 0.5
    assert (q.log_prob(data[:, 0]) + ladj).abs().max() < 1e-9


def test_gaussian_noise_has_the_stated_standard_deviation() -> None:
    raw = torch.full((50_000, 2), 5.0)
    noise = GaussianNoise(0.375)(raw, generator())[0] - raw
    assert abs(noise.mean()) < 5 * 0.375 / 100_000**0.5
    assert abs(noise.std() - 0.375) < 5 * 0.375 / 200_000**0.5


def test_logit_follows_the_paper() -> None:
    x, ladj = LogitPreprocessing(256, margin=1e-6, alpha=0.5)(torch.tensor([[100.0]]), generator(), torch.float64)
    u = ((100 + torch.rand(1, 1, generator=generator(), dtype=torch.float64)) / 256 + 1e-6) * (1 - 2e-6)
    torch.testing.assert_close(x, 2 * (torch.log(u) - torch.log(1 - u)))
    torch.testing.assert_close(ladj, (torch.log(2 / (u * (1 - u))) + torch.log(torch.tensor((1 - 2e-6) / 256)))[:, 0])


def test_float32_is_the_float64_result_rounded_even_for_black_and_white() -> None:
    raw = torch.tensor([0, 255], dtype=torch.uint8).repeat(1000, 50)
    x, ladj = LogitPreprocessing()(raw, generator(), torch.float32)
    exact_x, exact_ladj = LogitPreprocessing()(raw, generator(), torch.float64)
    assert x.isfinite().all()
    assert torch.equal(x, exact_x.float())
    assert torch.equal(ladj, exact_ladj.float())


def test_draw_is_the_map_without_its_log_determinant() -> None:
    raw = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    for preprocessing in (*MAPS, Identity()):
        expected, _ = preprocessing(raw, generator(), torch.float32)
        assert torch.equal(preprocessing.draw(raw, generator()), expected)


def test_inverse_neither_clamps_nor_floors() -> None:
    data = LogitPreprocessing(256).inverse(torch.tensor([-100.0, 0.0, 100.0]))
    assert data[0] < 0
    assert data[2] > 256
    assert data[1] == pytest.approx(128, abs=1e-4)
    assert torch.equal(GaussianNoise(1.0).inverse(torch.tensor([300.25])), torch.tensor([300.25]))


def test_noise_comes_from_the_generator_or_from_the_global_one() -> None:
    raw = torch.zeros(4, 3)
    first = Dequantize()(raw, generator(1))[0]
    assert torch.equal(first, Dequantize()(raw, generator(1))[0])
    assert not torch.equal(first, Dequantize()(raw, generator(2))[0])
    torch.manual_seed(1)
    assert torch.equal(first, Dequantize()(raw)[0])


def test_maps_compare_hash_and_print_by_their_fields() -> None:
    assert LogitPreprocessing(17) == LogitPreprocessing(17) != LogitPreprocessing(256)
    assert Dequantize() != LogitPreprocessing()
    assert len({*MAPS, *MAPS}) == len(MAPS)
    assert repr(LogitPreprocessing()) == "LogitPreprocessing(levels=256, smooth=None, margin=1e-06, alpha=0.5)"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GaussianNoise(0.0), "noise std must be positive, not 0.0: use Identity"),
        (lambda: Dequantize(1), "levels must be at least 2, not 1"),
        (lambda: Dequantize(smooth=0.0), r"the scale of smooth noise must lie in \(0, 5\], not 0.0: None"),
        (lambda: Dequantize(smooth=8.0), "the scale of smooth noise must lie in .*, not 8.0"),
        (lambda: LogitPreprocessing(smooth=float("nan")), "the scale of smooth noise must lie in .*, not nan"),
        (lambda: LogitPreprocessing(1), "levels must be at least 2, not 1"),
        (lambda: LogitPreprocessing(margin=0.0), "margin must lie between 0 and 0.5, not 0.0"),
        (lambda: LogitPreprocessing(alpha=float("nan")), "alpha must be positive, not nan"),
    ],
)
def test_bad_settings_are_refused(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_standardisation_is_a_map_of_the_columns() -> None:
    raw = torch.tensor([[1.0, -4e6], [3.0, 2e6]], dtype=torch.float64)
    preprocessing = Standardize((2.0, -1e6), (0.5, 3e6))
    x, ladj = preprocessing(raw, dtype=torch.float64)
    torch.testing.assert_close(x, torch.tensor([[-2.0, -1.0], [2.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(ladj, -torch.tensor([0.5 * 3e6] * 2, dtype=torch.float64).log())
    torch.testing.assert_close(preprocessing.inverse(x), raw)
    torch.testing.assert_close(preprocessing.draw(raw, dtype=torch.float64), x)


@pytest.mark.parametrize("scale", [(1.0,), (1.0, 0.0), (1.0, float("nan"))])
def test_a_standardisation_needs_scales(scale: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"^a standardisation needs one mean and one scale above 0 for each column$"):
        Standardize((0.0, 0.0), scale)

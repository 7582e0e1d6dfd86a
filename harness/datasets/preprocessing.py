r"""Random maps from raw samples to model space, with their log-determinants.

Every map takes raw samples to *data space* by adding noise (so that a density exists) and from there to
*model space* by a bijection $T$. A method models $x = T(v)$; its density in data space follows from

$$\log p(v) = \log p(x) + \log|\det \partial T / \partial v|,$$

so the NLL in the data's own space is `-(log_prob(x) + ladj)`, in nats.

Grey levels have no density but a probability, of which this is an upper bound: for noise $n \sim q$ on [0, 1),

$$-\log P(\text{raw}) \le \mathbb{E}_q[-\log p(\text{raw} + n) + \log q(n)],$$

where $\log q$ is zero for uniform noise, and otherwise part of `ladj` (variational dequantisation,
https://arxiv.org/abs/1902.00275). So NLL under different noises are bounds of one number, and can be compared.

The maps compute in float64 whatever dtype is asked for: near $u = 1$ a margin of 1e-6 leaves $1 - u$ only a
few bits in float32, which is an error of several per cent in the density of a white pixel.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributions.transforms import AffineTransform, ComposeTransform, SigmoidTransform

from harness.errors import InputError


class Preprocessing(ABC):
    """A random map from raw samples to model space."""

    @property
    def noisy(self) -> bool:
        """Whether the map adds noise, so that two passes over the same samples differ."""
        return True

    def __call__(
        self, raw: Tensor, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Add noise to raw samples and take them to model space.

        Args:
            raw: Raw samples, `(B, *shape)`, of any dtype.
            generator: Source of the noise, on the device of `raw`; torch's global one by default.
            dtype: Dtype of both results.

        Returns:
            The samples in model space, `(B, *shape)`, and log|det J| of data space -> model space in nats, less
            the log-density of noise on grey levels, `(B,)`.
        """
        raw = raw.to(torch.float64)
        data = self._add_noise(raw, generator)
        transform = self._transform(data)
        x = transform(data)
        elementwise = transform.log_abs_det_jacobian(data, x) - self._noise_log_density(data - raw)
        ladj = elementwise.expand(data.shape).flatten(1).sum(1)
        return x.to(dtype), ladj.to(dtype)

    def draw(self, raw: Tensor, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Do as a call does, without the log-determinant: training has no use for it, and it costs most of the time."""
        data = self._add_noise(raw.to(torch.float64), generator)
        return self._transform(data)(data).to(dtype)

    def inverse(self, x: Tensor) -> Tensor:
        """Take samples, `(B, *shape)`, to data space in their dtype, neither clamped nor floored to levels."""
        return self._transform(x).inv(x.to(torch.float64)).to(x.dtype)

    @abstractmethod
    def _add_noise(self, raw: Tensor, generator: torch.Generator | None) -> Tensor:
        """Take raw samples, `(B, *shape)`, to data space."""

    def _noise_log_density(self, noise: Tensor) -> Tensor:
        """Return the log-density of noise on grey levels, elementwise; zero for samples that have a density anyway."""
        return torch.zeros_like(noise)

    def _transform(self, like: Tensor) -> ComposeTransform:
        """Return the elementwise bijection T of data space -> model space, for samples on the device of `like`."""
        return ComposeTransform([])


@dataclass(frozen=True)
class Identity(Preprocessing):
    """Do nothing: model space is the space of the raw samples, log|det J| = 0."""

    @property
    def noisy(self) -> bool:
        return False

    def _add_noise(self, raw: Tensor, generator: torch.Generator | None) -> Tensor:
        return raw


@dataclass(frozen=True)
class Standardize(Preprocessing):
    """Take every column to mean 0 and standard deviation 1: x = (v - mean) / scale; log|det J| = -sum log scale.

    The NLL stays in the units of the data, because the log-determinant counts. A column of rounded values, such as
    whole numbers, has no density: v = raw + width * u, with fresh uniform noise u on [0, 1), has one. For whole numbers
    of width 1 the NLL is then a bound of that of their probability, as for grey levels.

    Attributes:
        mean: What is subtracted, one number a column.
        scale: What is divided by, one number above 0 a column.
        width: Width of the noise, one number a column, 0 for a column without noise; empty if no column has noise.
        origin: One of the rounded values of each column, from which the others lie whole widths away.

    Raises:
        InputError: if the lengths differ, a scale is not above 0, or a width is negative.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    width: tuple[float, ...] = ()
    origin: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.scale) or not all(0 < scale < math.inf for scale in self.scale):
            raise InputError("a standardisation needs one mean and one scale above 0 for each column")
        if not len(self.width) == len(self.origin) in (0, len(self.mean)) or min(self.width, default=0) < 0:
            raise InputError("the noise of a table needs one width of at least 0 and one origin for each column")

    @property
    def noisy(self) -> bool:
        return any(self.width)

    def rounded(self, data: Tensor) -> Tensor:
        """Take points of data space, `(B, D)`, to the rounded value below them in the columns that have noise."""
        if not self.width:
            return data
        width, origin = (
            torch.tensor(values, dtype=data.dtype, device=data.device) for values in (self.width, self.origin)
        )
        return torch.where(width > 0, ((data - origin) / width).floor() * width + origin, data)

    def _add_noise(self, raw: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.width:
            return raw
        noise = torch.rand(raw.shape, generator=generator, dtype=raw.dtype, device=raw.device)
        return raw + noise * torch.tensor(self.width, dtype=raw.dtype, device=raw.device)

    def _transform(self, like: Tensor) -> ComposeTransform:
        mean, scale = (
            torch.tensor(values, dtype=torch.float64, device=like.device) for values in (self.mean, self.scale)
        )
        return ComposeTransform([AffineTransform(mean, scale).inv])


@dataclass(frozen=True)
class GaussianNoise(Preprocessing):
    """Add N(0, std^2) to every coordinate; log|det J| = 0.

    Attributes:
        std: Standard deviation of the noise, in units of the data.

    Raises:
        InputError: if `std` is not positive.
    """

    std: float

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise InputError(f"noise std must be positive, not {self.std}: use Identity() to add no noise")

    def _add_noise(self, raw: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = torch.randn(raw.shape, generator=generator, dtype=raw.dtype, device=raw.device)
        return raw + self.std * noise


@dataclass(frozen=True)
class Dequantize(Preprocessing):
    """Add noise on [0, 1) to integer levels, and nothing else (the setting "without MaP"); log|det J| = 0.

    The paper's noise is uniform, and its density jumps at the edges of every level. The density of smooth noise, the
    sigmoid of N(0, smooth^2), goes to zero there with all its derivatives.

    Attributes:
        levels: Number of levels; data space is [0, levels).
        smooth: Scale of smooth noise, or None for uniform noise.

    Raises:
        InputError: if there are fewer than two levels, or the scale lies outside (0, 5].
    """

    levels: int = 256
    smooth: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise InputError(f"levels must be at least 2, not {self.levels}: count the values a pixel takes")
        if self.smooth is not None and not 0 < self.smooth <= 5:  # beyond, draws round to the edges
            raise InputError(f"the scale of smooth noise must lie in (0, 5], not {self.smooth}: None is uniform noise")

    def _add_noise(self, raw: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.smooth is None:
            return raw + torch.rand(raw.shape, generator=generator, dtype=raw.dtype, device=raw.device)
        normal = torch.randn(raw.shape, generator=generator, dtype=raw.dtype, device=raw.device)
        return raw + torch.sigmoid(self.smooth * normal)

    def _noise_log_density(self, noise: Tensor) -> Tensor:
        if self.smooth is None:
            return torch.zeros_like(noise)
        normal = torch.logit(noise) / self.smooth
        return -0.5 * normal.square() - torch.log(math.sqrt(2 * math.pi) * self.smooth * noise * (1 - noise))


@dataclass(frozen=True)
class LogitPreprocessing(Dequantize):
    r"""Dequantise, scale to (0, 1), and take the logit: the pre-processing of the paper ("MaP").

    With $v$ = raw + noise, $m$ the margin and $\alpha$ the scale of the logit,

    $$u = (v / \text{levels} + m)(1 - 2m), \qquad x = \tfrac{1}{\alpha} \log\frac{u}{1 - u}.$$

    The NLL in data space does not depend on $\alpha$, but noise added in model space does: it is
    $1/\alpha$ times smaller relative to the data.

    Attributes:
        levels: Number of levels; data space is [0, levels).
        margin: About the distance of $u$ from 0 and 1.
        alpha: Divisor of the logit.
        smooth: Scale of smooth noise, or None for uniform noise.

    Raises:
        InputError: if there are fewer than two levels, the margin lies outside (0, 0.5), the scale outside (0, 5], or
            alpha is not positive.
    """

    margin: float = 1e-6
    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.margin < 0.5:
            raise InputError(f"margin must lie between 0 and 0.5, not {self.margin}: the paper's is 1e-6")
        if not self.alpha > 0:
            raise InputError(f"alpha must be positive, not {self.alpha}: the paper's is 0.5")

    def _transform(self, like: Tensor) -> ComposeTransform:
        shrink = 1 - 2 * self.margin
        return ComposeTransform(
            [
                AffineTransform(loc=self.margin * shrink, scale=shrink / self.levels),
                SigmoidTransform().inv,
                AffineTransform(loc=0.0, scale=1 / self.alpha),
            ]
        )

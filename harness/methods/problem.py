"""The question put to every method: which function, at which size, on which numbers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from harness.errors import InputError, unknown

ARCHITECTURES = ("fc", "cnn", "glow", "toy", "multimodal")
DTYPES = ("float32", "float64", "tf32", "bf16")
"""The last two keep float32 and compute the products of training in less; see `harness.methods.precision`."""

STARTS = ("published", "whitened", "whitened-start")
"""As published; from whitened data, losses taken behind the whitening; or the same start, losses in model space."""


@dataclass(frozen=True)
class Problem:
    """One cell's model and batch; everything a method may depend on.

    Args:
        architecture: One of `ARCHITECTURES`.
        shape: Event shape of the data; its product is the dimension D.
        layers: L, the number of linear layers.
        batch: B.
        dtype: One of `DTYPES`: of parameters, batches and products.
        device: As torch names it: cpu, cuda, cuda:1, meta.
        seed: Of initialisation and noise.
        residual: Whether the activation is in its residual form.
        noise: Scale of the perturbation: DSM's sigma, FDSSM's epsilon (one column of the paper's table).
        raw_pixel_alpha: None where batches are preprocessed for the model (MaP); otherwise batches hold dequantised
            pixels, and the model starts with scaling and a logit of this alpha.
        levels: Number of grey levels, used with raw_pixel_alpha.
        start: One of `STARTS`: where the weights start, and the space that losses are taken in.
        energy_weight: Of the low-energy regulariser in a score-matching loss; 0 for none.
        frozen_actnorm: Whether ActNorm keeps its data-dependent start.

    Raises:
        InputError: A size below one or absurd, an unknown architecture or dtype, or a dtype that the device has not.
    """

    architecture: str = "fc"
    shape: tuple[int, ...] = (784,)
    layers: int = 2
    batch: int = 100
    dtype: str = "float32"
    device: str = "cpu"
    seed: int = 0
    residual: bool = False
    noise: float = 1.0
    raw_pixel_alpha: float | None = None
    levels: int = 256
    start: str = "published"
    energy_weight: float = 0.0
    frozen_actnorm: bool = False

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise unknown("architecture", self.architecture, ARCHITECTURES)
        if self.start not in STARTS:
            raise unknown("start", self.start, STARTS)
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        if self.dtype == "tf32" and self.device.split(":")[0] == "cpu":
            raise InputError("tf32 is a CUDA device's arithmetic; use --device cuda, or --dtype float32")
        if not self.shape or any(size < 1 for size in self.shape):
            raise InputError(
                f"the dimension D must be at least 1, not a shape of {self.shape}; give --dims 784 or the like"
            )
        for name, letter in (("layers", "L"), ("batch", "B")):
            if getattr(self, name) < 1:
                raise InputError(f"{name} ({letter}) must be at least 1, not {getattr(self, name)}")
        # What is far beyond any machine would only be found out after hours, or by a crash.
        for name, size, most in (
            ("the dimension D", self.dimension, 2**31 - 1),
            ("batch (B)", self.batch, 2**31 - 1),
            ("layers (L)", self.layers, 1000),
        ):
            if size > most:
                raise InputError(f"{name} must be at most {most}, not {size}")
        if not 0 <= self.seed < 2**62:
            raise InputError(f"the seed must be at least 0 and below 2^62, not {self.seed}")
        if not 0 < self.noise < math.inf:
            raise InputError(f"the noise scale must be a number above 0, not {self.noise}")

    @property
    def dimension(self) -> int:
        """D."""
        return math.prod(self.shape)

    def replace(self, **changes: Any) -> Problem:
        """Return the same problem with some fields changed."""
        return dataclasses.replace(self, **changes)

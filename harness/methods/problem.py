"""The question put to every method: which function, at which size, on which numbers."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from harness.errors import InputError, unknown
from harness.methods.plain import make_plain, whole
from harness.methods.seeds import require_seed

ArchitectureName = Literal["fc", "cnn", "glow", "toy", "multimodal"]
ARCHITECTURES: tuple[str, ...] = get_args(ArchitectureName)

DtypeName = Literal["float32", "float64", "tf32", "bf16"]
DTYPES: tuple[str, ...] = get_args(DtypeName)
"""tf32 and bf16 keep float32 numbers and compute training's products in less; see `harness.methods.precision`."""

DRAWN_STARTS = ("identity", "orthogonal")
"""All linear layers at I, or random orthogonal matrices; biases from N(0, 1 / D). Others start the paper's fc so."""

WHITENED_STARTS = ("whitened", "whitened-start")
"""A start from whitened data with losses behind the whitening, or with losses in model space."""

STARTS = ("published", *DRAWN_STARTS, *WHITENED_STARTS)


@dataclass(frozen=True)
class Problem:
    """Model and batch of one cell; everything that a method may depend on.

    Args:
        architecture: Architecture of the network, one of `ARCHITECTURES`.
        shape: Event shape of the data; its product is the dimension D.
        layers: Number L of linear layers.
        batch: Batch size B.
        dtype: Type of parameters, batches and products, one of `DTYPES`.
        device: Device as torch names it: cpu, cuda, cuda:1 or meta.
        seed: Seed of initialisation and noise.
        residual: Whether the activation is in its residual form.
        noise: Scale of the objective's perturbation: sigma of DSM, epsilon of FDSSM (one column in the paper's table).
        raw_pixel_alpha: None if batches are preprocessed for the model (MaP). Otherwise batches hold dequantised
            pixels, and the model begins with scaling and a logit of this alpha.
        levels: Number of grey levels of raw pixels.
        start: Where the weights start and in which space losses are taken, one of `STARTS`. The harness sees to it: a
            method is built for the published start, and for vectors if there is another.
        energy_weight: Weight of the low-energy regulariser in a score-matching loss; 0 for none.
        frozen_actnorm: Whether ActNorm keeps its data-dependent start.
        refresh: Number of steps after which an amortised objective computes anew what it keeps; None for its own rule.
        hidden: Number of units in a hidden layer of a network inside a coupling or an autoregressive transform. Like
            the five that follow, a method without such networks, or without the part, leaves it aside.
        blocks: Number of hidden layers, or of residual blocks, of such a network.
        dropout: Probability with which such a network drops a unit in training.
        bins: Number of bins of a spline.
        tail_bound: Size beyond which a spline changes nothing.
        mixing: Whether a linear layer L U with a permutation stands in front of every spline.

    Raises:
        InputError: if a size is below one or absurd, a name is unknown, or the device does not have the dtype.
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
    refresh: int | None = None
    hidden: int = 256
    blocks: int = 2
    dropout: float = 0.0
    bins: int = 8
    tail_bound: float = 5.0
    mixing: bool = False

    def __post_init__(self) -> None:
        for name, known in (("architecture", ARCHITECTURES), ("start", STARTS), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        if self.dtype == "tf32" and self.device.split(":")[0] == "cpu":
            raise InputError("tf32 is a CUDA device's arithmetic; use --device cuda, or --dtype float32")
        make_plain(self)
        object.__setattr__(self, "shape", tuple(whole("the dimension D", size) for size in self.shape))
        if not self.shape or any(size < 1 for size in self.shape):
            raise InputError(
                f"the dimension D must be at least 1, not a shape of {self.shape}; give --dims 784 or the like"
            )
        # A size far beyond any machine would otherwise fail after hours, or by a crash.
        most_numbers = 2**31 - 1
        for name, size, most in (
            ("layers (L)", self.layers, 1000),
            ("batch (B)", self.batch, most_numbers),
            ("the dimension D", self.dimension, most_numbers),
        ):
            if size < 1:
                raise InputError(f"{name} must be at least 1, not {size}")
            if size > most:
                raise InputError(f"{name} must be at most {most}, not {size}")
        require_seed(self.seed)
        if self.refresh is not None and self.refresh < 1:
            raise InputError(f"refresh must be a number of steps, at least 1, not {self.refresh}")
        if self.hidden < 1 or self.blocks < 1 or self.bins < 2 or not self.tail_bound > 0 or not 0 <= self.dropout < 1:
            raise InputError("networks need at least 1 hidden unit and block, splines 2 bins and a bound above 0")
        if not 0 < self.noise < math.inf:
            raise InputError(f"the noise scale must be a number above 0, not {self.noise}")

    @property
    def dimension(self) -> int:
        """The dimension D of a sample."""
        return math.prod(self.shape)

    def replace(self, **changes: Any) -> Self:
        """Return this problem with some fields changed."""
        return dataclasses.replace(self, **changes)

"""How a sample is cut into tokens for a Transformer: no competitor itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Tokens", "patch_side"]

_LEAST_PATCHES, _MOST_PATCHES = 16, 49  # of an image
_MOST_TOKENS = 64  # of other data


def patch_side(dimension: int) -> int:
    """Return the side p of the p x p patches of a square image of D pixels, or 0 if D is cut into runs of components.

    A D that is a square is read as such an image, whatever the shape of the samples: fc takes images as vectors.
    """
    side = math.isqrt(dimension)
    if side**2 != dimension:
        return 0
    fitting = (p for p in range(1, side + 1) if side % p == 0 and _LEAST_PATCHES <= (side // p) ** 2 <= _MOST_PATCHES)
    return next(fitting, 0)


class Tokens:
    """The T tokens of s components that a sample of D is cut into; zeros fill up the last one.

    Args:
        dimension: The dimension D.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension, side = dimension, patch_side(dimension)
        self.size = side**2 or -(-dimension // _MOST_TOKENS)
        self.count = -(-dimension // self.size)
        across = math.isqrt(self.count)
        self.grid = (across, side, across, side) if side else None
        """Patches down an image, rows of a patch, patches across and columns of a patch; None without patches."""

    def cut(self, x: Tensor) -> Tensor:
        """Return the tokens, shape (B, T, s), of samples of shape (B, D)."""
        from torch.nn.functional import pad

        if self.grid is None:
            return pad(x, (0, self.count * self.size - self.dimension)).view(len(x), self.count, self.size)
        return x.view(len(x), *self.grid).transpose(2, 3).reshape(len(x), self.count, self.size)

    def joined(self, tokens: Tensor) -> Tensor:
        """Return the samples, shape (B, D), of tokens of shape (B, T, s)."""
        if self.grid is None:
            return tokens.flatten(1)[:, : self.dimension]
        down, rows, across, columns = self.grid
        return tokens.view(len(tokens), down, across, rows, columns).transpose(2, 3).flatten(1)

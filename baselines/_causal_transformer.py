"""A causal Transformer, whose output at a token depends on earlier tokens alone: no competitor itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention

__all__ = ["CausalTransformer"]


class CausalTransformer(nn.Module):
    """A map from T tokens of s numbers to T pairs of s numbers, which starts at zero.

    The token in front of the first one is zero, so that the first output is a trained constant.

    Args:
        tokens: The number T of tokens.
        size: The number s of components of a token.
        width: Width of the layers, a multiple of the number of heads.
        depth: Number of layers, each of an attention and of a network with one hidden layer of four times the width.
        heads: Number of heads of an attention.
    """

    def __init__(self, tokens: int, size: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(size, width)
        self.positions = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.layers = nn.Sequential(*(_Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 2 * size)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return two tensors in the shape of the tokens, (B, t, s), for the first t tokens of each sample."""
        earlier = pad(tokens[:, :-1], (0, 0, 1, 0))
        hidden = self.embedding(earlier) + self.positions[: tokens.shape[1]]
        first, second = self.output(self.norm(self.layers(hidden))).chunk(2, 2)
        return first, second


class _Layer(nn.Module):
    """One layer of the Transformer, its normalisations in front."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.projection = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.rise, self.fall = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the next hidden state, shape (B, t, width), of one of this shape."""
        batch, tokens, width = hidden.shape
        attention_norm, network_norm = self.norms
        parts = self.projection(attention_norm(hidden)).view(batch, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(queries, keys, values, is_causal=True)
        hidden = hidden + self.merge(attended.transpose(1, 2).reshape(batch, tokens, width))
        result: Tensor = hidden + self.fall(gelu(self.rise(network_norm(hidden))))
        return result

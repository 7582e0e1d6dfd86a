"""Relative gradient optimisation (Gresele et al. 2020, https://arxiv.org/abs/2006.15090), written from the paper.

The network is that of all dense methods here: dense layers y = W x + b with a smooth leaky ReLU between them. The
negative log-likelihood is minimised along G W^T W instead of along its gradient G. W^T W is positive definite, so that
this still descends, and it turns the log-determinant's gradient, W^-T, into W: no inverse and no determinant.

For B samples in rows, y0 = x W^T, and delta the gradient of the loss at y,

    of W:  delta^T (y0 W) - W
    of b:  the column sums of delta

and the layer's input is not needed. The paper's equations have no bias: here it follows its own gradient. The authors'
code takes [W b; 0 1] as the matrix instead, which on digits is 11 nats behind after 40 epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from baselines._ebflow_network import network
from baselines._energy_model import DenseModel
from harness.methods import LayerCost, Method, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["METHODS"]


class RelativeGradientModel(DenseModel):
    """The paper's fc, its dense layers trained along the relative gradient.

    Args:
        problem: The problem to build for.
        affine: A function from x, W and b to y, and a zero that stands for log|det W|.
    """

    def __init__(self, problem: Problem, affine: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__(network(problem))
        self.affine = affine

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the NLL less its constants (log Z and that of the base), in nats a sample."""
        dense, log_det = self.dense_layers, x.new_zeros(len(x))
        for layer in self.module.layers:
            x, term = self.affine(x, layer.weight, layer.bias) if layer in dense else layer(x)
            log_det = log_det + term
        return (0.5 * x.square().sum(1) - log_det).mean()


def _build(problem: Problem) -> RelativeGradientModel:
    import torch
    from torch.autograd.function import once_differentiable

    class Affine(torch.autograd.Function):
        """y = W x + b and a zero for log|det W|; backward gives W the relative gradient of both together.

        That is no derivative of the value, so `torch.func` and forward mode refuse this function.
        """

        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
            y = torch.nn.functional.linear(x, weight, bias)
            ctx.save_for_backward(y, weight, bias)
            return y, weight.new_zeros(())

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, delta: Tensor, of_log_det: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
            y, weight, bias = ctx.saved_tensors
            product, matrix = (y - bias).to(delta.dtype), weight.to(delta.dtype)  # autocast's type is not what is kept
            if ctx.needs_input_grad[0]:
                of_x, pulled = (torch.cat([delta, product]) @ matrix).chunk(2)  # one product of 2 B rows, not two of B
            else:
                of_x, pulled = None, product @ matrix
            of_weight = (delta.mT @ pulled).to(weight.dtype).addcmul_(weight, of_log_det)
            return of_x, of_weight, delta.sum(0)

    return RelativeGradientModel(problem, Affine.apply)


METHODS = [
    Method(
        name="relative-gradient-ml",
        objective="relative-gradient",
        linear="dense",
        build=_build,
        paper="https://arxiv.org/abs/2006.15090",
        fc_cost=LayerCost(4, rows=2),  # forward, y W beside the gradient of the input, gradient of the weights
        own_gradient="the relative gradient, G W^T W in the place of G",
        summary="maximum likelihood along the gradient times W^T W: no determinant, one product more",
    )
]

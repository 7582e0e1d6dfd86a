"""Self-normalizing flows (Keller et al. 2021, https://arxiv.org/abs/2011.07248), written from the paper.

The network is the paper's and ours: dense layers y = W x + b with a smooth leaky ReLU between them. Every layer has a
learned inverse R, trained beside it, and whatever needs an inverse takes the other matrix (the paper's equations for
the gradients, and its weight 1 of the reconstruction on MNIST). It is held here as S = R^T, which stands for W^-T. Half
of the likelihood is that of the model with W, half that of the model whose layers are x = R (y - b). For B samples in
rows, with delta the gradient of the mean negative log-likelihood at y, delta W that at x, and e = x W^T S - x the
error of the reconstruction,

    of W:  delta^T x / 2 - S / 2              + (2 / B) (e S^T)^T x
    of S:  -(x W^T)^T (delta W) / 2 + W / 2   + (2 / B) (x W^T)^T e
    of b:  the column sums of delta

The terms with e are the gradient of the mean of |R W x - x|^2, of which nothing reaches x. Where R is W^-1 they are
zero, and the others are half of the exact gradients of the two models. For one layer on a Gaussian, the maximum of the
likelihood is a stable point only if no variance is below 1 / 8: else W and R drift apart. The matrices R are no part of
the density, which is exact: of W alone, with its determinants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from baselines._ebflow_network import network
from baselines._energy_model import DenseModel
from harness.methods import LayerCost, Method, Problem

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["METHODS"]


class SelfNormalizingModel(DenseModel):
    """The paper's fc; its module also holds ``inverses``, one S a dense layer, that start exact.

    Args:
        problem: The problem to build for.
        affine: A function from x, W, b and S to y, a zero that stands for log|det W|, and the mean of |R W x - x|^2.
    """

    def __init__(self, problem: Problem, affine: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> None:
        import torch

        super().__init__(network(problem))
        self.affine = affine
        self.inverses = torch.nn.ParameterList(torch.empty_like(dense.weight) for dense in self.dense_layers)
        self.module.register_module("inverses", self.inverses)
        self._invert()

    def _invert(self) -> None:
        import torch

        with torch.no_grad():
            for inverse, dense in zip(self.inverses, self.dense_layers, strict=True):
                inverse.copy_(torch.linalg.inv(dense.weight).mT)

    def init_batch(self, x: Tensor) -> None:
        super().init_batch(x)
        self._invert()

    def load_linear_layers(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().load_linear_layers(layers)
        self._invert()

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the NLL less its constants (log Z and that of the base) plus the reconstruction errors, in nats."""
        inverses = dict(zip(self.dense_layers, self.inverses, strict=True))
        log_det, error = x.new_zeros(len(x)), x.new_zeros(())
        for layer in self.module.layers:
            if layer in inverses:
                x, term, of_layer = self.affine(x, layer.weight, layer.bias, inverses[layer])
                error = error + of_layer
            else:
                x, term = layer(x)
            log_det = log_det + term
        return (0.5 * x.square().sum(1) - log_det).mean() + error


def _build(problem: Problem) -> SelfNormalizingModel:
    import torch
    from torch.autograd.function import once_differentiable

    class Affine(torch.autograd.Function):
        """One layer with its learned inverse, and the gradients of the module's docstring.

        These are no derivatives of the values, so `torch.func` and forward mode refuse this function.
        """

        @staticmethod
        def forward(
            ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, inverse: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            product = x @ weight.mT
            error = product @ inverse - x
            ctx.save_for_backward(x, product, error, weight, inverse)
            return product + bias, weight.new_zeros(()), error.square().sum() / len(x)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, delta: Tensor, of_log_det: Tensor, of_error: Tensor) -> tuple[Tensor, ...]:
            *_, weight, inverse = ctx.saved_tensors
            # Under autocast the products are of a smaller type than what is kept.
            dtype = ctx.saved_tensors[1].dtype
            x, product, error, w, s = (tensor.to(dtype) for tensor in ctx.saved_tensors)
            error, delta = error * (2 * of_error / len(x)).to(dtype), delta.to(dtype)
            of_x = delta @ w
            of_weight = torch.addmm(delta, error, s.mT, beta=0.5).mT @ x
            of_inverse = product.mT @ torch.sub(error, of_x, alpha=0.5)
            of_weight = of_weight.to(weight.dtype).addcmul_(inverse, of_log_det, value=0.5)
            of_inverse = of_inverse.to(inverse.dtype).addcmul_(weight, of_log_det, value=-0.5)
            return of_x, of_weight, delta.sum(0), of_inverse

    return SelfNormalizingModel(problem, Affine.apply)


METHODS = [
    Method(
        name="self-normalizing-ml",
        objective="self-normalizing",
        linear="dense",
        build=_build,
        paper="https://arxiv.org/abs/2011.07248",
        # Forward, reconstruction, its gradient and that of the input, gradients of W and R. The gradient of R takes
        # that of the input, also in the first layer.
        fc_cost=LayerCost(6, saved=0),
        own_gradient="the learned inverse takes the place of W^-T, and the loss leaves log|det W| out",
        summary="maximum likelihood with a learned inverse beside every W: no determinant, twice the weights",
    )
]

"""The base class of models that are an `ebflow.EBFlow`, however they are trained: no competitor itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.methods import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ebflow import EBFlow
    from ebflow.layers import Dense

__all__ = ["DenseModel", "EnergyModel"]


class EnergyModel(Model):
    """log p(x) = -E(x) - log Z with exact log Z; a subclass adds how it is trained."""

    def __init__(self, flow: EBFlow) -> None:
        self.module: EBFlow = flow

    def init_batch(self, x: Tensor) -> None:
        self.module.initialize(x)

    def to_latent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, varying = self.module(x)
        return z, varying - self.module.log_normalizer()

    def to_data(self, z: Tensor) -> Tensor:
        return self.module.unchecked_inverse(z)  # the harness looks at the digits itself, of every method alike

    def impute(
        self,
        x: Tensor,
        missing: Tensor,
        *,
        steps: int,
        step_size: float,
        covariance: Tensor | None,
        adjusted: bool,
        warmup: int,
        leapfrog: int,
        generator: torch.Generator,
    ) -> Iterator[Tensor]:
        from ebflow import langevin

        return langevin.chain(
            self.module.score,
            x,
            steps=steps,
            step_size=step_size,
            mask=missing,
            covariance=covariance,
            log_density=(lambda x: -self.module.energy(x)) if adjusted else None,
            warmup=warmup if adjusted else 0,
            leapfrog=leapfrog,
            generator=generator,
        )

    def log_normalizer(self) -> Tensor:
        return self.module.log_normalizer()

    def estimate_log_normalizer(
        self, estimator: str, data: Tensor, draws: int, generator: torch.Generator
    ) -> tuple[float, float, float]:
        from ebflow.normalizer import Gaussian, bridge_sampling, importance_sampling

        prior = estimator == "prior"
        proposal = Gaussian.isotropic(self.module.shape, like=data) if prior else Gaussian.fitted(data)
        estimate = {"prior": importance_sampling, "gaussian": importance_sampling, "bridge": bridge_sampling}[estimator]
        result = estimate(self.module, proposal, draws, generator)
        return result.log_normalizer, result.standard_error, result.effective_samples


class DenseModel(EnergyModel):
    """An energy model whose dense layers can be read and set from outside."""

    @property
    def dense_layers(self) -> list[Dense]:
        """The dense layers of the flow, first to last."""
        from ebflow.layers import Dense

        return [layer for layer in self.module.layers if isinstance(layer, Dense)]

    def linear_layers(self) -> list[tuple[Tensor, Tensor]]:
        return [(dense.weight.detach(), dense.get_parameter("bias").detach()) for dense in self.dense_layers]

    def load_linear_layers(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        for dense, (weight, bias) in zip(self.dense_layers, layers, strict=True):
            dense.load_state_dict({"weight": weight, "bias": bias})

"""The base class of models that train by an objective of ebflow: no competitor itself."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from harness.methods import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ebflow import EBFlow, Objective

__all__ = ["ObjectiveModel"]


class ObjectiveModel(Model):
    """A model with an objective on a flow of ebflow; what the objective remembers is part of the training's state."""

    objective: Objective

    @property
    def trained_flow(self) -> EBFlow:
        """The flow whose loss the objective is; it takes what `training_loss` is given."""
        raise NotImplementedError

    def training_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        flow = self.trained_flow
        return self.objective(flow, x.reshape(len(x), *flow.shape), generator)

    def loss_before_map(
        self, x: Tensor, matrix: Tensor, shift: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        from ebflow import EBFlow
        from ebflow.layers import Whitening

        front = Whitening(x.shape[1])
        front.matrix, front.shift = matrix, shift
        return self.objective(EBFlow(tuple(x.shape[1:]), [front, *self.trained_flow.layers]), x, generator)

    def prepare(self) -> bool:
        return self.objective.prepare(self.trained_flow)

    def prepared(self) -> AbstractContextManager[object]:
        return self.objective.prepared()

    def observations(self) -> dict[str, float]:
        return self.objective.observations(self.trained_flow)

    def get_extra_state(self) -> dict[str, Tensor]:
        return self.objective.get_state()

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self.objective.set_state(state)

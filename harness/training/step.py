"""The one training step of the project."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.errors import InputError
from harness.methods import Model
from harness.methods.precision import bf16_where_declared, tf32_where_declared
from harness.training.configuration import TrainingConfig
from harness.training.optimizers import CONSTRUCTORS
from harness.training.processes import processes, shared_loss


class Trainer:
    """A model with its optimiser, clipping and averaged weights: one call of `step` is one iteration.

    The timing of an iteration and the training loop both use this class, so that what is timed is what trains.

    Args:
        model: A model that is built and initialised.
        config: The recipe. Its schedules are left to the training loop.
        generator: Generator of the objective's noise, on the model's device.
        dtype: Arithmetic of loss and backward pass, one of `harness.methods.DTYPES`.

    Raises:
        InputError: if several processes are to train a compiled loss, or to replay steps.
    """

    def __init__(
        self, model: Model, config: TrainingConfig, generator: torch.Generator, dtype: str = "float32"
    ) -> None:
        self.model = model
        self.config = config
        self.generator = generator
        self.dtype = dtype
        self.loss: Callable[[Tensor, torch.Generator], Tensor] = model.training_loss
        if processes() > 1:
            if config.compile or config.cuda_graphs:
                option = "--compile" if config.compile else "--cuda-graphs"
                raise InputError(f"training in several processes is neither compiled nor replayed; leave {option} out")
            self.loss = shared_loss(model)
        elif config.compile:
            # A graph for each size of batch: one for all would depend on the order in which the sizes are met.
            self.loss = torch.compile(model.training_loss, dynamic=False)
        self.parameters = [p for p in model.module.parameters() if p.requires_grad]
        optimizer = CONSTRUCTORS[config.optimizer]
        self.optimizer = optimizer(self.parameters, config.learning_rate, config.weight_decay)
        self.steps = 0
        self.skipped_in_a_row = 0
        self.unclipped_norm: Tensor | None = None
        self.weights: list[Tensor] = list(model.module.parameters())
        self.average = None if config.ema_decay is None else [weight.detach().clone() for weight in self.weights]

    def gradient(self, x: Tensor) -> Tensor:
        """Draw noise, put the gradient of the loss of a batch, shape (B, *event), into the parameters; return the loss.

        Raises:
            TypeError: if the loss is no real scalar.
        """
        self.optimizer.zero_grad()
        with tf32_where_declared(self.dtype):
            with bf16_where_declared(self.dtype, x.device):
                loss = self.loss(x, self.generator)
            if not isinstance(loss, Tensor) or loss.shape != () or not loss.is_floating_point():
                raise TypeError(f"training_loss returned {_described(loss)}, not a real scalar tensor")
            loss.backward()
        return loss.detach()

    def step(self, x: Tensor) -> Tensor:
        """Take one training step on a batch of shape (B, *event), average the weights, and return the loss, detached.

        A step that the recipe leaves out is not counted in `steps`.
        """
        loss = self.gradient(x)
        self.clip()
        if self.config.skip_not_finite and not math.isfinite(self.gradient_norm()):
            self.skipped_in_a_row += 1
            return loss
        self.skipped_in_a_row = 0
        self.update(self.share)
        self.steps += 1
        return loss

    def clip(self) -> None:
        """Shorten the gradient to the recipe's largest norm, where it has one."""
        if self.config.clip_norm is not None:
            self.unclipped_norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)

    def update(self, share: float | Tensor) -> None:
        """Let the optimiser step, and give the weights a share in their average: a number or a scalar tensor.

        Buffers are not trained, and so not averaged.
        """
        self.optimizer.step()
        self.model.after_step()
        if self.average is not None:
            with torch.no_grad():
                if isinstance(share, Tensor):
                    torch._foreach_lerp_(self.average, self.weights, [share] * len(self.weights))
                else:
                    torch._foreach_lerp_(self.average, self.weights, share)

    @property
    def share(self) -> float:
        """The share of the next step's weights in the average, with the warm-up that the paper's code uses."""
        decay = self.config.ema_decay
        return 1 - min(decay, (2 + self.steps) / (11 + self.steps)) if decay is not None else 0.0

    def gradient_norm(self) -> float:
        """Return the Euclidean norm of the last batch's gradient over all parameters, before clipping."""
        if self.unclipped_norm is not None:
            return float(self.unclipped_norm)
        return float(nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None]))

    def unclip(self) -> None:
        """Give the last gradient the length that it had before clipping."""
        if self.config.clip_norm is not None and (norm := self.gradient_norm()) > self.config.clip_norm:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad *= norm / self.config.clip_norm

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Put the averaged weights into the model while the context lasts, and the trained ones back at its end.

        Buffers come back too: a refit may change them, such as the row exchanges of an LU layer.
        """
        module = self.model.module
        held = [*module.parameters(), *module.buffers()]
        live = [tensor.detach().clone() for tensor in held]
        if self.average is not None:
            _copy(self.average, module.parameters())
        try:
            yield
        finally:
            _copy(live, held)


def _described(loss: object) -> str:
    if not isinstance(loss, Tensor):
        return "None" if loss is None else f"a {type(loss).__name__}"
    return f"a tensor of shape {tuple(loss.shape)} and {loss.dtype}"


def _copy(values: Iterable[Tensor], held: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(held, values, strict=True):
            tensor.copy_(value)

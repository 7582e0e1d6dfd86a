"""A training step that is recorded once as a CUDA graph and replayed, so that the host launches it as a whole.

A small step may cost a GPU less time than the host needs to launch its kernels one by one. What changes from step to
step lies in tensors that the graph reads: the batch or its indices, the learning rate, the share in the averaged
weights, the state of the generator of all noise. What looks at numbers, above all whether log Z is to be refreshed,
stays with the host (`harness.methods.Prepared`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from harness.errors import InputError, one_line
from harness.methods import Prepared, Stateful
from harness.training.step import Trainer

PLAIN_STEPS = 3
"""Steps before one is recorded, in which libraries make their work space."""
_TOLERANCE = 1e-3  # of what a step changes: kernels may add up in another order


class RecordedStep:
    """The steps of a trainer, recorded as soon as that can be done and replayed from then on.

    The first replayed step is compared with a plain one from the same state. Batches that are smaller than the largest
    have plain steps.

    Args:
        trainer: The trainer. Its learning rate is read before every step.
        draw: Function from what a step is given, such as the indices of its samples, to the batch. It is recorded too.
        refused: Function that is told why steps cannot be replayed, before all of them are plain; None to raise that.
    """

    def __init__(
        self,
        trainer: Trainer,
        draw: Callable[[Tensor], Tensor] = lambda source: source,
        refused: Callable[[InputError], None] | None = None,
    ) -> None:
        self.trainer = trainer
        self.draw = draw
        self.refused = refused
        self._plain_steps = 0
        self._largest = 0
        self._is_refused = False
        self._replay: Callable[[], None] | None = None
        cuda = trainer.generator.device.type == "cuda"
        self._stream = torch.cuda.Stream(trainer.generator.device) if cuda else None

    def __call__(self, source: Tensor) -> Tensor:
        """Take one step on what is drawn from `source`, and return the loss, detached.

        Raises:
            InputError: if the method's steps cannot be recorded, or replay as other steps than the plain ones.
        """
        trainer = self.trainer
        self._largest = max(self._largest, len(source))
        if self._is_refused or len(source) < self._largest:
            return trainer.step(self.draw(source))
        if self._plain_steps < PLAIN_STEPS:
            self._plain_steps += 1
            return self._beside(source)
        unchanging = _prepared(trainer)
        if self._replay is None:
            try:
                self._replay = self._recorded(source, unchanging)
            except InputError as error:
                if self.refused is None:
                    raise
                self.refused(error)
                self._is_refused = True
                with _already_prepared(trainer):
                    return trainer.step(self.draw(source))
        self._source.copy_(source)
        self._rate.fill_(trainer.optimizer.learning_rate)
        self._share.fill_(trainer.share)
        self._replay()
        for parameter, gradient in zip(trainer.parameters, self._gradients, strict=True):
            parameter.grad = gradient  # a plain step in between has put others there
        trainer.unclipped_norm = self._norm
        trainer.steps += 1
        return self._loss.clone()

    def _beside(self, source: Tensor) -> Tensor:
        """Take a plain step; on a GPU on a stream of its own, as steps before a recording have to be."""
        if self._stream is None:
            return self.trainer.step(self.draw(source))
        current = torch.cuda.current_stream(source.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = self.trainer.step(self.draw(source))
        current.wait_stream(self._stream)
        return loss

    def _recorded(self, source: Tensor, unchanging: bool) -> Callable[[], None]:
        """Record a step, and return the function that replays it."""
        trainer, device, name = self.trainer, source.device, type(self.trainer.model).__name__
        leave = "leave --cuda-graphs out"
        if not unchanging:
            raise InputError(f"{name} remembers its earlier steps, which no CUDA graph can; {leave}")
        rate = trainer.optimizer.learning_rate
        # The fused kernel of a GPU reads a float32 rate, that of a CPU any.
        self._rate = torch.zeros((), dtype=torch.float32 if device.type == "cuda" else torch.float64, device=device)
        self._share = torch.zeros((), dtype=trainer.weights[0].dtype, device=device)
        self._rate.fill_(rate)
        self._share.fill_(trainer.share)
        self._source = source.clone()
        trainer.optimizer.learning_rate = self._rate
        try:
            with _already_prepared(trainer):
                replay = record(self._operations, trainer.generator)
                self._gradients, self._norm = [p.grad for p in trainer.parameters], trainer.unclipped_norm
                off = self._difference(replay)
        except (RuntimeError, AttributeError) as error:
            why = one_line(error)
            raise InputError(f"a step of {name} cannot be recorded as a CUDA graph ({why}); {leave}") from None
        finally:
            trainer.optimizer.learning_rate = rate
        if not off <= _TOLERANCE:  # nor may it be no number
            raise InputError(f"a replayed step of {name} is off by {off:.2g} of what a plain one changes; {leave}")
        return replay

    def _operations(self) -> None:
        """Do what is recorded: all of a step that is the same operations on the same tensors every time."""
        trainer = self.trainer
        self._loss = trainer.gradient(self.draw(self._source))
        trainer.clip()
        trainer.update(self._share)

    @torch.no_grad()
    def _difference(self, replay: Callable[[], None]) -> float:
        """Return how far a replayed step ends from a plain one of the same state, divided by what that one changes.

        The state is left as it was.
        """
        trainer, noise, loss = self.trainer, self.trainer.generator.get_state(), self._loss
        tensors = [*trainer.model.module.parameters(), *trainer.model.module.buffers(), *(trainer.average or [])]
        tensors += [tensor for state in trainer.optimizer.state for tensor in state.values()]
        before, ends = [tensor.clone() for tensor in tensors], []
        for operations in (torch.enable_grad()(self._operations), replay):
            try:
                operations()
                ends.append([tensor.clone() for tensor in tensors])
            finally:
                trainer.generator.set_state(noise)
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
        self._loss = loss
        off, change = _distance(*ends), _distance(ends[0], before)
        return off / change if change else off


def record(operations: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    """Record operations on a CUDA device without doing them, and return a function that does them.

    Raises:
        RuntimeError: if an operation cannot be recorded; the generator and the current stream are then as they were.
    """
    graph, before = torch.cuda.CUDAGraph(), generator.clone_state()
    graph.register_generator_state(generator)
    with torch.cuda.device(generator.device):
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph):
                operations()
        except RuntimeError:
            torch.cuda.set_stream(stream)  # which a graph that cannot end leaves changed
            generator.graphsafe_set_state(before)  # it would wait for the end of the recording for ever
            raise
    return graph.replay


def _prepared(trainer: Trainer) -> bool:
    """Do what the host has to do before a replayed step; return whether the rest is the same operations every time."""
    model = trainer.model
    if isinstance(model, Prepared):
        return model.prepare()
    return not (isinstance(model, Stateful) and model.get_extra_state())


def _already_prepared(trainer: Trainer) -> AbstractContextManager[object]:
    """Return a context in which losses leave out what the host has done already."""
    model = trainer.model
    return model.prepared() if isinstance(model, Prepared) else nullcontext()


def _distance(tensors: list[Tensor], others: list[Tensor]) -> float:
    """Return the Euclidean distance of numbers from others."""
    distances = []
    for one, other in zip(tensors, others, strict=True):
        difference = one - other if one.is_floating_point() else one.double() - other.double()
        distances.append(float(difference.norm()))
    return math.hypot(*distances)

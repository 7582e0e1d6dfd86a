"""Times an iteration of all methods side by side, and the machine's own rates beside them.

An iteration is everything between two batches: noise, loss, backward, clipping, optimiser, averaging. The batch lies in
memory. Where steps are not alike, blocks hold whole periods of them, and their mean is the time of an iteration: a
median of single steps would leave the dear ones out.

Methods are interleaved repetition by repetition, in an order that rotates, so that a machine that drifts drifts for
all. A small matrix product, always the same, is timed between the turns and tells whether the machine drifted.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from harness.errors import one_line
from harness.methods import Method, Problem
from harness.methods.calls import guarded
from harness.methods.density import build, count_parameters
from harness.methods.precision import stored
from harness.methods.seeds import generator
from harness.methods.shared_settings import watched
from harness.results.statistics import drift
from harness.timing.machine import Rate, rates, reference
from harness.timing.memory import peak_bytes
from harness.training.configuration import TrainingConfig
from harness.training.recorded import PLAIN_STEPS, RecordedStep
from harness.training.step import Trainer

_WARM_UP_STEPS = 2  # after the first, which is told apart
SHORTEST_BLOCK = 0.02
"""Seconds; shorter blocks would time the clock."""
_REFERENCE_BLOCK = 0.002  # seconds; about as long as the turns that a busy scheduler hands out
_REFERENCE_SHARE = 0.01  # of the time that methods are timed


@dataclass
class Block:
    """Something to time, as often in a row as a clock needs.

    The call may be a competitor's code: every block of calls is guarded, from outside what is timed.

    Args:
        name: What is timed: the method and the part of its iteration, or the metric of a rate.
        call: Function that does it once.
        device: Device that it runs on, as torch names it.
        number: Number of calls in a row that are timed together.
        seconds: Seconds of one call, the mean of those in a row, one value for each repetition.
        period: Number of calls after which their work repeats; a block holds whole periods.
    """

    name: str
    call: Callable[[], Tensor]
    device: str
    number: int = 1
    seconds: list[float] = field(default_factory=list)
    period: int = 1

    def calibrate(self, shortest: float = SHORTEST_BLOCK) -> None:
        """Choose the number of calls in a row that takes at least so many seconds."""
        self.number = self.period * max(1, math.ceil(shortest / self.time(self.period) / self.period))

    def repeat(self) -> None:
        """Measure one more repetition."""
        self.seconds.append(self.time(self.number))

    def time(self, number: int) -> float:
        """Return the seconds of one call, of so many calls in a row."""
        with guarded("a training step"):
            return time_block(self.call, number, self.device)


class Watch:
    """Tells whether the machine's speed drifts, by a small product that is always the same and is timed now and then.

    The product is timed once at the start.

    Args:
        device: The device whose speed matters, as torch names it.
    """

    def __init__(self, device: str) -> None:
        self.rate = reference(device)
        self.block = Block(self.rate.metric, self.rate.call, device)
        self.block.call()
        self.block.calibrate(_REFERENCE_BLOCK)
        self.look()

    def look(self, times: int = 1) -> None:
        """Time the product, so many times in a row."""
        for _ in range(times):
            self.block.repeat()
        self._spent = 0.0

    def after(self, seconds: float) -> None:
        """Time the product if what is watched has by now run a hundred times as long, these seconds included."""
        self._spent += seconds
        if self._spent * _REFERENCE_SHARE >= self.block.number * self.block.seconds[-1]:
            self.look()

    def drift(self) -> float | None:
        """Return how far the speed has drifted, as `harness.results.statistics.drift` does."""
        return drift([self.rate.amount / seconds for seconds in self.block.seconds])


@dataclass
class Timing:
    """The measured repetitions of one method, or the reason why there are none.

    Args:
        method: The method.
        seconds: Seconds of an iteration, the mean over whole periods, one value for each repetition.
        gradient_seconds: Seconds of loss and backward pass alone, one value for each repetition.
        refresh_seconds: Seconds of an iteration that does all the work of a period, one value for each repetition;
            empty where all steps are alike.
        first_seconds: Seconds of the first iteration, which compiles where the recipe asks for it.
        peak_bytes: The most bytes that an iteration holds in memory.
        parameters: Number of trained parameters.
        moments: Number of moments of the gradient that the optimiser keeps.
        failure: Why the method could not be timed, in one line, or None.
        changed: Shared settings that the method changed; they were set back at the end of its turn.
    """

    method: Method
    seconds: list[float] = field(default_factory=list)
    gradient_seconds: list[float] = field(default_factory=list)
    refresh_seconds: list[float] = field(default_factory=list)
    first_seconds: float | None = None
    peak_bytes: int | None = None
    parameters: int | None = None
    moments: int = 0
    failure: str | None = None
    changed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Measurement:
    """What was timed on one problem.

    Args:
        timings: One timing for each method.
        rates: The machine's rates with their repetitions, in amounts per second. The last one is the rate of the
            reference product, with its values in the order of time.
    """

    timings: list[Timing]
    rates: list[tuple[Rate, list[float]]]


def measure(
    methods: Sequence[Method],
    problem: Problem,
    repeats: int,
    config: TrainingConfig,
    progress: Callable[[], None] = lambda: None,
) -> Measurement:
    """Time every method on one problem; a method that fails is reported and the others go on.

    Args:
        methods: The methods, all of them available.
        problem: The problem. Its batch is drawn from N(0, I).
        repeats: Number of repetitions of every method.
        config: The recipe, for optimiser, clipping, averaging and compilation.
        progress: Function that is called after every repetition of a method.
    """
    timings = [Timing(method) for method in methods]
    turns: list[tuple[Timing, list[Block]]] = []
    for timing in timings:
        with _failure_noted(timing):
            turns.append((timing, _warm_up(timing, problem, config)))
    if not turns:
        return Measurement(timings, [])
    costs = [timing.method.fc_cost for timing, _ in turns if timing.method.fc_cost]
    machine = [(rate, Block(rate.metric, rate.call, problem.device)) for rate in rates(problem, costs)]
    for _, block in machine:
        block.call()
        block.calibrate()
    watch = Watch(problem.device)
    for timing, blocks in turns:
        with _failure_noted(timing):
            for block in blocks:  # not kept: the first turn after another method's is slower than all later ones
                block.time(block.number)
    for repetition in range(repeats):
        turn = repetition % len(turns)
        for timing, blocks in turns[turn:] + turns[:turn]:
            if timing.failure is None:
                with _failure_noted(timing):
                    for block in blocks:
                        block.repeat()
                        watch.after(block.number * block.seconds[-1])
            progress()
        for _, block in machine:
            block.repeat()
    machine.append((watch.rate, watch.block))
    measured = [(rate, [rate.amount / seconds for seconds in block.seconds]) for rate, block in machine]
    return Measurement(timings, measured)


@contextmanager
def _failure_noted(timing: Timing) -> Iterator[None]:
    """Note any exception as the method's failure, and what it changed: a competitor must not take the others down."""
    with watched() as changed:
        try:
            yield
        except Exception as error:
            timing.failure = one_line(error)
    timing.changed += [name for name in changed if name not in timing.changed]


def _warm_up(timing: Timing, problem: Problem, config: TrainingConfig) -> list[Block]:
    """Build a method, take its first, slow steps, note what they tell, and return the blocks to repeat."""
    period = timing.method.period(problem)
    trainer, batch = trainer_on_noise(timing.method, problem, config)
    timing.parameters, timing.moments = count_parameters(trainer.model), trainer.optimizer.moments
    name, device = timing.method.name, problem.device
    step = RecordedStep(trainer) if config.cuda_graphs else trainer.step
    blocks = [Block(f"{name} iteration", lambda: step(batch), device, 1, timing.seconds, period)]
    if not config.cuda_graphs:  # a graph is the whole step
        gradient = partial(trainer.gradient, batch)
        blocks.append(Block(f"{name} gradient", gradient, device, 1, timing.gradient_seconds, period))
    dearest = trainer
    if period > 1:
        dearest, _ = trainer_on_noise(timing.method, problem.replace(refresh=1), config)
        again = RecordedStep(dearest) if config.cuda_graphs else dearest.step
        blocks.append(Block(f"{name} refresh", lambda: again(batch), device, 1, timing.refresh_seconds))
    timing.first_seconds = blocks[0].time(1)
    with guarded("a training step") as renew:
        for block in blocks:
            for _ in range(_WARM_UP_STEPS + (PLAIN_STEPS if config.cuda_graphs else 0)):
                renew()
                loss = block.call()
            if not bool(loss.isfinite()):
                raise ArithmeticError("the loss is not finite during warm-up")
        renew()
        timing.peak_bytes = peak_bytes(dearest, batch)
    for block in blocks:
        block.calibrate()
    return blocks


def trainer_on_noise(method: Method, problem: Problem, config: TrainingConfig) -> tuple[Trainer, Tensor]:
    """Return a trainer of the method, and a batch of shape (B, *event) drawn from N(0, I), on which it is timed.

    A method whose steps are not alike repeats its work after `Method.period` steps, whatever its own rule says here.
    """
    if (period := method.period(problem)) > 1:
        problem = problem.replace(refresh=period)
    noise = generator(problem.seed, "timing", problem.device)
    dtype = stored(problem.dtype)
    batch = torch.randn(problem.batch, *problem.shape, generator=noise, device=problem.device, dtype=dtype)
    model = build(method, problem)
    with guarded("init_batch"):
        model.init_batch(batch)
    model.module.train()
    return Trainer(model, config, noise, problem.dtype), batch


def time_block(call: Callable[[], object], number: int, device: str) -> float:
    """Return the seconds of one of `number` calls in a row, with the device idle before and after them.

    The seconds of a CUDA device are those of its own events.
    """
    if torch.device(device).type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.synchronize()
            started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            started.record()
            for _ in range(number):
                call()
            ended.record()
            torch.cuda.synchronize()
            return float(started.elapsed_time(ended)) / 1e3 / number
    began = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - began) / number

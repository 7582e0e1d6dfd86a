"""Checks of single training steps: their gradient, what follows them, and the period after which they repeat."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.conformance.catalogue import check
from harness.conformance.checks.learning import fc_log_prob, shared_layers
from harness.conformance.subject import Broken, Subject, closely, draw, parameters, train
from harness.methods import Model, Problem, SharedWeights, Stateful
from harness.methods.density import log_prob
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer

_STEPS = (1e-5, 1e-7, 1e-9)
"""Steps of central differences. The small ones are for losses with a kink nearby, the large ones for noisy losses."""

_TOLERANCE, _OF_ESTIMATES = 1e-5, 1e-3  # of central differences, relative to the length of the gradient

_Value = Callable[[Model], Tensor]


@check(
    "The gradient that training_loss leaves in the parameters is its derivative in the weights, at the start and after "
    "training steps, and log_prob has the derivative of its values",
    "a backward pass written by hand is transposed or off by a factor, a detach or .data cuts a path, a kept inverse "
    "outlives the weights, or the loss itself calls backward; where it is meant, declare own_gradient",
)
def weights_gradient(subject: Subject) -> None:
    subject.needs_training()
    for problem in _problems(subject):
        x = draw(problem, problem.batch)
        where = f"{problem.architecture}, D = {problem.dimension}, L = {problem.layers}"
        where += ", residual" if problem.residual else ""
        dense = subject.method.linear == "dense"
        for seed in range(2 if dense else 1):
            model = subject.model(problem, seed, largest_scale=1.5 if dense else 0.3)
            if subject.method.exact_log_prob:
                _beside_differences(subject, problem, model, _nll(x), f"{where}: NLL")
            model.module.train()
            if subject.method.own_gradient:
                _is_its_own(subject, problem, model, _loss(x))
                continue
            if isinstance(model, Stateful):
                _loss(x)(model)  # makes what the next losses take as given
            _beside_differences(subject, problem, model, _loss(x), f"{where}: the loss at first")
            _train(model, x)
            _beside_differences(subject, problem, model, _loss(x), f"{where}: the loss after three steps")


def _is_its_own(subject: Subject, problem: Problem, model: Model, loss: _Value) -> None:
    if _Slopes(subject, problem, model, loss).first_gap() is None:
        raise Broken(
            f"own_gradient is declared, and the gradient is the derivative of the loss ({problem.architecture})"
        )


def _problems(subject: Subject) -> Iterator[Problem]:
    """Return a problem of every architecture, and the fc at other depths and with the other activation."""
    for problem in subject.one_of_each():
        yield subject.periodic(problem)
    if "fc" in subject.method.architectures:
        problem = subject.periodic(subject.of_architecture("fc")[-1])
        yield problem.replace(layers=2, shape=(12,), batch=130)
        if subject.method.is_papers_fc:
            yield problem.replace(layers=1)
            yield problem.replace(residual=True)


def _nll(x: Tensor) -> _Value:
    return lambda model: -log_prob(model, x).mean()


def _loss(x: Tensor) -> _Value:
    return lambda model: model.training_loss(x, torch.Generator().manual_seed(0))


def _train(model: Model, x: Tensor) -> None:
    """Take three real steps, and look at the model as a validation does."""
    train(model, x, 3)
    model.module.eval()
    with torch.no_grad():
        log_prob(model, x)
    model.module.train()


def _beside_differences(subject: Subject, problem: Problem, model: Model, value: _Value, what: str) -> None:
    slopes = _Slopes(subject, problem, model, value)
    if (gap := slopes.first_gap()) is None:
        return
    call, gradients = gap
    place = f", {call + 1} calls after the weights changed" if slopes.period > 1 else ""
    along, slope = slopes.along(gradients)
    name, of_name, slope_of_name = slopes.furthest_off(gradients)
    raise Broken(
        f"{what}{place}: along a random direction {along:.6g} instead of {slope:.6g}; the gradient of {name} is "
        f"furthest off, {of_name:.6g} instead of {slope_of_name:.6g}"
    )


class _Slopes:
    """The derivatives of a value along random directions in the space of the weights, by central differences.

    They are taken at the weights of a model, in the mode that it is in. Where steps are not alike, a value and a
    gradient are taken when a whole period has gone by since the weights moved.
    """

    def __init__(self, subject: Subject, problem: Problem, model: Model, value: _Value) -> None:
        self.subject, self.problem, self.model, self.value = subject, problem, model, value
        self.period = subject.method.period(problem)
        self.start = subject.afresh(problem, model)  # with the memory that the model has before its gradients are taken
        generator = torch.Generator().manual_seed(6)
        self.directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for _, p in parameters(model)]
        self._of_all: list[float] = []

    def first_gap(self) -> tuple[int, list[Tensor]] | None:
        """Return the number and the gradients of the first call whose gradients are not the derivatives, or None."""
        tolerance = _TOLERANCE if self.subject.method.exact_log_prob else _OF_ESTIMATES
        for call in range(2 * self.period - 1):
            gradients = gradients_left(self.model, self.value)
            length = _length(gradients)
            if call < self.period - 1 and math.isfinite(length):
                continue
            along, slope = self.along(gradients)
            if not abs(along - slope) <= tolerance * length:
                return call, gradients
        return None

    def along(self, gradients: list[Tensor], only: int | None = None) -> tuple[float, float]:
        """Return the derivative by the gradients, and the nearest central difference; of one parameter if told."""
        directions = [d if only in (None, at) else torch.zeros_like(d) for at, d in enumerate(self.directions)]
        along = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        if only is not None:
            return along, self._slope(directions, _STEPS[1])
        self._of_all = self._of_all or [self._slope(directions, step) for step in _STEPS]
        return along, min(self._of_all, key=lambda slope: abs(slope - along))

    def furthest_off(self, gradients: list[Tensor]) -> tuple[str, float, float]:
        """Return the name of the parameter whose gradient is off furthest, its derivative, and the right one."""
        told = [(name, *self.along(gradients, at)) for at, (name, _) in enumerate(parameters(self.model))]
        return max(told, key=lambda one: abs(one[1] - one[2]))

    def _slope(self, directions: list[Tensor], step: float) -> float:
        ahead, behind = (self._displaced(directions, sign * step) for sign in (1, -1))
        return (ahead - behind) / (2 * step)

    def _displaced(self, directions: list[Tensor], step: float) -> float:
        moved = self.subject.afresh(self.problem, self.start)
        moved.module.train(self.model.module.training)
        with torch.no_grad():
            for (_, parameter), direction in zip(parameters(moved), directions, strict=True):
                parameter.add_(direction, alpha=step)
        values = [float(self.value(moved).detach()) for _ in range(self.period)]
        return values[-1]


def gradients_left(model: Model, value: _Value) -> list[Tensor]:
    """Return what a backward pass leaves in the parameters."""
    for _, parameter in parameters(model):
        parameter.grad = None
    value(model).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for _, p in parameters(model)]


@check(
    "A training step goes down the loss: after_step leaves the weights where the optimiser put them, or restores a "
    "constraint; a method with the paper's dense layers takes the step of the paper's fc",
    "after_step decays, rounds or averages the weights, or the layers are held in another scale than is read",
)
def training_step(subject: Subject) -> None:
    """Take a step so small that whatever else after_step does outweighs it."""
    subject.needs_training()
    for problem in map(subject.periodic, subject.one_of_each()):
        model, x = subject.model(problem), draw(problem)
        model.module.train()
        for steps in (0, 30):
            train(model, x, steps)
            for call in range(subject.method.period(problem)):
                _one_step(subject, problem, model, x, f"{problem.architecture}, step {steps + call + 1}")
    if subject.method.is_papers_fc and subject.method.objective == "ml" and subject.method.linear == "dense":
        for residual in (False, True):
            _beside_reference(subject, residual)


def _one_step(subject: Subject, problem: Problem, model: Model, x: Tensor, where: str) -> None:
    gradients = gradients_left(model, _loss(x))
    squares = _length(gradients) ** 2
    size = abs(float(_loss(x)(subject.afresh(problem, model)).detach()))
    rate = 1e-7 * (1 + size) / squares
    with torch.no_grad():
        for (_, parameter), gradient in zip(parameters(model), gradients, strict=True):
            parameter.sub_(gradient, alpha=rate)
    trained = dict(parameters(model))
    stepped = [parameter.detach().clone() for parameter in trained.values()]
    model.after_step()
    if replaced := [name for name, parameter in parameters(model) if parameter is not trained.get(name)]:
        raise Broken(f"{where}: after_step puts another parameter in the place of {replaced[0]}, and none is trained")
    moved = [after.detach() - before for (_, after), before in zip(parameters(model), stepped, strict=True)]
    beyond = _length(moved)
    left = _length([move - rate * gradient for move, gradient in zip(moved, gradients, strict=True)])
    if not left > 1e-3 * rate * math.sqrt(squares):
        raise Broken(f"{where}: after_step undoes the step, all but {left:.2g} of {rate * math.sqrt(squares):.2g}")
    # A constraint is restored by at most as much as the step broke it; a power iteration goes on in an estimate.
    allowed = rate * math.sqrt(squares) * (1 + 1e-6) if subject.method.exact_log_prob else math.inf
    if not beyond <= allowed:
        raise Broken(f"{where}: after_step moves the weights by {beyond:.2g}, the step itself by {allowed:.2g}")


def _length(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors))


def _beside_reference(subject: Subject, residual: bool) -> None:
    """Take one step of gradient descent from equal weights, where the parameters are the numbers of the layers."""
    problem = Problem(shape=(5,), layers=3, dtype="float64", noise=0.5, residual=residual)
    model, x = subject.model(problem), draw(problem)
    if not isinstance(model, SharedWeights):
        raise Broken("linear='dense' is declared without load_linear_layers and linear_layers")
    layers = [(w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in shared_layers(subject.method)]
    model.load_linear_layers([(weight.detach(), bias.detach()) for weight, bias in layers])
    held = torch.cat([parameter.detach().flatten() for _, parameter in parameters(model)]).sort().values
    read = torch.cat([tensor.flatten() for layer in model.linear_layers() for tensor in layer]).sort().values
    if held.shape != read.shape or not torch.allclose(held, read, rtol=1e-12, atol=1e-12):
        return  # another parametrisation of the same layers takes other steps
    (-fc_log_prob(layers, x, residual).mean()).backward()
    model.module.train()
    for (_, parameter), gradient in zip(parameters(model), gradients_left(model, _loss(x)), strict=True):
        parameter.data.sub_(gradient, alpha=0.01)
    model.after_step()
    for index, (ours, theirs) in enumerate(zip(layers, model.linear_layers(), strict=True)):
        for name, ready, actual in zip(("W", "b"), ours, theirs, strict=True):
            expected = ready.detach() - 0.01 * (torch.zeros_like(ready) if ready.grad is None else ready.grad)
            closely(actual, expected, 1e-9, f"residual={residual}, {name} of layer {index} after a step of SGD at 0.01")


@check(
    "All training steps do the same work, or the method declares after how many they repeat and takes "
    "Problem.refresh as that number",
    "an inverse or a factorisation is kept for some steps: declare periods, and refresh it every Problem.refresh steps",
)
def period(subject: Subject) -> None:
    subject.needs_training()
    for problem in subject.one_of_each():
        if problem.architecture not in subject.method.periods:
            _all_alike(subject, problem)
            continue
        for steps in (_SHORT, subject.method.periods[problem.architecture]):
            _repeats(subject, problem.replace(refresh=steps), steps)


_SHORT = 3  # steps
_MOST_STEPS = 105
_MOST_OPERATIONS = 15_000


class _Operations(TorchDispatchMode):
    """Counts the operations of torch by their names."""

    def __init__(self) -> None:
        # The base class keeps the state of the mode and must be initialised; torch wrote its __init__ without types,
        # and mypy's strict mode refuses every call of such a function.
        super().__init__()  # type: ignore[no-untyped-call]  # no annotations in torch
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def _work(trainer: Trainer, x: Tensor, same_noise: bool = False) -> Counter[str]:
    """Take a step, and count the operations of the method in it."""
    if same_noise:
        trainer.generator.manual_seed(0)
    with _Operations() as operations:
        trainer.gradient(x)
    trainer.optimizer.step()
    with operations:
        trainer.model.after_step()
    return operations.counts


def _trainer(subject: Subject, problem: Problem, learning_rate: float) -> Trainer:
    model = subject.model(problem)
    model.module.train()
    config = TrainingConfig(optimizer="adam", learning_rate=learning_rate, ema_decay=None)
    return Trainer(model, config, torch.Generator().manual_seed(0))


def _all_alike(subject: Subject, problem: Problem) -> None:
    """Compare the kinds of operations while the weights move, and their numbers while they stay, from step 2 on.

    Numbers may follow from the weights, as those of a solver do that looks at its error.
    """
    x = draw(problem)
    moving, still = _trainer(subject, problem, 1e-3), _trainer(subject, problem, 1e-30)
    for trainer in (moving, still):
        _work(trainer, x)  # what is made once
    for trainer, where in ((moving, "while the weights move"), (still, "while the weights stay")):
        second = _work(trainer, x, same_noise=True)
        for step in range(3, min(_MOST_STEPS, 4 + _MOST_OPERATIONS // max(1, second.total()))):
            counts = _work(trainer, x, same_noise=True)
            unlike = sorted(counts.keys() ^ second.keys())
            if trainer is still and not unlike:
                unlike = sorted(name for name in counts if counts[name] != second[name])
            if unlike:
                told = ", ".join(f"{name} {counts[name]} times and not {second[name]}" for name in unlike[:3])
                raise Broken(
                    f"{problem.architecture}: step {step} {where} does other work than step 2 ({told}), and no period "
                    "is declared"
                )


def _repeats(subject: Subject, problem: Problem, steps: int) -> None:
    """Compare every step with the one a period before; a first period may be unlike the others."""
    x = draw(problem)
    trainer = _trainer(subject, problem, 1e-3)
    work = []
    for _ in range(3 * steps + 1):
        work.append(_work(trainer, x, same_noise=True))
        if len(work) == steps + 2:  # a validation is no step
            trainer.model.module.eval()
            with torch.no_grad():
                log_prob(trainer.model, x)
            trainer.model.module.train()
    where = f"{problem.architecture}, refresh={steps}"
    if steps > 1 and all(counts == work[steps] for counts in work[steps:]):
        raise Broken(f"{where}: all steps do the same work, though a period is declared")
    for step in range(steps, len(work) - steps):
        if work[step].keys() != work[step + steps].keys():
            raise Broken(f"{where}: step {step + steps + 1} does other work than step {step + 1}, {steps} steps before")

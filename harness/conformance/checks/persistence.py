"""Checks of what a model remembers: modes, repeats, edits of weights, copies, and checkpoints."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.conformance.catalogue import check
from harness.conformance.subject import Broken, Inapplicable, Subject, closely, draw, parameters, train
from harness.methods import Model, Problem, Stateful
from harness.methods.density import build, log_prob
from harness.training.configuration import TrainingConfig
from harness.training.state import TrainingState
from harness.training.step import Trainer


@check(
    "Two calls of log_prob give the same bits, unless exact_log_prob=False declares that they do not",
    "to_latent adds noise, such as a stochastic estimate of the log-determinant or dropout",
)
@torch.no_grad()
def repeats(subject: Subject) -> None:
    problem = subject.largest()
    model, x = subject.model(problem), draw(problem)
    values = torch.stack([log_prob(model, x) for _ in range(20)])
    spread = float(values.std(0).max())
    same = bool((values == values[0]).all())
    if subject.method.exact_log_prob and not same:
        raise Broken(f"the values differ by {spread:.2g} nats")
    if not subject.method.exact_log_prob:
        if same:
            raise Broken("exact_log_prob=False is declared, and twenty calls give the same bits")
        raise Inapplicable(f"log_prob is declared an estimate (standard deviation {spread:.2g} nats a sample here)")


@check(
    "log_prob is the same in training and in evaluation mode",
    "dropout, batch normalisation, or a cache that evaluation mode switches on changes what is computed",
)
@torch.no_grad()
def modes(subject: Subject) -> None:
    """Evaluate before training mode is on, so that a start from the first batch seen is noticed too."""
    subject.needs_exact_log_prob()
    for problem in subject.one_of_each():
        model, x = subject.model(problem), draw(problem)
        evaluated = log_prob(model, x)
        model.module.train()
        closely(log_prob(model, x), evaluated, 1e-12, f"{problem.architecture}: train() beside eval()")
        if subject.method.iterative:
            with torch.enable_grad():
                train(model, x, 2)
            trained = log_prob(model, x)
            model.module.eval()
            where = f"{problem.architecture}: after two training steps, eval() beside train()"
            closely(log_prob(model, x), trained, 1e-12, where)


@check(
    "log_prob follows every way of changing the weights: in place, through .data, load_state_dict, an optimiser",
    "a stored matrix, determinant or transform outlives the weights (nflows' using_cache, a built zuko transform)",
)
@torch.no_grad()
def staleness(subject: Subject) -> None:
    subject.needs_exact_log_prob()
    problem = subject.largest()
    model, other, x = subject.model(problem), subject.model(problem, seed=1), draw(problem)
    log_prob(model, x)
    model.module.load_state_dict(other.module.state_dict())
    closely(log_prob(model, x), log_prob(other, x), 1e-9, "after load_state_dict, against the model that it came from")
    for how in ("in place", "through .data", "by an optimiser"):
        before = log_prob(model, x)
        _edit(model, how)
        after = log_prob(model, x)
        if torch.equal(before, after):
            raise Broken(f"after a change {how} log_prob is what it was before")
        fresh = build(subject.method, problem)
        fresh.module.load_state_dict(model.module.state_dict())
        fresh.module.eval()
        closely(after, log_prob(fresh, x), 1e-9, f"after a change {how}, against a model made afresh")


def _edit(model: Model, how: str) -> None:
    trained = [parameter for _, parameter in parameters(model)]
    if not trained:  # a closed form may hold what it is fitted to as it likes
        trained = [tensor for tensor in model.module.state_dict(keep_vars=True).values() if tensor.is_floating_point()]
    if how == "by an optimiser":
        for parameter in trained:
            parameter.grad = torch.ones_like(parameter)
        torch.optim.SGD(trained, lr=0.01).step()
        model.after_step()
        return
    for parameter in trained:
        if how == "in place":
            parameter.mul_(1.01)
        else:
            parameter.data = 1.01 * parameter.data


@dataclass(frozen=True)
class _Given:
    """A problem with data and with latents to make samples of."""

    problem: Problem
    x: Tensor
    noise: Tensor


@check(
    "Values, inverse and samples are those of the weights of now: after training steps, in both modes, under averaged "
    "weights, after loading in either mode, and after any edit",
    "to_data or to_latent keeps an inverse, a matrix or a normaliser from an earlier call, and only some ways of "
    "changing the weights make it be taken anew; compute it at every call",
)
def after_training(subject: Subject) -> None:
    """Compare with a model that is made afresh from the state; all that may be kept is filled before every change."""
    for problem in map(subject.periodic, subject.one_of_each()):
        model, x = subject.model(problem, largest_scale=0.1), draw(problem)
        given = _Given(problem, x, subject.noise(model.to_latent(x)[0].detach()))
        _same_as_afresh(subject, given, model, "as it starts")
        if subject.method.iterative:
            _trained(subject, given, model)
        other = subject.model(problem, seed=1, largest_scale=0.1)
        for training in (True, False):
            for to, state in (("others", other), ("its own", subject.afresh(problem, model))):
                model.module.train(training)
                model.module.load_state_dict(state.module.state_dict())
                if isinstance(model, Stateful) and isinstance(state, Stateful):
                    model.set_extra_state(state.get_extra_state())
                mode = "train()" if training else "eval()"
                _same_as_afresh(subject, given, model, f"after loading weights, {to}, in {mode}", training)
        for how in ("in place", "through .data"):
            with torch.no_grad():
                _edit(model, how)
            _same_as_afresh(subject, given, model, f"after a change {how}")
        for name, parameter in parameters(model):
            parameter.data = 1.01 * parameter.data
            _same_as_afresh(subject, given, model, f"after a change of {name} alone")


def _trained(subject: Subject, given: _Given, model: Model) -> None:
    """Train a model, and look at it in all the ways in which a training does."""
    config = TrainingConfig(optimizer="adam", learning_rate=0.01)
    trainer = Trainer(model, config, torch.Generator().manual_seed(0))
    for training in (True, False):
        model.module.train()
        for step in range(2):
            trainer.step(given.x)
            if training:
                _same_as_afresh(subject, given, model, f"after training step {step + 1}, in train()", training)
        _same_as_afresh(subject, given, model, "after training steps and eval()")
        with trainer.evaluated_weights():
            _same_as_afresh(subject, given, model, "with the averaged weights in place")
        _same_as_afresh(subject, given, model, "with the trained weights back in place")


@torch.no_grad()
def _same_as_afresh(subject: Subject, given: _Given, model: Model, when: str, training: bool = False) -> None:
    """Compare all that a model computes with what a new model of the same state computes, which has kept nothing.

    The model gets the same tensors every time, as a validation set is: an answer may be kept by the argument too.
    """
    problem, x, noise = given.problem, given.x, given.noise
    fresh = subject.afresh(problem, model)
    for each in (model, fresh):
        each.module.train(training)
    where = f"{problem.architecture}, {when}"
    z, log_det = fresh.to_latent(x.clone())
    actual_z, actual_log_det = model.to_latent(x)
    closely(actual_z, z, 1e-9, f"{where}: z")
    if subject.method.exact_log_prob:
        closely(actual_log_det, log_det, 1e-9, f"{where}: log|det|")
    if subject.method.samples:
        closely(model.to_data(noise), fresh.to_data(noise.clone()), 1e-7, f"{where}: samples")
        closely(model.to_data(actual_z), x, 1e-3, f"{where}: to_data of to_latent")


@check(
    "A state dict and a deep copy hold the whole model, and .to() moves all of it",
    "a tensor is neither parameter nor buffer, or a buffer has persistent=False and is not rebuilt",
)
@torch.no_grad()
def copies(subject: Subject) -> None:
    """Load a checkpoint into a new model, copy the module as the average of weights does, go to float32 and back."""
    for problem in subject.one_of_each():
        model, x = subject.model(problem), draw(problem)
        fresh = build(subject.method, problem.replace(seed=1))
        missing = fresh.module.load_state_dict(model.module.state_dict(), strict=False)
        if missing.missing_keys or missing.unexpected_keys:
            raise Broken(f"{problem.architecture}: a new model has other entries: {missing}")
        fresh.module.eval()
        duplicate = copy.deepcopy(model.module)
        subject.needs_exact_log_prob()
        expected = log_prob(model, x)
        closely(log_prob(fresh, x), expected, 1e-9, f"{problem.architecture}: a new model with the state dict")
        for parameter in duplicate.parameters():
            parameter.zero_()
        closely(log_prob(model, x), expected, 1e-12, f"{problem.architecture}: after zeroing a deep copy")
        model.module.float()
        model.module.double()
        closely(log_prob(model, x), expected, 1e-4, f"{problem.architecture}: after .to(float32) and back")


@check(
    "What a model computes after its start does not depend on which call comes first",
    "the model starts from the first batch that any call sees; let it start in init_batch, and nowhere else",
)
@torch.no_grad()
def first_call(subject: Subject) -> None:
    subject.needs_exact_log_prob()
    subject.needs_training()
    for problem in subject.one_of_each():
        x = draw(problem)
        first, second = (build(subject.method, problem) for _ in range(2))
        log_prob(second, 10 * x)
        closely(log_prob(second, x), log_prob(first, x), 1e-12, f"{problem.architecture}: after seeing other data")


@check(
    "A training that is stopped and goes on in a new model takes the same steps, to the bit",
    "a counter, an average or a generator lies outside the module's state dict; make it a buffer, or offer "
    "harness.methods.Stateful",
)
def resume(subject: Subject) -> None:
    """Take two steps, give the state to a new model that is started from the same data, and go on in both.

    Where steps are not alike, the second step is in the middle of a period, and both go on for longer than one.
    """
    subject.needs_training()
    problems = [p for problem in subject.one_of_each() for p in (problem, subject.periodic(problem))]
    for problem in dict.fromkeys(problems):
        x = draw(problem)
        first, second = (_trainer(subject.started(problem)) for _ in range(2))
        for _ in range(2):
            first.step(x)
        with torch.no_grad():
            log_prob(first.model, x)  # a validation
        tensors, numbers = TrainingState(first).packed()
        TrainingState(second).restore({name: tensor.clone() for name, tensor in tensors.items()}, numbers)
        steps = 1 + (subject.method.period(problem) if problem.refresh else 1)
        names = "the loss of the next step", *["the loss after it"] * (steps - 1), "log_prob after these"
        for name, ours, theirs in zip(names, _steps(second, x, steps), _steps(first, x, steps), strict=True):
            if not torch.equal(ours, theirs):
                gap = float((ours - theirs).abs().max())
                raise Broken(f"{problem.architecture}: {name} differs by {gap:.2g} from that of the model that went on")
        after, _ = TrainingState(first).packed()
        for name, value in TrainingState(second).packed()[0].items():
            if not torch.equal(value, after[name]):
                raise Broken(f"{problem.architecture}: {name} is not that of the model that went on")


def _trainer(model: Model) -> Trainer:
    model.module.train()
    return Trainer(model, TrainingConfig(learning_rate=1e-3), torch.Generator().manual_seed(0))


def _steps(trainer: Trainer, x: Tensor, steps: int) -> list[Tensor]:
    losses = [trainer.step(x) for _ in range(steps)]
    trainer.model.module.eval()
    with torch.no_grad():
        return [*losses, log_prob(trainer.model, x)]

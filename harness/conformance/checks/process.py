"""Checks of what a method does to the process, and of what its models have in common there."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from harness.conformance.catalogue import check
from harness.conformance.checks.learning import shared_layers
from harness.conformance.subject import Broken, Inapplicable, Subject, closed_form, closely, draw
from harness.errors import one_line
from harness.methods import Model, Observed, Problem, SharedWeights, Stateful
from harness.methods.density import build, log_prob
from harness.methods.shared_settings import restored
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer

_THREADS = 3  # a number that no method would choose, so that a choice shows
_SECONDS = 20.0


@check(
    "A model is the same whether or not the process has built, trained and used other models of the method before",
    "a class attribute, a module's variable or a functools.cache keeps what the first model made, such as its "
    "permutation, its statistics or a count of steps",
    first=True,
)
def earlier_models(subject: Subject) -> None:
    """Compare models that are made here after others with models that are made first, in a copy of this process."""
    if "fork" not in multiprocessing.get_all_start_methods():
        raise Inapplicable("this system cannot copy a process")
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_made_first, args=(there, subject), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(_SECONDS):
            raise Broken(f"a copy of the process does not build and use a model within {_SECONDS:g} s")
        alone, reason = here.recv()
    except EOFError:
        alone, reason = {}, "it died"
    finally:
        process.kill()
        process.join()
    if reason:
        raise Broken(f"in a copy of the process: {reason}")
    for problem in subject.one_of_each():
        for other in (problem.replace(seed=3), *subject.of_architecture(problem.architecture)[:1]):
            _use_another(subject, other)
    for name, value in _numbers(subject).items():
        closely(
            value, torch.from_numpy(alone[name]), 1e-9, f"{name}, after other models beside that of the first model"
        )


def _made_first(connection: Connection, subject: Subject) -> None:
    torch.set_num_threads(1)  # threads do not outlive the copying of a process
    try:
        answer = {name: value.numpy() for name, value in _numbers(subject).items()}, ""
    except Exception as error:
        answer = {}, one_line(error)
    connection.send(answer)


@torch.no_grad()
def _numbers(subject: Subject) -> dict[str, Tensor]:
    """Return the start of a model of every architecture, and what it computes; no gradient is taken."""
    numbers: dict[str, Tensor] = {}
    for problem in subject.one_of_each():
        model, x, where = subject.started(problem), draw(problem), problem.architecture
        state = model.module.state_dict()
        numbers |= {f"{where}: {name}": value for name, value in state.items() if isinstance(value, Tensor)}
        model.module.eval()
        z, log_det = model.to_latent(x)
        numbers |= {f"{where}: z": z, f"{where}: log|det|": log_det}
        if subject.method.samples:
            numbers[f"{where}: to_data"] = model.to_data(subject.noise(z))
    real = {name: torch.view_as_real(value) if value.is_complex() else value for name, value in numbers.items()}
    return {name: value.detach().double().clone() for name, value in real.items()}


@check(
    "Two models that are alive at once have nothing in common: one trains and computes as if the other were not there",
    "a class attribute, a mutable default argument or a cache of the module holds weights, inverses or counts of both, "
    "or build returns the same model twice",
)
def two_models(subject: Subject) -> None:
    """Train a model alone, and train it again while others are built, trained and used between its steps."""
    for problem in map(subject.periodic, subject.one_of_each()):
        alone = _life(subject, problem, lambda: None)
        _use_another(subject, subject.of_architecture(problem.architecture)[0])
        beside = _life(subject, problem, partial(_use_another, subject, problem.replace(seed=3)))
        for name, value in beside.items():
            closely(value, alone[name], 1e-12, f"{problem.architecture}: {name}, beside other models")


def _life(subject: Subject, problem: Problem, between: Callable[[], None]) -> dict[str, Tensor]:
    """Return what a model computes from its start to the end of a short training; `between` is called between calls."""
    x, told = draw(problem), {}
    model = subject.started(problem)
    between()
    if subject.method.iterative:
        model.module.train()
        config = TrainingConfig(optimizer="adam", learning_rate=0.01)
        trainer = Trainer(model, config, torch.Generator().manual_seed(0))
        for step in range(subject.method.period(problem) + 1):
            told[f"the loss of step {step + 1}"] = trainer.step(x)
            between()
    model.module.eval()
    with torch.no_grad():
        for name in ("log_prob", "log_prob at the second call"):
            told[name] = log_prob(model, x)
            between()
        if subject.method.samples:
            z = subject.noise(model.to_latent(x)[0])
            for name in ("to_data", "to_data at the second call"):
                told[name] = model.to_data(z)
                between()
    return told


@torch.enable_grad()
def _use_another(subject: Subject, problem: Problem) -> None:
    """Build, start, train and use a model on data of its own."""
    model, x = build(subject.method, problem), 2 * draw(problem, 50, seed=4) + 1
    if subject.method.iterative:
        model.init_batch(x)
        model.module.train()
        config = TrainingConfig(optimizer="adam", learning_rate=1e-3)
        Trainer(model, config, torch.Generator().manual_seed(5)).step(x[:7])
    else:
        closed_form(model).fit([x])
    model.module.eval()
    with torch.no_grad():
        z = model.to_latent(x)[0]
        if subject.method.samples:
            where = f"{problem.architecture}, a model of another seed or size: to_data of to_latent"
            closely(model.to_data(z), x, 1e-2, where)


@check(
    "No call changes a setting that all code shares (torch's defaults and modes, numpy's error state, warnings "
    "filters, environment variables and so on), or the random states of torch, numpy and Python",
    "noise comes from torch.randn, numpy or random without the given generator, or a setting is made and left on",
    first=True,
)
def global_state(subject: Subject) -> None:
    torch.set_num_threads(_THREADS)
    with _watched("building"):
        problems = [subject.periodic(problem) for problem in (subject.smallest(), *subject.one_of_each())]
    for problem in dict.fromkeys(problems):
        _watch_a_life(subject, problem)


def _watch_a_life(subject: Subject, problem: Problem) -> None:
    """Watch every call from building to sampling, over a whole period of steps."""
    with _watched("building"):
        model = build(subject.method, problem)
    x = draw(problem)
    if subject.method.iterative:
        with _watched("init_batch"):
            model.init_batch(x)
        for _ in range(subject.method.period(problem) + 1):  # the first step may be unlike the others
            with _watched("training_loss"):
                model.training_loss(x, torch.Generator().manual_seed(0)).backward()
            with _watched("after_step"):
                model.after_step()
        if isinstance(model, Observed):
            with _watched("observations"):
                model.observations()
    else:
        with _watched("fit"):
            closed_form(model).fit([draw(problem, 50)])
    with _watched("eval() or the state dict"):
        model.module.eval()
        model.module.load_state_dict(copy.deepcopy(model.module).state_dict())
    if isinstance(model, SharedWeights) and subject.method.is_papers_fc and problem.shape == (5,):
        with _watched("load_linear_layers or linear_layers"):
            model.load_linear_layers(shared_layers(subject.method))
            model.linear_layers()
    if isinstance(model, Stateful):
        with _watched("get_extra_state or set_extra_state"):
            model.set_extra_state(model.get_extra_state())
    _watch_evaluation(subject, model, x)


def _watch_evaluation(subject: Subject, model: Model, x: Tensor) -> None:
    for _ in range(2):
        with _watched("to_latent"):
            z = model.to_latent(x)[0].detach()
        if subject.method.samples:
            with _watched("to_data"):
                model.to_data(z)


@contextmanager
def _watched(what: str) -> Iterator[None]:
    with restored(random_states=True, interpreter=True) as changed:
        yield
    if changed:
        raise Broken(f"{what} changes {', '.join(changed)}")

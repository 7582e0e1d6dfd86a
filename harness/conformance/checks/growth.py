"""Checks of what training leaves behind: parameters that no optimiser sees, and memory, work and files that grow."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import torch
from torch import Tensor

from harness.conformance.catalogue import check
from harness.conformance.subject import Broken, Subject, closed_form, draw, train
from harness.methods import Model, Problem, SharedWeights
from harness.methods.density import build
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer


@check(
    "All that training moves is a parameter of `module` before the first step, and the same one after every step",
    "tensors that require a gradient lie in a list or a dict of the model (use torch.nn.ParameterList), a parameter is "
    "made at the first call, or a new one replaces it: the optimiser keeps the old one, and no state dict fits",
)
def all_parameters(subject: Subject) -> None:
    for problem in subject.one_of_each():
        model, x = subject.started(problem), draw(problem)
        held = dict(model.module.named_parameters())
        names = set(model.module.state_dict())
        calls = ["to_latent", "training_loss"] if subject.method.iterative else ["to_latent"]
        for name in calls:
            first, second = (_leaves(model, name, x) for _ in range(2))  # a leaf of one call alone was made by the call
            kept = [leaf for leaf in first if any(leaf is other for other in second)]
            for leaf in kept:
                if not any(leaf is parameter for parameter in model.module.parameters()):
                    raise Broken(
                        f"{problem.architecture}: {name} depends on a tensor of shape {tuple(leaf.shape)} that "
                        "requires a gradient and is no parameter of the module"
                    )
        if subject.method.iterative:
            train(model, x, 3)
            model.to_latent(x)
            _expect_same(model, held, names, f"{problem.architecture}: after three steps")
        if subject.method.is_papers_fc and problem.architecture == "fc" and isinstance(model, SharedWeights):
            with suppress(ValueError):  # triangular factors may refuse what rounding has made of their own product
                model.load_linear_layers([(w.clone(), b.clone()) for w, b in model.linear_layers()])
            _expect_same(model, held, names, f"{problem.architecture}: after load_linear_layers")


def _expect_same(model: Model, held: dict[str, torch.nn.Parameter], names: set[str], when: str) -> None:
    now = dict(model.module.named_parameters())
    if changed := [name for name in {**held, **now} if held.get(name) is not now.get(name)]:
        raise Broken(f"{when} {', '.join(changed[:3])} is another parameter than at the start, or a new one")
    if other := names ^ set(model.module.state_dict()):
        raise Broken(f"{when} the state dict has other entries than at the start: {', '.join(sorted(other)[:3])}")


def _leaves(model: Model, call: str, x: Tensor) -> list[Tensor]:
    """Return the tensors whose gradients a backward pass from the result of a call adds to."""
    if call == "training_loss":
        results = [model.training_loss(x, torch.Generator().manual_seed(0))]
    else:
        results = list(model.to_latent(x))
    return [node.variable for node in _nodes(results) if hasattr(node, "variable")]


def _nodes(results: list[Tensor]) -> set[Any]:
    """Return all nodes of the graphs that these results were computed by."""
    seen: set[Any] = set()
    waiting = [result.grad_fn for result in results]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return seen


_ROUNDS, _STEPS = 4, 4
_BYTES = 1500  # a step; a number that is kept takes 32, the code itself some hundred while it warms up


@check(
    "A step takes as much memory and work after many steps as after a few, and so does an evaluation",
    "losses, latents or samples are kept with or without their graphs (keep loss.item(), and no more of them than are "
    "used), a hook is registered at every call, or a step goes through all steps before it",
)
def steady_steps(subject: Subject) -> None:
    problem = subject.smallest(batch=64)
    model, x = subject.started(problem), draw(problem, 64)
    if subject.method.iterative:
        trainer = Trainer(model, TrainingConfig(), torch.Generator().manual_seed(0))
    period = subject.method.period(problem)

    def work() -> None:
        for _ in range(-(-_STEPS // period) * period):
            if subject.method.iterative:
                model.module.train()
                trainer.step(x)
            model.module.eval()
            with torch.no_grad():
                z = model.to_latent(x[:16])[0]
                if subject.method.samples:
                    model.to_data(z)

    measured = []
    tracemalloc.start()
    gc.collect()
    gc.freeze()  # what is there already is looked through no more
    try:
        work()
        for _ in range(_ROUNDS):
            calls = _calls(work)
            gc.collect()
            tensors = [thing for thing in gc.get_objects() if type(thing) in (Tensor, torch.nn.Parameter)]
            nodes = len(_nodes([tensor for tensor in tensors if tensor.grad_fn is not None]))
            storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
            held = sum(storages.values()), tracemalloc.get_traced_memory()[0]
            measured.append((len(tensors), nodes, calls, *held))
            del tensors
    finally:
        gc.unfreeze()
        tracemalloc.stop()
    names = "tensors alive", "nodes of graphs kept", "calls made", "bytes of tensors alive", "bytes held by Python"
    least = 1, 1, 1, _STEPS, _BYTES * _STEPS
    for name, values, step in zip(names, zip(*measured, strict=True), least, strict=True):
        growth = [later - earlier for earlier, later in pairwise(values)]
        # By about as much every time; a solver's steps come and go.
        if step <= min(growth) and max(growth) <= 3 * min(growth):
            raise Broken(f"{name} after every {_STEPS} steps with an evaluation each: {', '.join(map(str, values))}")


def _calls(work: Any) -> int:
    """Return the number of calls that this work makes, those of C functions included."""
    count = 0

    def told(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(told)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@check(
    "A model that is gone leaves no file open, no thread or process running, and no file in the working folder",
    "a log or a file of data is opened and never closed, a loader's workers or a thread are never joined, or results "
    "are written by the model; the harness keeps what is worth keeping",
)
def left_behind(subject: Subject) -> None:
    problem = subject.smallest()
    with _empty_folder() as folder:
        _use(subject, problem)  # libraries open what they need once
        before = _running()
        _use(subject, problem)
        for name, values in _running().items():
            if left := values - before[name]:
                raise Broken(f"{len(left)} {name}: {', '.join(map(str, sorted(left, key=str)[:2]))}")
        if files := list(folder.iterdir()):
            raise Broken(f"{len(files)} new files: {', '.join(path.name for path in files[:3])}")


@contextmanager
def _empty_folder() -> Iterator[Path]:
    """Work in an empty folder for a while."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)


def _use(subject: Subject, problem: Problem) -> None:
    """Build and train a model for two steps, evaluate it, and let it go."""
    model, x = build(subject.method, problem), draw(problem, 50)
    if subject.method.iterative:
        model.init_batch(x)
        train(model, x, 2)
    else:
        closed_form(model).fit([x])
    with torch.no_grad():
        z = model.to_latent(x)[0]
        if subject.method.samples:
            model.to_data(z)
    del model
    gc.collect()


def _running() -> dict[str, set[Any]]:
    """Return what of this process outlives a call, by name."""
    process = psutil.Process()
    files = {(link.name, target) for link, target in _links()} if Path("/proc/self/fd").is_dir() else set()
    return {
        "processes still running": set(process.children(recursive=True)),
        "threads still running": set(threading.enumerate()),
        "files left open": files or {(file.fd, file.path) for file in process.open_files()},
    }


def _links() -> Iterator[tuple[Path, str]]:
    for link in Path("/proc/self/fd").iterdir():
        try:
            yield link, str(link.readlink())
        except OSError:
            continue  # the folder's own descriptor, closed by now

"""Checks of shapes, dtypes, devices and sizes, and that nothing is touched that belongs to others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.conformance.catalogue import check
from harness.conformance.subject import Broken, Inapplicable, Subject, closely, draw
from harness.errors import InputError
from harness.methods import Problem
from harness.methods.density import build, log_prob, sample
from harness.methods.precision import stored


@check(
    "A built model has every member of harness.methods.Model, and the declaration is one that tables can show",
    "the class does not inherit harness.methods.Model, and lacks a member",
)
def declaration(subject: Subject) -> None:
    method = subject.method
    if not method.summary or "\n" in method.summary:
        raise Broken("the summary is not one line of text; say what the method trains and what it costs")
    model = subject.started(subject.smallest())
    members = ["to_latent", *(["training_loss", "init_batch", "after_step"] if method.iterative else [])]
    members += ["to_data"] if method.samples else []
    missing = [name for name in members if not callable(getattr(model, name, None))]
    if missing:
        raise Broken(f"the model lacks {', '.join(missing)}")


@check(
    "to_latent maps (B, *event) to z with D numbers a sample and log|det| of shape (B,), to_data maps back, and all "
    "results are real, finite, in the dtype and on the device of the input",
    "a scalar log-determinant is not expanded to the batch, or a tensor is made in torch's default dtype",
)
def shapes(subject: Subject) -> None:
    for dtype in ("float32", "float64"):
        for problem in subject.one_of_each(dtype=dtype):
            model, x = subject.model(problem), draw(problem)
            where = f"{problem.architecture}, {problem.shape}, {dtype}"
            with torch.no_grad():
                z, log_det = model.to_latent(x)
                _expect("z", z.flatten(1), (len(x), problem.dimension), x, where)
                _expect("log|det|", log_det, (len(x),), x, where)
                if subject.method.samples:
                    _expect("to_data", model.to_data(z), x.shape, x, where)
            if wrong := {p.dtype for p in model.module.parameters()} - {stored(dtype)}:
                raise Broken(f"{where}: parameters of {wrong}")


def _expect(name: str, value: Tensor, shape: tuple[int, ...], x: Tensor, where: str) -> None:
    if value.shape != shape:
        raise Broken(f"{where}: {name} has shape {tuple(value.shape)} instead of {tuple(shape)}")
    if value.dtype != x.dtype or value.device.type != x.device.type:
        raise Broken(f"{where}: {name} is {value.dtype} on {value.device}, the input {x.dtype} on {x.device}")
    if not bool(value.isfinite().all()):
        raise Broken(f"{where}: {name} is not finite")


@check(
    "A method takes D = 1, or refuses it by a ValueError of one line when the model is built",
    "a coupling splits one component into two halves, one of them empty",
)
def one_dimension(subject: Subject) -> None:
    if "fc" not in subject.method.architectures:
        raise Inapplicable("none of the method's architectures takes vectors of any length")
    problem = Problem(shape=(1,), layers=1, batch=1, dtype="float64", noise=0.5)
    try:
        build(subject.method, problem)
    except InputError as error:
        raise Inapplicable(f"refused: {error}") from None
    model, x = subject.model(problem), draw(problem)
    _expect("log|det|", model.to_latent(x)[1].detach(), (len(x),), x, "D = 1")


@check(
    "A batch of one sample and an empty batch give log-densities of shape (1,) and (0,), and go through to_data",
    "statistics are taken over the batch, or a squeeze drops the batch axis",
)
def small_batches(subject: Subject) -> None:
    problem = subject.smallest()
    model = subject.model(problem)
    for size in (1, 0):
        x = draw(problem)[:size]
        with torch.no_grad():
            _expect("log_prob", log_prob(model, x), (size,), x, f"B = {size}")
            if subject.method.samples:
                _expect("to_data", model.to_data(model.to_latent(x)[0]), x.shape, x, f"B = {size}")


@check(
    "fc takes images as vectors, so that the same numbers in another shape have the same density",
    "the shape of the problem is used where its dimension is meant",
)
def images(subject: Subject) -> None:
    if "fc" not in subject.method.architectures:
        raise Inapplicable("the method has no fc")
    image, vector = (Problem(shape=shape, layers=2, dtype="float64", noise=0.5) for shape in ((1, 2, 4), (8,)))
    on_images, on_vectors = subject.model(image), subject.model(vector)
    x = draw(image)
    if subject.method.samples:
        _expect("to_data", on_images.to_data(on_images.to_latent(x)[0]), x.shape, x, f"images of {image.shape}")
    subject.needs_exact_log_prob()
    closely(log_prob(on_images, x), log_prob(on_vectors, x.flatten(1)), 1e-9, "log_prob of images beside vectors")


@check(
    "Shapes come out right on torch's meta device, where nothing is computed, as a rehearsal of other devices",
    "a tensor is made on the CPU inside a forward pass, or code looks at values (then declare meta_device=False)",
)
def meta_device(subject: Subject) -> None:
    if not subject.method.meta_device:
        raise Inapplicable("the method declares that its code looks at values")
    for problem in subject.one_of_each(device="meta"):
        architecture, model = problem.architecture, build(subject.method, problem)
        x = torch.empty(7, *problem.shape, dtype=torch.float64, device="meta")
        z, log_det = model.to_latent(x)
        if (log_det.shape, log_det.device.type, z.device.type) != ((7,), "meta", "meta"):
            raise Broken(f"{architecture}: log|det| is {tuple(log_det.shape)} on {log_det.device}, z on {z.device}")
        if subject.method.samples and model.to_data(z).shape != x.shape:
            raise Broken(f"{architecture}: to_data gives another shape than the data's")
        if subject.method.iterative:
            model.training_loss(x).backward()


@check(
    "The values, requires_grad and grad of inputs stay as they are",
    "an operation is in place (a trailing underscore, +=), or x.requires_grad_() changes the caller's own tensor",
)
def inputs(subject: Subject) -> None:
    problem = subject.periodic(subject.smallest())
    model, x = subject.model(problem), 3 * draw(problem)
    z = model.to_latent(x)[0].detach()
    calls: dict[str, Any] = {"to_latent": lambda x, z: model.to_latent(x)}
    if subject.method.samples:
        calls["to_data"] = lambda x, z: model.to_data(z)
    if subject.method.iterative:
        calls["training_loss"] = lambda x, z: model.training_loss(x, torch.Generator().manual_seed(0)).backward()
        calls["init_batch"] = lambda x, z: model.init_batch(x)
    for name, call in calls.items():
        for turn in range(2 * subject.method.period(problem) + 2):
            model.module.train(turn % 2 == 1)
            given = x.clone(), z.clone()
            call(*given)
            for tensor, before in zip(given, (x, z), strict=True):
                if not torch.equal(tensor, before):
                    raise Broken(f"{name} changes the values of its argument")
                if tensor.requires_grad or tensor.grad is not None:
                    raise Broken(f"{name} leaves requires_grad or a gradient on its argument")


@check(
    "Samples follow from the latents that the harness draws, so that one seed gives one result",
    "to_data adds noise of its own, or ignores z",
)
def seeded_samples(subject: Subject) -> None:
    subject.needs_samples()
    problem = subject.smallest()
    model = subject.model(problem)
    shape = model.to_latent(draw(problem))[0].shape[1:]
    first, again, other = (sample(model, shape, 9, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))
    if not torch.equal(first, again):
        raise Broken("two draws with one seed differ")
    if torch.equal(first, other):
        raise Broken("draws with two seeds are the same")


@check(
    "A model's start follows from the problem's seed alone",
    "numbers of the start come from numpy, from a generator of the model's own, or from outside build, or models share "
    "the memory of their weights",
)
@torch.no_grad()
def seeded_start(subject: Subject) -> None:
    """Build again from another place in the global random stream, when the first model's weights have changed."""
    for dtype in ("float32", "float64"):
        problem = subject.smallest(dtype=dtype)
        module = build(subject.method, problem).module
        first = {name: value.clone() for name, value in module.state_dict().items()}
        for parameter in module.parameters():
            parameter.add_(1)
        with torch.random.fork_rng():
            torch.rand(1)
            again = build(subject.method, problem).module.state_dict()
        for name, value in first.items():
            if not torch.equal(value, again[name]):
                raise Broken(f"{dtype}: {name} differs between two builds with one seed, the first one trained since")

"""Checks at other sizes, batches, layouts, data and seeds than those that the other checks take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from harness.conformance.catalogue import check
from harness.conformance.subject import Broken, Subject, closely, draw, jacobians, parameters
from harness.methods import Model, Problem
from harness.methods.density import build, log_prob, refusal, score

_SECONDS = 4.0
"""CPU seconds that D samples may take, one by one; beyond them log|det| is compared with that of float32 alone."""

_WIDE: dict[str, tuple[tuple[int, ...], ...]] = {
    "fc": ((64,), (400,)),
    "toy": ((2,),),
    "multimodal": ((10,),),
    "cnn": ((1, 8, 8), (1, 20, 20)),
    "glow": ((1, 8, 8),),
}

_VECTORS = (((1,), 2), ((3,), 1), ((4,), 4), ((7,), 2))
_SHAPES_AND_LAYERS: dict[str, tuple[tuple[tuple[int, ...], int], ...]] = {
    "fc": (*_VECTORS, ((1, 2, 3), 2), ((2, 2, 2), 1)),
    "toy": (((2,), 1), ((2,), 4)),
    "multimodal": _VECTORS,
    "cnn": (((1, 4, 6), 1), ((1, 6, 4), 2), ((1, 3, 5), 2), ((2, 4, 4), 2), ((3, 4, 4), 1)),
    "glow": (((1, 4, 8), 2), ((1, 8, 4), 2), ((2, 4, 4), 2), ((3, 4, 4), 2)),
}


def others(subject: Subject, table: dict[str, tuple[tuple[tuple[int, ...], int], ...]]) -> Iterator[Problem]:
    """Return the problems of a table of shapes and numbers of layers that the method does not refuse."""
    for architecture in subject.method.architectures:
        for shape, layers in table[architecture]:
            problem = Problem(architecture, shape, layers, batch=7, dtype="float64", noise=0.5)
            if refusal(subject.method, problem) is None:
                yield problem


def where(problem: Problem) -> str:
    """Return architecture, shape and number of layers in words."""
    return f"{problem.architecture}, shape {problem.shape}, L = {problem.layers}"


_LARGEST = 1e6


def expect_right(subject: Subject, model: Model, x: Tensor, place: str, tolerance: float = 1e-7) -> None:
    """Compare log|det| with autograd's, and what comes back from the latents with the data.

    Samples with huge latents are left out: the determinant of their Jacobian has no digits left.

    Raises:
        Broken: if either is wrong, or not a number.
    """
    with torch.no_grad():
        z, log_det = model.to_latent(x)
    if bool(z.isnan().any()) or bool(log_det.isnan().any()):
        raise Broken(f"{place}: z or log|det| is NaN")
    if subject.method.exact_log_prob:
        truth = torch.linalg.slogdet(jacobians(model, x)).logabsdet
        known = z.flatten(1).abs().amax(1) < _LARGEST
        closely(log_det[known], truth[known], tolerance, f"log|det|, {place}")
        x, z = x[known], z[known]
    if subject.method.samples:
        with torch.no_grad():
            closely(model.to_data(z), x, 1e-5, f"to_data after to_latent, {place}")


@check(
    "log|det| is right in 64 and in 400 dimensions, with small weights too, and finite in float32",
    "the logarithm of a determinant, of a product of slopes or of a diagonal is taken: the product is 0 or infinite "
    "from some hundred dimensions on, where torch.linalg.slogdet and a sum of logarithms stay right",
)
def many_dimensions(subject: Subject) -> None:
    subject.needs_exact_log_prob()
    for architecture in subject.method.architectures:
        layers = 2 if architecture != "toy" else 3
        for shape in _WIDE[architecture]:
            problem = Problem(architecture, shape, layers, batch=7, dtype="float64", noise=0.5)
            if refusal(subject.method, problem) is None and not _of_many_dimensions(subject, problem):
                break


def _of_many_dimensions(subject: Subject, problem: Problem) -> bool:
    """Compare log|det| with autograd's where it is affordable; return whether more dimensions are affordable too."""
    place = f"{problem.architecture}, D = {problem.dimension}"
    model, single = (subject.moved(problem.replace(dtype=dtype), 0.1) for dtype in ("float64", "float32"))
    single.module.load_state_dict(model.module.state_dict())
    x = draw(problem, 1)
    started = time.process_time()
    with torch.no_grad():
        log_det = model.to_latent(x)[1]
    affordable = problem.dimension * (time.process_time() - started) < _SECONDS
    with torch.no_grad():
        closely(single.to_latent(x.float())[1], log_det, 1e-2, f"{place}, float32 beside float64")
    for name, factor in (("", 1.0), (", weights of a tenth", 0.1)) if affordable else ():
        with torch.no_grad():
            for _, parameter in parameters(model):
                parameter.mul_(factor if parameter.dim() > 1 else 1)
        truth = torch.linalg.slogdet(_jacobian(model, x)).logabsdet
        closely(model.to_latent(x)[1], truth[None], 1e-7, f"{place}{name}")
    return affordable


def _jacobian(model: Model, x: Tensor) -> Tensor:
    """Return dz/dx, shape (D, D), of one sample, shape (1, *event), by one pass over D copies of it."""
    copies = x.detach().repeat(x.numel(), *[1] * (x.dim() - 1)).requires_grad_()
    with torch.enable_grad():
        z = model.to_latent(copies)[0].flatten(1)
        (rows,) = torch.autograd.grad(z, copies, torch.eye(x.numel(), dtype=x.dtype))
    return rows.flatten(1)


@check(
    "Density and inverse are right for images that are not square, have odd sides or several channels, for D = 1 with "
    "two layers, L = 1 with D > 1, and odd D; or a ValueError of one line refuses the size when the model is built",
    "height and width change places, one channel is taken for granted, a squeeze drops an axis of length one, or the "
    "first or last layer is treated apart",
)
def other_shapes(subject: Subject) -> None:
    for problem in others(subject, _SHAPES_AND_LAYERS):
        model, x = subject.model(problem, largest_scale=0.1), draw(problem, 3)
        expect_right(subject, model, x, where(problem))
        if subject.method.iterative:
            loss = model.training_loss(x, torch.Generator().manual_seed(0))
            if not bool(loss.isfinite()):
                raise Broken(f"{where(problem)}: the loss is {loss.item()}")
            loss.backward()


_MEANS = ("ml", "ssm", "tssm", "dsm", "fdssm", "lcss", "sml")  # losses that are means over the batch
_DRAWS = 24


@check(
    "Losses and densities are right for batches of one, of a few and of many samples, whatever Problem.batch is",
    "Problem.batch or a buffer of its size stands for len(x), a sum stands for a mean, or a start divides by the "
    "standard deviation of a single sample",
)
def batch_sizes(subject: Subject) -> None:
    for problem in subject.one_of_each():
        model, x = subject.model(problem), draw(problem)
        many = torch.cat([x] * 9)
        if subject.method.exact_log_prob:
            with torch.no_grad():
                expected = torch.cat([log_prob(model, x)] * 9)
                closely(log_prob(model, many), expected, 1e-6, f"{problem.architecture}: log_prob at B = {len(many)}")
        if not subject.method.iterative:
            continue
        _start_from_one(subject, problem)
        for batch in (many, x[:3], x[:1]):
            loss = model.training_loss(batch, torch.Generator().manual_seed(0))
            if loss.shape != () or not bool(loss.isfinite()):
                raise Broken(f"{problem.architecture}: the loss at B = {len(batch)} is {loss.tolist()}")
        if subject.method.objective in _MEANS:
            _same_mean(model, many, x, problem)


@torch.no_grad()
def _start_from_one(subject: Subject, problem: Problem) -> None:
    model, x = build(subject.method, problem), draw(problem)
    try:
        model.init_batch(x[:1])
    except ValueError:
        return  # refused
    if not bool(log_prob(model, x).isfinite().all()):
        raise Broken(f"{problem.architecture}: log_prob is not finite after init_batch with one sample")


def _same_mean(model: Model, many: Tensor, few: Tensor, problem: Problem) -> None:
    """Compare the mean loss of a batch with that of the batch several times over."""
    losses = [
        torch.stack([model.training_loss(x, torch.Generator().manual_seed(seed)).detach() for seed in range(_DRAWS)])
        for x in (many, few)
    ]
    error = float(sum(loss.var() / _DRAWS for loss in losses)) ** 0.5
    gap = abs(float(losses[0].mean() - losses[1].mean()))
    if not gap <= 6 * error + 1e-7 * (1 + abs(float(losses[1].mean()))):
        raise Broken(
            f"{problem.architecture}: the loss of a batch of {len(few)} taken nine times over differs by {gap:.2g} "
            f"from that of the batch, standard error {error:.2g}"
        )


@check(
    "The layout of the input does not matter, nor whether it is a leaf, requires a gradient, or comes under "
    "torch.no_grad or torch.inference_mode",
    "a view or as_strided takes the input for contiguous (use flatten or reshape), or to_latent calls autograd itself",
)
def kinds_of_input(subject: Subject) -> None:
    subject.needs_exact_log_prob()
    images = [Problem(shape=(1, 2, 4), layers=2, batch=7, dtype="float64", noise=0.5)]
    for problem in subject.one_of_each() + (images if "fc" in subject.method.architectures else []):
        model, x = subject.model(problem), draw(problem)
        with torch.no_grad():
            expected = log_prob(model, x)
        ways: dict[str, Callable[[Tensor], Tensor]] = {
            "a transposed tensor": lambda x: x.mT.contiguous().mT if x.dim() > 2 else x.t().contiguous().t(),
            "every second row of a tensor": lambda x: x.repeat_interleave(2, 0)[::2],
            "every second component of a tensor": lambda x: x.repeat_interleave(2, -1)[..., ::2],
            "the last rows of a tensor": lambda x: torch.cat([0 * x, x])[len(x) :],
        }
        for name, way in ways.items():
            given = way(x)
            with torch.no_grad():
                closely(log_prob(model, given), expected, 1e-9, f"{problem.architecture}: log_prob of {name}")
            if subject.method.samples:
                z = model.to_latent(x)[0].detach()
                with torch.no_grad():
                    closely(model.to_data(way(z)), model.to_data(z), 1e-9, f"{problem.architecture}: to_data of {name}")
            if subject.method.iterative:
                losses = [model.training_loss(b, torch.Generator().manual_seed(0)) for b in (given, x)]
                closely(losses[0], losses[1], 1e-9, f"{problem.architecture}: the loss of {name}")
        leaf = x.clone().requires_grad_()
        closely(log_prob(model, leaf), expected, 1e-9, f"{problem.architecture}: with requires_grad")
        log_prob(model, 1 * leaf).sum().backward()
        assert leaf.grad is not None
        closely(leaf.grad, score(model, x), 1e-7, f"{problem.architecture}: the score through a tensor that is no leaf")
        with torch.inference_mode():
            closely(log_prob(model, x.clone()), expected, 1e-9, f"{problem.architecture}: in inference mode")


_PLACES = (("shifted by 30", 1.0, 30.0), ("of scale 1e-3", 1e-3, 0.0), ("of scale 100", 100.0, 0.0))


@check(
    "Density, inverse and start are right for data far from zero, and for data of very small and very large scale",
    "a clamp or a floor is in the way, an exponential overflows (softplus and logaddexp do not), or the start takes "
    "data for standardised",
)
def other_data(subject: Subject) -> None:
    for problem in subject.one_of_each():
        data = draw(problem, 50, seed=2)
        model = subject.model(problem, largest_scale=0.1)
        single = subject.model(problem.replace(dtype="float32"), largest_scale=0.1)
        single.module.load_state_dict(model.module.state_dict())
        for name, scale, shift in _PLACES:
            place = f"{problem.architecture}, data {name}"
            x = (scale * data + shift)[:3]
            expect_right(subject, model, x, place, 1e-6)
            if subject.method.exact_log_prob:
                with torch.no_grad():
                    z, truth = model.to_latent(x)
                    known = z.flatten(1).abs().amax(1) < _LARGEST
                    ours = single.to_latent(x.float())[1][known]
                    closely(ours, truth[known], 1e-2, f"{place}: log|det| in float32 beside float64")
            if subject.method.iterative:
                started = build(subject.method, problem)
                started.init_batch(scale * data + shift)
                started.module.eval()
                expect_right(subject, started, x, f"{place}, started from them", 1e-6)


@check(
    "Density and inverse are right for every seed, and a start with random numbers is another for another seed",
    "a permutation stands for its inverse, a determinant is negative for some starts, or a generator inside build has "
    "a seed of its own",
)
def other_seeds(subject: Subject) -> None:
    problem = subject.largest()
    x = draw(problem, 3)
    starts = []
    for seed in range(1, 5):
        model = build(subject.method, problem.replace(seed=seed))
        starts.append({name: parameter.detach().clone() for name, parameter in parameters(model)})
        model.module.eval()
        if subject.method.iterative:
            expect_right(subject, model, x, f"{problem.architecture}, D = {problem.dimension}, seed {seed}")
    for name, start in starts[0].items():
        if all(torch.equal(start, other[name]) for other in starts[1:]) and _irregular(start):
            raise Broken(f"{name} holds random numbers, and they are the same for the seeds 1 to 4")


def _irregular(values: Tensor) -> bool:
    """Say whether a tensor looks drawn at random: many numbers, hardly two alike, at uneven distances."""
    ordered = values.flatten().double().sort().values
    if len(ordered) < 8:
        return False
    steps = ordered.diff()
    return bool((steps > 0).double().mean() > 0.9) and float(steps.std() / steps.mean()) > 0.3

"""Checks of the digits that results keep, in float64 and in float32, beside what rounding alone must cost."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from harness.conformance.catalogue import check
from harness.conformance.subject import Broken, Inapplicable, Subject, closed_form, closely, draw, parameters
from harness.methods import Model, Problem, SharedWeights
from harness.methods.density import build, log_prob, refusal

_SMALL, _LARGE = 1e-8, 1e-7
"""Steps below float32's rounding and above it, both far above float64's."""

_DIRECTIONS = 3
_SLOPE_TOLERANCE = 0.02


@check(
    "In float64 results follow changes of data and weights that float32 would round away",
    "a part of the model computes in float32: a .float(), a constant or a cache of torch's default dtype, or float32 "
    "inside a library's function",
)
def double_precision(subject: Subject) -> None:
    for problem in subject.one_of_each():
        model, x = subject.model(problem, largest_scale=0.1), draw(problem)
        for name, (call, point) in _calls(subject, model, x).items():
            what = f"{problem.architecture}: {name}"
            _expect_slopes(partial(_at_input, call, point), f"{what} with changes of its input")
            if name == "the loss" and subject.method.periods:
                continue  # what it keeps from step to step does not follow the weights
            _expect_slopes(partial(_at_weights, model, call, point), f"{what} with changes of the weights")


def _calls(subject: Subject, model: Model, x: Tensor) -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """Return what a model computes, by name, with the point to compute it at."""
    with torch.no_grad():
        z = model.to_latent(x)[0]
    calls: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {"z": (lambda x: model.to_latent(x)[0], x)}
    if subject.method.exact_log_prob:
        calls["log|det|"] = (lambda x: model.to_latent(x)[1], x)
    if subject.method.samples:
        calls["to_data"] = (model.to_data, z)
    if subject.method.iterative:
        calls["the loss"] = (lambda x: model.training_loss(x, torch.Generator().manual_seed(0))[None], x)
    return calls


def _at_input(call: Callable[[Tensor], Tensor], point: Tensor, step: float, seed: int) -> Tensor:
    return call(point + step * _noise(point, seed))


def _noise(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def _at_weights(model: Model, call: Callable[[Tensor], Tensor], point: Tensor, step: float, seed: int) -> Tensor:
    """Return what a call gives with weights that are moved for it alone."""
    trained = [parameter for _, parameter in parameters(model)]
    held = [parameter.detach().clone() for parameter in trained]
    with torch.no_grad():
        for number, parameter in enumerate(trained):
            parameter.add_(step * _noise(parameter, 100 * seed + number))
    result = call(point)
    with torch.no_grad():
        for parameter, before in zip(trained, held, strict=True):
            parameter.copy_(before)
    return result


def _expect_slopes(at: Callable[[float, int], Tensor], what: str) -> None:
    """Compare the slopes over small and large steps: in the median of some directions, as a kink may lie in one.

    Of a loss the best direction counts: scores jump at the kinks of a network.
    """
    gaps = []
    for seed in range(_DIRECTIONS):
        small, large = ((at(step, seed) - at(-step, seed)).detach() / (2 * step) for step in (_SMALL, _LARGE))
        gaps.append(float((small - large).norm() / large.norm().clamp(min=1e-3)))
    gap = sorted(gaps)[0 if "the loss" in what else len(gaps) // 2]
    if not gap <= _SLOPE_TOLERANCE:
        raise Broken(
            f"{what} of {_SMALL:.0e} is off by {gap:.0%} of what changes of {_LARGE:.0e} say, as if float32 "
            f"rounded them away; allowed {_SLOPE_TOLERANCE:.0%}"
        )


@check(
    "In float32 log_prob, the loss and its gradient agree with float64 as far as rounding of data and weights allows, "
    "in several hundred dimensions, for large batches, and after a start from data far from zero",
    "products or sums are computed in bfloat16, TF32 or half precision, sums run over many terms one by one, or a "
    "variance is the difference of two large moments",
)
def single_precision(subject: Subject) -> None:
    subject.needs_exact_log_prob()
    problems = subject.one_of_each()
    if "fc" in subject.method.architectures:
        problems.append(Problem(shape=(256,), layers=2, batch=7, dtype="float64", noise=0.5))
    for problem in problems:
        single = subject.moved(problem.replace(dtype="float32"), 0.1)
        _expect_rounded(subject, problem, single, draw(problem), "")
    problem = subject.smallest()
    far = (3000 + draw(problem, 200, seed=2)).float()
    single, double = (build(subject.method, problem.replace(dtype=dtype)) for dtype in ("float32", "float64"))
    for model, data in ((single, far), (double, far.double())):
        if subject.method.iterative:
            model.init_batch(data)
        else:
            closed_form(model).fit([data])
    with torch.no_grad():
        value, truth = log_prob(single, far[:7]), log_prob(double, far[:7].double())
    closely(value, truth, 5e-2, f"{problem.architecture}: log_prob after a start from data around 3000")


def _expect_rounded(subject: Subject, problem: Problem, single: Model, x: Tensor, name: str) -> None:
    """Compare a model in float32 with the same weights in float64, and the gap with what rounding its input does."""
    double = subject.moved(problem, 0.1)
    double.module.load_state_dict(single.module.state_dict())
    x = x.float()
    place = f"{problem.architecture}, D = {problem.dimension}{name}"
    with torch.no_grad():
        truth, value = log_prob(double, x.double()), log_prob(single, x)
    losses = []
    if subject.method.iterative and problem.dimension < 64:
        losses = [_loss_and_gradient(model, given) for model, given in ((double, x.double()), (single, x))]
        noisy = not torch.equal(losses[0][0], _loss_and_gradient(double, x.double(), seed=1)[0])
        losses = [] if noisy else losses
    rounded = [_rounded(subject, problem, double, x, seed, bool(losses)) for seed in range(3)]
    _within(value, truth, [densities for densities, _, _ in rounded], f"{place}: log_prob")
    if losses:
        for index, what in enumerate(("the loss", "the gradient of the loss")):
            _within(losses[1][index], losses[0][index], [r[index + 1] for r in rounded], f"{place}: {what}")


def _rounded(
    subject: Subject, problem: Problem, double: Model, x: Tensor, seed: int, with_loss: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log_prob, the loss and its gradient in float64 of data and weights that are off by float32's rounding."""
    model = subject.moved(problem, 0.1)
    model.module.load_state_dict(double.module.state_dict())
    generator = torch.Generator().manual_seed(seed)
    eps = torch.finfo(torch.float32).eps

    def off(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        return tensor + eps * noise * tensor.abs().clamp(min=1e-3)

    given = off(x.double())
    with torch.no_grad():
        for _, parameter in parameters(model):
            parameter.copy_(off(parameter))
        densities = log_prob(model, given)
    if not with_loss:
        return densities, densities, densities
    return densities, *_loss_and_gradient(model, given)


def _loss_and_gradient(model: Model, x: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    trained = [parameter for _, parameter in parameters(model)]
    loss = model.training_loss(x, torch.Generator().manual_seed(seed))
    gradient = torch.autograd.grad(loss, trained, materialize_grads=True)
    return loss.detach()[None], torch.cat([part.flatten() for part in gradient])


def _within(value: Tensor, truth: Tensor, rounded: list[Tensor], what: str) -> None:
    """Compare a gap with 50 times what rounding the input of the whole computation does, and with 1e-5 at least."""
    if value.shape != truth.shape:
        raise Broken(f"{what}: shape {tuple(value.shape)} in float32, {tuple(truth.shape)} in float64")
    size = float(truth.abs().max())
    gap = float((value.double() - truth).abs().max())
    unavoidable = max(float((other - truth).abs().max()) for other in rounded)
    allowed = 50 * unavoidable + 1e-5 * (1 + size)
    if not gap <= allowed:
        raise Broken(f"{what} is off by {gap:.2g} in float32; rounding data and weights costs {unavoidable:.1g}")


_REAL: dict[str, tuple[tuple[int, ...], int]] = {
    "fc": ((64,), 2),
    "toy": ((2,), 11),
    "multimodal": ((10,), 11),
    "cnn": ((1, 8, 8), 6),
    "glow": ((1, 8, 8), 4),
}


_LOST = 2e-2
"""Relative change of data or latents, there and back, that leaves nothing to use."""


@check(
    "In float32 to_data brings back what to_latent was given, to 1e-3 at the sizes and starts that trainings have, or "
    "raises an error or warns that it cannot",
    "an iterative inverse stops early, layers that start almost singular multiply their rounding errors up, or the "
    "inverse is computed in less than float32",
)
@torch.no_grad()
def single_round_trip(subject: Subject) -> None:
    subject.needs_samples()
    for architecture in subject.method.architectures:
        shape, layers = _REAL[architecture]
        small = [(problem.shape, problem.layers) for problem in subject.of_architecture(architecture)]
        for event, count in (*small, (shape, layers)):
            problem = Problem(architecture, event, count, batch=7, dtype="float32", noise=0.5)
            if refusal(subject.method, problem) is None:
                model = subject.started(problem)
                model.module.eval()
                x = draw(problem)
                z = model.to_latent(x)[0]
                place = f"{architecture}, shape {event}, L = {count}, as it starts"
                _expect_back(model, x, z, place)
                z = subject.noise(z)
                if (drawn := _inverse(model, z)) is not None:
                    closely(model.to_latent(drawn)[0], z, _LOST, f"{place}: the latent of a sample in float32")
                if architecture == "fc" and subject.method.linear == "dense" and isinstance(model, SharedWeights):
                    _load_ill_conditioned(model)
                    z = model.to_latent(x)[0]
                    _expect_back(model, x, z, f"{architecture}, shape {event}, a matrix of condition number 1000")


def _load_ill_conditioned(model: SharedWeights) -> None:
    """Load a first matrix with singular values from 1 down to 1/1000: an inverse that squares them loses its digits."""
    generator = torch.Generator().manual_seed(9)
    (weight, bias), *others = model.linear_layers()
    left, right = (torch.linalg.qr(torch.randn(weight.shape, generator=generator).double()).Q for _ in range(2))
    matrix = left @ torch.logspace(0, -3, len(bias), dtype=torch.float64).diag() @ right
    model.load_linear_layers([(matrix.to(weight), bias), *others])


def _expect_back(model: Model, x: Tensor, z: Tensor, place: str) -> None:
    back = _inverse(model, z)
    if back is None:
        return
    unavoidable = _unavoidable(model, z)
    if unavoidable > _LOST and place.startswith("multimodal"):
        # The paper's triangular factors start so, and sampling warns of it, whatever the method.
        raise Inapplicable(f"{place}: rounding of the latents alone changes their data by {unavoidable:.1g}")
    closely(back, x, max(1e-3, min(_LOST, unavoidable)), f"{place}: to_data after to_latent in float32")


def _inverse(model: Model, z: Tensor) -> Tensor | None:
    """Return `to_data` of these latents, or None if it says that it cannot invert them in float32."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", RuntimeWarning)
        try:
            x = model.to_data(z)
        except (ValueError, ArithmeticError, RuntimeError):
            _in_float64(model, z)  # another mistake than one of precision is raised here
            return None
    return None if any(issubclass(warning.category, RuntimeWarning) for warning in told) else x


def _unavoidable(model: Model, z: Tensor) -> float:
    """Return by how much rounding of latents alone changes their data, relative to 1 + the size, 30 times over."""
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
    truth, moved = (_in_float64(model, z.double() + step * noise) for step in (0.0, torch.finfo(z.dtype).eps))
    return 30 * float(((moved - truth).abs() / (1 + truth.abs())).max())


def _in_float64(model: Model, z: Tensor) -> Tensor:
    model.module.double()
    try:
        return model.to_data(z.double())
    finally:
        model.module.float()

"""Checks of the density: its log-determinant, its mass, its inverse and samples, and its score."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.conformance.catalogue import check
from harness.conformance.subject import Broken, Inapplicable, Subject, closely, draw, jacobians
from harness.methods import Model
from harness.methods.density import log_prob, sample, score


@check(
    "to_latent returns log|det| of the Jacobian dz/dx in nats, also where the determinant is negative",
    "the sign is wrong (data to latent is meant), a layer is left out, or it is logdet, bits or a mean over dimensions",
)
def log_det(subject: Subject) -> None:
    signs: set[float] = set()
    if not subject.method.exact_log_prob:
        problem = subject.largest()
        _unbiased(subject.model(problem), draw(problem, 3), f"D = {problem.dimension}")
        return
    for problem in subject.problems():
        x = draw(problem, 3)
        for seed in range(8 if problem.architecture == "fc" and subject.method.linear == "dense" else 2):
            model = subject.model(problem, seed, largest_scale=1.5 if subject.method.linear == "dense" else 0.3)
            truth = torch.linalg.slogdet(jacobians(model, x))
            where = f"{problem.architecture}, D = {problem.dimension}, det {'<' if truth.sign[0] < 0 else '>'} 0"
            closely(model.to_latent(x)[1], truth.logabsdet, 1e-7, where)
            signs |= set(truth.sign.tolist())
    _elsewhere(subject)
    dense = subject.method.linear == "dense" and "fc" in subject.method.architectures
    if dense and signs != {-1.0, 1.0}:
        raise Broken("its layers are declared dense, any matrix, and no determinant changes its sign at random weights")


def _elsewhere(subject: Subject) -> None:
    """Compare log|det| in float32, far from the data, and at a larger dimension."""
    for problem in subject.one_of_each():
        model, x = subject.model(problem), draw(problem, 3)
        single = subject.model(problem.replace(dtype="float32"))
        single.module.load_state_dict(model.module.state_dict())
        where = f"{problem.architecture}, D = {problem.dimension}"
        with torch.no_grad():
            closely(single.to_latent(x.float())[1], model.to_latent(x)[1], 1e-2, f"{where}, float32 beside float64")
        _beside_autograd(model, 10 * x, f"{where}, data of scale 10")
    if "fc" in subject.method.architectures:
        for size, layers in ((12, 2), (23, 2), (5, 12)):  # no round number, and a deep network
            problem = subject.of_architecture("fc")[0].replace(shape=(size,), layers=layers)
            _beside_autograd(subject.model(problem), draw(problem, 3), f"fc, D = {size}, L = {layers}")


def _beside_autograd(model: Model, x: Tensor, where: str) -> None:
    closely(model.to_latent(x)[1], torch.linalg.slogdet(jacobians(model, x)).logabsdet, 1e-7, where)


@torch.no_grad()
def _unbiased(model: Model, x: Tensor, where: str) -> None:
    """Compare the mean of many estimates of log|det| with autograd's."""
    truth = torch.linalg.slogdet(jacobians(model, x)).logabsdet
    estimates = torch.stack([model.to_latent(x)[1] for _ in range(40)]).double()
    error = estimates.std(0) / math.sqrt(len(estimates))
    gap = (estimates.mean(0) - truth).abs()
    if bool((gap > 5 * error + 1e-3).any()):
        worst = int((gap / (error + 1e-12)).argmax())
        raise Broken(
            f"{where}: the estimates' mean is off by {float(gap[worst]):.2g}, "
            f"its standard error is {float(error[worst]):.2g}"
        )


@check(
    "The density integrates to one",
    "to_latent does not reach all of the latent space (a squashing function last), or it is not one-to-one",
)
@torch.no_grad()
def total_mass(subject: Subject) -> None:
    """Integrate by importance sampling from a multivariate Student t around points where the density is.

    With 40,000 points a right density would fail once in a million runs, and the seeds are fixed.
    """
    subject.needs_exact_log_prob()
    problem = subject.smallest()
    model, dimension = subject.model(problem), problem.dimension
    if dimension > 5:
        raise Inapplicable(f"D = {dimension} is too much for importance sampling")
    generator = torch.Generator().manual_seed(0)
    mean, factor = torch.zeros(dimension, dtype=torch.float64), 3 * torch.eye(dimension, dtype=torch.float64)
    if subject.method.samples:
        drawn = sample(model, model.to_latent(draw(problem))[0].shape[1:], 2000, generator).flatten(1)
        mean, factor = drawn.mean(0), torch.linalg.cholesky(drawn.mT.cov())
    x, log_q = _student(mean, factor, 40_000, generator)
    log_p = torch.cat([log_prob(model, part.view(-1, *problem.shape)) for part in x.split(10_000)])
    weights = (log_p - log_q).exp()
    mass, error = float(weights.mean()), float(weights.std() / math.sqrt(len(weights)))
    if error > 0.05 and math.isfinite(mass):
        raise Inapplicable(f"the estimate does not settle: {mass:.2f} with a standard error of {error:.2f}")
    if not abs(mass - 1) <= 5 * error + 1e-3:
        raise Broken(f"mass {mass:.3f} with a standard error of {error:.3f}, D = {dimension}")


def _student(mean: Tensor, factor: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points from a multivariate t with 4 degrees of freedom, and their log-densities."""
    dimension = len(mean)
    normal = torch.randn(n, dimension, generator=generator, dtype=mean.dtype)
    squares = torch.randn(n, 4, generator=generator, dtype=mean.dtype).square().sum(1)
    x = mean + (normal @ factor.mT) * (4 / squares).sqrt().unsqueeze(1)
    constant = math.lgamma(2 + dimension / 2) - 0.5 * dimension * math.log(4 * math.pi)  # log Gamma(2) is 0
    at_mean = constant - factor.diagonal().log().sum()
    return x, at_mean - (2 + dimension / 2) * (1 + normal.square().sum(1) / squares).log()


@check(
    "to_data is the inverse of to_latent, near the data and ten times further out, in float64 and in float32",
    "the direction is wrong (normflows' forward is latent to data), or an iterative inverse stops early",
)
@torch.no_grad()
def round_trip(subject: Subject) -> None:
    subject.needs_samples()
    for dtype, tolerance in (("float64", 1e-6), ("float32", 1e-1)):
        for problem in subject.one_of_each(dtype=dtype):
            model = subject.model(problem, largest_scale=0.1)
            for scale in (1, 10):
                x = scale * draw(problem)
                where = f"{problem.architecture}, D = {problem.dimension}, {dtype}, data of scale {scale}"
                closely(model.to_data(model.to_latent(x)[0]), x, tolerance, where)


@check(
    "Samples have the model's density: the latent of a sample is the z it was made from",
    "to_data leaves a layer out, or applies the layers in the wrong order",
)
@torch.no_grad()
def samples(subject: Subject) -> None:
    subject.needs_samples()
    for problem in subject.one_of_each():
        model = subject.model(problem, largest_scale=0.1)
        z = subject.noise(model.to_latent(draw(problem))[0])
        closely(model.to_latent(model.to_data(z))[0], z, 1e-6, f"{problem.architecture}, D = {problem.dimension}")


@check(
    "Every sample of a batch has the density that it has alone, whatever the order of the batch",
    "a statistic is taken over the batch axis, as by batch normalisation, or a flatten mixes samples",
)
@torch.no_grad()
def batch_independence(subject: Subject) -> None:
    what = "log_prob" if subject.method.exact_log_prob else "z"
    for problem in subject.one_of_each():
        model, x = subject.model(problem), draw(problem)
        together, reverse, *single = (
            log_prob(model, part) if what == "log_prob" else model.to_latent(part)[0]
            for part in (x, x.flip(0), *x.split(1))
        )
        closely(together, torch.cat(single), 1e-9, f"{problem.architecture}: {what} in a batch beside {what} alone")
        closely(reverse.flip(0), together, 1e-9, f"{problem.architecture}: another order")


@check("The score is the gradient of log_prob", "a detach, a .data or a no_grad lies on the way from x to log_prob")
def gradient_in_x(subject: Subject) -> None:
    subject.needs_exact_log_prob()
    problem = subject.smallest()
    model, x = subject.model(problem), draw(problem)
    direction = subject.noise(x)
    step = 1e-5
    with torch.no_grad():
        ahead, behind = (log_prob(model, x + sign * step * direction) for sign in (1, -1))
    along = (score(model, x) * direction).flatten(1).sum(1)
    closely(along, (ahead - behind) / (2 * step), 1e-4, "the score along a direction")

"""Checks of what a method declares, each by what it changes.

Three declarations have no check: `paper` and `own_start` are words, and `rate` belongs to the recipe. Of a problem's
fields a method may leave aside `energy_weight`, `frozen_actnorm` and the parts of networks that it does not have.
"""

from __future__ import annotations

import builtins
import dataclasses
import importlib
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from harness.conformance.catalogue import check
from harness.conformance.checks.sizes import expect_right
from harness.conformance.subject import Broken, Inapplicable, Subject, closed_form, closely, draw, parameters
from harness.methods import Model, Problem
from harness.methods.contract import LossBeforeMap, SharedWeights, matches_scores
from harness.methods.density import build, count_parameters, log_prob, refusal
from harness.methods.families import REGRESSED, family
from harness.timing.interleaved import trainer_on_noise
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer

_REPEATS, _DRAWS = 150, 6
_ALIKE = 0.98
"""Cosine of two gradients that count as the same but for noise; other objectives stay below 0.95."""


@check(
    "The loss has the gradient of the objective that is declared, at every noise scale of the problem, and the family "
    "that is declared or follows from the objective's name",
    "Problem.noise is ignored or enters by another power, or the objective is another one: name it, and declare "
    "family='score-matching' where scores are matched",
)
def declared_objective(subject: Subject) -> None:
    subject.needs_training()
    method = subject.method
    if method.objective != "ml":
        subject.needs_exact_log_prob()
    if family(method.objective, method.linear, method.family) == REGRESSED:
        raise Inapplicable("the method regresses on something else than the density")
    for noise in (0.2, 2.0):
        problem = subject.smallest(noise=noise)
        if problem.dimension > 5:
            raise Inapplicable(f"D = {problem.dimension} is too much for traces of second derivatives")
        model, x = subject.model(problem), draw(problem)
        try:
            _expect_objective(subject, model, x, noise)
        except (RuntimeError, NotImplementedError) as error:
            raise Inapplicable(f"log_prob has no second derivatives: {str(error).splitlines()[0]}") from None


def _expect_objective(subject: Subject, model: Model, x: Tensor, noise: float) -> None:
    method = subject.method
    draws = 1 if method.objective == "ml" and method.exact_log_prob else _DRAWS
    gradient, spread = _mean_gradient(model, x, lambda x, seed: model.training_loss(x, _generator(seed)), draws)

    def reference(objective: str) -> tuple[Tensor, float]:
        if loss := _NOISY.get(objective):
            return _mean_gradient(model, x, lambda x, seed: loss(model, x, noise, _generator(100 + seed)))
        if matches_scores(objective):
            return _mean_gradient(model, x, lambda x, seed: _score_matching(model, x), 1)
        return _mean_gradient(model, x, lambda x, seed: -log_prob(model, x).mean(), draws)

    if method.objective not in _TOLD:
        wrong = ("ml",) if method.matches_scores else ("dsm", "ssm")
        for other in wrong if not matches_scores(method.objective) or method.family else ():
            if _cosine(gradient, reference(other)[0]) > 0.999 and _cosine(gradient, reference("ml")[0]) < (
                2 if method.matches_scores else _ALIKE
            ):
                kind = "score-matching" if method.matches_scores else "likelihood"
                raise Broken(f"the family is {kind}, and the loss has the gradient of {_TOLD[other]}")
        return
    expected, own_spread = reference(method.objective)
    noise_share = spread**2 + own_spread**2
    if noise_share > 0.3:
        raise Inapplicable("the noise of the loss drowns its mean gradient")
    cosine = _cosine(gradient, expected)
    if not cosine >= _ALIKE - 3 * noise_share:
        raise Broken(
            f"at Problem.noise = {noise:g} the gradient of the loss has a cosine of {cosine:.3f} with that of "
            f"{_TOLD[method.objective]}, which objective='{method.objective}' declares; noise explains "
            f"{1 - 3 * noise_share:.3f}"
        )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _mean_gradient(
    model: Model, x: Tensor, loss: Callable[[Tensor, int], Tensor], draws: int = _DRAWS
) -> tuple[Tensor, float]:
    """Return the mean gradient of a loss over draws of its noise, and the share of it that is noise."""
    trained = [parameter for _, parameter in parameters(model)]
    many = torch.cat([x] * _REPEATS) if draws > 1 else x
    gradients = []
    for seed in range(draws):
        parts = torch.autograd.grad(loss(many, seed), trained, allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([part.flatten() for part in parts]))
    mean = torch.stack(gradients).mean(0)
    spread = torch.stack(gradients).std(0).norm() / draws**0.5 if draws > 1 else torch.zeros(())
    return mean, float(spread / mean.norm())


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, 0))


def _scores(model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return samples that require a gradient and the scores there, which can be differentiated."""
    x = x.detach().requires_grad_()
    (scores,) = torch.autograd.grad(log_prob(model, x).sum(), x, create_graph=True)
    return x, scores.flatten(1)


def _score_matching(model: Model, x: Tensor) -> Tensor:
    """Return the mean of |s|^2 / 2 + tr(ds/dx), the trace component by component."""
    x, scores = _scores(model, x)
    loss = 0.5 * scores.square().sum()
    for index, component in enumerate(scores.unbind(1)):
        (row,) = torch.autograd.grad(component.sum(), x, create_graph=True)
        loss = loss + row.flatten(1)[:, index].sum()
    return loss / len(x)


def _denoising(model: Model, x: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    _, scores = _scores(model, x + noise * drawn)
    return 0.5 * (scores + drawn.flatten(1) / noise).square().sum() / len(x)


def _finite_differences(model: Model, x: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """Return the loss of https://arxiv.org/abs/2007.03317 with steps of this length."""
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype).flatten(1)
    step = (length * torch.nn.functional.normalize(drawn)).view_as(x)
    ahead, here, behind = (log_prob(model, x + sign * step) for sign in (1, 0, -1))
    return ((ahead - behind).square() / 8 + ahead + behind - 2 * here).mean() / length**2


def _by_stein(model: Model, x: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Return the loss of https://arxiv.org/abs/2412.03962, the score at x taken off as a control variate."""
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    here, moved = _scores(model, x)[1], _scores(model, x + scale * drawn)[1]
    return (0.5 * here.square().sum() + (drawn.flatten(1) * (moved - here)).sum() / scale) / len(x)


_NOISY = {"dsm": _denoising, "fdssm": _finite_differences, "lcss": _by_stein}
"""Losses that draw noise of a scale, by objective."""

_TOLD = {"ml": "the likelihood", "sml": "the likelihood", "ssm": "score matching", "tssm": "score matching"}
_TOLD |= {"dsm": "denoising score matching", "fdssm": "score matching by finite differences"}
_TOLD |= {"lcss": "score matching by Stein's identity"}


@check(
    "A step's matrix products are those that fc_cost declares, in number, in cubic work and with the number of layers",
    "a product is left out or counted twice, a factorisation is not declared, or `saved` is that of another objective",
)
def declared_cost(subject: Subject) -> None:
    """Count at two batch sizes: what grows with the batch are products, and the rest is cubic."""
    method = subject.method
    if method.fc_cost is None:
        raise Inapplicable("the method declares no fc_cost")
    for layers in (2, 3):
        problem = Problem(shape=(192,), layers=layers, dtype="float64", noise=0.5)
        few, many = (_counted(subject, problem.replace(batch=batch)) for batch in (2, 66))
        declared = [method.fc_cost.flops(problem.replace(batch=batch)) for batch in (2, 66)]
        unit = 64 * 2 * problem.dimension**2
        # A product with a triangle by panels takes up to a half more than its share.
        slack = 1.05 if method.linear == "dense" else 1.55
        products = (many - few) / unit, (declared[1] - declared[0]) / unit
        _expect_cost(*products, slack, f"products a step at L = {layers}")
        cubes = [(f - 2 * (m - f) / 64) / problem.dimension**3 for f, m in ((few, many), (declared[0], declared[1]))]
        _expect_cost(cubes[0], cubes[1], 1.05, f"times D^3 flops of factorisations a step at L = {layers}")


def _expect_cost(counted: float, declared: float, slack: float, what: str) -> None:
    if not declared - 0.05 <= counted <= slack * declared + 0.05:
        raise Broken(f"{declared:.3g} {what} are declared, and torch counts {counted:.3g}")


def _counted(subject: Subject, problem: Problem) -> float:
    trainer, batch = trainer_on_noise(subject.method, problem, TrainingConfig())
    if not subject.method.periods:
        trainer.gradient(batch)  # the first step may draw or factor what all others use
    with _counter() as flops:
        trainer.gradient(batch)
    return flops.get_total_flops()


def _counter() -> FlopCounterMode:
    """Return a counter of torch's that also knows factorisations, solves and sums in place."""

    def cubes(factor: float) -> Callable[..., float]:
        return lambda matrices, *args, **kwargs: factor * math.prod(matrices[:-2]) * matrices[-1] ** 3

    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten.addmm_: lambda total, left, right, *args, **kwargs: 2 * left[0] * left[1] * right[-1],
            aten._linalg_slogdet: cubes(2 / 3),
            aten._linalg_det: cubes(2 / 3),
            aten.linalg_lu_factor_ex: cubes(2 / 3),
            aten.linalg_lu_solve: cubes(4 / 3),
            aten.linalg_inv_ex: cubes(2),
            aten.linalg_cholesky_ex: cubes(1 / 3),
            aten.linalg_qr: cubes(4 / 3),
            aten._linalg_solve_ex: lambda matrices, right, *args, **kwargs: (
                cubes(2 / 3)(matrices) + 2 * math.prod(right) * matrices[-1]
            ),
        },
    )


_COUNTED = ("dense", "lu", "luperm", "lower", "upper")


@check(
    "The network has L linear layers of the form that `linear` declares, at the start and after training steps",
    "Problem.layers is ignored or capped, layers share one matrix, or a mask, a hook or after_step keeps a matrix in a "
    "narrower form than declared (dense: any matrix)",
)
def declared_layers(subject: Subject) -> None:
    method = subject.method
    subject.needs_training()
    for architecture in method.architectures:
        step = 2 if architecture == "glow" else 1
        first = subject.of_architecture(architecture)[-1]
        taken = [first.replace(layers=count) for count in range(2 * step, 6 * step + 1, step)]
        taken = [problem for problem in taken if refusal(method, problem) is None]
        counts = [count_parameters(build(method, problem)) for problem in taken]
        growth = [later - earlier for earlier, later in pairwise(counts)]
        # A method without linear layers may be as deep as it likes, but not honour L up to a bound.
        if growth and (method.linear in _COUNTED or max(growth) > 0) and not min(growth) > 0:
            depths = ", ".join(str(problem.layers) for problem in taken)
            raise Broken(f"{architecture}: {', '.join(map(str, counts))} trained parameters at L = {depths}")
    for architecture in ("fc", "multimodal"):
        if architecture in method.architectures:
            _expect_form(subject, Problem(architecture, (4,), 1, batch=7, dtype="float64", noise=0.5))


def _expect_form(subject: Subject, problem: Problem) -> None:
    """Look at the matrix of a single layer: at random weights, and before and after a few training steps."""
    if refusal(subject.method, problem) is not None:
        return
    model, x = subject.model(problem), draw(problem)
    before = _matrix(model, x)
    if before is None:
        return
    _expect_matrix(subject.method.linear, before, "with random weights")
    trainer = Trainer(model, TrainingConfig(learning_rate=0.03, clip_norm=None), _generator(0))
    model.module.train()
    for _ in range(3):
        trainer.step(x)
    model.module.eval()
    after = _matrix(model, x)
    if after is None:
        raise Broken("after three steps one linear layer is not linear any more")
    _expect_matrix(subject.method.linear, after, "after three steps")
    still = int(((after - before).abs() < 1e-9).sum())
    if subject.method.linear in ("dense", "lu", "luperm") and still:
        raise Broken(f"{still} of 16 entries of a {subject.method.linear} matrix stay as they are in three steps")


def _matrix(model: Model, x: Tensor) -> Tensor | None:
    """Return the matrix of a model that is one linear map, or None for a map that is not linear."""
    with torch.no_grad():
        points = 0 * x[:1], torch.eye(4).to(x), 3 * torch.eye(4).to(x)
        ends = [model.to_latent(point)[0].flatten(1) for point in points]
    matrix = (ends[1] - ends[0]).mT
    linear = torch.allclose(ends[2] - ends[0], 3 * (ends[1] - ends[0]), atol=1e-7)
    return matrix if linear else None


def _expect_matrix(linear: str, matrix: Tensor, when: str) -> None:
    size = float(matrix.norm())
    gram = matrix @ matrix.mT
    narrow = {
        "lower triangular": min(float(matrix.triu(1).norm()), float(matrix.mT.triu(1).norm())),
        "diagonal": float((matrix - matrix.diag().diag()).norm()),
        "symmetric": float((matrix - matrix.mT).norm()),
        "orthogonal": float((gram - gram.diag().mean() * torch.eye(4).to(gram)).norm()) / size,
    }
    if linear in ("dense", "lu", "luperm"):
        for name, distance in narrow.items():
            if distance < 1e-6 * size:
                raise Broken(f"linear='{linear}' is declared, and the matrix is {name.removeprefix('lower ')} {when}")
    declared = {"lower": "lower triangular", "upper": "lower triangular", "diagonal": "diagonal"}
    form = {**declared, "orthogonal": "orthogonal", "triangular": "lower triangular"}.get(linear)
    if form is not None and narrow[form] > 1e-6 * size:
        raise Broken(f"linear='{linear}' is declared, and the matrix is off by {narrow[form]:.2g} from that {when}")


_PARTS = {
    "dropout": ("dropout", 0.0, 0.5),
    "hidden": ("hidden", 24, 40),
    "blocks": ("blocks", 1, 3),
    "bins": ("bins", 5, 9),
    "tail_bound": ("splines on", 2.0, 4.0),
    "mixing": ("linear layers", False, True),
}
"""Fields of a problem that own recipes set, with the words that a caveat uses for them and two values."""


@check(
    "What is declared of raw pixels, of the residual activation, of own recipes and of required libraries is so",
    "build ignores a field of the problem that the method declares or its own recipe sets (or say so in its caveat), "
    "or imports a library that `requires` does not name",
)
def declared_fields(subject: Subject) -> None:
    if subject.method.raw_pixels:
        for problem in subject.one_of_each():
            if problem.architecture not in ("toy", "multimodal"):  # their data are no pixels
                _expect_raw_pixels(subject, problem)
    _expect_own_recipes(subject)
    _expect_required(subject)
    conv = "cnn" in subject.method.architectures and subject.method.linear in ("dense", "lu")
    if conv and subject.method.iterative and subject.method.exact_log_prob:
        problem = subject.of_architecture("cnn")[-1]
        plain, residual = (subject.moved(problem.replace(residual=on), 0.1) for on in (False, True))
        with torch.no_grad():
            if torch.equal(log_prob(plain, draw(problem)), log_prob(residual, draw(problem))):
                raise Broken("cnn: Problem.residual changes nothing")


@torch.no_grad()
def _expect_raw_pixels(subject: Subject, problem: Problem) -> None:
    """Compare pixels of 256 levels with the same pixels of 16, and two alphas."""
    generator = _generator(7)
    share = 0.05 + 0.9 * torch.rand(3, *problem.shape, generator=generator, dtype=torch.float64)
    place = f"{problem.architecture}: raw pixels"

    def started(alpha: float, levels: int) -> Model:
        return build(subject.method, problem.replace(raw_pixel_alpha=alpha, levels=levels))

    many, few, other = started(0.5, 256), started(0.5, 16), started(1.0, 256)
    (z, log_det), (z_few, log_det_few) = many.to_latent(256 * share), few.to_latent(16 * share)
    closely(z_few, z, 1e-9, f"{place} of 16 levels beside 256, z")
    ratio = problem.dimension * torch.log(torch.tensor(16.0, dtype=torch.float64))
    closely(log_det_few - ratio, log_det, 1e-9, f"{place} of 16 levels beside 256, log|det| less D log 16")
    if torch.allclose(other.to_latent(256 * share)[0], z):
        raise Broken(f"{place}: raw_pixel_alpha changes nothing")
    expect_right(subject, many, 256 * share, place)


def _expect_own_recipes(subject: Subject) -> None:
    method = subject.method
    training = {field.name for field in dataclasses.fields(TrainingConfig)}
    fields = {field.name for field in dataclasses.fields(Problem)}
    for dataset, recipe in method.own_recipes.items():
        if unknown := (set(recipe.training) - training) | (set(recipe.problem) - fields):
            raise Broken(f"the own recipe for {dataset} sets {', '.join(sorted(unknown))}, which nothing reads")
    problem = Problem(method.architectures[0], (4,), 2, batch=7, dtype="float64", noise=0.5)
    for name, (words, one, other) in _PARTS.items():
        recipes = [recipe for recipe in method.own_recipes.values() if name in recipe.problem]
        if not recipes or all(words in recipe.caveat or name in recipe.caveat for recipe in recipes):
            continue
        models = [build(method, problem.replace(**{name: value})) for value in (one, other)]
        x = 3 * draw(problem)
        if count_parameters(models[0]) == count_parameters(models[1]):
            values = [model.training_loss(x, _generator(0)).detach() for model in models]
            if torch.equal(*values):
                raise Broken(f"own recipes set {name}, which changes nothing; honour it, or say so in the caveat")


_PROVIDED = {"torch", "numpy", "ebflow", "harness", "baselines", *sys.stdlib_module_names}


def _expect_required(subject: Subject) -> None:
    """Watch which packages the method's own module imports as it builds, trains and evaluates."""
    method = subject.method
    problem = subject.smallest()
    build_function: Any = method.build
    while hasattr(build_function, "func"):
        build_function = build_function.func
    own = build_function.__module__
    with _imports_of(own) as imported:
        model, x = build(method, problem), draw(problem, 50, seed=2)
        if method.iterative:
            model.init_batch(x)
            model.training_loss(x, _generator(0)).backward()
            model.after_step()
        else:
            closed_form(model).fit([x])
        z = model.to_latent(x)[0].detach()
        if method.samples:
            model.to_data(z)
    named = {name.split(".")[0] for name in method.requires} | _PROVIDED | {own.split(".")[0]}
    if missing := sorted(imported - named):
        raise Broken(f"{', '.join(missing)} is imported, and requires names {', '.join(method.requires) or 'nothing'}")


@contextmanager
def _imports_of(module: str) -> Iterator[set[str]]:
    """Collect the top-level packages that the code of one module imports, those that are loaded already too."""
    names: set[str] = set()
    real, by_name = builtins.__import__, importlib.import_module

    def told_by_name(name: str, package: str | None = None) -> ModuleType:
        if sys._getframe(1).f_globals.get("__name__") == module and not name.startswith("."):
            names.add(name.split(".")[0])
        return by_name(name, package)

    def told(name: str, scope: Any = None, *args: Any, **kwargs: Any) -> Any:
        level = kwargs.get("level", args[2] if len(args) > 2 else 0)
        if scope and scope.get("__name__") == module and not level:
            names.add(name.split(".")[0])
        return real(name, scope, *args, **kwargs)

    vars(builtins)["__import__"], vars(importlib)["import_module"] = told, told_by_name
    try:
        yield names
    finally:
        vars(builtins)["__import__"], vars(importlib)["import_module"] = real, by_name


@check(
    "Layers start at W = -I and b = 1, take the weights and the start from data that all methods of this form get, "
    "keep their parameters, or refuse a matrix by a ValueError; and a loss in front of a map is that of the composite "
    "density",
    "load_linear_layers rounds, loads something else where factors do not exist, or makes new parameters; or a start "
    "is another or refused, and own_start does not say so",
)
def declared_start(subject: Subject) -> None:
    method = subject.method
    if not method.is_papers_fc:
        raise Inapplicable("the method does not claim to be the paper's fc with dense or LU layers")
    problem = Problem(shape=(4,), layers=2, batch=7, dtype="float64", noise=0.5)
    model = subject.model(problem)
    if not isinstance(model, SharedWeights):
        raise Broken(f"linear='{method.linear}' is declared without load_linear_layers and linear_layers")
    held = list(model.module.parameters())
    _expect_loaded(model, problem.dimension)
    if any(now is not before for now, before in zip(model.module.parameters(), held, strict=False)):
        raise Broken("load_linear_layers makes new parameters: an optimiser goes on with the old ones")
    x = draw(problem, 200, seed=2)
    if not method.own_start:
        _expect_published_start(build(method, problem))
        started = build(method, problem.replace(start="whitened"))
        started.init_batch(x)
        started.module.eval()
        expect_right(subject, started, x[:3], "started from whitened data")
        loss = started.training_loss(x, _generator(0))
        if not bool(loss.isfinite()):
            raise Broken(f"the loss is {loss.item()} after a start from whitened data")
    if isinstance(model, LossBeforeMap) and method.matches_scores:
        _expect_before_map(subject, model, x[:7])


def _expect_published_start(model: Model) -> None:
    """Compare the weights of a model that is built with W = -I and b = 1, where the published recipe starts."""
    assert isinstance(model, SharedWeights)
    for weight, bias in model.linear_layers():
        closely(weight, -torch.eye(len(bias), dtype=weight.dtype), 1e-6, "W of a model as it is built, beside -I")
        closely(bias, torch.ones_like(bias), 1e-6, "b of a model as it is built, beside 1")


def _expect_loaded(model: SharedWeights, dimension: int) -> None:
    """Load a matrix without triangular factors, a rotation and an almost singular one: exactly, or not at all."""
    identity = torch.eye(dimension, dtype=torch.float64)
    generator = _generator(8)
    noise = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    for name, weight in (
        ("with its rows reversed", identity.flip(0)),
        ("that rotates", torch.linalg.qr(noise).Q),
        ("of very unequal scales", noise @ torch.logspace(-4, 4, dimension, dtype=torch.float64).diag()),
    ):
        layers = [(weight, noise[index]) for index in range(2)]
        try:
            model.load_linear_layers(layers)
        except ValueError:
            continue
        for (wanted, _), (loaded, _) in zip(layers, model.linear_layers(), strict=True):
            size = float(wanted.abs().max())
            closely(loaded / size, wanted / size, 1e-10, f"a matrix {name}, read after it was loaded")


def _expect_before_map(subject: Subject, model: LossBeforeMap, x: Tensor) -> None:
    """Compare with the loss itself in front of no map, and with that of the composite density in front of one."""
    dimension = x.shape[1]
    identity, zero = torch.eye(dimension, dtype=x.dtype), torch.zeros(dimension, dtype=x.dtype)
    fresh = subject.model(Problem(shape=(dimension,), layers=2, batch=7, dtype="float64", noise=0.2))
    assert isinstance(fresh, LossBeforeMap)
    alike = fresh.loss_before_map(x, identity, zero, _generator(1)), fresh.training_loss(x, _generator(1))
    closely(alike[0], alike[1], 1e-9, "the loss in front of the identity beside the loss")
    with_noise = _NOISY.get(subject.method.objective)
    if with_noise is None and subject.method.objective not in ("ssm", "tssm"):
        return
    matrix, shift = identity.roll(1, 0) * torch.logspace(-1, 0.5, dimension, dtype=x.dtype), zero + 0.3
    # The density of x that the model has of A x + c, up to a constant.
    composite = cast(Model, SimpleNamespace(to_latent=lambda x: fresh.to_latent(x @ matrix.mT + shift)))
    gradient, spread = _mean_gradient(
        fresh, x, lambda x, seed: fresh.loss_before_map(x, matrix, shift, _generator(seed))
    )
    if with_noise is not None:
        expected, other = _mean_gradient(
            fresh, x, lambda x, seed: with_noise(composite, x, 0.2, _generator(100 + seed))
        )
    else:
        expected, other = _mean_gradient(fresh, x, lambda x, seed: _score_matching(composite, x), 1)
    share = spread**2 + other**2
    if share < 0.3 and not _cosine(gradient, expected) >= 0.99 - 3 * share:
        raise Broken(
            f"the gradient of loss_before_map has a cosine of {_cosine(gradient, expected):.3f} with that of the "
            "density in front of the map"
        )


@check(
    "A closed form fits all batches in one pass, whatever their sizes, and forgets what was fitted before",
    "batches are read twice (they may come from a generator), the last batch counts alone, or sums go on from one fit "
    "to the next",
)
def declared_fit(subject: Subject) -> None:
    if subject.method.iterative:
        raise Inapplicable("the method trains by steps")
    problem = subject.smallest()
    x = draw(problem, 60, seed=2)
    values = []
    for batches in ([x], [x[:7], x[7:50], x[50:]]):
        model = build(subject.method, problem)
        closed_form(model).fit(iter([10 * x]))
        closed_form(model).fit(batch for batch in batches)
        model.module.eval()
        with torch.no_grad():
            values.append(log_prob(model, x[:7]))
    once = build(subject.method, problem)
    closed_form(once).fit([x])
    with torch.no_grad():
        closely(values[0], log_prob(once, x[:7]), 1e-8, "log_prob fitted after a fit to other data")
    closely(values[1], values[0], 1e-8, "log_prob fitted to three batches beside one")

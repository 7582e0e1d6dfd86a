"""Checks of training: the loss, its gradient, its noise, what is learnt, and the same function as others claim."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.conformance.catalogue import check
from harness.conformance.subject import Broken, Inapplicable, Subject, closed_form, closely, draw, parameters, train
from harness.methods import Method, Model, Problem, SharedWeights
from harness.methods.density import build, log_prob
from harness.training.configuration import TrainingConfig
from harness.training.step import Trainer

_BATCH = 128


@check(
    "training_loss is a finite real scalar, and every trained parameter gets a finite gradient that is not zero, and "
    "has moved three steps after the start",
    "a parameter is never used, a detach cuts it off, all layers start at zero, or the loss is not averaged; set "
    "requires_grad_(False) on what is not trained",
)
def gradients(subject: Subject) -> None:
    subject.needs_training()
    for problem in map(subject.periodic, subject.one_of_each()):
        model = subject.model(problem)
        for step in range(1 if problem.refresh is None else subject.method.period(problem) + 1):
            model.module.zero_grad()
            _finite_gradients(model, draw(problem), problem.architecture + (f", step {step + 1}" if step else ""))
            model.after_step()
        model = subject.started(problem)
        before = {name: parameter.detach().clone() for name, parameter in parameters(model)}
        train(model, draw(problem), 3)
        if dead := [name for name, parameter in parameters(model) if torch.equal(parameter, before[name])]:
            raise Broken(f"{problem.architecture}: three steps from the start leave {dead[0]} where it was")


def _finite_gradients(model: Model, x: Tensor, where: str) -> None:
    loss = model.training_loss(x, torch.Generator().manual_seed(0))
    if loss.shape != () or loss.is_complex():
        raise Broken(f"{where}: the loss has shape {tuple(loss.shape)} and dtype {loss.dtype}")
    if not bool(loss.isfinite()):
        raise Broken(f"{where}: the loss is {loss.item()}")
    loss.backward()
    for name, parameter in parameters(model):
        if parameter.grad is None:
            raise Broken(f"{where}: {name} gets no gradient")
        if not bool(parameter.grad.isfinite().all()):
            raise Broken(f"{where}: the gradient of {name} is not finite")
        if not bool((parameter.grad != 0).any()):
            raise Broken(f"{where}: the gradient of {name} is zero")


@check(
    "All noise of training_loss comes from the given generator, so that one seed gives one loss",
    "the loss calls torch.randn without generator=, numpy, or a generator of the model's own",
)
def seeded_loss(subject: Subject) -> None:
    subject.needs_training()
    problem = subject.periodic(subject.smallest())
    model, x = subject.model(problem), draw(problem)
    first = model.training_loss(x, torch.Generator().manual_seed(1)).detach()
    for _ in range(subject.method.period(problem) + 1):
        again = model.training_loss(x, torch.Generator().manual_seed(1)).detach()
        if not torch.equal(first, again):
            raise Broken(f"two losses with one seed differ by {float((first - again).abs()):.2g}")


@check(
    "With objective='ml' the loss has the gradient of the mean negative log_prob",
    "a term is left out or weighted, a sum stands for the mean, or the objective is another one: then name it",
)
def maximum_likelihood(subject: Subject) -> None:
    """Compare the gradients, as a constant may be left out of the loss."""
    if subject.method.objective != "ml":
        raise Inapplicable(f"the method's objective is {subject.method.objective}")
    subject.needs_exact_log_prob()
    problems = subject.one_of_each()
    if "fc" in subject.method.architectures:
        problems += [problem.replace(shape=(64,), layers=2) for problem in subject.of_architecture("fc")[-1:]]
    for problem in problems:
        model = subject.model(problem)
        for n, steps in ((7, 0), (100, 0), (100, 30)):  # in the sizes, the mode and the places of a training
            model.module.train(n == 100)
            x = draw(problem, n)
            train(model, x, steps)
            names, trained = zip(*parameters(model), strict=True)
            ours = torch.autograd.grad(-log_prob(model, x).mean(), trained)
            theirs = torch.autograd.grad(model.training_loss(x, torch.Generator().manual_seed(0)), trained)
            where = f"{problem.architecture}, D = {problem.dimension}, B = {n}, after {steps} steps"
            for name, actual, expected in zip(names, theirs, ours, strict=True):
                closely(actual, expected, 1e-7, f"{where}: the gradient of {name}")


@check(
    "Gradients of log_prob are linear in weights of the samples, as any weighted training needs",
    "one sample decides the gradient of the whole batch (normflows' Residual with reduce_memory=True)",
)
def weighted_samples(subject: Subject) -> None:
    subject.needs_exact_log_prob()
    problem = subject.largest()
    model, x = subject.model(problem), draw(problem)
    if not any(True for _ in parameters(model)):
        raise Inapplicable("no parameter of the method is trained by gradients")
    names, trained = zip(*parameters(model), strict=True)
    weights = torch.arange(len(x), dtype=x.dtype)  # the first sample has none
    # A parameter that only training uses, such as a learned inverse, has no part in log_prob.
    together = torch.autograd.grad((weights * log_prob(model, x)).sum(), trained, materialize_grads=True)
    alone = [
        torch.autograd.grad(weight * log_prob(model, x[i : i + 1]).sum(), trained, materialize_grads=True)
        for i, weight in enumerate(weights)
    ]
    for name, total, shares in zip(names, together, zip(*alone, strict=True), strict=True):
        closely(total, torch.stack(shares).sum(0), 1e-8, f"the gradient of {name}")


@check(
    "200 steps on a known Gaussian reach its entropy, or most of the way there from a start far off",
    "the loss does not train the density, or steps undo each other",
)
def fit(subject: Subject) -> None:
    method, problem = subject.method, subject.smallest(dtype="float32", batch=_BATCH, noise=0.3)
    if problem.architecture == "fc":
        problem = problem.replace(layers=2)
    dimension, vector = problem.dimension, problem.architecture in ("fc", "toy")
    generator = torch.Generator().manual_seed(0)
    # Vectors are correlated; images and the bounded set of multimodal are not, where no layer could undo it.
    factor = torch.eye(dimension) * 0.8 + (0.5 * torch.ones(dimension, dimension).tril(-1) if vector else 0)
    entropy = 0.5 * dimension * (1 + math.log(2 * math.pi)) + float(torch.linalg.slogdet(factor).logabsdet)

    def data(n: int) -> Tensor:
        noise = torch.randn(n, dimension, generator=generator)
        return (noise @ factor.mT + 0.5).view(n, *problem.shape)

    @torch.no_grad()
    def excess(model: Model) -> float:
        model.module.eval()
        return float(-log_prob(model, data(2000)).mean()) - entropy

    if not method.iterative:
        model = build(method, problem)
        closed_form(model).fit([data(2000)])
        left = excess(model)
        if not left < 0.2 * dimension:
            raise Broken(f"{left:.2f} nats above the entropy of {entropy:.2f}, D = {dimension}")
        return
    # Linear layers far from their optimum need a large rate, networks of hidden layers a small one.
    excesses, rates = [], (0.003, 0.01, 0.03) if method.linear == "none" else (0.01, 0.03, 0.003)
    for learning_rate in rates:
        model = build(method, problem)
        model.module.train()
        model.init_batch(data(_BATCH))
        before = excess(model)
        model.module.train()
        config = TrainingConfig(optimizer="adam", learning_rate=learning_rate, ema_decay=None, clip_norm=100.0)
        trainer = Trainer(model, config, torch.Generator().manual_seed(1))
        for step in range(200):
            trainer.optimizer.learning_rate = learning_rate * 0.5 * (1 + math.cos(math.pi * step / 200))
            trainer.step(data(_BATCH))
        excesses.append(excess(model))
        if excesses[-1] < max(0.2 * dimension, 0.4 * before):
            return
    nats = ", ".join(f"{value:.2f}" for value in excesses)
    raise Broken(
        f"{nats} nats above the entropy of {entropy:.2f} with Adam at {', '.join(map(str, rates))}, {before:.2f} at "
        f"the start, D = {dimension}"
    )


@check(
    "With equal weights a method has the log_prob of the paper's fc, as linear='dense' or 'lu' declares, and "
    "linear_layers returns the weights that it has",
    "a bias is missing, a matrix is transposed, there is an activation too many, or load_linear_layers or "
    "linear_layers is missing",
)
@torch.no_grad()
def equal_weights(subject: Subject) -> None:
    method = subject.method
    problem = Problem(shape=(5,), layers=3, dtype="float64", noise=0.5)
    if not method.is_papers_fc:
        raise Inapplicable("the method does not claim to be the paper's fc with dense or LU layers")
    for residual, count in ((False, 3), (True, 3), (False, 1), (False, 2)):
        model = subject.model(problem.replace(residual=residual, layers=count))
        where = f"residual={residual}, L = {count}"
        if not isinstance(model, SharedWeights):
            raise Broken(f"linear='{method.linear}' is declared without load_linear_layers and linear_layers")
        x = draw(problem)
        read = fc_log_prob(model.linear_layers(), x, residual)
        closely(log_prob(model, x), read, 1e-9, f"{where}, with the weights of linear_layers")
        layers, trained = shared_layers(method)[:count], dict(parameters(model))
        model.load_linear_layers(layers)
        if replaced := [name for name, parameter in parameters(model) if parameter is not trained.get(name)]:
            raise Broken(f"load_linear_layers puts another parameter in the place of {replaced[0]}; copy into it")
        closely(log_prob(model, x), fc_log_prob(layers, x, residual), 1e-9, where)
        for index, (given, back) in enumerate(zip(layers, model.linear_layers(), strict=True)):
            for name, expected, actual in zip(("W", "b"), given, back, strict=True):
                closely(actual, expected, 1e-9, f"{name} of layer {index} read after it was loaded")


def shared_layers(method: Method) -> list[tuple[Tensor, Tensor]]:
    """Draw three layers with D = 5: any matrices, with det < 0 overall, or for LU products of triangular factors."""
    generator, dimension = torch.Generator().manual_seed(5), 5

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    layers = []
    for index in range(3):
        if method.linear == "dense":
            weight = noise(dimension, dimension)
            weight = weight if (torch.det(weight) < 0) == (index == 0) else weight[[1, 0, *range(2, dimension)]]
        else:
            # |entries of L| < 1, or a pivoting factorisation would exchange rows.
            lower = torch.eye(dimension, dtype=torch.float64) + (0.2 * noise(dimension, dimension)).tanh().tril(-1)
            weight = lower @ (0.4 * noise(dimension, dimension).triu(1) + torch.diag(0.5 + noise(dimension).abs()))
        layers.append((weight, noise(dimension)))
    return layers


def fc_log_prob(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor, residual: bool = False) -> Tensor:
    """Compute the log-densities in nats, shape (B,), of samples of shape (B, D) under the paper's fc, written out.

    A layer is W x + b, with W of shape (D, D); between two stands the activation f(x) = 0.3 x + 0.7 log(1 + e^x), or
    x + f(x) if it is residual; the base is N(0, I).
    """
    slope = 0.3 + residual
    total = torch.zeros(len(x), dtype=x.dtype)
    for index, (weight, bias) in enumerate(layers):
        if index:
            total = total + torch.log(slope + 0.7 / (1 + torch.exp(-x))).sum(1)
            x = slope * x + 0.7 * torch.log(1 + torch.exp(x))
        total = total + torch.log(torch.abs(torch.det(weight)))
        x = x @ weight.T + bias
    return total - 0.5 * (x**2).sum(1) - 0.5 * x.shape[1] * math.log(2 * math.pi)

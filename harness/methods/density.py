"""What the harness adds to every model: building, the N(0, I) base, log_prob, samples, the score."""

import math
from contextlib import nullcontext
from functools import cache
from itertools import chain

import torch
from torch import Tensor

from harness.errors import InputError
from harness.methods.calls import guarded
from harness.methods.contract import Method, Model, SharedWeights
from harness.methods.precision import stored
from harness.methods.problem import DRAWN_STARTS, WHITENED_STARTS, Problem
from harness.methods.seeds import stream
from harness.methods.whitened import Whitened

_LOOKED_AT = 64


def build(method: Method, problem: Problem) -> Model:
    """Build a model from the problem's seed, on its device and in its dtype; the global random state is left as it was.

    Raises:
        InputError: if the method does not offer what the problem asks for, or if the shape does not fit it.
        TypeError: if the method's `build` returns no model.
        TimeoutError: if building took longer than `harness.methods.calls` allows.
    """
    if problem.architecture not in method.architectures:
        offered = ", ".join(method.architectures)
        raise InputError(
            f"{method.name} has no {problem.architecture} architecture, only {offered}; choose one of these"
        )
    if problem.raw_pixel_alpha is not None and not method.raw_pixels:
        raise InputError(f"{method.name} cannot start from raw pixels; leave out --without-map")
    whitened, fc = problem.start in WHITENED_STARTS, method.is_papers_fc and problem.architecture == "fc"
    if problem.start != "published" and not (fc and problem.raw_pixel_alpha is None):
        raise InputError(f"{method.name} has no {problem.start} start: only the paper's fc has, and not without MaP")
    built_for = problem.replace(shape=(problem.dimension,), start="published") if whitened else problem
    # On the meta device nothing is computed at all: a quick check that the problem fits, whatever its size.
    place = torch.device("meta") if problem.device == "meta" else nullcontext()
    with torch.random.fork_rng(), place:
        torch.manual_seed(stream(problem.seed, "start"))
        try:
            with guarded(f"build of {method.name}"):
                model = method.build(built_for)
        except ValueError as error:
            raise InputError(f"{method.name}: {error}") from error
    if isinstance(model, torch.nn.Module) or not isinstance(getattr(model, "module", None), torch.nn.Module):
        raise TypeError(f"build returned {_kind(model)}, not a model with a torch.nn.Module as its `module`")
    if whitened:
        model = Whitened(method, problem, model)
    elif problem.start in DRAWN_STARTS:
        _load_drawn_start(method, model, problem)
    model.module.to(device=problem.device, dtype=stored(problem.dtype))
    return model


def _load_drawn_start(method: Method, model: Model, problem: Problem) -> None:
    """Set all linear layers to the identity, or to random orthogonal matrices, with small random biases."""
    if not isinstance(model, SharedWeights):
        raise InputError(f"{method.name} lacks load_linear_layers: it cannot start from given weights")
    if problem.device == "meta":
        return
    size, generator = problem.dimension, torch.Generator().manual_seed(stream(problem.seed, "start"))
    layers = []
    for _ in range(problem.layers):
        weight, bias = torch.eye(size), torch.randn(size, generator=generator) / math.sqrt(size)
        if problem.start == "orthogonal":
            torch.nn.init.orthogonal_(weight, generator=generator)
        layers.append((weight, bias))
    try:
        model.load_linear_layers(layers)
    except ValueError as error:
        raise InputError(f"{method.name} cannot start from given weights: {error}") from error


@cache
def refusal(method: Method, problem: Problem) -> str | None:
    """Return why the method does not take the problem, in one line, or None; nothing is computed.

    Any other error, such as that of a library that cannot build without computing, is left to a real build.
    """
    try:
        build(method, problem.replace(device="meta"))
    except Exception as error:
        return str(error) if isinstance(error, InputError) else None
    return None


def folded(model: Model) -> Model:
    """Return the density of a model in the layers of the published start: a whitening in front folds into the first."""
    if not isinstance(model, Whitened):
        return model
    plain = build(model.method, model.problem.replace(start="published"))
    assert isinstance(plain, SharedWeights)
    plain.load_linear_layers(model.folded_layers())
    return plain


def count_parameters(model: Model) -> int:
    """Return the number of trained parameters."""
    return sum(parameter.numel() for parameter in model.module.parameters() if parameter.requires_grad)


def log_prob(model: Model, x: Tensor) -> Tensor:
    """Return the log-density in nats, shape (B,), of a batch of shape (B, *event), in the space that the model sees.

    Raises:
        ValueError: if the model's `to_latent` returns other shapes or types than it promises.
    """
    pair = model.to_latent(x)
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        raise ValueError(f"to_latent returned {_kind(pair)}, not the pair of tensors z and log|det dz/dx|")
    z, log_det = pair
    if z.shape[:1] != x.shape[:1] or z.numel() != x.numel():
        raise ValueError(f"to_latent returned z of shape {tuple(z.shape)} for data of shape {tuple(x.shape)}")
    if log_det.shape != x.shape[:1]:  # a log|det| of shape () or (1,) would broadcast in silence
        shape = tuple(log_det.shape)
        raise ValueError(f"to_latent returned log|det| of shape {shape}, not ({len(x)},): one for each sample")
    for name, part in (("z", z), ("log|det|", log_det)):
        if not part.is_floating_point():
            raise ValueError(f"to_latent returned {name} of {part.dtype}, not of {x.dtype}")
    z = z.flatten(1)
    return log_det - 0.5 * z.square().sum(1) - 0.5 * math.log(2 * math.pi) * z.shape[1]


@torch.no_grad()
def sample(model: Model, latent_shape: tuple[int, ...], n: int, generator: torch.Generator) -> Tensor:
    """Draw n samples, shape (n, *event), from latents that are drawn with the generator on its device."""
    return model.to_data(_latents(model, latent_shape, n, generator))


@torch.no_grad()
def sample_and_change(
    model: Model, latent_shape: tuple[int, ...], n: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Draw samples as `sample` does, and look at the way there and back for the first of them.

    Returns:
        The samples, and by how many standard deviations rounding changes the latent of a sample: its largest
        component, in the median over at most 64 samples.
    """
    z = _latents(model, latent_shape, n, generator)
    x = model.to_data(z)
    back = model.to_latent(x[:_LOOKED_AT])[0]
    change = (back.view_as(z[:_LOOKED_AT]) - z[:_LOOKED_AT]).flatten(1).abs().amax(1)
    return x, float(change.nan_to_num(math.inf).median())


def score(model: Model, x: Tensor) -> Tensor:
    """Return the gradient of log p with respect to x by autograd, shape (B, *event)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(log_prob(model, x).sum(), x)
    return gradient


def _latents(model: Model, latent_shape: tuple[int, ...], n: int, generator: torch.Generator) -> Tensor:
    tensors = chain(model.module.parameters(), model.module.buffers())
    dtype = next(tensor.dtype for tensor in tensors if tensor.is_floating_point())
    return torch.randn(n, *latent_shape, generator=generator, dtype=dtype, device=generator.device)


def _kind(thing: object) -> str:
    return "None" if thing is None else f"a {type(thing).__name__}"

"""Langevin dynamics: Markov chains that need the score of a density, and so no determinant of a flow's linear layers.

Some components may be held: the chain then samples the others given these, which fills in what is missing of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ebflow.noise import normal, uniform

__all__ = ["chain", "released_chain"]

_BLUR_WIDTH, _BLUR_SIGMA = 5, 1.1
# Shares of accepted proposals at the best step, in many dimensions: https://doi.org/10.1111/1467-9868.00123 for one
# leapfrog step, https://doi.org/10.3150/12-BEJ414 for many.
_ACCEPTED_OF_ONE, _ACCEPTED_OF_MANY = 0.574, 0.651


def chain(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    steps: int,
    step_size: float,
    mask: Tensor | None = None,
    covariance: Tensor | None = None,
    log_density: Callable[[Tensor], Tensor] | None = None,
    warmup: int = 0,
    leapfrog: int = 1,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    r"""Yield the iterates x <- x + alpha P score(x) + sqrt(2 alpha) P^(1/2) n, n from N(0, I), one chain a sample.

    Without `covariance`, P = I, which is the paper's sampler (https://arxiv.org/abs/2305.15267). Any fixed P keeps the
    target; with the target's own covariance as P all directions mix in about 1 / alpha steps, where P = I needs a step
    below the smallest variance and then mixes the largest in their ratio of steps.

    The chain is biased by its step. With `log_density` each step is a proposal, accepted or refused as a whole
    (Metropolis-adjusted Langevin, https://doi.org/10.2307/2346184), and the target is exact. The best step then has
    57 % accepted. During `warmup` each chain moves its own step size towards that (Robbins-Monro); the iterates after
    it, whose step is fixed, are the sample.

    Such a step is one leapfrog step of length sqrt(2 alpha) with a momentum n. With more of them from one momentum,
    `leapfrog`, an iterate goes far instead of wandering (Hamiltonian Monte Carlo, https://arxiv.org/abs/1206.1901):
    where P is the covariance, a length of pi / 2 in all makes iterates all but independent. Best is then 65 %.

    Args:
        score: A function from (B, *event) to the gradient of log p, same shape; `EBFlow.score` is one.
        x: Where the chains start, shape (B, *event); it is not changed.
        steps: Number of iterates to yield; each is a new tensor of x's shape.
        step_size: The alpha of the formula, in squared units of x, or in units of `covariance` where that is given.
        mask: True on the components that move, shape event; the others are held. All move by default.
        covariance: An approximate covariance of the density, shape (D, D) with D the size of an event. With a mask P
            is that of the moving components given the held ones.
        log_density: A function from (B, *event) to log p plus a constant in nats, shape (B,), such as -`EBFlow.energy`.
        warmup: How many of the first iterates adapt the step size; needs `log_density`.
        leapfrog: Number of leapfrog steps, and so of scores, an iterate.
        generator: Source of all noise, on x's device.

    Raises:
        ValueError: if mask or covariance do not fit x, the covariance is not symmetric or not positive definite,
            step_size is not a number above 0, leapfrog is below 1, or there is a warm-up without log_density.
    """
    if not 0 < step_size < math.inf:
        raise ValueError(f"the step size must be a number above 0, not {step_size}")
    if leapfrog < 1:
        raise ValueError(f"an iterate takes at least 1 leapfrog step, not {leapfrog}")
    if warmup and log_density is None:
        raise ValueError("a warm-up adapts the step size to how many steps are accepted, and needs log_density")
    moving = _moving(x, mask)
    factor = None if covariance is None else _conditional_factor(x, covariance, moving)
    return _iterate(score, x, steps, step_size, moving, factor, log_density, warmup, leapfrog, generator)


def _iterate(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    steps: int,
    step_size: float,
    moving: Tensor,
    factor: Tensor | None,
    log_density: Callable[[Tensor], Tensor] | None,
    warmup: int,
    leapfrog: int,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    """Walk in coordinates u with x = L u on the moving components, P = L L^T: there the chain is the plain one."""

    def gradient(x: Tensor) -> Tensor:
        slope = score(x).flatten(1)[:, moving]
        return slope if factor is None else slope @ factor

    def moved(x: Tensor, step: Tensor) -> Tensor:
        flat = x.flatten(1).clone()
        flat[:, moving] += step if factor is None else step @ factor.mT
        return flat.view_as(x)

    with torch.no_grad():
        drift = gradient(x)
        level = None if log_density is None else log_density(x)
        size = drift.new_full((len(x), 1), step_size)
    accepted_at_best = _ACCEPTED_OF_ONE if leapfrog == 1 else _ACCEPTED_OF_MANY
    for number in range(steps):
        # Not around the yield: what the caller does between two iterates is the caller's business.
        with torch.no_grad():
            noise = normal(drift.shape, generator, x)
            length = (2 * size).sqrt()
            proposal, momentum, drift_there = x, noise, drift
            for _ in range(leapfrog):
                momentum = momentum + length / 2 * drift_there
                proposal = moved(proposal, length * momentum)
                drift_there = gradient(proposal)
                momentum = momentum + length / 2 * drift_there
            if log_density is None or level is None:
                x, drift = proposal, drift_there
            else:
                level_there = log_density(proposal)
                # The way back has the momentum of the end, turned round, for its noise.
                log_ratio = level_there - level + 0.5 * (noise.square() - momentum.square()).sum(1)
                drawn = uniform((len(x),), generator, x)
                accepted = drawn.log() < log_ratio  # false where the ratio is not a number
                x = torch.where(accepted.view(-1, *[1] * (x.dim() - 1)), proposal, x)
                drift = torch.where(accepted[:, None], drift_there, drift)
                level = torch.where(accepted, level_there, level)
                if number < warmup:
                    gap = log_ratio.exp().clamp(max=1).nan_to_num() - accepted_at_best
                    size = size * (gap / (number + 1) ** 0.6).exp()[:, None]
        yield x


def released_chain(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    steps: int = 500,
    step_size: float = 0.5,
    noise_to_signal: float = 0.1,
    smoothing: float = 0.05,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield the iterates of the sampler that the paper's authors released for inpainting.

    Unlike the paper's it pulls the image towards a blur of itself, scales the noise by the squared ratio of the norms
    of noise and score and not by the root of the step, and adds none in the last step, so that it samples no known
    density.

    With s the score, h the step size and m the mask, x <- x + m (s h^2 / 2 + smoothing (blur(x) - x)), and in all steps
    but the last + m noise_to_signal (mean |n| / mean |s|)^2 h n. Means are over the batch, norms over whole samples.
    The blur is a 5 x 5 Gaussian of standard deviation 1.1 pixels, reflected at the border.

    Args:
        score: A function from (B, C, H, W) to the gradient of log p, same shape.
        x: Where the chains start, shape (B, C, H, W), H and W of at least 3; it is not changed.
        steps: Number of iterates to yield.
        step_size: The h of the formula.
        noise_to_signal: The authors' snr.
        smoothing: The authors' kappa; they used 0.05 and 0.01.
        mask: True on the components that move, shape (C, H, W). All move by default.
        generator: Source of all noise, on x's device.

    Raises:
        ValueError: if x holds no images, or the mask does not fit it.
    """
    if x.dim() != 4:
        raise ValueError(f"the released sampler blurs images, (B, C, H, W), and cannot take shape {tuple(x.shape)}")
    return _iterate_released(
        score, x, steps, step_size, noise_to_signal, smoothing, _moving(x, mask).view(x.shape[1:]), generator
    )


def _iterate_released(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    steps: int,
    step_size: float,
    noise_to_signal: float,
    smoothing: float,
    moving: Tensor,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    for step in range(steps):
        with torch.no_grad():
            gradient = score(x)
            change = 0.5 * step_size**2 * gradient + smoothing * (_blur(x) - x)
            noise = normal(x.shape, generator, x)
            if step < steps - 1:
                ratio = noise.flatten(1).norm(dim=1).mean() / gradient.flatten(1).norm(dim=1).mean()
                change = change + noise_to_signal * ratio.square() * step_size * noise
            x = torch.where(moving, x + change, x)
        yield x


def _moving(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mask flattened, shape (D,)."""
    event = x.shape[1:]
    if mask is None:
        return torch.ones(math.prod(event), dtype=torch.bool, device=x.device)
    if mask.dtype != torch.bool or mask.shape != event:
        raise ValueError(
            f"the mask must be boolean of the samples' shape {tuple(event)}, not {mask.dtype} of {tuple(mask.shape)}"
        )
    return mask.to(x.device).flatten()


def _conditional_factor(x: Tensor, covariance: Tensor, moving: Tensor) -> Tensor:
    """Return the lower L, in float64, with L L^T the covariance of the moving components given the held ones."""
    if covariance.shape != (len(moving), len(moving)):
        raise ValueError(f"samples of {len(moving)} components have no covariance of shape {tuple(covariance.shape)}")
    full = covariance.to(device=x.device, dtype=torch.float64)
    if not bool(full.isfinite().all()):
        raise ValueError("the covariance holds numbers that are not finite")
    if not torch.allclose(full, full.mT, rtol=1e-4, atol=1e-6 * float(full.abs().max())):
        raise ValueError("the covariance is not symmetric: a factor or a transform of it is no covariance")
    held = ~moving
    conditional = full[moving][:, moving]
    if bool(held.any()):
        across = full[held][:, moving]
        if bool(torch.linalg.cholesky_ex(full[held][:, held]).info):
            raise ValueError("the covariance is not positive definite")
        conditional = conditional - across.mT @ torch.linalg.solve(full[held][:, held], across)
    factor, trouble = torch.linalg.cholesky_ex(conditional)
    if bool(trouble):
        raise ValueError("the covariance is not positive definite")
    return factor.to(x.dtype)


def _blur(x: Tensor) -> Tensor:
    """Return each channel blurred, shape (B, C, H, W)."""
    at = torch.arange(_BLUR_WIDTH, dtype=x.dtype, device=x.device) - _BLUR_WIDTH // 2
    row = torch.softmax(-0.5 * (at / _BLUR_SIGMA).square(), 0)
    channels, reach = x.shape[1], _BLUR_WIDTH // 2
    kernel = torch.outer(row, row).expand(channels, 1, -1, -1)
    return conv2d(pad(x, (reach,) * 4, mode="reflect"), kernel, groups=channels)

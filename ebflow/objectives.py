"""Training objectives: maximum likelihood, and score matching without determinants.

Every objective is a callable ``objective(flow, x, generator=None) -> scalar``. The likelihood objectives are in nats a
sample; the score-matching ones are divided by the dimension D, as in the paper. Nothing is masked: a non-finite sample
makes the loss non-finite, and the training loop reports it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ebflow.flow import EBFlow
from ebflow.layers import Dense, ElementwiseLayer, Reshape
from ebflow.layers.base import under_torch_func
from ebflow.noise import integers, normal, signs

__all__ = [
    "DSM",
    "FDSSM",
    "LCSS",
    "ML",
    "SML",
    "SNL",
    "SSM",
    "Behind",
    "ExactSM",
    "LowEnergy",
    "Objective",
    "TaylorSSM",
]


_POOL = 20_000  # draws of SNL's proposal, out of which every step takes its own
_ROWS_AT_ONCE = 5_000  # of the pool, while it is made
_SHARE_OF_START = 0.9  # of the start in the proposal's mixture; the rest is the wider Gaussian
_FURTHEST = 500.0  # nats below the largest weight of SNL at which a draw counts as zero
_RATE_OF_B = 0.02  # the weight of a step in the average behind b


_Function = TypeVar("_Function", bound=Callable[..., Any])


def not_compiled(function: _Function) -> _Function:
    """Keep `torch.compile` out of a function that changes from call to call and has nothing in it to compile."""
    disable: Callable[[_Function], _Function] = torch.compiler.disable  # which torch itself leaves without types
    return disable(function)


def require_no_transform(objective: Objective) -> None:
    """Raise an error under `torch.func`, whose tensors an objective that remembers anything must not keep.

    Raises:
        RuntimeError: under `torch.func`.
    """
    if under_torch_func():
        raise RuntimeError(
            f"{objective!r} remembers its earlier steps, which torch.func cannot: differentiate it by backward()"
        )


class Objective(ABC):
    """A scalar to minimise in training."""

    @abstractmethod
    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the loss.

        Args:
            flow: The model to train.
            x: A batch, shape (B, *flow.shape), in the space that the flow models.
            generator: Source of all noise, on x's device.
        """

    def prepare(self, flow: EBFlow) -> bool:
        """Do the part of a step that looks at numbers, for a caller that has recorded the rest and replays it.

        Returns:
            Whether all that is left of a step is the same operations on the same tensors every time, as a CUDA graph
            asks for: so for all objectives that remember nothing, and for `AmortizedML`, which refreshes log Z here.
        """
        return not self.get_state()

    def prepared(self) -> AbstractContextManager[object]:
        """Return a context in which calls leave out what `prepare` does: in it, a step is recorded."""
        return nullcontext()

    def get_state(self) -> dict[str, Tensor]:
        """Return what the objective remembers from step to step, by name; most remember nothing."""
        return {}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `get_state` returned, so that training goes on with the same steps."""
        return

    def observations(self, flow: EBFlow) -> dict[str, float]:
        """Return what the objective tells of its own state after a step, by name; most tell nothing."""
        return {}


@dataclass(frozen=True)
class ML(Objective):
    """Maximum likelihood: mean of E(x) + log Z; pays for every determinant at every step."""

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return flow.energy(x).mean() - flow.constant_log_det()


@dataclass(frozen=True)
class SML(Objective):
    """Maximum likelihood by samples: E[E(x)] - E[E(x~)] with x~ from the model, whose gradient is that of ML.

    log Z is never computed; its gradient is -E[grad E(x~)], estimated by as many exact samples as the batch holds. The
    value is not a likelihood. (The authors' code halves it; here it keeps the scale of ML.)
    """

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():  # at every step, so without a look at the digits
            samples = flow.unchecked_inverse(flow.draw_latents(len(x), generator))
        on_data, on_samples = flow.energy(torch.cat([x, samples])).chunk(2)
        return on_data.mean() - on_samples.mean()


class SNL(Objective):
    """Self-normalised likelihood (https://arxiv.org/abs/2503.07021): mean of E(x) + b + mean of exp(-E - b) / q - 1.

    The second mean is over draws from a fixed proposal q. Whatever b is, the expectation is an upper bound of the NLL,
    and it is the NLL where b = log Z. A step needs no determinant and no sample of the model.

    The paper trains b along its gradient, 1 - exp(-b) (mean of w), where w = exp(-E) / q. The best b is the log of
    E_q[w], and so b is taken here as the log of an exponential moving average of the mean of w over all steps before.
    That b does not depend on the draws of its own step, so that the gradient of the loss has the expectation that the
    paper's has; the log of a single step's mean would bias it. Only the first call takes b from its own draws.

    The proposal is fixed at the first call: a mixture of the flow as it starts, and of a Gaussian with the mean and 1.1
    times the standard deviations of the first batch, component by component. A pool of 20,000 draws is made once, which
    takes an exact inverse and the log Z of the start. The variance of w grows exponentially with the divergence of what
    is learnt from the proposal: the loss works in few dimensions, or behind a start from data that is near the optimum.
    `observations` tells how many draws are effective. A draw with less than e^-500 of the largest weight is left out
    as zero: there the energies of couplings overflow, and so would their gradients.

    Every call counts as a training step, and an object serves one flow.

    Args:
        draws: Number of draws from q at a step, for each sample of the batch.

    Raises:
        ValueError: if draws is below 1.
    """

    def __init__(self, draws: int = 4) -> None:
        if draws < 1:
            raise ValueError(f"the self-normalised likelihood needs at least one draw a sample, not {draws}")
        self.draws = draws
        self._state: dict[str, Tensor] = {}

    def __repr__(self) -> str:
        return f"SNL(draws={self.draws})"

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the loss in nats a sample.

        Raises:
            RuntimeError: under `torch.func`.
        """
        require_no_transform(self)
        if not self._state:
            self._draw_pool(flow, x, generator)
        count = self.draws * len(x)
        chosen = integers(len(self._state["pool"]), count, generator, x)
        on_data, log_weights = self._energies_and_log_weights(flow, x, chosen)
        counts = log_weights > log_weights.nan_to_num(-math.inf).max() - _FURTHEST
        told = log_weights.detach().masked_fill(~counts, -math.inf)
        if not (x.is_meta or bool(counts.all())):
            on_data, log_weights = self._energies_and_log_weights(flow, x, chosen[counts])
        log_mean = log_weights.logsumexp(0) - math.log(count)
        b = self._state.setdefault("b", log_mean.detach())
        with torch.no_grad():
            after = torch.logaddexp(b + math.log1p(-_RATE_OF_B), log_mean + math.log(_RATE_OF_B))
            self._state["b"] = b if "log_weights" not in self._state else after
            self._state["log_weights"] = told
        return on_data.mean() + b + (log_mean - b).exp() - 1

    def _energies_and_log_weights(self, flow: EBFlow, x: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energies of the data, and log w of the chosen draws of the pool."""
        both = flow.energy(torch.cat([x, self._state["pool"][chosen]]))
        return both[: len(x)], -both[len(x) :] - self._state["log_q"][chosen]

    @not_compiled
    @torch.no_grad()
    def _draw_pool(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None) -> None:
        """Draw the pool, and leave the generator as it was: with equal generators the first two losses are equal."""
        source = generator.clone_state() if generator is not None else None
        std, mean = torch.std_mean(x, 0, correction=0)
        gaussian = torch.distributions.Normal(mean, 1.1 * std + 1e-6, validate_args=False)
        of_flow = int(_SHARE_OF_START * _POOL)
        noise = normal((_POOL - of_flow, *flow.shape), source, x)
        starts = [flow.sample(min(_ROWS_AT_ONCE, of_flow - done), source) for done in range(0, of_flow, _ROWS_AT_ONCE)]
        pool = torch.cat([*starts, gaussian.mean + gaussian.stddev * noise])
        of_start = torch.cat([flow.log_prob(rows) for rows in pool.split(_ROWS_AT_ONCE)]) + math.log(_SHARE_OF_START)
        of_gaussian = gaussian.log_prob(pool).flatten(1).sum(1) + math.log(1 - _SHARE_OF_START)
        self._state = {"pool": pool, "log_q": torch.logaddexp(of_start, of_gaussian)}

    def get_state(self) -> dict[str, Tensor]:
        """Return the pool, b and the last weights: a training that goes on from them takes the same steps."""
        return dict(self._state)

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        self._state = dict(state)

    @torch.no_grad()
    def observations(self, flow: EBFlow) -> dict[str, float]:
        """Return how far b is from log Z, in nats, and the share of the last step's draws that count as effective."""
        if "log_weights" not in self._state:
            return {}
        weights = self._state["log_weights"]
        effective = (2 * weights.logsumexp(0) - (2 * weights).logsumexp(0)).exp() / len(weights)
        return {"b_minus_log_z": float(self._state["b"] - flow.log_normalizer()), "effective_draws": float(effective)}


@dataclass(frozen=True)
class SSM(Objective):
    """Sliced score matching, variance-reduced (https://arxiv.org/abs/1905.07088): (|s|^2 / 2 + v^T (ds/dx) v) / D.

    v holds independent signs, one direction a sample.
    """

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        score, curvature = flow.score_and_curvature(x, signs(x.shape, generator, x))
        return (0.5 * score.square().sum() + curvature.sum()) / x.numel()


@dataclass(frozen=True)
class TaylorSSM(Objective):
    """Sliced score matching by Taylor mode: ((v . grad E)^2 / 2 - v^T (Hessian of E) v) / D.

    v holds independent signs. It costs what `FDSSM` does, three rows a sample and one backward pass, and has no
    epsilon: nothing is approximated, nothing cancels.
    """

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        first, second = flow.energy_derivatives(x, signs(x.shape, generator, x))
        return (0.5 * first.square() - second).sum() / x.numel()


@dataclass(frozen=True)
class ExactSM(Objective):
    """Score matching with the exact trace, for a flow of two dense layers: (|s|^2 / 2 + tr(ds/dx)) / D.

    No direction is drawn, so the loss has no noise of its own. With a = W1 x + b1, z = W2 f(a) + b2 and r = (log f')',
    the trace is the sum over units i of (f''_i (W2^T -z)_i + r'_i) |row i of W1|^2, less f'^T G f' with
    G = (W2^T W2) * (W1 W1^T) elementwise: two products of D x D matrices a step, and no factorisation.

    Raises:
        ValueError: if the flow is not dense, elementwise, dense (reshapes aside).
    """

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        match [layer for layer in flow.layers if not isinstance(layer, Reshape)]:
            case [Dense() as first, ElementwiseLayer() as activation, Dense() as last]:
                pass
            case _:
                raise ValueError("exact score matching takes two dense layers with an elementwise one between them")
        before = first.transform(x.flatten(1))
        slope, bend, change = activation.slope_bend_and_change(before)
        score = last.adjoint(-last.transform(activation.value(before))) * slope
        gram = (last.weight.mT @ last.weight) * (first.weight @ first.weight.mT)
        row_norms = first.weight.square().sum(1)
        trace = ((score * bend + change) * row_norms).sum() - ((slope @ gram) * slope).sum()
        return (0.5 * first.adjoint(score + bend).square().sum() + trace) / x.numel()


@dataclass(frozen=True)
class DSM(Objective):
    """Denoising score matching (Vincent, 2011): |s(x + sigma n) + n / sigma|^2 / (2 D).

    Its optimum is the density of the data blurred by N(0, sigma^2 I).

    Args:
        sigma: Standard deviation of the noise, in units of the space that the flow models.

    Raises:
        ValueError: if sigma is not above 0, or is infinite.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"denoising score matching needs a finite noise scale above 0, not {self.sigma}")

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.with_noise(flow, x, normal(x.shape, generator, x))

    def with_noise(self, flow: EBFlow, x: Tensor, noise: Tensor) -> Tensor:
        """Return the loss for given noise n from N(0, I), in the shape of x."""
        score = flow.score(x + self.sigma * noise)
        return 0.5 * (score + noise / self.sigma).square().sum() / x.numel()


@dataclass(frozen=True)
class LCSS(Objective):
    """Score matching whose trace comes from Stein's identity (https://arxiv.org/abs/2412.03962): no tangent is pushed.

    With v ~ N(0, I), the loss is (|s(x)|^2 / 2 + v . (s(x + sigma v) - s(x)) / sigma) / D. By Stein's identity the
    second term has the mean of tr(ds/dx) over N(x, sigma^2 I), so that the loss has that of score matching up to
    O(sigma^2), and exactly for a quadratic energy. The paper's term is v . s(x + sigma v) / sigma. The difference
    v . s(x) / sigma has mean zero and most of the variance, |s|^2 / sigma^2, and s(x) is at hand: it is taken off here.

    Args:
        sigma: Standard deviation of the perturbation, in units of the space that the flow models.

    Raises:
        ValueError: if sigma is not above 0, or is infinite.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"local curvature smoothing needs a finite perturbation above 0, not {self.sigma}")

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        v = normal(x.shape, generator, x)
        here, moved = flow.score(torch.cat([x, x + self.sigma * v])).chunk(2)
        trace = (v * (moved - here)).sum() / self.sigma
        return (0.5 * here.square().sum() + trace) / x.numel()


@dataclass(frozen=True)
class FDSSM(Objective):
    """Finite-difference sliced score matching (https://arxiv.org/abs/2007.03317).

    With v on the sphere of radius epsilon and E+, E0, E- the energies at x + v, x and x - v, the mean of
    ((E+ - E-)^2 / 8 + 2 E0 - E+ - E-) / epsilon^2. As epsilon goes to 0 this is sliced score matching divided by D.
    The differences are small beside the energies: compute them in float32 or float64, and not under autocast.

    Args:
        epsilon: Length of the step, in units of the space that the flow models.

    Raises:
        ValueError: if epsilon is not above 0, or is infinite.
    """

    epsilon: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"finite-difference score matching needs a finite step above 0, not {self.epsilon}")

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        direction = normal(x.shape, generator, x).flatten(1)
        v = (self.epsilon * direction / direction.norm(dim=1, keepdim=True)).view_as(x)
        ahead, here, behind = flow.energy(torch.cat([x + v, x, x - v])).chunk(3)
        per_sample = (ahead - behind).square() / 8 + 2 * here - ahead - behind
        return per_sample.mean() / self.epsilon**2


@dataclass(frozen=True)
class _OnAnother(Objective):
    """An objective made of another one, whose memory is its own."""

    objective: Objective

    def prepare(self, flow: EBFlow) -> bool:
        return self.objective.prepare(flow)

    def prepared(self) -> AbstractContextManager[object]:
        return self.objective.prepared()

    def get_state(self) -> dict[str, Tensor]:
        return self.objective.get_state()

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        self.objective.set_state(state)

    def observations(self, flow: EBFlow) -> dict[str, float]:
        return self.objective.observations(flow)


@dataclass(frozen=True)
class Behind(_OnAnother):
    """Another objective in the space behind the first layers, which are taken as they are and not trained.

    It does not change what maximum likelihood learns, but score matching depends on the space.

    Args:
        objective: The objective in the space behind the layers.
        layers: Number of layers in front.

    Raises:
        ValueError: if the number is negative; in a call, if the flow has no layer with weights behind these.
    """

    layers: int

    def __post_init__(self) -> None:
        if self.layers < 0:
            raise ValueError(f"the number of layers in front must be at least 0, not {self.layers}")

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            for layer in flow.layers[: self.layers]:
                x, _ = layer(x)
        return self.objective(self._rest(flow), x, generator)

    def prepare(self, flow: EBFlow) -> bool:
        return self.objective.prepare(self._rest(flow))

    def observations(self, flow: EBFlow) -> dict[str, float]:
        return self.objective.observations(self._rest(flow))

    def _rest(self, flow: EBFlow) -> EBFlow:
        if not any(True for layer in flow.layers[self.layers :] for _ in layer.parameters()):
            raise ValueError(
                f"behind {self.layers} of the flow's {len(flow.layers)} layers there are no weights to train"
            )
        shape = flow.shape
        for layer in flow.layers[: self.layers]:
            shape = layer.output_shape(shape)
        return EBFlow(shape, flow.layers[self.layers :])


@dataclass(frozen=True)
class LowEnergy(_OnAnother):
    """Another objective plus weight times the mean energy: the regulariser that the authors' code adds.

    As in the authors' code, the energies are those of the samples, and of the noised samples for `DSM`. The energy is
    unbounded below in the constant layers, so a large weight drives the model away from the data's
    density; the paper's supplement (A2.2) calls it encouraging low energy.

    Args:
        objective: The objective that is regularised.
        weight: Weight of the mean energy, in the objective's own scale: nats a dimension for score matching.

    Raises:
        ValueError: if the weight is not a finite number.
    """

    weight: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"the weight of the mean energy must be a finite number, not {self.weight}")

    def __call__(self, flow: EBFlow, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if isinstance(self.objective, DSM):
            noise = normal(x.shape, generator, x)
            loss, x = self.objective.with_noise(flow, x, noise), x + self.objective.sigma * noise
        else:
            loss = self.objective(flow, x, generator)
        return loss + self.weight * flow.energy(x).mean()

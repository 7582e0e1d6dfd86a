"""The experiments: each published table or figure, and a few questions of our own, as declarations.

``quick`` shortens every experiment to minutes on two cores and says how; ``paper`` runs the published protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import unknown
from harness.methods import SCORE_MATCHING
from harness.paper.plans import Context, Imputations, NormalizerErrors, Plan, Timings, Trainings
from harness.paper.recipes import PROFILES

if TYPE_CHECKING:
    from harness.cells import Cell


@dataclass(frozen=True)
class Experiment:
    """One published table or figure, or a question of our own.

    Args:
        name: The name that `reproduce` takes.
        title: What the experiment answers.
        plan: The declaration of the experiment's cells.
        differs: How even the paper profile differs from the publication, in plain words.
    """

    name: str
    title: str
    plan: Plan
    differs: str = ""

    def cells(self, context: Context) -> Sequence[Cell]:
        """Return the units of work."""
        return self.plan.cells(self.name, context)


def select(names: Sequence[str], profile: str) -> list[Experiment]:
    """Return the experiments of these names, or all if none is given, and check the profile.

    Raises:
        InputError: If a name or the profile is unknown.
    """
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    by_name = {experiment.name: experiment for experiment in EXPERIMENTS}
    for name in names:
        if name not in by_name:
            raise unknown("experiment", name, by_name)
    return [by_name[name] for name in dict.fromkeys(names)] or list(EXPERIMENTS)


def statement(name: str, profile: str) -> str:
    """Say in one line how an experiment differs from the publication; empty for a name that is no experiment's."""
    for experiment in EXPERIMENTS:
        if experiment.name == name:
            parts = [experiment.plan.shortened() if profile == "quick" else "", experiment.differs]
            if any(parts):
                return f"Differs from the publication: {'; '.join(filter(None, parts))}."
    return ""


def titled(name: str) -> str:
    """Return the title of an experiment, or of what a command measured beside them; the name itself if it has none."""
    titles = {experiment.name: experiment.title for experiment in EXPERIMENTS}
    return (titles | _COMMANDS).get(name, name)


def _timings(name: str, architecture: str, channels: int, **quick: Any) -> Experiment:
    """Return an experiment that times an architecture on C x n x n images."""
    return Experiment(
        name,
        f"seconds an iteration against n, {architecture}, {channels} x n x n",
        Timings(architecture, channels, **quick),
        "published seconds were measured on an unnamed GPU by code that computes convolution determinants on the CPU: "
        "compare shapes of curves, not seconds",
    )


def _ends(epochs: int, seconds: int) -> dict[str, int]:
    """Return what ends the trainings of a quick profile: so many epochs, or so many seconds."""
    return {"epochs": epochs, "max_seconds": seconds}


_ABLATION: dict[str, Any] = {
    "objectives": ("ssm", "dsm", "fdssm"),
    "own": True,
    "settings": ((False, False), (True, False), (False, True), (True, True)),
}
_COMMANDS = {
    "runtime": "Time of a training iteration",
    "train": "Trainings by hand",
    "asv": "Benchmarks of the commits",
}
"""Titles of what `harness runtime`, `harness train` and `asv run` measure."""
_POINTS = ("sine", "swirl", "checkerboard")
_SMALL_TOY = {"batch": 200, "layers": 5}
_STARTS = ("snf", "snf-negated", "snf-orthogonal", "snf-whitened")
_CRITERIA = ("ebflow-aml", "ebflow-ssm", "ebflow-dsm")
_PERIODS: tuple[dict[str, Any], ...] = ({}, *({"refresh": period} for period in (50, 20, 5, 100, 1)))
_DEPTHS: tuple[dict[str, Any], ...] = tuple(
    {"layers": layers, **residual} for residual in ({}, {"residual": True}) for layers in (2, 4, 8)
)
_SPACES = ("tuned", "tuned-unrefitted", "tuned-logit-space")

_RIVALS = (
    *("ebflow-ml", "ebflow-aml", "relative-gradient-ml", "self-normalizing-ml", "ebflow-ssm", "ebflow-dsm"),
    *("nflows-dense-aml", "normflows-dense-aml", "zuko-dense-aml"),
)

_CIFAR_DIFFERS = "no low-energy regulariser, no spectral normalisation"
_MAP_DIFFERS = (
    "without MaP, noise leaves the pixel range and the logit is not a number: DSM and FDSSM diverge as published; "
    "the authors' code masks these values"
)
_TUNED_DIFFERS = "the networks and parameter counts are the paper's, optimiser, schedule and start are not"
_SMOOTH_DIFFERS = (
    f"{_TUNED_DIFFERS}; smooth noise is another bound of the same likelihood than the uniform noise of the paper"
)

EXPERIMENTS: tuple[Experiment, ...] = (
    _timings("figure2a-fc", "fc", channels=1, quick_repeats=5, quick_sides=(16, 24, 32, 40)),
    _timings("figure2a-cnn", "cnn", channels=1, quick_repeats=3),
    _timings("figure2a-fc-colour", "fc", channels=3, quick_repeats=1, quick_sides=(16, 24)),
    _timings("figure2a-cnn-colour", "cnn", channels=3, quick_repeats=1, quick_sides=(16,)),
    Experiment(
        "table1-2d",
        "KL and Fisher divergence from the exact density, 2-D sets",
        # The published rates are for 50,000 steps; a short run needs larger ones, the same for every method. A draw of
        # the noise is a test point of its own here, so one draw of 10,000 is what the paper does.
        Trainings(_POINTS, "toy", {"learning_rate": 1e-3, "max_seconds": 4}, quick_problem=_SMALL_TOY, draws=1),
        "divergences are from the exact density of the noised data; the published ones are from a kernel estimate, "
        "and their values could not be obtained",
    ),
    Experiment(
        "digits-fc",
        "NLL on the embedded 8 x 8 digits, fc (not in the paper)",
        Trainings(("digits",), "fc", {"epochs": 40, "evaluate_every": 5}),
    ),
    Experiment(
        "tuned-patches-fc",
        "NLL on patches of photographs, fc and flows of other papers, by one recipe (not in the paper)",
        Trainings(("patches",), "fc", _ends(1, 6), ("tuned",), draws=1),
        "not the paper's data",
    ),
    Experiment("table2-mnist-fc", "NLL on MNIST, fc", Trainings(("mnist",), "fc", _ends(2, 6))),
    Experiment("table2-mnist-cnn", "NLL on MNIST, cnn", Trainings(("mnist",), "cnn", _ends(2, 4))),
    Experiment("table2-cifar10-fc", "NLL on CIFAR-10, fc", Trainings(("cifar10",), "fc", _ends(1, 3)), _CIFAR_DIFFERS),
    Experiment(
        "table2-cifar10-cnn", "NLL on CIFAR-10, cnn", Trainings(("cifar10",), "cnn", _ends(1, 3)), _CIFAR_DIFFERS
    ),
    Experiment(
        "gaussian-cifar10",
        "NLL of one Gaussian on CIFAR-10, with the published augmentation and without (not in the paper)",
        Trainings(("cifar10",), "fc", _ends(1, 3), ("paper", "paper-unaugmented"), methods=("gaussian",)),
    ),
    Experiment(
        "glow-mnist",
        "NLL on MNIST, glow",
        Trainings(("mnist",), "glow", _ends(1, 1), quick_problem={"batch": 4, "layers": 2}, quick_objectives=("ml",)),
        "the published 728 is one number, for SSM",
    ),
    Experiment(
        "tuned-digits-fc",
        "NLL on the embedded 8 x 8 digits, fc, every method trained as well as we can (not in the paper)",
        Trainings(("digits",), "fc", {"epochs": 10}, ("tuned",)),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "tuned-mnist-fc",
        "NLL on MNIST, fc, every method trained as well as we can",
        Trainings(("mnist",), "fc", _ends(1, 5), ("tuned",)),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "tuned-fashion-fc",
        "NLL on Fashion-MNIST, fc, every method trained as well as we can (not in the paper)",
        Trainings(("fashion-mnist",), "fc", _ends(1, 5), ("tuned",), quick_objectives=("ml", "aml", "dsm")),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "smooth-mnist-fc",
        "NLL on MNIST, fc, every method trained as well as we can, smooth dequantisation noise (not in the paper)",
        Trainings(("mnist",), "fc", _ends(1, 5), ("tuned-smooth",), quick_objectives=("dsm",)),
        _SMOOTH_DIFFERS,
    ),
    Experiment(
        "amortised-digits-fc",
        "NLL on the digits, fc, by maximum likelihood whose log Z is refreshed by drift or every k steps (not in the "
        "paper)",
        Trainings(("digits",), "fc", {"epochs": 10}, ("tuned",), methods=_RIVALS, variants=_PERIODS),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "amortised-mnist-fc",
        "NLL on MNIST, fc, by maximum likelihood whose log Z is refreshed by drift or every k steps (our own)",
        Trainings(("mnist",), "fc", _ends(1, 5), ("tuned",), methods=_RIVALS, variants=_PERIODS),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "amortised-mnist-cnn",
        "NLL on MNIST, cnn, by maximum likelihood whose log Z is refreshed by drift or every k steps (our own)",
        Trainings(
            ("mnist",), "cnn", _ends(1, 4), ("tuned",), methods=_RIVALS, variants=({}, {"refresh": 5}, {"refresh": 20})
        ),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "amortised-cifar10-fc",
        "NLL on CIFAR-10, fc, augmented as in the authors' code, by maximum likelihood whose log Z is kept",
        Trainings(("cifar10",), "fc", _ends(1, 3), ("tuned-augmented",), methods=("gaussian", *_RIVALS)),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "tuned-mnist-cnn",
        "NLL on MNIST, cnn, every method trained as well as we can",
        Trainings(("mnist",), "cnn", _ends(1, 4), ("tuned",), quick_objectives=("ml", "dsm")),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "start-mnist-fc",
        "what the start is worth: NLL on MNIST, fc, maximum likelihood at one constant rate from four starts (not in "
        "the paper)",
        Trainings(("mnist",), "fc", _ends(1, 3), _STARTS, methods=("ebflow-ml", "ebflow-aml", "ebflow-dsm")),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "depth-digits-fc",
        "does score matching come nearer to maximum likelihood in a deeper network? digits, fc (not in the paper)",
        Trainings(("digits",), "fc", {"epochs": 10}, ("tuned",), methods=_CRITERIA, variants=_DEPTHS),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "depth-mnist-fc",
        "does score matching come nearer to maximum likelihood in a deeper network? MNIST, fc (not in the paper)",
        Trainings(("mnist",), "fc", _ends(1, 3), ("tuned",), methods=_CRITERIA, variants=_DEPTHS),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "tuned-cifar10-cnn",
        "NLL on CIFAR-10, cnn, augmented as in the authors' code, every method trained as well as we can",
        Trainings(("cifar10",), "cnn", _ends(1, 3), ("tuned-augmented",), quick_objectives=("aml", "dsm")),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "why-nll-rises",
        "score matching from a good start, digits: its NLL with a refitted last layer and not, whitened and not",
        Trainings(("digits",), "fc", {"epochs": 10}, _SPACES, ("ml", "ssm", "dsm"), own=True),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "why-nll-rises-mnist",
        "score matching from a good start, MNIST: its NLL with a refitted last layer and not, smooth noise and not",
        Trainings(
            ("mnist",),
            "fc",
            _ends(1, 2),
            (*_SPACES, "tuned-smooth", "tuned-smooth-unrefitted"),
            ("ssm", "dsm"),
            quick_objectives=("dsm",),
            own=True,
        ),
        f"{_SMOOTH_DIFFERS}; losses in the logit space, behind the whitening and with smooth noise are three different "
        "ones",
    ),
    Experiment(
        "tuned-2d",
        "KL and Fisher divergence from the exact density, 2-D sets, every objective with one recipe (not in the paper)",
        Trainings(_POINTS, "toy", {"max_seconds": 2}, ("tuned",), quick_problem=_SMALL_TOY, draws=1),
        _TUNED_DIFFERS,
    ),
    Experiment(
        "official-lambda-cifar10-fc",
        "NLL on CIFAR-10, fc, with the low-energy regulariser as the authors' code weighs it",
        Trainings(("cifar10",), "fc", _ends(1, 3), ("official-lambda",), SCORE_MATCHING, quick_objectives=("dsm",)),
    ),
    Experiment(
        "imputation-mnist",
        "lower half of 1,000 held-out MNIST images filled in by Langevin dynamics, dB",
        Imputations((("gaussian", "paper"), ("ebflow-ml", "tuned"), ("ebflow-dsm", "tuned"))),
        "Metropolis-adjusted, preconditioned proposals of five leapfrog steps instead of plain ones, MNIST instead of "
        "CelebA and STL-10; the authors fill in training images, and publish no number",
    ),
    Experiment(
        "log-z",
        "error of Monte Carlo estimates of log Z against the exact one, as D grows",
        NormalizerErrors(),
        "the paper states the importance-sampling identity and publishes no number",
    ),
    Experiment(
        "table4-digits-fc",
        "EMA and MaP, one without the other, embedded digits (not in the paper)",
        Trainings(("digits",), "fc", {"epochs": 40, "evaluate_every": 5}, **_ABLATION),
        _MAP_DIFFERS,
    ),
    Experiment(
        "table4-mnist-fc",
        "EMA and MaP, one without the other, MNIST",
        Trainings(("mnist",), "fc", _ends(1, 4), **_ABLATION),
        _MAP_DIFFERS,
    ),
    Experiment(
        "figure-a4-matrices",
        "NLL of a 10-D multimodal density with full, triangular and LU matrices",
        Trainings(("multimodal10",), "multimodal", {"max_seconds": 5}, draws=1),  # no noise: draws are the same
        "the base is N(0, I) instead of the authors' Laplace distribution; float64, because in float32 half "
        "of the points lie on hyperplanes; validation picks the weights; the published curves could not be obtained",
    ),
)

"""Names that a shell completes: quick, without torch, and never an error in the middle of a command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Complete = Callable[[str], list[tuple[str, str]]]


def _completes(names: Callable[[], Iterable[tuple[str, str]]]) -> Complete:
    """Turn a function that lists names, each with its help, into a callback; whatever fails completes nothing."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        try:
            return [(name, text) for name, text in names() if name.startswith(incomplete)]
        except Exception:
            return []

    return complete


def comma_separated(complete: Complete) -> Complete:
    """Complete the last name of a list, with those that are not in it yet."""

    def complete_last(incomplete: str) -> list[tuple[str, str]]:
        before, comma, last = incomplete.rpartition(",")
        there = before.split(",")
        return [(f"{before}{comma}{name}", text) for name, text in complete(last) if name not in there]

    return complete_last


@_completes
def methods() -> Iterable[tuple[str, str]]:
    """Every method, with what it is."""
    from harness.methods.registry import registry

    return [(method.name, method.summary) for method in registry().methods.values()]


@_completes
def datasets() -> Iterable[tuple[str, str]]:
    """Every dataset."""
    from harness.datasets import names

    return [(name, "") for name in names()]


@_completes
def recipes() -> Iterable[tuple[str, str]]:
    """Every recipe, with what it changes."""
    from harness.paper.recipes import RECIPES

    return RECIPES.items()


@_completes
def experiments() -> Iterable[tuple[str, str]]:
    """Every experiment, with what it answers."""
    from harness.paper.experiments import EXPERIMENTS

    return [(experiment.name, experiment.title) for experiment in EXPERIMENTS]


@_completes
def profiles() -> Iterable[tuple[str, str]]:
    """The profiles of `reproduce`."""
    return [("quick", "minutes, shortened"), ("paper", "the published protocol")]


@_completes
def executors() -> Iterable[tuple[str, str]]:
    """Who can run the cells of a sweep."""
    return [(name, "") for name in ("serial", "processes", "dask")]


@_completes
def architectures() -> Iterable[tuple[str, str]]:
    """Every architecture."""
    from harness.methods import ARCHITECTURES

    return [(name, "") for name in ARCHITECTURES]


@_completes
def dtypes() -> Iterable[tuple[str, str]]:
    """Every dtype."""
    from harness.methods import DTYPES

    return [(name, "") for name in DTYPES]


@_completes
def devices() -> Iterable[tuple[str, str]]:
    """The usual devices."""
    return [("cpu", ""), ("cuda", "the first GPU")]

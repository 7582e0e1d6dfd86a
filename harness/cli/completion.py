"""Names that a shell completes: quick, without torch, and never an error in the middle of a command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Complete = Callable[[str], list[tuple[str, str]]]


def _completes(names: Callable[[], Iterable[tuple[str, str]]]) -> Complete:
    """Make a callback for typer of a function that lists names with their help; an error completes nothing."""

    def complete(incomplete: str) -> list[tuple[str, str]]:
        try:
            return [(name, text) for name, text in names() if name.startswith(incomplete)]
        except Exception:
            return []

    return complete


def comma_separated(complete: Complete) -> Complete:
    """Complete the last name of a comma-separated list, with the names that the list does not have yet."""

    def complete_last(incomplete: str) -> list[tuple[str, str]]:
        before, comma, last = incomplete.rpartition(",")
        there = before.split(",")
        return [(f"{before}{comma}{name}", text) for name, text in complete(last) if name not in there]

    return complete_last


@_completes
def methods() -> Iterable[tuple[str, str]]:
    """Return every method, with a summary of what it is."""
    from harness.methods.registry import registry

    return [(method.name, method.summary) for method in registry().methods.values()]


@_completes
def datasets() -> Iterable[tuple[str, str]]:
    """Return every dataset."""
    from harness.datasets import names

    return [(name, "") for name in names()]


@_completes
def recipes() -> Iterable[tuple[str, str]]:
    """Return every recipe, with what it changes."""
    from harness.paper.recipes import RECIPES

    return RECIPES.items()


@_completes
def experiments() -> Iterable[tuple[str, str]]:
    """Return every experiment, with the question that it answers."""
    from harness.paper.experiments import EXPERIMENTS

    return [(experiment.name, experiment.title) for experiment in EXPERIMENTS]

"""What every cell is: its identity, its cost, how it is checked and run, and the rows that it makes."""

from __future__ import annotations

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from harness import __version__
from harness.cells.pictures import Arrays
from harness.errors import InputError, UnavailableError, one_line
from harness.methods import Method, Problem
from harness.methods.density import refusal
from harness.methods.families import family
from harness.methods.process_settings import give_back_memory
from harness.methods.registry import registry, why_unavailable
from harness.methods.shared_settings import watched
from harness.results import Row, Store, cell_key
from harness.results.provenance import capture
from harness.results.schema import FINISHED, NOISY, TIMED_UNITS, noted
from harness.results.statistics import NOISY_DRIFT, Estimate
from harness.training.checkpoints import TrainingCheckpoint
from harness.training.loop import Divergence
from harness.training.processes import processes

Progress = Callable[[int, int, str], None]
"""A function that is told how many steps of the running cell are done, of how many, and a note."""

Keep = Callable[[Arrays], None]
"""A function that takes the arrays that are to lie beside a cell's rows."""

APART: Mapping[str, bool] = {"identity": False}
"""Metadata of a field that has no part in what a cell measures, such as the folder where the data lie."""


@dataclass(frozen=True)
class Origin:
    """How a cell came to be asked for: facts about it that its rows carry and that do not determine it.

    Args:
        argv: The arguments of this program that ask for this cell, threads aside.
        recipe: The name of the training configuration that the cell starts from; none for a timing.
        overrides: The fields of that configuration that were changed, with their new values.
        shortened: Whether the training has less than the length of its recipe; None where nothing is trained.
    """

    argv: tuple[str, ...] = ()
    recipe: str = "none"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    shortened: bool | None = None


@dataclass(frozen=True)
class Outcome:
    """What a cell has made, to be kept.

    Args:
        rows: The rows of the cell, at least one.
        arrays: What a trained model looks like.
        cut_off: Whether the cell was ended by a limit or a kill, so that a later run can go on from there.
    """

    rows: list[Row]
    arrays: Arrays = field(default_factory=dict)
    cut_off: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell(ABC):
    """One unit of work, which is run, stored and resumed as a whole.

    A subclass declares its `kind` and says what to measure. A kind's defaults never change once cells of it are stored:
    a new option gets the default under which old cells were made, so that their keys stay as they are.

    Args:
        experiment: What asked for the cell, such as ``table2-mnist-fc`` or ``runtime``.
        profile: How far the protocol is shortened: quick, paper, or custom.
        problem: The function, its size, and the numbers that it is computed in.
        recipe: What tables call the training configuration.
        origin: How the cell came to be asked for.
    """

    kind: ClassVar[str]
    main_metric: ClassVar[tuple[str, str]]
    """The metric and the unit of the row that stands for a cell without a result."""

    experiment: str
    profile: str
    problem: Problem
    recipe: str = field(default="none", metadata=APART)
    origin: Origin = field(default_factory=Origin, metadata=APART)

    @property
    @abstractmethod
    def title(self) -> str:
        """What a progress bar calls the cell."""

    @property
    @abstractmethod
    def method_names(self) -> tuple[str, ...]:
        """The names of the methods that the cell measures."""

    @property
    def data(self) -> str:
        """The name of the data; ``normal`` for batches from N(0, I)."""
        return "normal"

    @property
    def budget(self) -> float | None:
        """The seconds after which the cell's training ends at the latest, or None."""
        return None

    @property
    def exclusive(self) -> bool:
        """Whether the result depends on the time that things take, so that the cell needs the machine to itself."""
        return self.budget is not None

    @property
    def always_runs(self) -> bool:
        """Whether the cell runs although its rows are stored, as for weights, which no store holds."""
        return False

    @property
    def competitors(self) -> list[Method]:
        """The methods that the cell measures."""
        return [registry().find(name) for name in self.method_names]

    def cost(self) -> float:
        """Estimate the seconds that the cell takes on this machine; 0 if it cannot run."""
        return 0.0

    def closing_cost(self) -> float:
        """Estimate how many of these seconds come after the last progress that the cell tells."""
        return 0.0

    def check(self) -> None:
        """Find the user's own mistakes, quickly, before anything is run.

        Raises:
            InputError: If a method does not take the problem, or cannot do what is asked.
        """
        for method in self.competitors:
            # The seed has no part in it, and a large model is not built once for each.
            if why_unavailable(method) is None and (reason := refusal(method, self.problem.replace(seed=0))):
                raise InputError(reason)

    def identity(self) -> dict[str, Any]:
        """Return what determines the result; cells of equal identities share a file.

        It is the kind, the fields that differ from their defaults, and what the cell runs on: this version of the
        project, Python, torch and the methods' libraries, the processor and the number of threads, each of which may
        change a number, if only in its last digits. The commit has no part in it, or the change of a comment would have
        everything measured again; a change of the code that changes results raises the version. Rows name their commit.
        """
        libraries = {library for method in self.competitors for library in method.requires}
        environment = capture(self.problem.device, libraries)
        where = {
            "project": __version__,
            "versions": environment.versions,
            "cpu": environment.cpu,
            "gpu": environment.gpu,
            "threads": environment.threads,
        }
        if (count := processes()) > 1:  # whose timings and rounding are others
            where["processes"] = count
        return {"kind": self.kind, **where, **_differing(self)}

    def limits_of(self, method: Method) -> str | None:
        """Return what tables say of a method's rows beside their numbers, or None."""
        return method.limits

    def key(self) -> str:
        """Return the name of the cell, and of its file: a digest of its identity."""
        return cell_key(self.identity())

    @abstractmethod
    def measure(self, progress: Progress, keep: Keep, resume: TrainingCheckpoint | None) -> list[Row]:
        """Measure, and return the rows; whatever goes wrong is raised.

        Args:
            progress: Is told how far the measurement is.
            keep: Takes the arrays that show what was trained.
            resume: Where a training is saved and goes on from, for cells that train.

        Raises:
            UnavailableError: If a library or data are missing, or the method cannot do what the cell asks.
            Divergence: If a training or a score is not finite.
        """

    def run(
        self, progress: Progress = lambda done, total, note: None, resume: TrainingCheckpoint | None = None
    ) -> Outcome:
        """Measure; whatever a method does, its exit included, ends as rows with a status. Ctrl-C is passed on."""
        arrays: Arrays = {}
        try:
            with watched() as changed:
                rows = self.measure(progress, arrays.update, resume)
        except KeyboardInterrupt:
            raise
        except UnavailableError as error:
            return Outcome(self.without_result("unavailable", str(error)))
        except Divergence as error:
            return Outcome(self.without_result("diverged", str(error)))
        except BaseException as error:  # SystemExit, and what a library in Rust panics with, are no Exception
            return Outcome(self.without_result("failed", one_line(error)))
        finally:
            give_back_memory()
        return Outcome(self.with_caveats([_finite(row) for row in rows], changed), arrays)

    def with_caveats(self, rows: list[Row], changed: list[str]) -> list[Row]:
        """Return the rows of the cell's one method, with the shared settings that it changed in their reasons."""
        return [noted(row, changed_settings(changed)) for row in rows] if changed else rows

    def without_result(self, status: str, reason: str) -> list[Row]:
        """Return the rows of a cell that could not end, one a method, with the reason."""
        return [self.row_maker(method)(*self.main_metric, status=status, reason=reason) for method in self.competitors]

    def row_maker(self, method: Method | None) -> Callable[..., Row]:
        """Return a function from metric, unit, estimate and other columns to a row of one method, or of the machine."""
        identity, problem = self.identity(), self.problem
        environment = capture(problem.device, method.requires if method else ())
        config: dict[str, Any] = {
            "identity": identity,
            "settings": _settings(self),
            "origin": dataclasses.asdict(self.origin),
        }
        if method is not None and method.family:  # what the objective's name does not tell
            config["family"] = family(method.objective, method.linear, method.family)
        template = Row(
            cell=cell_key(identity),
            experiment=self.experiment,
            profile=self.profile,
            recipe=self.recipe,
            method=method.name if method else "machine",
            objective=method.objective if method else "none",
            linear=method.linear if method else "none",
            limits=self.limits_of(method) if method else None,
            dataset=self.data,
            architecture=problem.architecture,
            shape="x".join(map(str, problem.shape)),
            D=problem.dimension,
            L=problem.layers,
            B=problem.batch,
            seed=problem.seed,
            dtype=problem.dtype,
            device=problem.device,
            threads=environment.threads,
            metric="",
            unit="",
            config=json.dumps(config, sort_keys=True),
            versions=json.dumps(environment.versions, sort_keys=True),
            cpu=environment.cpu,
            gpu=environment.gpu,
            commit=environment.commit,
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

        def row(metric: str, unit: str, estimate: Estimate | None = None, **columns: Any) -> Row:
            if estimate is not None:
                columns |= dict(zip(("value", "ci_low", "ci_high", "n"), dataclasses.astuple(estimate), strict=True))
            return dataclasses.replace(template, metric=metric, unit=unit, **columns)

        return row


def single(value: float) -> Estimate:
    """Return the estimate of a number that was measured once."""
    return Estimate(float(value), None, None, 1)


def not_measured(row: Callable[..., Row], metric: str, unit: str, error: BaseException, **columns: Any) -> Row:
    """Return the row of one metric that has no value because its measurement raised an error."""
    diverged = isinstance(error, Divergence)
    reason = str(error) if diverged else one_line(error)
    return row(metric, unit, status="diverged" if diverged else "failed", reason=reason, **columns)


def changed_settings(names: Iterable[str]) -> str:
    """Say in a row's reason which shared settings its method changed."""
    return f"the method changed {', '.join(names)} for the whole process; this was undone after every call"


def with_drift(rows: list[Row], drift: Row) -> list[Row]:
    """Add the row that says how far the machine drifted, and mark what depends on its speed if that was too far."""
    if drift.value is not None and drift.value > NOISY_DRIFT:
        rows = [noted(row, NOISY) if row.unit in TIMED_UNITS else row for row in rows]
    return [*rows, drift]


def is_finished(cell: Cell, rows: Sequence[Row]) -> bool:
    """Return whether no further run would alter a cell's main metric; another metric may have failed alone."""
    main = main_rows(cell, rows)
    return bool(main) and all(row.status in FINISHED for row in main)


def main_rows(cell: Cell, rows: Sequence[Row]) -> list[Row]:
    """Return the rows of a cell's main metric; all its rows if it has none."""
    return [row for row in rows if row.metric == cell.main_metric[0]] or list(rows)


def finished_rows(cell: Cell, store: Store, key: str | None = None) -> list[Row]:
    """Return the stored rows of a cell, under its key on another machine if one is given; none if it has to run."""
    if cell.always_runs:
        return []
    rows = store.read(cell.experiment, key or cell.key())
    return rows if is_finished(cell, rows) else []


def _finite(row: Row) -> Row:
    """Return a row whose numbers are finite; otherwise it loses its interval, or its value, and says so."""
    if row.value is not None and not math.isfinite(row.value):
        reason = f"its {row.metric} is {row.value}"
        return dataclasses.replace(row, value=None, ci_low=None, ci_high=None, n=None, status="failed", reason=reason)
    if all(end is None or math.isfinite(end) for end in (row.ci_low, row.ci_high)):
        return row
    return noted(dataclasses.replace(row, ci_low=None, ci_high=None), "its interval is not finite")


def _fields(thing: Any) -> Iterable[dataclasses.Field[Any]]:
    return (own for own in dataclasses.fields(thing) if own.metadata.get("identity", True))


def _differing(thing: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that have no default or another value than it, dataclasses inside likewise."""
    differing = {}
    for own in _fields(thing):
        value = getattr(thing, own.name)
        default = own.default if own.default_factory is dataclasses.MISSING else own.default_factory()
        if dataclasses.is_dataclass(value):
            value = _differing(value)
            default = _differing(default) if dataclasses.is_dataclass(default) else default
        if default is dataclasses.MISSING or value != default:
            differing[own.name] = value
    return differing


def _settings(thing: Any) -> dict[str, Any]:
    """Return all fields of a dataclass that have a part in what it measures, those at their defaults included."""
    values = ((own.name, getattr(thing, own.name)) for own in _fields(thing))
    return {name: _settings(value) if dataclasses.is_dataclass(value) else value for name, value in values}

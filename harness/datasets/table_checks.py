"""What is wrong with a user's own table, said before a model is trained on it: one line for each kind of problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import InputError, listed

if TYPE_CHECKING:
    from harness.datasets.dataset import Dataset

_TIES = 0.1  # share of the rows that repeat a value, from which a column counts as rounded
_COPIES = 0.01  # share of rows that repeat another, from which a user is told
_MOST_DECIMALS = 6
_DEPENDENT = 1e-10  # share of a column's variance that the columns before it leave unexplained
_LARGEST = 1e300  # sums of larger numbers overflow
_USED = 1e-6  # coefficient of a standardised column, from which it is named as one that determines another
_UNRESOLVED = 1e-3  # mean deviations between two neighbouring numbers of a format, from which a column is refused
_RANGES = {"float32": 1e30, "float64": 1e150}  # squares of larger numbers, and of one over them, overflow
_MERGED = 0.01  # share of a column's values that become equal in float32, from which it is refused
_LOOKED_AT = 100_000  # rows, for that share


def check_table(
    array: np.ndarray, names: Sequence[str], training_rows: int, *, standardize: bool, dequantize: bool, float32: bool
) -> tuple[list[str], list[str], list[int]]:
    """Check a table for what has no density, or none that can be trained.

    Args:
        array: The numbers, float64, shape (N, D), with NaN for missing ones.
        names: Names of the D columns, or none for numbers from 0.
        training_rows: Number of rows to train on.
        standardize: Whether columns are standardised, in float64, before they are cast to the model's type.
        dequantize: Whether rounded columns get uniform noise.
        float32: Whether the model computes in float32.

    Returns:
        The lines that say why no density can be trained on the table as it is, the lines that a user ought to know
        otherwise, and the numbers of the columns without a problem of their own.
    """
    enough = training_rows > array.shape[1]
    problems, sound = _column_problems(array, names, standardize, float32, enough)
    if not enough:
        problems.append(f"{training_rows} training rows for {array.shape[1]} columns; give more rows, or fewer columns")
    return problems, _notes(array, sound, _called(array, names), dequantize), sound


def require_density(array: np.ndarray, names: Sequence[str], where: str, *, standardize: bool, float32: bool) -> None:
    """Find out before a training in Python which columns have no density that can be trained.

    The arguments are those of `check_table`, and `where` is what the error calls the table.

    Raises:
        InputError: if there are such columns; the message names them and what is wrong with each.
    """
    problems, _ = _column_problems(array, names, standardize, float32, len(array) > array.shape[1])
    if problems:
        told = "; ".join(problem.rpartition("; ")[0] for problem in problems)  # without what to do on a command line
        raise InputError(f"{where}: {told}; repair these columns, or leave them out")


def _column_problems(
    array: np.ndarray, names: Sequence[str], standardize: bool, float32: bool, enough_rows: bool
) -> tuple[list[str], list[int]]:
    """Return a line for each kind of problem that columns have, and the numbers of the columns that have none."""
    dimension, called = array.shape[1], _called(array, names)
    missing = _missing(array, called)
    finite = [n for n in range(dimension) if n not in missing]
    equal = [n for n in finite if (array[:, n] == array[0, n]).all()]
    # Different whole numbers from 2^53 on may be equal in float64.
    constant = {n: f"{called[n]} ({array[0, n]:g})" for n in equal if abs(array[0, n]) < 2**53}
    varied = [n for n in finite if n not in constant]
    coarse = {n: _unresolved(array[:, n], standardize, float32) for n in varied}
    described = {n: f"{called[n]} ({_size_and_spread(array[:, n])})" for n, reason in coarse.items() if reason}
    varied = [n for n in varied if not coarse[n]]
    dependent = _dependent(array, varied, called) if enough_rows else {}
    kinds = (
        (
            "with missing values (null, NaN or infinity)",
            missing,
            "drop these rows, fill them, or leave the columns out",
        ),
        ("with one value in all rows, and so no density", constant, "leave them out"),
        ("that other columns determine, so that there is no density", dependent, "leave them out"),
        *(
            (text, {n: described[n] for n in described if coarse[n] == text}, remedy)
            for text, remedy in _REMEDIES.items()
        ),
    )
    problems = [f"columns {text}: {listed(list(bad.values()))}; {remedy}" for text, bad, remedy in kinds if bad]
    return problems, [n for n in varied if n not in dependent]


def check_samples(data: Dataset, float32: bool) -> None:
    """Find out before a training what no density can be trained on, and name the first number, or the columns.

    Args:
        data: The dataset. Where its preprocessing adds no noise, its columns are checked as those of a table.
        float32: Whether the model computes in float32.

    Raises:
        InputError: if a part holds NaN, infinity or what is no grey level where grey levels are meant, or if a column
            has one value, is determined by others, or cannot be resolved.
    """
    from harness.datasets.preprocessing import Dequantize, Standardize

    levels = data.preprocessing.levels if isinstance(data.preprocessing, Dequantize) else None
    for part in ("train", "validation", "test"):
        values = getattr(data, part)
        wrong, meant = ~values.isfinite(), "a finite number"
        if levels is not None:
            wrong |= (values < 0) | (values >= levels) | (values != values.floor())
            meant = f"a grey level, a whole number from 0 to {levels - 1}"
        if wrong.any():
            place = wrong.nonzero()[0].tolist()
            raise InputError(
                f"{data.name}: the {part} part holds {values[tuple(place)]:g}, not {meant}, in sample {place[0]} at "
                f"{', '.join(map(str, place[1:]))}, counting from 0; repair or remove it"
            )
    if data.preprocessing.noisy:
        return
    array = data.train.flatten(1).double().cpu().numpy()
    standardize = isinstance(data.preprocessing, Standardize)
    require_density(array, data.columns, data.name, standardize=standardize, float32=float32)


def step(values: np.ndarray) -> float:
    """Return the largest step of which rounded values lie whole multiples apart; 0 if they are not rounded.

    Whole numbers are rounded, and so are numbers of at most six decimals of which many are equal.

    Args:
        values: The values of one column, float64, shape (N,), finite.
    """
    distinct = np.unique(values)
    repeated = len(distinct) < (1 - _TIES) * len(values)
    for decimals in range(_MOST_DECIMALS + 1 if repeated else 1):
        with np.errstate(over="ignore"):
            whole = np.rint(distinct * 10.0**decimals)
        if not np.abs(whole).max() < 2**53:
            break
        decimal, single = whole / 10.0**decimals, distinct.astype(np.float32)
        # A file of float32 holds the nearest float32 to a decimal.
        if ((decimal == distinct) | ((single == distinct) & (decimal.astype(np.float32) == single))).all():
            return float(np.gcd.reduce(np.diff(whole).astype(np.int64)) / 10.0**decimals)
    return 0.0


def _missing(array: np.ndarray, called: list[str]) -> dict[int, str]:
    """Return what is said of the columns that hold numbers that are not finite, by the numbers of the columns."""
    lost = ~np.isfinite(array)
    return {
        int(
            n
        ): f"{called[n]} ({lost[:, n].sum():,} of {len(array):,}, the first, {array[row, n]:g}, in row {row} from 0)"
        for n, row in zip(np.flatnonzero(lost.any(0)), lost.argmax(0)[lost.any(0)], strict=True)
    }


def _dependent(array: np.ndarray, columns: list[int], called: list[str]) -> dict[int, str]:
    """Return what is said of the columns that are linear combinations of columns before them, by elimination."""
    from scipy.linalg import solve_triangular

    columns = [number for number in columns if np.abs(array[:, number]).max() < _LARGEST]
    if not columns:
        return {}
    offset = array[:, columns] - array[:, columns].mean(0)
    offset /= np.abs(offset).max(0)
    scaled = offset / np.sqrt(np.square(offset).sum(0))
    correlation = scaled.T @ scaled
    try:  # nearly all tables need no elimination
        if np.square(np.linalg.cholesky(correlation).diagonal()).min() > _DEPENDENT:
            return {}
    except np.linalg.LinAlgError:
        pass
    factor = np.zeros_like(correlation)
    kept: list[int] = []
    dependent = {}
    for place, number in enumerate(columns):
        size = len(kept)
        part = solve_triangular(factor[:size, :size], correlation[kept, place], lower=True) if size else np.zeros(0)
        rest = 1 - part @ part
        if rest > _DEPENDENT:
            factor[size, :size], factor[size, size] = part, np.sqrt(rest)
            kept.append(place)
            continue
        weights = solve_triangular(factor[:size, :size].T, part)
        causes = [columns[kept[n]] for n in np.flatnonzero(np.abs(weights) > _USED)]
        equal = len(causes) == 1 and np.array_equal(array[:, number], array[:, causes[0]])
        dependent[number] = (
            f"{called[number]} ({'equal to' if equal else 'from'} {listed([called[n] for n in causes])})"
        )
    return dependent


_OFFSET, _FLOAT64 = "that float64 cannot resolve", "too large or too small for sums of squares in float64"
_FLOAT32 = "that float32 cannot resolve"
_OUTLIERS = "of which float32 cannot tell the values apart, even standardised"
_REMEDIES = {
    _OFFSET: "subtract an offset from them before they are written, or leave them out",
    _FLOAT64: "leave --no-standardize out",
    _FLOAT32: "leave --no-standardize out, or use --dtype float64",
    _OUTLIERS: "use --dtype float64, or leave out the rows that are far from all others",
}


def _unresolved(values: np.ndarray, standardize: bool, float32: bool) -> str:
    """Return why the numbers of a column cannot be resolved, one of `_REMEDIES`; nothing if they can."""
    with np.errstate(all="ignore"):  # of the largest numbers sums are infinite
        largest, spread = np.abs(values).max(), np.abs(values - values.mean()).mean()
        if np.spacing(largest) > _UNRESOLVED * spread:
            return _OFFSET
        if not standardize:
            limit = _RANGES["float32" if float32 else "float64"]
            outside = not 1 / limit < spread < limit or largest > limit
            if float32 and (outside or largest * 2.0**-23 > _UNRESOLVED * spread):
                return _FLOAT32
            return _FLOAT64 if outside else ""
        if not float32 or not spread < np.inf:
            return ""
        looked_at = values[:: -(-len(values) // _LOOKED_AT)]
        distinct = len(np.unique(looked_at))
        merged = len(np.unique(((looked_at - values.mean()) / spread).astype(np.float32)))
        return _OUTLIERS if merged < (1 - _MERGED) * distinct else ""


def _size_and_spread(values: np.ndarray) -> str:
    with np.errstate(all="ignore"):
        return f"numbers up to {np.abs(values).max():.3g}, mean deviation {np.abs(values - values.mean()).mean():.3g}"


def _called(array: np.ndarray, names: Sequence[str]) -> list[str]:
    return [repr(name) for name in names] or [str(number) for number in range(array.shape[1])]


def _notes(array: np.ndarray, columns: list[int], called: list[str], dequantize: bool) -> list[str]:
    """Return lines on rounded columns, on other columns that repeat a value, and on rows that repeat another."""
    notes = []
    steps = {number: step(array[:, number]) for number in columns}
    rounded = [f"{called[number]} (width {width:g})" for number, width in steps.items() if width]
    if rounded:
        text = f"columns of whole or rounded numbers, which have no density: {listed(rounded)}; "
        added = "uniform noise of that width is added, and --no-dequantize leaves it out"
        spiky = "their NLL can fall without limit, unless --no-dequantize is left out"
        notes.append(f"{text}{added}" if dequantize else f"warning: {text}{spiky}")
    spikes = []
    for number in columns:
        values, counts = np.unique(array[:, number], return_counts=True)
        if not steps[number] and len(values) < (1 - _TIES) * len(array):
            spikes.append(f"{called[number]} ({counts.max() / len(array):.0%} are {values[counts.argmax()]:g})")
    if spikes:
        notes.append(
            f"warning: columns that repeat values, where a density has spikes: {listed(spikes)}; their NLL can fall "
            "without limit, so leave them out"
        )
    if columns and not all(steps.values()):
        import polars as pl

        copies = len(array) - pl.from_numpy(array[:, columns]).n_unique()
        if copies > _COPIES * len(array):
            notes.append(
                f"warning: {copies:,} of {len(array):,} rows repeat another row; copies of training rows in the test "
                "part make the test NLL too good, so remove them"
            )
    return notes

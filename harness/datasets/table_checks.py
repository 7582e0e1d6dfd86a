"""What is wrong with a user's own table, said before a model is trained on it: one line for each kind of problem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.errors import listed

_TIES = 0.1  # share of the rows that repeat a value, from which a column counts as rounded
_COPIES = 0.01  # share of rows that repeat another, from which a user is told
_MOST_DECIMALS = 6
_DEPENDENT = 1e-10  # share of a column's variance that the columns before it leave unexplained
_LARGEST = 1e300  # sums of larger numbers overflow
_USED = 1e-6  # coefficient of a standardised column, from which it is named as one that determines another
_UNRESOLVED = 1e-3  # mean deviations between two neighbouring numbers of float32, from which a column is refused
_RANGE = 1e30  # mean deviations outside 1 / _RANGE to _RANGE overflow in float32


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
    dimension = array.shape[1]
    called = [repr(name) for name in names] or [str(number) for number in range(dimension)]
    missing = _missing(array, called)
    finite = [n for n in range(dimension) if n not in missing]
    constant = {n: f"{called[n]} ({array[0, n]:g})" for n in finite if (array[:, n] == array[0, n]).all()}
    varied = [n for n in finite if n not in constant]
    dependent = _dependent(array, varied, called) if training_rows > dimension else {}
    unresolved = _unresolved(array, varied, called) if float32 and not standardize else {}
    kinds = (
        (
            "with missing values (null, NaN or infinity)",
            missing,
            "drop these rows, fill them, or leave the columns out",
        ),
        ("with one value in all rows, and so no density", constant, "leave them out"),
        ("that other columns determine, so that there is no density", dependent, "leave them out"),
        ("that float32 cannot resolve", unresolved, "leave --no-standardize out, or use --dtype float64"),
    )
    problems = [f"columns {text}: {listed(list(bad.values()))}; {remedy}" for text, bad, remedy in kinds if bad]
    if training_rows <= dimension:
        problems.append(f"{training_rows} training rows for {dimension} columns; give more rows, or fewer columns")
    sound = [n for n in varied if n not in dependent and n not in unresolved]
    return problems, _notes(array, sound, called, dequantize), sound


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
        int(n): f"{called[n]} ({lost[:, n].sum():,} of {len(array):,}, the first in row {lost[:, n].argmax()} from 0)"
        for n in np.flatnonzero(lost.any(0))
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


def _unresolved(array: np.ndarray, columns: list[int], called: list[str]) -> dict[int, str]:
    """Return what is said of the columns whose spread is too small or too large for float32 at their magnitude."""
    unresolved = {}
    for number in columns:
        values = array[:, number]
        largest, spread = np.abs(values).max(), np.abs(values - values.mean()).mean()
        if largest * 2.0**-23 > _UNRESOLVED * spread or not 1 / _RANGE < spread < _RANGE or largest > _RANGE:
            unresolved[number] = f"{called[number]} (numbers up to {largest:.3g}, mean deviation {spread:.3g})"
    return unresolved


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

"""Numbers of settings as Python's own: numpy's cannot be written as JSON, and half an epoch would never end."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any, get_type_hints

from harness.errors import InputError


def make_plain(settings: Any) -> None:
    """Turn every number of a frozen dataclass into the int or float that its field declares.

    Raises:
        InputError: if a field of whole numbers holds another number, or a field of numbers holds something else.
    """
    for name, kind in _number_fields(type(settings)).items():
        value = getattr(settings, name)
        if value is not None:
            object.__setattr__(settings, name, whole(name, value) if kind is int else _real(name, value))


def whole(name: str, value: Any) -> int:
    """Return a whole number, Python's or numpy's, as an int.

    Raises:
        InputError: if the value is none.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, not {value!r}") from None


def _real(name: str, value: Any) -> float:
    if not isinstance(value, Real):
        raise InputError(f"{name} must be a number, not {value!r}")
    return float(value)


def _number_fields(settings: type) -> dict[str, type]:
    """Return which fields of a dataclass hold an int or a float, or None in its place."""
    hints = get_type_hints(settings)
    return {name: kind for name, hint in hints.items() for kind in (int, float) if hint in (kind, kind | None)}

"""The exceptions that stand for a mistake of the user's, and for what is not to be had here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_LONGEST = 2000  # characters
_MOST_LISTED = 8


class InputError(ValueError):
    """Bad input; the message is one line that says what to do. The command line prints it and exits with status 2."""


class UnavailableError(Exception):
    """A cell cannot be measured here, because a library, data or an ability of its method is missing.

    The message is one line that says what is missing; the cell's row has it as its reason.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that does not exist, with the nearest ones, whatever their case, or else all."""
    lowered = {word.lower(): word for word in sorted(known)}
    near = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(lowered[word] for word in near)}?"
        if near
        else f"known: {', '.join(lowered.values()) or 'none'}"
    )
    return InputError(f"unknown {kind} '{name}': {hint}")


def separated(text: str) -> list[str]:
    """Return the words of a list that a user wrote, separated by commas, without the spaces around them."""
    return [word.strip() for word in text.split(",") if word.strip()]


def listed(words: Sequence[str]) -> str:
    """Return words as a list of at most eight, and how many more there are."""
    rest = f" and {len(words) - _MOST_LISTED} more" if len(words) > _MOST_LISTED else ""
    return ", ".join(words[:_MOST_LISTED]) + rest


def one_line(error: BaseException) -> str:
    """Write any exception as one printable line: its type and its message; an InputError's message says enough.

    What is longer than a screen is cut.
    """
    message = " ".join(str(error).split())
    line = printable(message if isinstance(error, InputError) else f"{type(error).__name__}: {message}")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def printable(text: str) -> str:
    """Escape what would break a line or steer the terminal, such as names that somebody else has chosen."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)

"""Checks of the numbers that users give: seconds and counts.

Rules: a value that can't be right is a `DefinitionError` where it is given, which names the value
and says what is right; a bool is no number, and NaN and infinity are none either.
"""

from __future__ import annotations

from typing import Any

from perdure.errors import DefinitionError

SECONDS_MAX = 10 * 366 * 86_400
"""Ten years: no wait that anybody means is longer, and every date that follows from it can be
shown.
"""


def seconds(value: Any, what: str, *, low: float = 0.0, above: bool = False) -> float:
    """The value, if it is a number of seconds from `low` (or, with `above`, more than that) to ten
    years.
    """
    usable = is_number(value) and low <= value <= SECONDS_MAX and not (above and value == low)
    if not usable:
        least = f"more than {low:g}" if above else f"{low:g}"
        raise DefinitionError(
            f"{what} is a number of seconds, {least} to {SECONDS_MAX:,} (ten years), not "
            f"{shown(value)}."
        )
    return float(value)


def count(value: Any, what: str, *, low: int = 1, high: int = 2**53) -> int:
    """The value, if it is a whole number from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise DefinitionError(
            f"{what} is a whole number from {low:,} to {high:,}, not {shown(value)}."
        )
    return value


def flag(value: Any, what: str) -> bool:
    """The value, if it is True or False."""
    if type(value) is not bool:
        raise DefinitionError(f"{what} is True or False, not {shown(value)}.")
    return value


def is_number(value: Any) -> bool:
    """Whether it is an int or a float, of any size, NaN included."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value in an error: its repr, if it has one, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # an int of 5,000 digits has none
        text = f"a {type(value).__name__}"
    return text if len(text) <= 200 else text[:200] + "…"

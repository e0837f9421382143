"""Checks of numbers that a caller gives: seconds, counts, flags.

Rules: a wrong value is a `DefinitionError` at the line that gives it; a bool is no number, and
neither are NaN and infinity.
"""

from __future__ import annotations

from typing import Any

from perdure.errors import DefinitionError

SECONDS_MAX = 10 * 366 * 86_400
"""Ten years: longer than any wait, and every date that follows can be shown."""


def seconds(value: Any, what: str, *, low: float = 0.0, above: bool = False) -> float:
    """The value, if it is seconds from `low` (with `above`, more than that) to ten years."""
    usable = is_number(value) and low <= value <= SECONDS_MAX and not (above and value == low)
    if not usable:
        span = f"{'more than ' if above else ''}{low:g} to {SECONDS_MAX:,} (ten years)"
        raise DefinitionError(f"{what} is a number of seconds, {span}, not {shown(value)}.")
    return float(value)


EXACT_MAX = 2**53
"""Whole numbers up to this are the same in every JSON library."""


def count(value: Any, what: str, *, low: int = 1, high: int = EXACT_MAX) -> int:
    """The value, if it is a whole number from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        is_told = high < EXACT_MAX or (isinstance(value, int) and value > high)
        bounds = f"from {low:,} to {high:,}" if is_told else f"from {low:,} on"
        raise DefinitionError(f"{what} is a whole number {bounds}, not {shown(value)}.")
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

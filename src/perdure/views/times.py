"""Times as they are typed: a duration such as `24h`, or a date and a time.

Rules: a time without a zone is in the reader's own; what can't be read is a `ValueError`, whose
message the caller writes.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_DURATION = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|sec|second|min|minute|m|h|hour|d|day|w|week|)s?", re.ASCII
)
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
EXAMPLES = "Write 90s, 15m, 1h or 2d"


def duration(text: str, unit: str = "") -> timedelta | None:
    """The duration that a text is; `unit` is that of a number alone. None where it is none. Raises
    `OverflowError` for one that is too long for a timedelta.

    >>> duration("24h"), duration("1.5 hours"), duration("90", "s")
    (datetime.timedelta(days=1), datetime.timedelta(seconds=5400), datetime.timedelta(seconds=90))
    """
    found = _DURATION.fullmatch(text)
    named = unit if found is None else found[2] or unit
    if found is None or not named:
        return None
    in_ms = _UNITS_MS[named if named == "ms" else named[0]]
    return timedelta(milliseconds=float(found[1]) * in_ms)


def since(text: str, now: datetime) -> datetime:
    """The time that a text means, counted back from `now` (aware) where it is a duration, with or
    without "ago". Raises `ValueError`.

    >>> from datetime import UTC
    >>> since("24h", datetime(2026, 11, 29, tzinfo=UTC)).isoformat()
    '2026-11-28T00:00:00+00:00'
    """
    try:
        back = duration(text.strip().lower().removesuffix("ago").rstrip())
        at = datetime.fromisoformat(text) if back is None else now - back
        return at if at.tzinfo else at.astimezone()
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of range") from error

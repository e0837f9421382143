"""Times as they are typed: an age such as `24h`, or a date and a time.

Rules: a time without a zone is in the reader's own; what can't be read is a `ValueError`, whose
message the caller writes.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_AGE = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def age(text: str) -> timedelta | None:
    """The age that a text is; None where it is none. Raises `OverflowError` for one that is too
    long for a timedelta.

    >>> age("24h"), age("soon")
    (datetime.timedelta(days=1), None)
    """
    found = _AGE.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def since(text: str, now: datetime) -> datetime:
    """The time that a text means, counted back from `now` (aware) where it is an age. Raises
    `ValueError`.

    >>> from datetime import UTC
    >>> since("24h", datetime(2026, 11, 29, tzinfo=UTC)).isoformat()
    '2026-11-28T00:00:00+00:00'
    """
    try:
        back = age(text)
        at = datetime.fromisoformat(text) if back is None else now - back
        return at if at.tzinfo else at.astimezone()
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of range") from error

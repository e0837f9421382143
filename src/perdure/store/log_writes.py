"""Write type of the lines that steps log.

Rules: as in `writes`; `logs` says what it does.
"""

from __future__ import annotations

import msgspec

NewLine = tuple[int, int, bytes, int]
"""Row of the step, attempt, JSON, time in ms."""


class AddLogLines(msgspec.Struct, gc=False):
    """Lines that attempts of a run's steps have logged, in order. Gives `LogLinesAdded`, or
    `LeaseLost`.

    Those that would make it more than `lines_max` for the run are left out; `notices`, which say
    what was left out before, are not. `before` is how many the run has, where that is known.
    """

    run: int
    owner: int
    lines: list[NewLine]
    notices: list[NewLine]
    lines_max: int
    before: int | None = None


class LogLinesAdded(msgspec.Struct, frozen=True, gc=False):
    """How many lines a run has now, and how many of these were taken."""

    total: int
    taken: int

"""Reasons why a run is blocked, as they are stored in its row.

Rules: functions from errors and numbers to `Block`; a reason is valid text of a bounded length.
"""

from __future__ import annotations

from perdure.errors import HistoryTooLong, Nondeterminism, PerdureError, RunBlocked
from perdure.process.interpreter import with_python
from perdure.runtime.plans import Block

TEXT_CHARS_MAX = 2_000
HISTORY = "history"
UNKNOWN_OUTCOME = "unknown_outcome"


def of_code(error: BaseException, python: str | None) -> Block:
    """The block of a run whose code and history have diverged, or whose code can't be executed.

    `python` is the version that its history was recorded with.
    """
    match error:
        case Nondeterminism():
            return Block("nondeterminism", with_python(error.reason, python))
        case RunBlocked():
            return Block("code", error.reason)
    return Block("code", as_text(error))


def of_length(rows: int, rows_max: int, run_id: str) -> Block:
    """The block of a run whose history has more rows than it may have."""
    return Block(HISTORY, HistoryTooLong.describe(rows, rows_max, run_id))


def too_long(reason: Block | None) -> bool:
    """Whether this is the reason of a run whose history is too long: it ends only when retried."""
    return reason is not None and reason.by == HISTORY


def as_text(error: BaseException) -> str:
    """An error in a line, also where its class fails to say what it is, or says invalid text."""
    try:
        text = str(error) if isinstance(error, PerdureError) else f"{type(error).__name__}: {error}"
    except Exception as failure:
        text = f"{type(error).__name__}, whose text raised {type(failure).__name__}"
    return text.encode(errors="backslashreplace").decode()[:TEXT_CHARS_MAX].replace("\0", "\\0")

"""Errors of steps, and of one attempt of a step. Histories hold most of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import Any

from perdure.errors.base import DefinitionError, PerdureError

SECONDS_MAX = 10 * 366 * 86_400


class StepFailed(PerdureError):
    """A step gave up; `__cause__` is the last attempt's error, rebuilt from the record."""

    def __init__(self, step: str, attempts: int, error: str) -> None:
        self.step, self.attempts, self.error = step, attempts, error
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        super().__init__(f"Step {step} failed after {times}: {error}")


class StepTimeout(StepFailed, TimeoutError):
    """The last attempt of a step took longer than its timeout."""


class StepNotWaiting(PerdureError):
    """The step in row `seq` does not wait for its next attempt, or not any more; `why` says what it
    does.
    """

    def __init__(self, run_id: str, seq: int, why: str, command: str = "perdure show") -> None:
        self.run_id, self.seq, self.why = run_id, seq, why
        does = "lets it go on as a whole" if command == "perdure retry" else "shows what it does"
        super().__init__(
            f"The step in row {seq} of run {run_id!r} does not wait for its next attempt: {why}. "
            f"`{command} {quote(run_id)}` {does}."
        )


class AttemptTimeout(PerdureError, TimeoutError):
    """One attempt took longer than its timeout."""

    def __init__(self, timeout_ms: int, in_thread: bool = False) -> None:
        goes_on = "; its thread can't be stopped and goes on" if in_thread else ""
        super().__init__(
            f"the attempt took longer than its timeout of {timeout_ms / 1000:g} s{goes_on}"
        )


class RetryAfter(PerdureError):
    """Raised by a step: it is tried again after so many seconds, and until then its queue admits
    nothing, in any process.

    `seconds` is a number, a timedelta, an aware datetime, or the text of a retry-after header:
    seconds or a date; a date that has passed means now. The attempt is recorded as failed, and
    does not count for `Retry.attempts`, up to a thousand times. Without a queue only this step
    waits. Raises `DefinitionError` for what is no time from 0 to ten years.

    >>> def check(status, headers):  # of an HTTP response
    ...     if status == 429:
    ...         raise RetryAfter(headers.get("retry-after", 1))
    >>> check(429, {"retry-after": "20"})
    Traceback (most recent call last):
    perdure.errors.RetryAfter: to be tried again after 20 s
    """

    def __init__(self, seconds: float | str | timedelta | datetime) -> None:
        self.seconds = _seconds(seconds)
        if not 0 <= self.seconds <= SECONDS_MAX:
            raise DefinitionError(
                f"RetryAfter takes seconds, a timedelta, an aware datetime, or the text of a "
                f"retry-after header, from 0 to ten years, not {seconds!r:.200}."
            )
        super().__init__(f"to be tried again after {self.seconds:g} s")


def _seconds(given: Any) -> float:
    """The seconds until a time that is to be waited for; -1 for what is no time."""
    try:
        if isinstance(given, timedelta):
            return given.total_seconds()
        if isinstance(given, str) and not given.strip().replace(".", "", 1).isdigit():
            from email.utils import parsedate_to_datetime  # late: a header seldom has a date

            given = parsedate_to_datetime(given)
        if isinstance(given, datetime):
            return max(0.0, (given - datetime.now(UTC)).total_seconds())
        return -1.0 if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        return -1.0


class ProcessDied(PerdureError):
    """The process died during an attempt: its beginning is recorded, its outcome is not."""

    def __init__(self) -> None:
        super().__init__("the process ended during this attempt")


class CancelledByItself(PerdureError):
    """A step raised CancelledError without having been cancelled."""

    def __init__(self, step: str) -> None:
        super().__init__(f"step {step} raised CancelledError by itself")


class LeftTheProcess(PerdureError):
    """A step called sys.exit(), which fails the attempt and not the process."""

    def __init__(self, code: object) -> None:
        super().__init__(f"the step called sys.exit({code!r})")


class RetryFailed(DefinitionError):
    """A step failed, and then its retry policy raised an error."""

    def __init__(self, step: str, error: BaseException, problem: BaseException) -> None:
        super().__init__(
            f"step {step} failed ({type(error).__name__}), and its retry policy could not "
            f"be applied: {type(problem).__name__}: {problem}"
        )


class NotAllowedInStep(DefinitionError, AttributeError):
    """A transactional step used its connection for what it does not allow."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(
            f"A transactional step can't do this: {detail}. All that it wrote is undone if "
            f"it does not go on without it."
        )


class TransactionEnded(PerdureError):
    """SQL of a transactional step rolled the whole transaction back."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(
            f"SQLite rolled the step's transaction back "
            f"({detail or 'without an error that the step let through'}), so nothing that the "
            "step wrote is kept. OR ROLLBACK, RAISE(ROLLBACK, ...) and a full disk do that; OR "
            "ABORT and `with db:` undo "
            "one statement, or one block."
        )


class RecordedError(PerdureError):
    """An error whose class can't be rebuilt here: `fields` has its recorded attributes."""

    def __init__(self, type_name: str, message: str, fields: object = None) -> None:
        self.type_name, self.message = type_name, message
        self.fields: dict[str, object] = fields if isinstance(fields, dict) else {}
        super().__init__(f"{type_name}: {message}" if message else type_name)

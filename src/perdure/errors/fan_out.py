"""Errors of helpers: many calls at once, polls, compensations of a saga. Histories hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from perdure.errors.base import PerdureError, brief


class ErrorGroup(PerdureError, ExceptionGroup[Exception]):
    """A group whose parts, as `except*` makes them, keep its class and its facts."""

    def derive(self, excs: Sequence[Exception]) -> Self:  # type: ignore[override]
        part = type(self)(self.message, excs)
        part.__dict__.update(self.__dict__)
        return part


class TooManyFailures(ErrorGroup):
    """More calls of `gather_limited` failed than may fail, or too few are left that could succeed.

    `exceptions` are the failures in the order of their calls; `outcomes` is what every call gave
    that was begun: its result, its error, or a `CancelledError` for what was stopped. A record of
    this error holds the failures and leaves `outcomes` out.
    """

    outcomes: Sequence[Any] = ()

    @classmethod
    def of(
        cls, failures: Sequence[Exception], outcomes: Sequence[Any], allowed: str
    ) -> TooManyFailures:
        """The error of these failures; `allowed` says what was asked for: `at most 2 may fail`."""
        first = failures[0]
        error = cls(
            f"{len(failures)} of {len(outcomes)} calls failed, and {allowed}. What was under way "
            f"is cancelled, the rest is not begun. The first failure is "
            f"{type(first).__name__}: {brief(str(first))}",
            failures,
        )
        error.outcomes = outcomes
        return error


class CallCancelled(PerdureError):
    """A call ended with CancelledError, and nothing that waits for it had cancelled it."""

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(f"{call} was cancelled by other code, or raised CancelledError by itself")


class PollTimeout(PerdureError, TimeoutError):
    """`poll_until` gave up; `polls` is how often it asked, `last` the last result, if any."""

    def __init__(self, call: str, polls: int, limit: str, last: Any = None) -> None:
        self.call, self.polls, self.limit, self.last = call, polls, limit, last
        seen = f"; its last result was {brief(repr(last), 200)}" if polls else ""
        super().__init__(
            f"{call} was polled {polls:,} times and has not given what `until` waits for, within "
            f"{limit}{seen}. Raise that limit, or poll less often with `every`."
        )


class CompensationFailed(ErrorGroup):
    """Compensations of a saga failed; `__cause__` is the error that made it undo.

    `exceptions` are what they failed with, `not_undone` their calls as text, in the same order,
    `undone` those that succeeded. A retry of the run does the failed ones again.
    """

    undone: tuple[str, ...] = ()
    not_undone: tuple[str, ...] = ()

    retried_by_members = True

    @classmethod
    def of(
        cls,
        failures: Sequence[Exception],
        not_undone: Sequence[str],
        undone: Sequence[str],
        original: BaseException,
    ) -> CompensationFailed:
        """The report of a saga that could not undo everything after `original`."""
        error = cls(
            f"{len(failures)} of {len(failures) + len(undone)} compensations failed, after "
            f"{brief(': '.join(filter(None, (type(original).__name__, str(original)))))}. Not "
            f"undone: {'; '.join(not_undone)}. Undo it by hand, or remove the cause and retry the "
            f"run, which does these compensations again",
            failures,
        )
        error.undone, error.not_undone = tuple(undone), tuple(not_undone)
        return error

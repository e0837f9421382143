"""Observer hook: events of an engine for telemetry, progress displays and integrations.

Rules: every call is made on the engine's event loop, with plain values, and must return soon; runs
and commits are reported after the commit, attempts at once; an error of an observer is logged once
and harms nothing; an engine without an observer makes no call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from inspect import iscoroutinefunction
from typing import Any

import msgspec

from perdure.errors import DefinitionError

log = logging.getLogger("perdure")


class ObservedRun(msgspec.Struct, frozen=True):
    """A run that is in memory here, as its row has it; times are milliseconds UTC.

    `resumed` says that it has a history already. `parent` is the id of the run that waits for it at
    its row `parent_seq`, `forked_from` that of the run which it is a fork of. A retry has the id of
    the run that it is of, and a `created_ms` of its own; so has what goes on after `continue_as`.
    """

    id: str
    workflow: str
    resumed: bool
    created_ms: int
    started_ms: int
    parent: str | None = None
    parent_seq: int | None = None
    forked_from: str | None = None
    scheduled_ms: int | None = None
    queue: str | None = None


class Observer:
    """Base class of observers: every method does nothing. Override those that you need.

    >>> class Failures(Observer):
    ...     def attempt_ended(self, run_id, seq, step, attempt, took_ms, error, again_ms):
    ...         if error is not None:
    ...             print(f"{run_id}: {step} failed: {error}")
    """

    def run_loaded(self, run: ObservedRun) -> None:
        """A run goes on in this process: what is known of it, before `run_started`."""

    def run_started(self, run_id: str, workflow: str, resumed: bool) -> None:
        """A run goes on in this process; `resumed` says that it has a history already."""

    def run_ended(self, run_id: str, workflow: str, status: str) -> None:
        """A run is "completed", "failed", "cancelled" or "blocked", as the store has it now."""

    def attempt_started(self, run_id: str, seq: int, step: str, attempt: int) -> None:
        """An attempt of the step at row `seq` begins. The first attempt is number 1.

        Called in the context of the attempt: the step sees a context variable that is set here.
        """

    def attempt_ended(
        self,
        run_id: str,
        seq: int,
        step: str,
        attempt: int,
        took_ms: int,
        error: BaseException | None,
        again_ms: int | None,
    ) -> None:
        """An attempt has ended after `took_ms` milliseconds.

        `error` is None where it succeeded. `again_ms` is when the next attempt is due, in
        milliseconds UTC; None where there is no other. An attempt that was cancelled with its run
        ends with an `asyncio.CancelledError`.
        """

    def committed(self, writes: int, took_ms: float) -> None:
        """A transaction of `writes` writes is durable; the database took `took_ms` for it."""

    def confirmed(self, took_ms: float) -> None:
        """The replica has everything that was committed before this round of confirmation."""

    def lease_changed(self, holder: str, change: str) -> None:
        """The lease of this "worker" or of the "replica" was "taken", "lost" or "released"."""


_EVENTS = tuple(name for name in vars(Observer) if not name.startswith("_"))


class Notifier(Observer):
    """Calls several observers in order. An error of one is logged once for each method."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)
        self._failed: set[tuple[int, str]] = set()

    def add(self, observer: Observer) -> None:
        """Call one more, after the others."""
        self._observers = (*self._observers, observer)

    def run_loaded(self, run: ObservedRun) -> None:
        self._call("run_loaded", run)

    def run_started(self, run_id: str, workflow: str, resumed: bool) -> None:
        self._call("run_started", run_id, workflow, resumed)

    def run_ended(self, run_id: str, workflow: str, status: str) -> None:
        self._call("run_ended", run_id, workflow, status)

    def attempt_started(self, run_id: str, seq: int, step: str, attempt: int) -> None:
        self._call("attempt_started", run_id, seq, step, attempt)

    def attempt_ended(
        self,
        run_id: str,
        seq: int,
        step: str,
        attempt: int,
        took_ms: int,
        error: BaseException | None,
        again_ms: int | None,
    ) -> None:
        self._call("attempt_ended", run_id, seq, step, attempt, took_ms, error, again_ms)

    def committed(self, writes: int, took_ms: float) -> None:
        self._call("committed", writes, took_ms)

    def confirmed(self, took_ms: float) -> None:
        self._call("confirmed", took_ms)

    def lease_changed(self, holder: str, change: str) -> None:
        self._call("lease_changed", holder, change)

    def _call(self, method: str, *args: Any) -> None:
        for number, observer in enumerate(self._observers):
            call: Callable[..., None] = getattr(observer, method)
            try:
                call(*args)
            except Exception:
                if (number, method) not in self._failed:
                    self._failed.add((number, method))
                    log.exception(
                        "%s.%s failed; the engine goes on, and later failures of it are not logged",
                        type(observer).__name__,
                        method,
                    )


def notifier(given: Observer | Iterable[Observer] | None) -> Notifier | None:
    """What an engine calls for its option `observer`: one, several in order, or none.

    Raises `DefinitionError` for anything else.
    """
    if given is None:
        return None
    many: Any = (given,) if isinstance(given, Observer) else given
    try:
        observers = tuple(many)
    except TypeError:
        observers = (many,)
    for one in observers:
        if not isinstance(one, Observer):
            raise DefinitionError(
                f"observer is an instance of a class below perdure.Observer, or a list of them, "
                f"not {one!r}."
            )
        for method in filter(iscoroutinefunction, (getattr(one, name) for name in _EVENTS)):
            raise DefinitionError(
                f"{method.__qualname__} of the observer is async, and its methods are called, not "
                "awaited. Make it a plain method that returns soon, as by putting what it got into "
                "a queue."
            )
    return Notifier(observers) if observers else None

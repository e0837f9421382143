"""Causes of a run's end, and how far the present code follows its history: found by replay.

Rules: nothing here writes or executes a step; the code runs as in any replay, in a plain callback;
an input is a cause if the exception that ended the run is the one that it brought, or has that as
its cause, its context or its member.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.core.replay import Kernel
from perdure.errors import chain


class _Cancel(str):
    """The message of a cancellation: says which row asked for it."""

    __slots__ = ("seq",)
    seq: int


class TracingKernel(Kernel):
    """A kernel for one replay that remembers what each input brought, and the workflow's error."""

    good = 1
    """All rows before this one have been replayed."""
    error: BaseException | None = None

    def __init__(self, *made_of: Any) -> None:
        super().__init__(*made_of)
        self._last_fired = 0
        self._alive: dict[
            int, list[Any]
        ] = {}  # tasks at each input that may turn out to be a cause
        self._brought: dict[
            int, tuple[Any, int]
        ] = {}  # by its address: the thing itself, and the row that brought it

    def feed(self, event: Event) -> list[Command]:
        self.good = event.seq
        commands = super().feed(event)
        self.good = event.seq + 1
        return commands

    def _match(self, row: Event, command: Command | None) -> None:
        self.good = row.seq
        super()._match(row, command)
        self.good = row.seq + 1

    def _deliver(self, event: Event) -> None:
        if event.kind in (ev.FAILED, ev.FIRED, ev.CANCEL):
            self._alive[event.seq] = self.loop.live_tasks()
        future, timer = self._futures.get(event.ref or 0), self.timers.get(event.ref or 0)
        if event.kind == ev.CANCEL and self._task is not None:
            message = _Cancel()
            message.seq = event.seq
            self._task.cancel(message)
            return
        super()._deliver(event)
        if event.kind == ev.FAILED and future is not None:
            self._note(future.exception(), event.seq)
        elif event.kind == ev.FIRED and timer is not None:
            self._last_fired = event.seq
            self._note(timer, event.seq)  # what `asyncio.wait_for` holds
            self._note(
                getattr(timer._callback, "__self__", None), event.seq
            )  # an `asyncio.Timeout`

    def _note(self, thing: Any, seq: int) -> None:
        if thing is not None:
            self._brought[id(thing)] = thing, seq

    def _outcome(self, task: Any) -> ev.Outcome:
        self.error = _error_of(task)
        return super()._outcome(task)

    def causes(self) -> set[int]:
        """The rows of the inputs that brought the error that ended the run, or a cause of it.

        With them the inputs that other tasks were failing with at that time: they would end the
        run next.
        """
        errors = chain(self.error)
        found = {seq for error in errors for seq in self._of(error)}
        if (
            not found
            and self._last_fired
            and any(isinstance(error, TimeoutError) for error in errors)
        ):
            found = {self._last_fired}  # of a library that has timeouts of its own
        for task in self._alive.get(min(found, default=0), ()):
            found |= {seq for error in chain(_error_of(task)) for seq in self._of(error)}
        return found

    def _of(self, error: BaseException) -> Iterator[int]:
        yield from self._row_of(error)
        if isinstance(error, TimeoutError):
            frames = error.__traceback__
            while frames is not None:
                if str(frames.tb_frame.f_globals.get("__name__")).startswith("asyncio."):
                    for thing in frames.tb_frame.f_locals.values():
                        yield from self._row_of(thing)
                frames = frames.tb_next
        elif (
            isinstance(error, asyncio.CancelledError)
            and error.args
            and isinstance(error.args[0], _Cancel)
        ):
            yield error.args[0].seq

    def _row_of(self, thing: Any) -> Iterator[int]:
        if id(thing) in self._brought:
            yield self._brought[id(thing)][1]


def _error_of(task: Any) -> BaseException | None:
    try:
        error: BaseException | None = task.exception() if task.done() else None
    except asyncio.CancelledError as cancelled:
        error = cancelled
    return error


def followed(kernel: TracingKernel, rows: Sequence[Event]) -> int:
    """The number of the first row that the code does not follow, or one more than the last."""
    try:
        kernel.replay(rows)
    except Exception:
        end = kernel.good
    else:
        end = rows[-1].seq + 1 if rows else 1
    numbers = {row.seq for row in rows if row.kind == ev.ATTEMPT}
    while end in numbers:
        end += 1
    return end

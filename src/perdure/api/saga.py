"""Sagas: compensations that undo, in reverse order, what was done before an error or a cancel.

Rules: every compensation is carried out, whatever the others do; a cancel that comes meanwhile is
kept for the end; what could not be undone is an error that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from perdure.api.definitions import Call
from perdure.core import numbers
from perdure.errors import CallCancelled, CompensationFailed, DefinitionError, brief


class Saga:
    """A block whose work is undone if it ends with an error or a cancel.

    `undo(call)` adds a compensation: the call of a step or a workflow, or another coroutine. If the
    block raises or is cancelled, they are carried out one after the other, the last one first, and
    then the error goes on. Each is durable and has its step's own `retry`. A cancel that comes
    meanwhile waits for them, so give them a `timeout`. If the block ends without an error, also by
    `return` or `continue_as`, they are dropped.

    Add the compensation before the work where you can: a step that is cancelled under way may have
    done it already. Raises `CompensationFailed` if some could not be carried out; the others are
    all the same, and the block's error is its cause. `undone` and `not_undone` are the texts of
    their calls.

    >>> from perdure import RunFailed, run, step, workflow
    >>> @step
    ... def release(room: str) -> None:
    ...     print(f"released {room}")
    >>> @step(retry=None)
    ... def pay(cents: int) -> None:
    ...     raise ValueError("no money")
    >>> @workflow
    ... async def book(room: str) -> None:
    ...     async with Saga() as saga:
    ...         saga.undo(release(room))
    ...         await pay(9000)
    >>> try:
    ...     run(book("room 4"), store=":memory:")
    ... except RunFailed as error:
    ...     print(error.__cause__)
    released room 4
    Step pay failed after 1 attempt: ValueError: no money
    """

    def __init__(self) -> None:
        self.undone: list[str] = []
        self.not_undone: list[str] = []
        self._compensations: list[Coroutine[Any, Any, object]] = []
        self._entered = self._ended = False
        self._cancelled: asyncio.CancelledError | None = None

    def undo(self, call: Coroutine[Any, Any, object]) -> None:
        """Carry out this call if the block does not end well. Raises `DefinitionError` for what is
        no call, and outside the block.
        """
        if not isinstance(call, Coroutine):
            text = "the call that undoes it, as in saga.undo(refund(order))"
            raise DefinitionError(f"saga.undo() takes {text}, not {numbers.shown(call)}.")
        if not self._entered or self._ended:
            call.close()
            when = "has ended" if self._ended else "has not begun: async with Saga() as saga"
            raise DefinitionError(f"saga.undo() works inside the saga's block, which {when}.")
        self._compensations.append(call)

    async def __aenter__(self) -> Self:
        if self._entered:
            raise DefinitionError("A Saga is for one block: make another one for the next.")
        self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        try:
            if error is not None and _undoes(error):
                await self._undo_all(error)
        finally:
            for call in self._compensations:
                call.close()
            self._compensations.clear()

    async def _undo_all(self, error: BaseException) -> None:
        """Raises `CompensationFailed`, or the cancel that has come meanwhile."""
        failures = []
        while self._compensations:
            call = self._compensations.pop()
            failure = await self._failure_of(call)
            if failure is not None:
                failures.append(failure)
            (self.undone if failure is None else self.not_undone).append(_text(call))
        if failures:
            raise CompensationFailed.of(failures, self.not_undone, self.undone, error) from error
        if self._cancelled is not None and not isinstance(error, asyncio.CancelledError):
            raise self._cancelled from error

    async def _failure_of(self, call: Coroutine[Any, Any, object]) -> Exception | None:
        """Carry out one compensation in a task of its own, which no cancel of the run reaches."""
        task = asyncio.create_task(call)
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as cancelled:
                self._cancelled = cancelled
        if task.cancelled():
            return CallCancelled(_text(call))
        failure = task.exception()
        if failure is not None and not isinstance(failure, Exception):
            raise failure
        return failure


def _undoes(error: BaseException) -> bool:
    """Whether a block that ends with this has failed: `continue_as` is like a return, Ctrl-C and a
    closed coroutine end the process or the run's stay in memory, and not the run.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(_undoes(one) for one in error.exceptions)
    return isinstance(error, Exception | asyncio.CancelledError | SystemExit)


def _text(call: Any) -> str:
    """`refund('A-17')`, for a report."""
    if not isinstance(call, Call):
        return brief(getattr(call, "__qualname__", repr(call)), 200)
    given = [repr(one) for one in call.args]
    given += [f"{name}={value!r}" for name, value in call.kwargs.items()]
    return brief(f"{call.definition.name}({', '.join(given)})", 200)

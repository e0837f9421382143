"""Verbs of an engine that control runs: messages, cancellation, pauses, retries.

Rules: a verb returns after its commit; arguments are checked before anything is written.
"""

from __future__ import annotations

from typing import Any

from perdure.api.definitions import Call
from perdure.core import names, numbers
from perdure.runtime import validation
from perdure.runtime.control import resolution
from perdure.runtime.engine_parts import EngineParts

UNSET: Any = object()


class ControlVerbs(EngineParts):
    """See the module's text."""

    async def send(
        self,
        id: str,
        value: Any,
        *,
        channel: str,
        key: str | None = None,
        start: Call[Any] | None = None,
        sender: str | None = None,
    ) -> None:
        """Send a message and return when it is on disk. With a `key` it arrives once, however often
        it is sent. With `start`, the call of a workflow, the run is started with the message in one
        transaction where no run has the id. `sender`, a name, is recorded and shown.

        Raises `RunNotFound`, `RunFinished`, `InboxFull`, `NotSerializable`, and `RunExists` where
        `start` is of another workflow.
        """
        names.checked("channel", channel)
        if key is not None:
            names.checked("message key", key)
        data = self._codec.encode(value, f"the message on channel {channel!r}")
        by = validation.checked_sender(sender)
        await self._control.send(id, channel, key, data, start, by)

    async def cancel(self, id: str) -> None:
        """Ask a run to end: `CancelledError` arrives at its await, and its `finally` blocks run.

        Raises `RunNotFound` and `RunFinished`, as `pause` and `resume` do.
        """
        await self._control.cancel(id)

    async def pause(self, id: str) -> None:
        """Start nothing more for this run until it is resumed; steps under way end and are
        recorded.
        """
        await self._control.control(id, "pause")

    async def resume(self, id: str) -> None:
        """Let a paused run go on."""
        await self._control.control(id, "resume")

    async def retry(
        self, id: str, *, seq: int | None = None, sender: str | None = None
    ) -> list[int]:
        """Let a blocked run go on, or a failed or cancelled one without the failures or the cancel
        that ended it: under the same id, with what was recorded before; the failed run is kept as
        `id~1`. docs/explain/retry-and-fork.md says what is kept and what is done again.

        Of any other run, steps that wait for their next attempt begin it now: all of them, or the
        one in row `seq`. It counts as the attempt that was to come, and delays go on from it; a
        queue still decides when a step of it begins. `sender`, a name, is recorded with the
        attempt. Returns the rows of these steps; asked again before they begin, it changes nothing.
        Raises `RunNotFound`, `RunFinished`, `DefinitionError` for an earlier generation, and
        `StepNotWaiting` where the step in row `seq` does not wait for an attempt.

        >>> import asyncio
        >>> from perdure import Engine, Retry, step, workflow
        >>> up = False
        >>> @step(retry=Retry(attempts=3, delay=3600, max_delay=3600))
        ... async def charge() -> str:
        ...     if not up:
        ...         raise ConnectionError("503")
        ...     return "charged"
        >>> @workflow
        ... async def order() -> str:
        ...     return await charge()
        >>> async def main():
        ...     global up
        ...     async with Engine(":memory:", workflows=[order]) as engine:
        ...         run = await engine.start(order(), id="o-1")
        ...         while await run.status() != "waiting":
        ...             await asyncio.sleep(0.01)
        ...         up = True
        ...         return await engine.retry("o-1", sender="ada"), await run.result()
        >>> asyncio.run(main())
        ([2], 'charged')
        """
        if seq is not None:
            numbers.count(seq, "seq")
        return await self._control.retry(id, seq, validation.checked_sender(sender))

    async def resolve(
        self,
        id: str,
        *,
        seq: int | None = None,
        result: Any = UNSET,
        error: str | None = None,
        retry: bool = False,
        sender: str | None = None,
    ) -> None:
        """Decide what became of a step whose process died (`on_crash="ask"`), or what becomes of
        one that waits for its next attempt: its `result`, an `error`, or `retry`.

        `seq` is the step's row, where several ask or wait; `sender` is recorded. Raises
        `RunNotFound`, `StepNotWaiting` where the step in row `seq` does not wait, and
        `DefinitionError` where no step asks or waits.
        """
        validation.check_resolution(seq, error, retry)
        given = None if result is UNSET else result
        decision = resolution(self._codec, given, error, retry=retry)
        await self._control.resolve(id, seq, decision, validation.checked_sender(sender))

"""Verbs of an engine about queues: their limits, set while runs go on, and how they stand.

Rules: what a verb does not name stays as it is; a change counts from its commit on, for every
process on the store.
"""

from __future__ import annotations

from typing import Any

from perdure.api.queues import Rate, checked_fields, checked_name
from perdure.runtime.engine_parts import EngineParts
from perdure.runtime.info import QueueInfo
from perdure.runtime.queue_limits import change, info_of

_KEEP: Any = object()


class QueueVerbs(EngineParts):
    """See the module's text."""

    async def queue(
        self,
        name: str,
        *,
        concurrency: int | None = _KEEP,
        per_worker: int | None = _KEEP,
        rate: Rate | None = _KEEP,
        key_concurrency: int | None = _KEEP,
        key_rate: Rate | None = _KEEP,
        waiting_max: int | None = _KEEP,
        paused: bool = _KEEP,
    ) -> QueueInfo:
        """Make a queue, or change the limits that are given; None removes one. `Queue` says what
        they are.

        What is under way when a limit is lowered goes on, and the next one waits until there is
        room. Runs that are blocked because their queue was missing get another try. Raises
        `DefinitionError` for a limit below 1, and for limits that contradict each other.

        >>> import asyncio
        >>> from perdure import Engine
        >>> async def main():
        ...     async with Engine(":memory:") as engine:
        ...         await engine.queue("openai", concurrency=20, rate=Rate(500, per=60))
        ...         queue = await engine.queue("openai", concurrency=5, paused=True)
        ...         return queue.concurrency, queue.rate.limit, queue.paused
        >>> asyncio.run(main())
        (5, 500, True)
        """
        named = {
            "concurrency": concurrency,
            "per_worker": per_worker,
            "rate": rate,
            "key_concurrency": key_concurrency,
            "key_rate": key_rate,
            "waiting_max": waiting_max,
            "paused": paused,
        }
        given = {limit: value for limit, value in named.items() if value is not _KEEP}
        checked_fields(checked_name(name), given)
        return info_of(await self._control.set_queue(change(name, given, self._clock.now_ms())))

    async def queues(self) -> list[QueueInfo]:
        """All queues by name: their limits, how many wait and are under way, and when the next one
        can be admitted.
        """
        return [info_of(row) for row in await self._read(self._store.queue_rows)]

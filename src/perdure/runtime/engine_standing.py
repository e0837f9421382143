"""Verbs of an engine that look into queues and runs: keys, places, where a run stands and what it
shows.

Rules: reads give the last commit; a list has a limit, a position is counted to a limit.
"""

from __future__ import annotations

from collections.abc import Iterable

from perdure.core import names, numbers
from perdure.runtime import standing, validation
from perdure.runtime.engine_parts import EngineParts
from perdure.runtime.standing import ExposedValue, QueueKey, QueuePlace, Standing


class StandingVerbs(EngineParts):
    """See the module's text."""

    async def queue_keys(self, name: str, *, limit: int = 50) -> list[QueueKey]:
        """The keys of a queue that have places, the busiest first. Raises `QueueNotFound`, as
        `queue_places` does.
        """
        most = numbers.count(limit, "limit", low=1)
        rows = await self._read(self._store.queue_keys, names.checked("queue", name), most)
        return [standing.queue_key(row) for row in rows]

    async def queue_places(self, name: str, *, admitted: bool, limit: int = 50) -> list[QueuePlace]:
        """The places of a queue that were admitted, the oldest first; or those that wait, the next
        one first.
        """
        most, which = numbers.count(limit, "limit", low=1), numbers.flag(admitted, "admitted")
        rows = await self._read(self._store.places, names.checked("queue", name), most, which)
        return [standing.queue_place(row) for row in rows]

    async def standing(self, id: str) -> list[Standing]:
        """Where a run and its steps stand in queues; empty where they wait in none. Raises
        `RunNotFound`.
        """
        run = await self._read(self._queries.key, id)
        return [standing.standing(row) for row in await self._read(self._store.place_of, run)]

    async def standings(self, ids: Iterable[str]) -> dict[str, list[Standing]]:
        """The same for several runs, by id: the order of a queue is read once for all of them."""
        wanted = validation.several_ids(ids)
        runs = {id: await self._read(self._queries.key, id) for id in wanted}
        found = await self._read(self._store.places_of, list(runs.values()))
        return {id: [standing.standing(row) for row in found[run]] for id, run in runs.items()}

    async def exposed_values(self, id: str) -> list[ExposedValue]:
        """The exposed values of a run, those set last at the end, with the time and the row of
        each: as they are in this file, also where a replica has not confirmed them yet. Raises
        `RunNotFound`.
        """
        run = await self._read(self._queries.key, id)
        return [standing.exposed_value(row) for row in await self._read(self._store.exposed, run)]

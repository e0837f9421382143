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
        """The keys of a queue that have places, the busiest first: how many run and wait. Raises
        `QueueNotFound`, as `queue_places` does.

        >>> import asyncio
        >>> from perdure import Engine, Queue, receive, workflow
        >>> @workflow
        ... async def order() -> None:
        ...     await receive("paid", bool)
        >>> async def main():
        ...     shop = Queue("shop", concurrency=1)
        ...     async with Engine(":memory:", workflows=[order], queues=[shop]) as engine:
        ...         for number, key in enumerate(["ada", "bob", "ada"]):
        ...             await engine.start(order(), id=f"o-{number}", queue="shop", key=key)
        ...         keys = await engine.queue_keys("shop")
        ...         return [(key.key, key.running, key.waiting) for key in keys]
        >>> asyncio.run(main())
        [('ada', 1, 1), ('bob', 0, 1)]
        """
        most = numbers.count(limit, "limit", low=1)
        rows = await self._read(self._store.queue_keys, names.checked("queue", name), most)
        return [standing.queue_key(row) for row in rows]

    async def queue_places(self, name: str, *, admitted: bool, limit: int = 50) -> list[QueuePlace]:
        """The places of a queue that were admitted, the oldest first; or those that wait, the next
        one first. Each is that of a run, or of a step of one.

        >>> import asyncio
        >>> from perdure import Engine, Queue, receive, workflow
        >>> @workflow
        ... async def order() -> None:
        ...     await receive("paid", bool)
        >>> async def main():
        ...     shop = Queue("shop", concurrency=1)
        ...     async with Engine(":memory:", workflows=[order], queues=[shop]) as engine:
        ...         for number in range(4):
        ...             await engine.start(order(), id=f"o-{number}", queue="shop")
        ...         waiting = await engine.queue_places("shop", admitted=False, limit=2)
        ...         return [place.run for place in waiting]
        >>> asyncio.run(main())
        ['o-1', 'o-2']
        """
        most, which = numbers.count(limit, "limit", low=1), numbers.flag(admitted, "admitted")
        rows = await self._read(self._store.places, names.checked("queue", name), most, which)
        return [standing.queue_place(row) for row in rows]

    async def standing(self, id: str) -> list[Standing]:
        """Where a run and its steps stand in queues, and what keeps them there; empty where they
        wait in none. Raises `RunNotFound`.

        >>> import asyncio
        >>> from perdure import Engine, Queue, receive, workflow
        >>> @workflow
        ... async def order() -> None:
        ...     await receive("paid", bool)
        >>> async def main():
        ...     shop = Queue("shop", concurrency=1)
        ...     async with Engine(":memory:", workflows=[order], queues=[shop]) as engine:
        ...         for number in range(4):
        ...             await engine.start(order(), id=f"o-{number}", queue="shop")
        ...         (place,) = await engine.standing("o-3")
        ...         return place.position, place.waiting, place.why, place.limit
        >>> asyncio.run(main())
        (3, 3, 'concurrency', 1)
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

        >>> import asyncio
        >>> from perdure import Engine, expose, workflow
        >>> @workflow
        ... async def order() -> None:
        ...     expose(stage="new")
        ...     expose(stage="packed", parcels=2)
        >>> async def main():
        ...     async with Engine(":memory:", workflows=[order]) as engine:
        ...         await engine.run(order(), id="o")
        ...         values = await engine.exposed_values("o")
        ...         return [(one.name, one.value, one.seq) for one in values]
        >>> asyncio.run(main())
        [('stage', 'packed', 3), ('parcels', 2, 4)]
        """
        run = await self._read(self._queries.key, id)
        return [standing.exposed_value(row) for row in await self._read(self._store.exposed, run)]

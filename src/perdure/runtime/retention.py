"""Retention of an engine: prunes its store in the background, again and again.

Rules: a look that finds nothing to do writes nothing; what one process does at a time, the others
leave to it; an archive that can't be written is reported once when that begins, and once when it
ends; a clock that has jumped forward by more than a day is not believed for a day, because what is
deleted by a wrong clock is gone.
"""

from __future__ import annotations

import asyncio
import logging

from perdure.api.retention import Retention
from perdure.core.numbers import shown
from perdure.errors import ArchiveUnavailable, DefinitionError, PrunedElsewhere
from perdure.process.clock import SystemClock
from perdure.process.periodic import Loop
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.writer import Writer
from perdure.store.base import Store

log = logging.getLogger("perdure")

FIRST_S = 1.0
EVERY_S_MIN, EVERY_S_MAX = 1.0, 600.0
LOOKS_PER_AGE = 10
DAY_S = 86_400.0


def checked(retention: object, path: str) -> Retention:
    """The retention of a store. Raises `DefinitionError`, and `BadArchiveAddress`."""
    if not isinstance(retention, Retention):
        raise DefinitionError(
            "retention says how long runs are kept that have ended, such as "
            f"Retention(completed=timedelta(days=30)), not {shown(retention)}."
        )
    if retention.archive is not None:
        from perdure.runtime.archive import address_of  # late: only an archive needs addresses

        address_of(retention.archive)
        if path == ":memory:":
            raise DefinitionError(
                "A store in memory can't be archived, because only its own connection sees it. "
                "Name a file for it, or leave out archive."
            )
    return retention


class RetentionLoop:
    """Prunes the store of one engine while that is open."""

    def __init__(
        self,
        store: Store,
        reads: ReadExecutor,
        writer: Writer,
        clock: SystemClock,
        retention: Retention,
    ) -> None:
        self._store, self._reads, self._writer, self._clock = store, reads, writer, clock
        self._retention, self._begun, self._failing = retention, False, False
        ages_ms = retention.ages_ms().values()
        soonest_s = min(ages_ms, default=0) / 1000 / LOOKS_PER_AGE
        self._every_s = min(EVERY_S_MAX, max(EVERY_S_MIN, soonest_s))
        self._loop = Loop("retention", self._tick)
        self._seen: tuple[int, float] | None = None
        """The clock's time at the last look, and the event loop's, which never jumps."""
        self._doubted_s: float | None = None

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        """End the pass that is under way; what it has left is done by the next one."""
        await self._loop.stop()

    async def _tick(self) -> float:
        if not self._begun:  # an engine that has just opened has other things to do
            self._begun = True
            return FIRST_S
        from perdure.runtime.pruning import Pruning  # late: engines without retention need none

        if self._clock_jumped():
            return self._every_s
        parts = (self._store, self._reads, self._writer, self._clock, self._retention)
        pruning = Pruning(*parts, whole_days=True, gentle=True)
        try:
            if await pruning.is_due():
                await pruning.prune()
                self._archived()
        except PrunedElsewhere:
            pass  # another engine has this retention, too
        except ArchiveUnavailable as error:
            self._not_archived(error)
        return self._every_s

    def _clock_jumped(self) -> bool:
        """Whether the clock is far ahead of where it should be since the last look, as when it was
        set wrong.
        """
        now_ms, now_s = self._clock.now_ms(), asyncio.get_running_loop().time()
        seen_ms, seen_s = self._seen or (now_ms, now_s)
        ahead_s = (now_ms - seen_ms) / 1000 - (now_s - seen_s)
        if ahead_s > DAY_S:
            if self._doubted_s is None:
                self._doubted_s = now_s
                log.warning(
                    "the clock has jumped forward by %.0f hours: no run is deleted by it before a "
                    "day has passed. `perdure prune` does it at once",
                    ahead_s / 3_600,
                )
            if now_s - self._doubted_s < DAY_S:
                return True
        self._seen, self._doubted_s = (now_ms, now_s), None
        return False

    def _archived(self) -> None:
        if self._failing:
            log.info("the archive %s can be written again", self._retention.archive)
            self._failing = False

    def _not_archived(self, error: ArchiveUnavailable) -> None:
        if not self._failing:
            log.warning("%s", error)
            self._failing = True

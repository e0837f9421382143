"""One pass of pruning over a store: runs that ended long ago are archived and deleted.

Rules: one process prunes a store at a time; what a killed one has left is deleted first; a run is
deleted only when the file with it is durable in the archive; what may take long, the search and the
copies, is done in a thread, on a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

import msgspec

from perdure.api.retention import Retention
from perdure.errors import ArchiveUnavailable, EngineClosed, PerdureError, PrunedElsewhere
from perdure.process.clock import SystemClock
from perdure.runtime import archive as archives
from perdure.runtime.archive import DAY_MS, Archive
from perdure.runtime.pace import Pace
from perdure.runtime.prune_report import PruneReport
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.writer import Writer
from perdure.store.base import Export, PruningReads, Store
from perdure.store.retention_writes import (
    ForgetIdle,
    GiveBackSpace,
    HoldPruning,
    NoteArchive,
    Prunable,
    PrunablePage,
    Pruned,
    PruneRuns,
    Space,
    SweepPruned,
)

T = TypeVar("T")
Progress = Callable[[PruneReport], None]

PAGE_RUNS, LOOK_RUNS = 500, 20
ROWS_AT_ONCE = 20_000
"""More than any write deletes in its time."""
PART_RUNS_MAX, PART_BYTES_MAX = 200_000, 1 << 30
"""A file of the archive has no more; what is left of a day gets another one."""
FORGOTTEN_ROWS = 100
SPACE_KEPT_PAGES, SPACE_KEPT_SHARE = 256, 0.1
"""Free pages that stay for new runs: a megabyte, or a tenth of the file."""
HOLD_MS, RENEW_S = 60_000, 15.0
BREATH_S = 0.005
"""After each page of a search or a copy, which share the interpreter with the engine."""
BEGIN, KEY_MAX = (-1, 0), 1 << 62


Pages = list[tuple[str, PrunablePage]]
"""Runs by how they ended."""


class Pruning:
    """One pass. With `whole_days` an archive gets only days that are over, so that there is one
    file for each; `gentle` leaves most of the time to others, `all_space` keeps no free
    space for new runs.
    """

    def __init__(
        self,
        store: Store,
        reads: ReadExecutor,
        writer: Writer,
        clock: SystemClock,
        retention: Retention,
        *,
        whole_days: bool = False,
        gentle: bool = False,
        all_space: bool = False,
        on_progress: Progress | None = None,
    ) -> None:
        self._store, self._reads, self._writer, self._clock = store, reads, writer, clock
        self._pace = Pace(store, writer, gentle=gentle)
        self._space = (0, 0.0) if all_space else (SPACE_KEPT_PAGES, SPACE_KEPT_SHARE)
        self._archive_at = retention.archive
        self._on_progress = on_progress
        now_ms, ages = clock.now_ms(), retention.ages_ms()
        self._before = {status: now_ms - age_ms + 1 for status, age_ms in ages.items()}
        self._before_ms = max(self._before.values(), default=now_ms)
        """No run that has ended since is old enough."""
        if whole_days and retention.archive is not None:
            for status, age_ms in ages.items():
                if age_ms >= DAY_MS:
                    self._before[status] -= self._before[status] % DAY_MS
        self._holder = uuid.uuid4().hex
        self._held_s: float | None = None
        self._stopped = threading.Event()
        self.report = PruneReport()

    # --- what there is to do ----------------------------------------------------------------------

    async def is_due(self) -> bool:
        """Whether a look at the indexes finds something to do."""
        for status, before_ms in self._before.items():
            page = await self._get(self._store.prunable, status, before_ms, BEGIN, LOOK_RUNS)
            if page.found or page.after is not None:
                return True
        return bool((await self._get(self._store.pruning)).left)

    async def look(self) -> PruneReport:
        """What a prune would do."""
        self.report.dry_run = True
        if self._archive_at is not None:
            await archives.open_archive(self._archive_at, self._store.path).check()
        for status, before_ms in self._before.items():
            after: tuple[int, int] | None = BEGIN
            while after is not None:
                page = await self._page(status, before_ms, after)
                after = page.after
                self.report.found(status, page)
                self.report.runs += sum(one.runs for one in page.found)
                self._would_archive(page.found)
        return self.report

    def _would_archive(self, found: list[Prunable]) -> None:
        if self._archive_at is not None:
            days = {archives.day_of(one.ended_ms) for one in found}
            names = {f"{archives.name_of(self._store.path, day)}.db" for day in days}
            self.report.files = sorted({*self.report.files, *names})

    # --- a pass -----------------------------------------------------------------------------------

    async def prune(self) -> PruneReport:
        """Delete what is old enough. Raises `ArchiveUnavailable`, `PrunedElsewhere`, and other
        `StoreError`s; what was done until then stays done.
        """
        await self._hold()
        try:
            await self._sweep()
            if self._archive_at is None:
                await self._prune_all()
            else:
                archive = archives.open_archive(self._archive_at, self._store.path)
                await archive.check()
                await self._archive_days(archive)
            await self._forget_idle()
            await self._give_back_space()
        except ArchiveUnavailable as error:
            now_ms = self._clock.now_ms()
            await self._writer.ask(NoteArchive(error.where, None, error.detail, now_ms))
            raise
        finally:
            self._stopped.set()
            self._held_s = None
            with contextlib.suppress(PerdureError):  # then it ends by itself, in a minute
                await self._writer.ask(HoldPruning(self._holder, None, self._clock.now_ms()))
        return self.report

    async def _prune_all(self) -> None:
        for status, before_ms in self._before.items():
            after: tuple[int, int] | None = BEGIN
            while after is not None:
                page = await self._page(status, before_ms, after)
                after = page.after
                await self._delete(status, page)

    async def _delete(self, status: str, page: PrunablePage) -> None:
        """Delete the runs of a page, and all that they consist of."""
        self.report.found(status, page)
        left = page.found
        while left:
            await self._hold()
            pruned = await self._pace.write(partial(PruneRuns, left, self._clock.now_ms()))
            left = _left(left, pruned)
            self.report.runs += pruned.runs
            self._tell()
        await self._sweep()

    async def _sweep(self) -> None:
        """Delete what pruned runs consist of."""
        before = await self._get(self._store.pruning)
        done = not before.left
        while not done:
            await self._hold()
            write = partial(SweepPruned, ROWS_AT_ONCE, self._clock.now_ms(), self._before_ms)
            swept = await self._pace.write(write)
            self.report.runs, done = self.report.runs + swept.runs, swept.done
            self._tell()
        after = await self._get(self._store.pruning)
        self.report.history_rows += after.rows - before.rows

    async def _forget_idle(self) -> None:
        before_ms = min(self._before.values(), default=self._before_ms)
        write = ForgetIdle(before_ms, FORGOTTEN_ROWS)
        while await self._pace.write(lambda enough: write) >= FORGOTTEN_ROWS:
            await self._hold()

    async def _give_back_space(self) -> None:
        done = False
        while not done:
            await self._hold()
            space = await self._give_back()
            self.report.space_given_back += space.given_bytes
            self.report.space_free, done = space.free_bytes, space.done
            self._tell()

    async def _give_back(self) -> Space:
        write = partial(GiveBackSpace, *self._space)
        given: Space = await self._pace.write(write)
        return given

    def _tell(self) -> None:
        self.report.longest_hold_ms = self._pace.longest_ms
        self.report.longest_work_ms = self._pace.longest_work_ms
        if self._on_progress is not None:
            self._on_progress(self.report)

    # --- one process at a time --------------------------------------------------------------------

    async def _hold(self) -> None:
        """Be the process that prunes, for a minute more. Raises `PrunedElsewhere`."""
        now_s = asyncio.get_running_loop().time()
        if self._held_s is not None and now_s < self._held_s + RENEW_S:
            return
        now_ms = self._clock.now_ms()
        if not await self._writer.ask(HoldPruning(self._holder, now_ms + HOLD_MS, now_ms)):
            raise PrunedElsewhere(self._store.path)
        self._held_s = now_s

    # --- the archive ------------------------------------------------------------------------------

    async def _archive_days(self, archive: Archive) -> None:
        """Archive and delete one day after the other, the oldest first."""
        after = dict.fromkeys(self._before, BEGIN)
        with archives.draft_folder(archive) as folder:
            draft = folder.path / archives.DRAFT
            while (day_ms := await self._get(self._first_day, after)) is not None:
                fill = partial(self._fill, draft, day_ms, after)
                pages = await self._in_thread(partial(archives.guarded, archive, fill))
                if any(page.found for _, page in pages):
                    await self._publish(archive, draft, day_ms)
                archives.discard(draft)
                for status, page in pages:
                    await self._delete(status, page)

    async def _publish(self, archive: Archive, draft: Path, day_ms: int) -> None:
        name = archives.name_of(self._store.path, archives.day_of(day_ms))
        sent = asyncio.ensure_future(archive.publish(draft, name))
        try:
            self.report.files.append(await self._renewing(sent))
        finally:
            sent.cancel()
        now_ms = self._clock.now_ms()
        await self._writer.ask(NoteArchive(archive.where, now_ms, None, now_ms))

    def _first_day(self, after: dict[str, tuple[int, int]]) -> int | None:
        """When the day begins that the oldest of the runs ended on which are not done yet."""
        firsts = [
            self._store.prunable(status, self._before[status], place, 1).after
            for status, place in after.items()
        ]
        first_ms = min((first[0] for first in firsts if first is not None), default=None)
        return None if first_ms is None else first_ms - first_ms % DAY_MS

    def _fill(self, draft: Path, day_ms: int, after: dict[str, tuple[int, int]]) -> Pages:
        """Copy the runs of a day to a file, as far as one file takes them. Returns them, by how
        they ended, and moves `after`.
        """
        with self._reads_apart() as reads, self._store.export(str(draft)) as export:
            pages: Pages = []
            for status, before_ms in self._before.items():
                end_ms = min(before_ms, day_ms + DAY_MS)
                while after[status] < (end_ms - 1, KEY_MAX):
                    page = reads.prunable(status, end_ms, after[status], PAGE_RUNS)
                    after[status] = page.after or (end_ms - 1, KEY_MAX)
                    pages.append((status, page))
                    if self._is_full(export, pages):
                        break
            export.close()
        return pages

    def _is_full(self, export: Export, pages: Pages) -> bool:
        """Copy the last of these pages; whether the file has enough then."""
        if self._stopped.is_set():
            raise EngineClosed
        size_bytes = export.add(pages[-1][1].found)
        sleep(BREATH_S)
        runs = sum(one.runs for _, page in pages for one in page.found)
        return runs >= PART_RUNS_MAX or size_bytes >= PART_BYTES_MAX

    # --- the thread -------------------------------------------------------------------------------

    async def _get(self, read: Callable[..., T], *args: Any) -> T:
        return await self._reads.get(read, *args)

    async def _page(self, status: str, before_ms: int, after: tuple[int, int]) -> PrunablePage:
        def read() -> PrunablePage:
            with self._reads_apart() as reads:
                return reads.prunable(status, before_ms, after, PAGE_RUNS)

        return await self._in_thread(read)

    def _reads_apart(self) -> contextlib.AbstractContextManager[PruningReads]:
        return self._store.reads_apart() or contextlib.nullcontext(self._store)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """What `work` gives, made in a thread where the store has a second connection."""
        if self._store.reads_apart() is None:
            return work()
        thread = ThreadPoolExecutor(1, "perdure-prune")
        made = asyncio.get_running_loop().run_in_executor(thread, work)
        try:
            return await self._renewing(made)
        except BaseException:  # the draft must be left alone before it is removed
            self._stopped.set()
            await asyncio.wait([made])
            raise
        finally:
            thread.shutdown(wait=False)

    async def _renewing(self, work: asyncio.Future[T]) -> T:
        """The result of what may take long; others do not prune meanwhile."""
        while not work.done():
            await asyncio.wait([work], timeout=RENEW_S)
            if self._held_s is not None:
                await self._hold()
        return work.result()


def _left(asked: list[Prunable], pruned: Pruned) -> list[Prunable]:
    """What is left of the runs that were to be pruned."""
    left = asked[pruned.looked_at :]
    if pruned.earlier:
        left[0] = msgspec.structs.replace(left[0], earlier=left[0].earlier[pruned.earlier :])
    return left

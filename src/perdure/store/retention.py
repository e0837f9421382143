"""Retention in a transaction: runs that ended long ago are deleted, in two steps.

Rules: a run stops to exist at once, in one small transaction; what it consists of is deleted
afterwards piece by piece, and the list of what is left is in the store, so that a crash loses
nothing of it; a child goes after its parent; a key of a run is never given again, nor is a position
of a stream or the number of an inbox row, because others hold them: the newest of each stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.store.history import HistoryWriter
from perdure.store.retention_writes import (
    HOLD_MS_MAX,
    ForgetIdle,
    GiveBackSpace,
    HoldPruning,
    NoteArchive,
    Prunable,
    Pruned,
    PruneRuns,
    Space,
    SweepPruned,
    Swept,
)
from perdure.store.transaction import Transaction

SLICE_ROWS = 50
"""Rows that one statement deletes: some hundred microseconds."""
RUNS_AT_ONCE = 20
"""Pruned runs that are swept together: most have few rows."""
SLICE_PAGES = 8

SWEPT = (
    "sweep_chunk", "sweep_secret", "sweep_heartbeat", "sweep_stream", "sweep_inbox_taken",
    "sweep_inbox_left",
    "sweep_inbox_open", "sweep_place", "sweep_exposed", "sweep_keys", "sweep_requests",
    "sweep_links",
)  # fmt: skip
"""Queries that delete rows of the pruned runs up to a key, up to a number of rows; the last ones
what belongs to all runs under one id, which goes with the last of them."""
FORGOTTEN = ("forget_workers", "forget_queue_keys")
"""Queries that delete what outlives its runs, by a time and a number of rows."""


class Retention:
    """What writes about retention do in the transaction `db`; `forget_run` clears an owner's
    number.
    """

    def __init__(
        self, db: Transaction, history: HistoryWriter, forget_run: Callable[[int], object]
    ) -> None:
        self._db, self._history, self._forget_run = db, history, forget_run
        self.apply: dict[type, Callable[[Any], Any]] = {
            PruneRuns: self.prune,
            SweepPruned: self.sweep,
            ForgetIdle: self.forget_idle,
            GiveBackSpace: self.give_back,
            HoldPruning: self.hold,
            NoteArchive: self.note_archive,
        }

    # --- runs -------------------------------------------------------------------------------------

    def prune(self, prune: PruneRuns) -> Pruned:
        """See `PruneRuns`."""
        pruned = Pruned(0, 0, 0)
        for one in prune.found:
            if pruned.looked_at and prune.enough():
                break
            row = self._db.row("ended_run", (one.run,))
            if row is not None and row[:2] == (one.id, one.ended_ms) and row[3] != one.run:
                if not self._prune_earlier(one, prune, pruned):
                    break
                pruned.runs += self._condemn(one.run, _chain_of(one.run, one.id, row[2]))
            pruned.looked_at, pruned.earlier = pruned.looked_at + 1, 0
        if pruned.runs:
            self._db.do("count_pruned", (pruned.runs, prune.at_ms))
        return pruned

    def _prune_earlier(self, one: Prunable, prune: PruneRuns, pruned: Pruned) -> bool:
        """The runs before one stop to exist, the oldest first. Returns False where it is enough."""
        for earlier in one.earlier:
            if pruned.earlier and prune.enough():
                return False
            pruned.runs += self._condemn(earlier, None)
            pruned.earlier += 1
        return True

    def _condemn(self, run: int, chain: int | None) -> int:
        """A run stops to exist. Returns 1, or 0 where it did not exist."""
        if not self._db.change("prune_run", (run,)):
            return 0
        self._db.do("drop_tags", (run,))
        self._db.do("insert_pruned", (run, chain))
        self._history.forget_run(run)
        self._forget_run(run)
        return 1

    # --- what they consist of ---------------------------------------------------------------------

    def sweep(self, sweep: SweepPruned) -> Swept:
        """See `SweepPruned`."""
        swept = Swept(0, 0, False)
        history = 0
        sweep.enough()  # its time begins
        while (up_to := self._db.rows("next_pruned", (RUNS_AT_ONCE,))[0][0]) is not None:
            deleted = self._db.delete_history(up_to, SLICE_ROWS)
            history += deleted
            if deleted < SLICE_ROWS:
                deleted += self._sweep_rest(up_to, sweep, swept)
            swept.rows += deleted
            if swept.rows >= sweep.rows_max or sweep.enough():
                break
        else:
            swept.done = True
        if history:
            self._db.do("count_swept", (history,))
        return swept

    def _sweep_rest(self, up_to: int, sweep: SweepPruned, swept: Swept) -> int:
        """Delete what the pruned runs up to a key have, which have no history any more, up to a
        slice of one table. Returns the number of rows.
        """
        if self._db.change("keep_newest_stream", (up_to,)):
            self._db.do("drop_older_stream", ())
        if self._db.change("keep_newest_inbox", (up_to,)):
            self._db.do("drop_older_inbox", ())
        rows = 0
        for query in SWEPT:
            deleted = self._db.change(query, (up_to, SLICE_ROWS))
            rows += deleted
            if deleted == SLICE_ROWS or (deleted and sweep.enough()):
                return rows
        if children := self._prune_children(up_to, sweep):
            swept.runs += children
            return rows + children
        return rows + self._db.change("drop_pruned", (up_to,))

    def _prune_children(self, up_to: int, sweep: SweepPruned) -> int:
        """The next children of these runs stop to exist. Returns how many were looked at."""
        found = self._db.rows("children_of_pruned", (up_to, RUNS_AT_ONCE))
        pruned = 0
        for child, run_id, ended_ms, chain, newest in found:
            if ended_ms is None or ended_ms >= sweep.before_ms or child == newest:
                self._db.do("orphan", (child,))
            else:
                pruned += self._condemn(child, _chain_of(child, run_id, chain))
        if pruned:
            self._db.do("count_pruned", (pruned, sweep.at_ms))
        return len(found)

    # --- who prunes -------------------------------------------------------------------------------

    def hold(self, hold: HoldPruning) -> bool:
        """See `HoldPruning`."""
        if hold.until_ms is None:
            self._db.do("release_pruning", (hold.holder,))
            return True
        bounds = (hold.holder, hold.until_ms, hold.at_ms, hold.at_ms + HOLD_MS_MAX)
        return self._db.row("hold_pruning", bounds) is not None

    # --- the rest ---------------------------------------------------------------------------------

    def forget_idle(self, forget: ForgetIdle) -> int:
        """See `ForgetIdle`."""
        bounds = (forget.before_ms, forget.rows_max)
        return sum(self._db.change(query, bounds) for query in FORGOTTEN)

    def give_back(self, give: GiveBackSpace) -> Space:
        """See `GiveBackSpace`."""
        free, pages, size = self._db.give_back_pages(0)
        all_pages = pages
        keep, enough = max(give.pages_kept, int(pages * give.share_kept)), False
        while free > keep and not enough:
            before = free
            free, pages, size = self._db.give_back_pages(min(SLICE_PAGES, free - keep))
            enough = free >= before or give.enough()
        given = all_pages - pages
        return Space(free * size, pages * size, given * size, free <= keep)

    def note_archive(self, note: NoteArchive) -> None:
        """See `NoteArchive`."""
        self._db.do("note_archive", (note.archive, note.archived_ms, note.error, note.at_ms))


def _chain_of(run: int, run_id: str, chain: int | None) -> int | None:
    """The chain that ends with a run; None for one that another went on after."""
    return None if "~" in run_id else run if chain is None else chain

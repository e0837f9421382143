"""What a prune has done, or would do.

Rules: plain values, for programs and for people; times are aware and UTC.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import msgspec

from perdure.store.retention_writes import Prunable, PrunablePage

KEPT_MAX = 100


class PruneReport(msgspec.Struct):
    """What `Engine.prune` has deleted, or, with `dry_run`, would delete.

    `runs` is how many runs went, all children and earlier runs included; `by_status` counts those
    that stand for themselves, by how they ended; `oldest` and `newest` are when these ended.
    `history_rows` is how many rows of history went. `files` are the names of the files in the
    archive. `kept` has the ids of runs that are old enough and stay all the same, with the reason,
    up to 100 of them. `space_given_back` is how many bytes the file is shorter, and
    `space_free` how many are free in it for new runs. `longest_hold_ms` is the longest time for
    which a write held the store, and `longest_work_ms` the same without the commit, which is the
    disk's.
    """

    dry_run: bool = False
    runs: int = 0
    by_status: dict[str, int] = msgspec.field(default_factory=dict)
    oldest: datetime | None = None
    newest: datetime | None = None
    history_rows: int = 0
    files: list[str] = msgspec.field(default_factory=list)
    kept: list[tuple[str, str]] = msgspec.field(default_factory=list)
    space_given_back: int = 0
    space_free: int = 0
    longest_hold_ms: float = 0.0
    longest_work_ms: float = 0.0

    def found(self, status: str, page: PrunablePage) -> None:
        """Count what keeps runs of a page, and when the others ended."""
        self.kept += page.kept[: KEPT_MAX - len(self.kept)]
        self.ended(status, page.found)

    def ended(self, status: str, found: list[Prunable]) -> None:
        """Count runs by how they ended."""
        if not found:
            return
        self.by_status = dict(Counter(self.by_status) + Counter({status: len(found)}))
        times = [_utc(one.ended_ms) for one in found]
        self.oldest = min(filter(None, (self.oldest, *times)))
        self.newest = max(filter(None, (self.newest, *times)))


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)

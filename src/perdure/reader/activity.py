"""Activity of a store: how many runs were started and have ended, by buckets of time.

Rules: children are not counted, neither when they start nor when they end; a bucket that is over
is counted only once; where too many are new, the older buckets are empty and that is said.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.core.lifecycle import CANCELLED, COMPLETED, FAILED
from perdure.reader.values import Activity, Bucket
from perdure.runtime.info import instant
from perdure.store.page_reads import PageReads

ENDS = (COMPLETED, FAILED, CANCELLED)
COUNTED_MAX = 20_000
"""Starts, and ends of one kind, that are looked at at once."""

OPEN_BUCKETS = 2
"""The newest buckets may still grow: a row is written a moment after its time was taken."""

KEPT_MAX = 5_000


class ActivityReads:
    """Counts of one store; those of buckets that are over are kept."""

    def __init__(self, pages: PageReads) -> None:
        self._pages = pages
        self._kept: dict[tuple[int, int], tuple[int, ...]] = {}
        """Starts and ends by length and begin of a bucket."""

    def read(self, now_ms: int, buckets: int, bucket_ms: int) -> Activity:
        """So many buckets up to now."""
        # Whole ones, so that a picture moves once a bucket and not with every look.
        first_ms = (now_ms // bucket_ms - buckets + 1) * bucket_ms
        times = [first_ms + number * bucket_ms for number in range(buckets)]
        counts, whole = self._counts(times, bucket_ms)
        found = [Bucket(instant(at_ms), *each) for at_ms, each in zip(times, counts, strict=True)]
        return Activity(found, bucket_ms, not whole)

    def _counts(self, times: Sequence[int], bucket_ms: int) -> tuple[list[tuple[int, ...]], bool]:
        """Starts, and ends of each kind, by bucket, and whether all were counted."""
        known = 0
        while known < len(times) and (bucket_ms, times[known]) in self._kept:
            known += 1
        found = [self._kept[bucket_ms, at_ms] for at_ms in times[:known]]
        if known == len(times):
            return found, True
        since_ms = times[known]
        read = [
            self._pages.started(since_ms, bucket_ms, COUNTED_MAX),
            *(self._pages.ended(one, since_ms, bucket_ms, COUNTED_MAX) for one in ENDS),
        ]
        # The oldest bucket of a kind that reached the bound was counted in part.
        cut = [rows[0][0] + 1 for rows in read if sum(row[2] for row in rows) >= COUNTED_MAX]
        whole_from = max(cut, default=0)
        counts = [{bucket: counted for bucket, counted, _ in rows} for rows in read]
        for number in range(len(times) - known):
            is_whole = number >= whole_from
            each = tuple(one.get(number, 0) if is_whole else 0 for one in counts)
            found.append(each)
            if is_whole and number < len(times) - known - OPEN_BUCKETS:
                self._keep(bucket_ms, times[known + number], each)
        return found, not whole_from

    def _keep(self, bucket_ms: int, at_ms: int, counts: tuple[int, ...]) -> None:
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[bucket_ms, at_ms] = counts

"""Activity of a store: how many runs were started and have ended, by buckets of time.

Rules: starts are differences of keys and cost nothing; ends are counted, those of a bucket that is
over only once; where too many are new, the older buckets are empty and that is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from perdure.core.lifecycle import CANCELLED, COMPLETED, FAILED
from perdure.reader.values import Activity, Bucket
from perdure.runtime.info import instant
from perdure.store.page_reads import PageReads

ENDS = (COMPLETED, FAILED, CANCELLED)
COUNTED_MAX = 20_000
"""Ends of one kind that are counted at once."""

OPEN_BUCKETS = 2
"""The newest buckets may still grow: an end is written a moment after its time was taken."""

KEPT_MAX = 5_000


class ActivityReads:
    """Counts of one store; those of buckets that are over are kept."""

    def __init__(self, pages: PageReads) -> None:
        self._pages = pages
        self._kept: dict[tuple[int, int], tuple[int, ...]] = {}
        """Ends by length and begin of a bucket."""

    def read(self, now_ms: int, buckets: int, bucket_ms: int) -> Activity:
        """So many buckets up to now."""
        # Whole ones, so that a picture moves once a bucket and not with every look.
        first_ms = (now_ms // bucket_ms - buckets + 1) * bucket_ms
        times = [first_ms + number * bucket_ms for number in range(buckets + 1)]
        starts = [max(b - a, 0) for a, b in pairwise(self._pages.first_keys(times))]
        ends, whole = self._ends(times[:-1], bucket_ms)
        found = [
            Bucket(instant(at_ms), started, *ended)
            for at_ms, started, ended in zip(times, starts, ends, strict=False)
        ]
        return Activity(found, bucket_ms, not whole)

    def _ends(self, times: Sequence[int], bucket_ms: int) -> tuple[list[tuple[int, ...]], bool]:
        """Ends by bucket, and whether all were counted."""
        known = 0
        while known < len(times) and (bucket_ms, times[known]) in self._kept:
            known += 1
        found = [self._kept[bucket_ms, at_ms] for at_ms in times[:known]]
        if known == len(times):
            return found, True
        since_ms = times[known]
        counts = [Counter(self._pages.ended(one, since_ms, bucket_ms, COUNTED_MAX)) for one in ENDS]
        # The oldest bucket of a kind that reached the bound was counted in part.
        cut = [min(one) + 1 for one in counts if sum(one.values()) >= COUNTED_MAX]
        whole_from = max(cut, default=0)
        for number in range(len(times) - known):
            ended = tuple(one[number] for one in counts) if number >= whole_from else (0, 0, 0)
            found.append(ended)
            if whole_from <= number < len(times) - known - OPEN_BUCKETS:
                self._keep(bucket_ms, times[known + number], ended)
        return found, not whole_from

    def _keep(self, bucket_ms: int, at_ms: int, ended: tuple[int, ...]) -> None:
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[bucket_ms, at_ms] = ended

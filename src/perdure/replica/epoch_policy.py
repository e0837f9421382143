"""When an epoch is given up: the room that it takes, and trouble that only a new copy ends. Facts
in, a decision out.

Rules: nothing here waits or looks; a new copy is begun only where the bucket is well, because a
lease can't move without it; what takes too much room is put into the store at once, bucket or not;
a copy that is being made is not given up for its length; each new copy doubles the patience with
the next one, so that what no copy can mend does not fill the bucket (docs/adr/0020).
"""

from __future__ import annotations

import math

import msgspec

ANEW_SHARE, ANEW_EVERY_S = 0.75, 600.0
REFUSALS_MIN = 3
PATIENCE_S_MIN, PATIENCE_S_MAX = 3.0, 600.0
SILENT_S_MAX = 30.0  # trouble without an answer: Litestream itself does not stay up


class Facts(msgspec.Struct, frozen=True):
    """How it stands. `broken` says why what is copied can't be restored, `paused` that nothing
    copies; `share` is that of the limit which the WAL and what waits for the replica need;
    `refusals` are answers with an error since the last good one; `copying` says that Litestream
    runs and has not answered a sync yet. `trouble` is one that a new copy may end: a full disk is
    none, because a new copy needs more room and not less.
    """

    now_s: float
    bucket_well: bool
    trouble: bool
    refusals: int
    broken: str
    paused: bool
    share: float
    copying: bool


class Anew(msgspec.Struct, frozen=True):
    """Begin a new epoch with a whole copy."""

    why: str


class Fold(msgspec.Struct, frozen=True):
    """End Litestream, if it runs, and put the WAL into the store."""


class Mender:
    """Remembers since when there is trouble, and when the last epoch began."""

    def __init__(self) -> None:
        self._ill_since_s, self._well_since_s, self._anew_s = math.inf, math.inf, -math.inf
        self._patience_s = PATIENCE_S_MIN

    def begun(self, now_s: float) -> None:
        """A new epoch was begun, or tried to."""
        self._anew_s, self._ill_since_s = now_s, math.inf
        self._patience_s = min(2 * self._patience_s, PATIENCE_S_MAX)

    def decide(self, facts: Facts) -> Anew | Fold | None:
        """What is to be done now."""
        now_s = facts.now_s
        self._well_since_s = min(self._well_since_s, now_s) if facts.bucket_well else math.inf
        self._ill_since_s = min(self._ill_since_s, now_s) if facts.trouble else math.inf
        if not facts.trouble and now_s - self._anew_s > 10 * self._patience_s:
            self._patience_s = PATIENCE_S_MIN
        may_begin = facts.bucket_well and now_s - self._anew_s >= self._patience_s
        if facts.paused and may_begin and facts.share < 1:
            return Anew(
                "nothing copies the store"
            )  # which folds as well, and does not wait until a reader lets it
        if self._is_too_large(facts):
            return Fold()
        if not may_begin:
            return None
        if facts.broken:
            return Anew(facts.broken)
        if facts.copying:
            return None  # the trouble may be that of the last epoch, until the whole copy is there
        ill_s = now_s - max(self._ill_since_s, self._well_since_s)
        if ill_s >= SILENT_S_MAX or (ill_s >= PATIENCE_S_MIN and facts.refusals >= REFUSALS_MIN):
            return Anew("the bucket is well, and Litestream copies nothing to it")
        return None

    def _is_too_large(self, facts: Facts) -> bool:
        if facts.paused:
            return facts.share >= 1 - ANEW_SHARE
        return facts.share >= 1 or (
            facts.share >= ANEW_SHARE
            and facts.bucket_well
            and facts.now_s - self._anew_s > ANEW_EVERY_S
        )

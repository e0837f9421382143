"""The policy of epochs: when a copy is given up for a new one. Facts in, a decision out.

Rules: nothing here waits or looks. A new copy is begun only where the bucket is well, because the
lease can't change without it. What takes too much space is folded into the store at once, bucket or
not. A copy that is being made is not given up for its length. Each new copy doubles the patience
with the next one, so that what no copy can fix does not fill the bucket (docs/adr/0020).
"""

from __future__ import annotations

import math

import msgspec

ANEW_SHARE, ANEW_EVERY_S = 0.75, 600.0
REFUSALS_MIN = 3
PATIENCE_S_MIN, PATIENCE_S_MAX = 3.0, 600.0
SILENT_S_MAX = 30.0  # trouble without an answer: Litestream itself does not stay up


class Facts(msgspec.Struct, frozen=True):
    """The state of a copy.

    `bucket_well`: the lease was renewed in time. `trouble`: syncs fail, and a new copy may end
    that; a full disk is none, because a new copy needs more space and not less. `refusals` counts
    answers with an error since the last good one. `broken` says why what is copied can't be
    restored. `resting`: nothing copies. `share` of the limit is taken by the WAL and what waits for
    the replica. `copying`: Litestream runs and has not answered a sync yet.
    """

    now_s: float
    bucket_well: bool
    trouble: bool
    refusals: int
    broken: str
    resting: bool
    share: float
    copying: bool


class NewEpoch(msgspec.Struct, frozen=True):
    """Begin a new epoch with a whole copy."""

    why: str


class Fold(msgspec.Struct, frozen=True):
    """End Litestream, if it runs, and move the WAL into the store."""


class EpochPolicy:
    """Decides, and remembers since when there is trouble and when the last epoch began."""

    def __init__(self) -> None:
        self._failing_since_s, self._well_since_s, self._begun_s = math.inf, math.inf, -math.inf
        self._patience_s = PATIENCE_S_MIN

    def begun(self, now_s: float) -> None:
        """A new epoch was begun, or tried to."""
        self._begun_s, self._failing_since_s = now_s, math.inf
        self._patience_s = min(2 * self._patience_s, PATIENCE_S_MAX)

    def decide(self, facts: Facts) -> NewEpoch | Fold | None:
        """What is to be done now."""
        now_s = facts.now_s
        self._well_since_s = min(self._well_since_s, now_s) if facts.bucket_well else math.inf
        self._failing_since_s = min(self._failing_since_s, now_s) if facts.trouble else math.inf
        if not facts.trouble and now_s - self._begun_s > 10 * self._patience_s:
            self._patience_s = PATIENCE_S_MIN
        may_begin = facts.bucket_well and now_s - self._begun_s >= self._patience_s
        if facts.resting and may_begin and facts.share < 1:
            # It folds as well, and does not wait until a reader lets it.
            return NewEpoch("nothing copies the store")
        if self._is_too_large(facts):
            return Fold()
        if not may_begin:
            return None
        if facts.broken:
            return NewEpoch(facts.broken)
        if facts.copying:
            return None  # the trouble may be that of the last epoch, until the whole copy is there
        failing_s = now_s - max(self._failing_since_s, self._well_since_s)
        refused = failing_s >= PATIENCE_S_MIN and facts.refusals >= REFUSALS_MIN
        if refused or failing_s >= SILENT_S_MAX:
            return NewEpoch("the bucket is well, and Litestream copies nothing to it")
        return None

    def _is_too_large(self, facts: Facts) -> bool:
        if facts.resting:
            return facts.share >= 1 - ANEW_SHARE
        rarely = facts.bucket_well and facts.now_s - self._begun_s > ANEW_EVERY_S
        return facts.share >= 1 or (facts.share >= ANEW_SHARE and rarely)

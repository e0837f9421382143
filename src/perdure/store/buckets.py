"""Token buckets: what a rate allows at a time, as arithmetic on integers.

Rules: a bucket is how long it takes to be full again (`level_ns`) and from when on (`level_ms`);
what was spent beyond the burst makes that longer, not wrong. Writes of several processes come a
little out of the order of their times: a time before `level_ms` fills nothing. Only one that is
before it by `STEP_MS` means that the clock was set back; then the level stays as it is. A clock
that was set forward fills the bucket at most once.
"""

from __future__ import annotations

from typing import NamedTuple

_NS = 1_000_000
STEP_MS = 10_000
"""A time that is so much before another one is of another clock."""
LEVEL_NS_MAX = 1 << 62
"""A bucket is full again after 146 years at the latest: the number fits a column."""


class Rate(NamedTuple):
    """`limit` tokens in `per_ms`, `burst` of them at once."""

    limit: int
    per_ms: int
    burst: int

    def time_ns(self, tokens: int) -> int:
        """How long so many tokens take to come; a part of a nanosecond counts as one."""
        return tokens * -(-self.per_ms * _NS // self.limit)


class Bucket(NamedTuple):
    """The state of a bucket. One that is full has level 0."""

    level_ns: int = 0
    level_ms: int = 0

    def at(self, now_ms: int) -> Bucket:
        """The same bucket at a time.

        >>> Bucket(3_000_000, 10).at(11)
        Bucket(level_ns=2000000, level_ms=11)
        >>> Bucket(3_000_000, 10).at(9)  # another process was faster with a later time
        Bucket(level_ns=3000000, level_ms=10)
        >>> Bucket(3_000_000, 20_000).at(10_000)  # the clock was set back
        Bucket(level_ns=3000000, level_ms=10000)
        """
        if now_ms < self.level_ms:
            return Bucket(self.level_ns, now_ms) if self.ahead_of(now_ms) else self
        return Bucket(max(0, self.level_ns - (now_ms - self.level_ms) * _NS), now_ms)

    def ahead_of(self, now_ms: int) -> bool:
        """Whether the clock was set back since it was last looked at."""
        return self.level_ms - now_ms >= STEP_MS

    def after(self, rate: Rate, tokens: int, now_ms: int) -> Bucket:
        """The bucket after tokens were drawn; a negative number puts tokens back."""
        now = self.at(now_ms)
        level_ns = now.level_ns + rate.time_ns(tokens)
        return Bucket(min(max(0, level_ns), LEVEL_NS_MAX), now.level_ms)

    def wait_ms(self, rate: Rate, tokens: int, now_ms: int) -> int:
        """How long until it has so many tokens; of more than its burst, until it is full."""
        if tokens <= 0:
            return 0
        now = self.at(now_ms)
        have_ns = rate.time_ns(rate.burst) - now.level_ns
        missing_ns = rate.time_ns(min(tokens, rate.burst)) - have_ns
        return 0 if missing_ns <= 0 else now.level_ms - now_ms + -(-missing_ns // _NS)

    def ready_ms(self, rate: Rate, tokens: int) -> int:
        """From when on it has so many tokens; not before it was last looked at."""
        return self.level_ms + self.wait_ms(rate, tokens, self.level_ms)

    @property
    def full_ms(self) -> int:
        """When it is full again."""
        return self.level_ms + -(-self.level_ns // _NS)

    def rescaled(self, old: Rate | None, new: Rate | None) -> Bucket:
        """The bucket under another rate: as many tokens are missing as before."""
        if old is None or new is None:
            return Bucket()
        missing = -(-self.level_ns // old.time_ns(1))
        return Bucket(min(new.time_ns(missing), LEVEL_NS_MAX), self.level_ms)

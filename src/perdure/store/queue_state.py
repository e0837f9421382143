"""States of queues in a write transaction: limits, rates, and who is admitted.

Rules: counts come from rows of admitted places and of owned runs; what was read is known until
another connection has committed or a transaction was rolled back; what has changed is written
once, before the commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from perdure.store.buckets import STEP_MS, Bucket, Rate
from perdure.store.transaction import Transaction
from perdure.store.writes import QueueLimits

KEYS_KNOWN_MAX = 10_000
"""Counts of so many keys are remembered; then all are forgotten."""


class QueueState:
    """The row of a queue."""

    def __init__(self, row: Sequence[Any]) -> None:
        self.queue, self.name = int(row[0]), str(row[1])
        self.use(QueueLimits(*row[2:12]))
        self.limits.paused = bool(row[12])
        self.declared: str | None = row[13]
        self.held_ms: int | None = row[14]
        self.held_at_ms: int = row[15] or 0
        self.bucket = Bucket(row[16], row[17])
        self.turn: int = row[18]
        self.waiting: int = row[19]
        self.next_ms: int | None = row[20]

    def use(self, limits: QueueLimits) -> None:
        """Take these limits."""
        self.limits = limits
        self.rate = _rate(limits.rate_limit, limits.rate_per_ms, limits.rate_burst)
        self.key_rate = _rate(limits.key_rate_limit, limits.key_rate_per_ms, limits.key_rate_burst)


class OpenQueue(QueueState):
    """A queue in a transaction: its row, and counts as far as they are known."""

    def __init__(self, db: Transaction, row: Sequence[Any], changes: set[OpenQueue]) -> None:
        super().__init__(row)
        self._db, self._changes = db, changes
        self.takers: set[str] | None = None
        """Takers of lines that may be ready."""
        self._admitted: int | None = None
        self._of_key: dict[str, int] = {}
        self._of_worker: dict[int, int] = {}

    # --- counts -----------------------------------------------------------------------------------

    @property
    def admitted(self) -> int:
        """How many places are admitted."""
        if self._admitted is None:
            self._admitted = self._count("count_admitted", self.queue)
        return self._admitted

    def of_key(self, key: str) -> int:
        """How many of a key's places are admitted."""
        if key not in self._of_key:
            if len(self._of_key) >= KEYS_KNOWN_MAX:
                self._of_key.clear()
            self._of_key[key] = self._count("count_key", self.queue, key)
        return self._of_key[key]

    def of_worker(self, worker: int) -> int:
        """How many runs of this queue a worker owns, and how many of its steps are admitted."""
        if worker not in self._of_worker:
            runs = self._count("count_runs_of", worker, self.name)
            self._of_worker[worker] = runs + self._count("count_steps_of", worker, self.queue)
        return self._of_worker[worker]

    def _count(self, query: str, *bindings: object) -> int:
        ((found,),) = self._db.rows(query, bindings)
        return int(found)

    def added(self, key: str, number: int) -> None:
        """So many of a key's places were admitted; a negative number was released."""
        if self._admitted is not None:
            self._admitted += number
        if key in self._of_key:
            self._of_key[key] += number

    def worker_changed(self, worker: int | None) -> None:
        """What a worker has of this queue is another number now."""
        if worker is not None:
            self._of_worker.pop(worker, None)

    def full(self) -> bool:
        """Whether as many places are admitted as its concurrency allows."""
        limit = self.limits.concurrency
        return limit is not None and self.admitted >= limit

    def key_full(self, key: str) -> bool:
        """Whether a key has as many admitted places as it may."""
        limit = self.limits.key_concurrency
        return limit is not None and key != "" and self.of_key(key) >= limit

    def worker_full(self, worker: int | None) -> bool:
        """Whether a worker has as much of this queue as it may."""
        limit = self.limits.per_worker
        return limit is not None and worker is not None and self.of_worker(worker) >= limit

    def is_open(self, worker: int, key: str) -> bool:
        """Whether nothing waits, nothing is counted but places, and none is one too many."""
        limits = self.limits
        if self.waiting or self.rate is not None or self.key_rate is not None:
            return False
        if limits.paused or self.held_ms is not None:
            return False
        many, of_key, own = limits.concurrency, limits.key_concurrency, limits.per_worker
        return (
            (many is None or self.admitted <= many)
            and (of_key is None or key == "" or self.of_key(key) <= of_key)
            and (own is None or self.of_worker(worker) <= own)
        )

    # --- times ------------------------------------------------------------------------------------

    def held(self, now_ms: int) -> int | None:
        """Until when it is held back; None where it is not. A clock set back makes it no longer."""
        if self.held_ms is None:
            return None
        if self.held_at_ms - now_ms >= STEP_MS:
            self.held_ms += now_ms - self.held_at_ms
            self.held_at_ms = now_ms
            self.touch()
        if self.held_ms <= now_ms:
            self.held_ms = None
            self.touch()
        return self.held_ms

    def draw(self, tokens: int, now_ms: int) -> None:
        """Take tokens from the queue's bucket, where it has a rate."""
        if self.rate is not None:
            self.bucket = self.bucket.after(self.rate, tokens, now_ms)
            self.touch()

    def wait_ms(self, tokens: int, now_ms: int) -> int:
        """How long until the queue's bucket has so many tokens."""
        if self.rate is None:
            return 0
        self.from_here(now_ms)
        return self.bucket.wait_ms(self.rate, tokens, now_ms)

    def from_here(self, now_ms: int) -> None:
        """The bucket fills from here on, where the clock was set back."""
        if self.bucket.ahead_of(now_ms):
            self.bucket = self.bucket.at(now_ms)
            self.touch()

    def look_at(self, ms: int | None) -> None:
        """An admission may be possible at this time, if not before."""
        if ms is not None and (self.next_ms is None or ms < self.next_ms):
            self.next_ms = ms
            self.touch()

    def look_next(self, ms: int | None) -> None:
        """No admission is possible before this time; None: before a release."""
        if ms != self.next_ms:
            self.next_ms = ms
            self.touch()

    def queued(self, number: int) -> None:
        """So many places more wait."""
        self.waiting += number
        self.touch()

    def touch(self) -> None:
        """Its row is to be written."""
        self._changes.add(self)


class QueueStates:
    """The queues that a transaction has used, by key and by name."""

    def __init__(self, db: Transaction) -> None:
        self._db = db
        self._by_key: dict[int, OpenQueue] = {}
        self._by_name: dict[str, OpenQueue | None] = {}
        self.changes: set[OpenQueue] = set()
        """Those that `flush` has to write."""
        self._any: bool | None = None

    def forget(self) -> None:
        """Another connection has committed, or the transaction was rolled back."""
        self._by_key.clear()
        self._by_name.clear()
        self.changes.clear()
        self._any = None

    @property
    def any(self) -> bool:
        """Whether the store has queues at all. Most have none."""
        if self._any is None:
            self._any = self._db.row("any_queue", ()) is not None
        return self._any

    def named(self, name: str) -> OpenQueue | None:
        """A queue by its name."""
        if name not in self._by_name:
            row = self._db.row("queue_by_name", (name,)) if self.any else None
            self._by_name[name] = None if row is None else self.put(row)
        return self._by_name[name]

    def keyed(self, queue: int) -> OpenQueue:
        """A queue by its key."""
        if queue not in self._by_key:
            ((*row,),) = self._db.rows("queue_by_key", (queue,))
            self.put(row)
        return self._by_key[queue]

    def put(self, row: Sequence[Any]) -> OpenQueue:
        """Remember a queue that was read."""
        self._any = True
        state = OpenQueue(self._db, row, self.changes)
        self._by_key[state.queue] = self._by_name[state.name] = state
        return state

    def names(self) -> tuple[str, ...]:
        """Names of queues, for the message that one is missing."""
        return tuple(name for _, name in self._db.rows("queue_names", ()))

    def due(self, now_ms: int) -> Iterator[OpenQueue]:
        """Queues that may admit something by now."""
        self.flush()
        for (queue,) in self._db.rows("due_queues", (now_ms,)) if self.any else ():
            yield self.keyed(queue)

    def flush(self) -> None:
        """Write what has changed."""
        for state in self.changes:
            fields = (
                state.held_ms, state.held_at_ms, *state.bucket, state.turn, state.waiting,
                state.next_ms, state.queue,
            )  # fmt: skip
            self._db.do("set_queue_state", fields)
        self.changes.clear()


def _rate(limit: int | None, per_ms: int | None, burst: int | None) -> Rate | None:
    return None if limit is None or per_ms is None else Rate(limit, per_ms, burst or limit)

"""Admission: which places of a queue may go on, in the order of the queue.

Rules: higher priority first, then keys take turns, then the oldest; the place that comes first
waits for its tokens and no other overtakes it, but a key that is full or without tokens is passed
over; each pass ends with when the next one is worth making.
"""

from __future__ import annotations

from typing import NamedTuple

from perdure.core.lifecycle import PAUSED
from perdure.store.buckets import STEP_MS, Bucket
from perdure.store.lines import UNTIL_RELEASE, Lines, Waiting, in_order, of_worker, of_workflow
from perdure.store.queue_state import OpenQueue, QueueStates
from perdure.store.transaction import Transaction

HELD = "held"
CONCURRENCY = "concurrency"
KEY_LIMIT = "key_limit"
KEY_RATE = "key_rate"
RATE = "rate"
PER_WORKER = "per_worker"
NO_WORKER = "no_worker"
LINE = "line"

KEYS_DROPPED_MAX = 10
"""Buckets that have been full for `STEP_MS`, and are forgotten when another one is written: the
time of a write that comes late must still find what it is behind.
"""

_WORKER = "worker:"


class Obstacle(NamedTuple):
    """Why a place is not admitted, and when it may be; None: not before a release or a change."""

    why: str
    ms: int | None = None


class Room:
    """What a pass may take, and what it has taken.

    `worker` takes up to `left` runs of these `workflows`. With None for them it takes no run, and a
    pass ends where the next place is one of a run without an owner. `steps` are admitted steps, as
    (worker, run, row, place).
    """

    __slots__ = ("left", "runs", "steps", "takers", "worker")

    def __init__(
        self, worker: int | None = None, left: int = 0, workflows: tuple[str, ...] | None = None
    ) -> None:
        self.worker, self.left = worker, left
        self.takers = None if workflows is None else {of_workflow(name) for name in workflows}
        self.runs: list[int] = []
        self.steps: list[tuple[int, int, int, int]] = []

    def takes(self, queue: OpenQueue, taker: str) -> bool:
        """Whether a pass looks at places of this taker."""
        if taker.startswith(_WORKER):
            return not queue.worker_full(int(taker.removeprefix(_WORKER)))
        if self.takers is None:
            return True
        return self.left > 0 and taker in self.takers and not queue.worker_full(self.worker)

    def claims(self, taker: str) -> bool:
        """Whether a pass may admit a place of this taker, which it looks at."""
        return self.takers is not None or taker.startswith(_WORKER)


class Admission:
    """Admits places in the transaction `db`."""

    def __init__(self, db: Transaction, states: QueueStates, lines: Lines) -> None:
        self._db, self._states, self._lines = db, states, lines

    # --- one place --------------------------------------------------------------------------------

    def obstacle(
        self,
        queue: OpenQueue,
        key: str,
        tokens: int,
        worker: int | None,
        now_ms: int,
        *,
        in_order: bool = True,
    ) -> Obstacle | None:
        """Why a place may not be admitted now. `in_order`: not before those that wait."""
        if queue.limits.paused:
            return Obstacle(PAUSED)
        if (held_ms := queue.held(now_ms)) is not None:
            return Obstacle(HELD, held_ms)
        if queue.full():
            return Obstacle(CONCURRENCY)
        if (closed := self._closed(queue, key, tokens, now_ms)) is not None:
            return closed
        if (wait_ms := queue.wait_ms(tokens, now_ms)) > 0:
            return Obstacle(RATE, now_ms + wait_ms)
        if queue.worker_full(worker):
            return Obstacle(PER_WORKER, now_ms)
        if in_order and self._lines.any_ready(queue):
            return Obstacle(LINE, now_ms)
        return None

    def _closed(self, queue: OpenQueue, key: str, tokens: int, now_ms: int) -> Obstacle | None:
        """Why a key may not go on."""
        if queue.key_full(key):
            return Obstacle(KEY_LIMIT)
        if key == "" or queue.key_rate is None:
            return None
        wait_ms = self._bucket(queue, key, now_ms).wait_ms(queue.key_rate, tokens, now_ms)
        return Obstacle(KEY_RATE, now_ms + wait_ms) if wait_ms > 0 else None

    def draw(self, queue: OpenQueue, key: str, tokens: int, now_ms: int) -> None:
        """Take tokens from the buckets of a queue and of a key."""
        if tokens == 0:
            return
        queue.draw(tokens, now_ms)
        if key == "" or queue.key_rate is None:
            return
        bucket = self._bucket(queue, key, now_ms).after(queue.key_rate, tokens, now_ms)
        self._put_bucket(queue, key, bucket)
        self._db.do("drop_full_keys", (queue.queue, now_ms - STEP_MS, KEYS_DROPPED_MAX))

    def _bucket(self, queue: OpenQueue, key: str, now_ms: int) -> Bucket:
        row = self._db.row("key_bucket", (queue.queue, key))
        bucket = Bucket() if row is None else Bucket(*row)
        if bucket.ahead_of(now_ms):  # the clock was set back: time counts from here on
            bucket = bucket.at(now_ms)
            self._put_bucket(queue, key, bucket)
        return bucket

    def _put_bucket(self, queue: OpenQueue, key: str, bucket: Bucket) -> None:
        self._db.do("set_key_bucket", (queue.queue, key, *bucket, bucket.full_ms))

    # --- a pass -----------------------------------------------------------------------------------

    def admit(self, queue: OpenQueue, now_ms: int, room: Room) -> None:
        """Admit what may go on, and note when the next pass is worth making."""
        if queue.limits.paused or queue.waiting == 0:
            queue.look_next(None)
        elif (held_ms := queue.held(now_ms)) is not None:
            queue.look_next(held_ms)
        elif room.takers is None and not self._any_step(queue):
            self._leave_to_claims(queue, now_ms)
        else:
            self._lines.open_due(queue, now_ms)
            firsts: dict[str, Waiting | None] = {}
            while not queue.full():
                first = self._first(queue, firsts, room)
                if first is None or not self._take(queue, firsts, first, now_ms, room):
                    return self._look_later(queue, now_ms)
            queue.look_next(None)
        return None

    def _any_step(self, queue: OpenQueue) -> bool:
        """Whether steps of runs with owners may be ready."""
        return any(taker.startswith(_WORKER) for taker in self._lines.takers(queue))

    def _leave_to_claims(self, queue: OpenQueue, now_ms: int) -> None:
        """Nothing but runs without owners waits."""
        if queue.full():
            queue.look_next(None)
        elif queue.next_ms is None or queue.next_ms > now_ms:
            self._look_later(queue, now_ms)

    def _look_later(self, queue: OpenQueue, now_ms: int) -> None:
        """The next pass is worth making when some taker's first place has tokens, or a key has.

        Each worker works out from the first place of its own when its claim is worth making.
        """
        queue.look_next(self._lines.opens_ms(queue))
        if queue.rate is None:
            queue.look_at(now_ms if self._lines.any_ready(queue) else None)
            return
        for taker in [*self._lines.takers(queue)]:
            if (first := self._lines.first(queue, taker)) is not None:
                queue.look_at(now_ms + queue.wait_ms(first.tokens, now_ms))

    def _first(
        self, queue: OpenQueue, firsts: dict[str, Waiting | None], room: Room
    ) -> Waiting | None:
        """The place that comes first. `firsts` are those of takers that were looked at before."""
        for taker in [*self._lines.takers(queue)]:
            if not room.takes(queue, taker):
                firsts.pop(taker, None)
            elif taker not in firsts:
                firsts[taker] = self._lines.first(queue, taker)
        return min(filter(None, firsts.values()), key=in_order, default=None)

    def _take(
        self,
        queue: OpenQueue,
        firsts: dict[str, Waiting | None],
        first: Waiting,
        now_ms: int,
        room: Room,
    ) -> bool:
        """Admit the first place, or close its key. Returns False where it has to wait."""
        closed = self._closed(queue, first.key, first.tokens, now_ms)
        if closed is not None:
            until_ms = UNTIL_RELEASE if closed.ms is None else closed.ms
            self._lines.close(queue, first.key, until_ms)
        elif queue.wait_ms(first.tokens, now_ms) > 0 or not room.claims(first.taker):
            return False
        elif self._needs_two(queue, first, room):
            firsts[first.taker] = None
            if queue.limits.per_worker == 1:
                self._lines.close_one(first.line)  # no worker can ever take it
            return True
        elif not self.take(queue, first, now_ms, room):
            firsts.clear()  # it is in the line of another taker, or gone: others come first there
            return True
        for taker in [one.taker for one in firsts.values() if one and one.key == first.key]:
            del firsts[taker]
        return True

    def _needs_two(self, queue: OpenQueue, first: Waiting, room: Room) -> bool:
        """Whether the run of a step would take what its worker has left of this very queue."""
        limit = queue.limits.per_worker
        if limit is None or first.seq == 0 or first.taker.startswith(_WORKER):
            return False
        ((name, owner),) = self._db.rows("owner_and_queue", (first.run,))
        both = owner is None and name == queue.name and room.worker is not None
        return both and queue.of_worker(room.worker or 0) + 2 > limit

    def take(self, queue: OpenQueue, first: Waiting, now_ms: int, room: Room) -> bool:
        """Admit a place that waits, and claim its run where that has no owner.

        Returns False where it was not admitted: it has another taker now, or has to ask again.
        """
        if first.taker.startswith(_WORKER):
            worker: int | None = int(first.taker.removeprefix(_WORKER))
        else:
            worker = room.worker
            ((name, owner),) = self._db.rows("owner_and_queue", (first.run,))
            if owner is not None:  # it was claimed meanwhile for another reason
                taker = of_worker(owner)
                fields = (first.head, first.key, first.priority, first.line, taker)
                self._lines.move(queue, *fields)
                return False
            if not self._claim(first, name, now_ms, room):
                self._db.do("drop_place", (first.head,))
                self._lines.left(queue, first.line, first.head, now_ms)
                return False
        self.draw(queue, first.key, first.tokens, now_ms)
        executes = worker if first.seq else None
        prepaid = first.prepaid + first.tokens
        self._db.do("admit_place", (now_ms, prepaid, executes, first.head))
        self._lines.served(queue, first)
        queue.added(first.key, 1)
        queue.worker_changed(worker)
        if first.seq and worker is not None:
            room.steps.append((worker, first.run, first.seq, first.head))
        return True

    def _waits(self, run: int) -> bool:
        """Whether a run waits for its own place: none of its steps goes ahead of it."""
        row = self._db.row("place_of", (run, 0))
        return row is not None and row[7] is None

    def _claim(self, first: Waiting, name: str | None, now_ms: int, room: Room) -> bool:
        """Become the owner of the run of a place. Returns False where it has to ask again.

        `name` is the queue of that run.
        """
        own = self._states.named(name) if first.seq and name is not None else None
        if own is not None and (own.worker_full(room.worker) or self._waits(first.run)):
            self._db.do("due_for_step", (now_ms, first.run))
            return False
        if not self._db.change("admit_run", (room.worker, now_ms, first.run)):
            return False
        if own is not None:
            own.worker_changed(room.worker)
        room.left -= 1
        room.runs.append(first.run)
        return True

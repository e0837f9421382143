"""Lines: the places of a queue that wait, one line for each key, priority and taker.

Rules: a line is ready, or closed until a time (its key has no tokens) or until a release (its key
is full), so that a key that may not go on costs no scan; keys of one priority take turns, the least
served first, and a key that joins them starts with the least served one; the taker of a place is
the worker that executes its run, else the run's workflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from perdure.store.queue_state import OpenQueue
from perdure.store.transaction import Transaction

READY = 0
UNTIL_RELEASE = (1 << 53) - 1
"""In place of a time: a release of the key makes the line ready."""
OPENED_MAX = 1_000
"""So many lines are opened in one pass: it holds the store for some 30 ms."""


def of_worker(worker: int) -> str:
    """The taker of places of runs that a worker executes."""
    return f"worker:{worker}"


def of_workflow(name: str) -> str:
    """The taker of places of runs that no worker executes."""
    return f"workflow:{name}"


def worker_of(taker: str) -> int | None:
    """The worker that a taker is; None where it is a workflow."""
    return int(taker.removeprefix("worker:")) if taker.startswith("worker:") else None


def in_order(first: Sequence[Any]) -> tuple[int, int, int]:
    """What comes first of (priority, turns, place, …) has the lowest."""
    return (-first[0], first[1], first[2])


class Waiting(NamedTuple):
    """The oldest place of a line that is ready."""

    priority: int
    served: int
    head: int
    line: int
    key: str
    run: int
    seq: int
    weight: int
    prepaid: int
    taker: str

    @property
    def tokens(self) -> int:
        """What its admission draws: a place that was admitted before has paid."""
        return max(0, self.weight - self.prepaid)


class Lines:
    """Lines in the transaction `db`."""

    def __init__(self, db: Transaction) -> None:
        self._db = db

    # --- takers -----------------------------------------------------------------------------------

    def takers(self, queue: OpenQueue) -> set[str]:
        """Takers of lines that may be ready: all that have one that is."""
        if queue.takers is None:
            queue.takers, last = set(), ""
            while (row := self._db.row("next_taker", (queue.queue, last)))[0] is not None:  # type: ignore[index]
                last = row[0]  # type: ignore[index]
                queue.takers.add(last)
        return queue.takers

    def first(self, queue: OpenQueue, taker: str) -> Waiting | None:
        """The place of a taker that comes first."""
        row = self._db.row("first_in_line", (queue.queue, taker))
        if row is None:
            self.takers(queue).discard(taker)
            return None
        priority, served, head, line, key, run, seq, weight, prepaid = row
        return Waiting(priority, served, head, line, key, run, seq, weight, prepaid, taker)

    def any_ready(self, queue: OpenQueue) -> bool:
        """Whether some line is ready."""
        return queue.waiting > 0 and self._db.row("any_ready", (queue.queue,)) is not None

    # --- in and out -------------------------------------------------------------------------------

    def join(
        self, queue: OpenQueue, key: str, priority: int, taker: str, place: int, ready_ms: int
    ) -> int:
        """The line that a place joins, which is made where there is none. Returns its key."""
        found = self._db.row("find_line", (queue.queue, key, priority, taker))
        queue.queued(1)
        if found is not None:
            line, head = found
            if place < head:
                self._db.do("set_head", (place, line))
            return int(line)
        served = self._served(queue, key, priority)
        fields = (queue.queue, key, priority, taker, served, place, ready_ms)
        made = self._db.insert("insert_line", fields)
        assert made is not None
        if ready_ms == READY:
            self.takers(queue).add(taker)
        return made

    def move(
        self,
        queue: OpenQueue,
        place: int,
        key: str,
        priority: int,
        line: int,
        taker: str,
    ) -> None:
        """Let a place that waits have another taker. When it may be admitted stays as it was."""
        ((there, ready_ms),) = self._db.rows("line_taker", (line,))
        if there == taker:
            return
        into = self.join(queue, key, priority, taker, place, ready_ms)
        self._db.do("set_line", (into, place))
        queue.queued(-1)
        if self._db.rows("line_head", (line,))[0][1] == place:
            self._advance(line)

    def _served(self, queue: OpenQueue, key: str, priority: int) -> int:
        """The turns that a new line of a key begins with."""
        ((served,),) = self._db.rows("served_of_key", (queue.queue, key, priority))
        return self._least_served(queue, priority) if served is None else int(served)

    def _least_served(self, queue: OpenQueue, priority: int) -> int:
        """The turns of the key that has had the fewest, of those that are ready."""
        each = [
            self._db.row("least_served", (queue.queue, taker, priority))
            for taker in self.takers(queue)
        ]
        return min((int(row[0]) for row in each if row is not None), default=queue.turn)

    def left(self, queue: OpenQueue, line: int, place: int, now_ms: int) -> None:
        """A place has left its line without being admitted: the next one may need less."""
        queue.queued(-1)
        rows = self._db.rows("line_head", (line,))
        if not rows or rows[0][1] != place:  # places that leave together take their line along
            return
        ((key, _, ready_ms),) = rows
        self._advance(line)
        if queue.next_ms is not None:
            queue.look_at(now_ms)
        if READY < ready_ms < UNTIL_RELEASE:
            self.open(queue, key, now_ms, timed=True)

    def _advance(self, line: int) -> None:
        """The head of a line has gone: the next one is its head, if there is one."""
        ((head,),) = self._db.rows("next_head", (line,))
        if head is None:
            self._db.do("delete_line", (line,))
        else:
            self._db.do("set_head", (head, line))

    def served(self, queue: OpenQueue, first: Waiting) -> None:
        """The first place was admitted: its key has had a turn."""
        queue.queued(-1)
        queue.turn = max(queue.turn, first.served)
        ((head,),) = self._db.rows("next_head", (first.line,))
        if head is None:
            self._db.do("delete_line", (first.line,))
        else:
            self._db.do("set_head_and_turns", (head, first.served + 1, first.line))
        if len(self.takers(queue)) > 1:
            fields = (first.served + 1, queue.queue, first.key, first.priority)
            self._db.do("set_served", fields)

    # --- closed lines -----------------------------------------------------------------------------

    def close(self, queue: OpenQueue, key: str, until_ms: int) -> None:
        """Nothing of this key is admitted before a time."""
        self._db.do("close_lines", (until_ms, queue.queue, key))

    def close_one(self, line: int) -> None:
        """Nothing of this line is admitted before limits change."""
        self._db.do("close_line", (UNTIL_RELEASE, line))

    def open(self, queue: OpenQueue, key: str, now_ms: int, *, timed: bool = False) -> None:
        """A key may go on: one that waits for a release, or with `timed` for tokens."""
        bounds = (READY, UNTIL_RELEASE) if timed else (UNTIL_RELEASE - 1, UNTIL_RELEASE + 1)
        rows = self._db.rows("closed_lines_of", (queue.queue, key, *bounds))
        self._open(queue, rows)
        if rows:
            queue.look_at(now_ms)

    def open_due(self, queue: OpenQueue, now_ms: int) -> None:
        """Open lines whose keys have tokens again; of very many the next pass opens the rest."""
        if queue.key_rate is not None:
            found = self._db.rows("closed_lines", (queue.queue, now_ms, OPENED_MAX))
            self._open(queue, found)

    def open_timed(self, queue: OpenQueue, now_ms: int) -> None:
        """Open lines that wait for tokens until a later time: the clock was set back."""
        self._open(queue, self._db.rows("timed_lines", (queue.queue, now_ms, UNTIL_RELEASE)))

    def open_all(self, queue: OpenQueue) -> None:
        """Open all lines: limits have changed."""
        self._open(
            queue, self._db.rows("closed_lines", (queue.queue, UNTIL_RELEASE, UNTIL_RELEASE))
        )

    def _open(self, queue: OpenQueue, rows: list[tuple[int, int, int, str]]) -> None:
        """Who could not go on has saved no turns."""
        for line, priority, served, taker in rows:
            least = self._least_served(queue, priority)
            self._db.do("open_line", (max(served, least), line))
            self.takers(queue).add(taker)

    def opens_ms(self, queue: OpenQueue) -> int | None:
        """When the next key has tokens again."""
        if queue.key_rate is None:
            return None
        ((ms,),) = self._db.rows("next_open", (queue.queue, UNTIL_RELEASE))
        return None if ms is None else int(ms)

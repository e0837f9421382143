"""The places of a campaign of queues as they were seen, from outside and from inside, for the
judge.

Rules: from outside a step has its place from its beginning to its end, and where its process died
until the store says that the worker has ended: the place comes back with the lease, not before. A
run has its place from its first step to its last one, over all processes that executed it. What a
worker does after it has lost its lease (it was frozen) can't be ruled out by any limit: it is
counted apart, as `in_flight`. From inside, the triggers of `queue.sql` have logged every ask,
admission and release in its own transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from campaigns.queue_judge import (
    ADMITTED,
    ASKED,
    ENDED,
    MOVED,
    NO_KEY,
    RELEASED,
    Bounds,
    Hold,
    Place,
    order,
    over_rate,
    overlaps,
)
from campaigns.queue_log import BEGUN, FROZEN, KILLED, Line
from campaigns.queue_worker import Given
from perdure.store import sql

Q = sql.load("queue.sql", "campaigns")
NEVER_NS = 1 << 62


@dataclass(slots=True)
class Seen:
    """What the judge counted on its way."""

    holds: int = 0
    admissions: int = 0
    in_flight: int = 0
    late: int = 0
    cut: int = 0
    broken: list[str] = field(default_factory=list)


LET_GO = "let go"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the inside log."""

    what: str
    place: int
    queue: str
    key: str | None
    priority: int | None
    weight: int | None
    taker: str | None
    at_ms: int
    real_ms: int


@dataclass(slots=True)
class Attempts:
    """Attempts of the outside log, each as the place that it was seen to have."""

    ended_ns: dict[int, int]
    """Of each worker that has ended: when, by the store."""
    seen: Seen
    open: dict[tuple[int, str, str], Line] = field(default_factory=dict)
    by_holder: dict[tuple[str, str], list[Hold]] = field(default_factory=lambda: defaultdict(list))

    def take(self, line: Line) -> None:
        """One line, in order."""
        if line.mark in (KILLED, FROZEN):
            return
        name = line.worker, line.holder, line.work
        if line.mark == BEGUN:
            self.open[name] = line
        elif begin := self.open.pop(name, None):
            self._add(begin, line.at_ns)

    def close(self) -> None:
        """The processes of what is open have died."""
        for begin in self.open.values():
            self._add(begin, NEVER_NS)

    def _add(self, begin: Line, end_ns: int) -> None:
        lost_ns = self.ended_ns.get(begin.worker, NEVER_NS)
        if begin.at_ns >= lost_ns:
            self.seen.late += 1
            return
        self.seen.in_flight += lost_ns < end_ns < NEVER_NS
        end_ns = min(end_ns, lost_ns)
        if end_ns == NEVER_NS:
            self.seen.broken.append(f"{begin.work} of worker {begin.worker} has no end")
        hold = Hold(begin.queue, begin.key, begin.worker, begin.at_ns, end_ns, begin.work)
        self.by_holder[begin.queue, begin.holder].append(hold)


def outside(
    lines: Iterable[Line],
    ended_ns: dict[int, int],
    queues: Iterable[Given],
    loose: Iterable[str],
    seen: Seen,
) -> None:
    """Overlaps as they were seen from outside.

    `loose` are runs that gave their place back in between: each of their attempts is looked at by
    itself.
    """
    attempts = Attempts(ended_ns, seen)
    for line in lines:
        attempts.take(line)
    attempts.close()
    given, loose = {one.name: one for one in queues}, set(loose)
    whole: list[Hold] = []
    for (queue, holder), each in attempts.by_holder.items():
        if given[queue].runs and holder not in loose:
            whole.append(_together(holder, each))
        elif not given[queue].runs:
            whole += each
        else:
            seen.cut += 1
    every = [
        one
        for (queue, _), each in attempts.by_holder.items()
        for one in (_beside(each) if given[queue].runs else each)
    ]
    seen.holds += len(whole)
    no_worker = {one.name: replace(one.bounds, per_worker=None) for one in given.values()}
    per_worker = {one.name: Bounds(per_worker=one.per_worker) for one in given.values()}
    for found in (overlaps(whole, no_worker), overlaps(every, per_worker)):
        seen.broken += map(str, found)


def _together(holder: str, attempts: list[Hold]) -> Hold:
    """A run's place, from its first attempt to the end of its last one."""
    first = min(attempts, key=lambda one: one.begin_ns)
    return replace(first, end_ns=max(one.end_ns for one in attempts), what=holder)


def _beside(attempts: list[Hold]) -> Iterator[Hold]:
    """Attempts of one run, those of a worker that overlap as one: the run has one place, also while
    a step that was cancelled ends beside the next one.
    """
    last: Hold | None = None
    for one in sorted(attempts, key=lambda one: (one.worker, one.begin_ns)):
        if last is not None and last.worker == one.worker and one.begin_ns < last.end_ns:
            last = replace(last, end_ns=max(last.end_ns, one.end_ns))
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last


# --- inside ---------------------------------------------------------------------------------------


def rows(connection: Any) -> list[Row]:
    """The inside log."""
    return [
        Row(what, place or 0, queue or "", key, priority, weight, taker, at_ms, real_ms)
        for what, place, queue, key, priority, weight, taker, at_ms, real_ms in connection.execute(
            Q["seen"]
        )
    ]


def parted(log: Iterable[Row]) -> tuple[list[Row], set[str]]:
    """The log without the runs that gave their places back, and these: paused, blocked, or taken
    over from a worker that died by one that has all that it may have.
    """
    log = list(log)
    let_go = {row.taker for row in log if row.what == LET_GO and row.taker is not None}
    return [row for row in log if row.what != LET_GO], let_go


def ends_ns(log: Iterable[Row], lines: Iterable[Line]) -> dict[int, int]:
    """When each worker's end was written, on the clock of the outside log and never later than it
    was.
    """
    ahead_ns = min((line.at_ns - line.at_ms * 1_000_000 for line in lines), default=0)
    return {one.place: one.real_ms * 1_000_000 + ahead_ns for one in log if one.what == ENDED}


def inside(log: list[Row], queues: list[Given], seen: Seen, *, skewed: bool) -> None:
    """Limits, orders, rates and what `RetryAfter` holds back, by the rows of the store itself.

    Clocks that jump move tokens and dates with them, so with those the rates are not judged.
    """
    given = {one.name: one for one in queues}
    bounds = {name: one.bounds for name, one in given.items()}
    ordered = {name for name, one in given.items() if one.ordered}
    seen.admissions += sum(one.what == ADMITTED for one in log)
    seen.broken += order(_steps(log), bounds, ordered=ordered)
    if not skewed:
        seen.broken += _rates(log, given)
        seen.broken += _held_back(log)


def _steps(log: Iterable[Row]) -> Iterator[tuple[str, Place]]:
    for one in log:
        if one.what == ENDED:
            yield one.what, Place(0, "", taker=one.place)
        elif one.what in (ASKED, ADMITTED, MOVED, RELEASED):
            taker = (one.taker or "").removeprefix("worker:")
            worker = int(taker) if taker.isdecimal() else 0
            key, priority, weight = one.key or NO_KEY, one.priority or 0, one.weight or 1
            yield one.what, Place(one.place, one.queue, key, priority, weight, worker)


def _rates(log: Iterable[Row], given: dict[str, Given]) -> Iterator[str]:
    """Processes read the clock before they wait for the file, so that times may go back a little
    from one transaction to the next: what counts for a bucket is the latest one that it has seen.
    """
    by_queue: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    latest_ms: dict[tuple[str, str], int] = defaultdict(int)
    for one in log:
        if one.what == "filled":
            bucket = one.queue, one.key or ""
            latest_ms[bucket] = max(latest_ms[bucket], one.at_ms)
        elif one.what == ADMITTED and one.weight:
            for bucket in {(one.queue, ""), (one.queue, one.key or "")}:
                latest_ms[bucket] = max(latest_ms[bucket], one.at_ms)
                by_queue[bucket].append((latest_ms[bucket], one.weight))
    for (queue, key), admissions in by_queue.items():
        rate = given[queue].key_rate if key else given[queue].rate
        if rate is not None:
            for text in over_rate(admissions, rate[0], round(rate[1] * 1000), rate[2]):
                yield f"queue {queue}, key {key or NO_KEY}: {text}"


def _held_back(log: Iterable[Row]) -> Iterator[str]:
    """After a `RetryAfter` nothing is admitted before its time; nor in a queue that is paused.

    A hold is over for all once any process has a time behind it, and the next transaction may have
    an earlier one, of before it waited for the file: so what counts is when the row was written.
    """
    until_ms: dict[str, int] = {}
    paused: set[str] = set()
    for one in log:
        match one.what:
            case "held":
                until_ms[one.queue] = one.at_ms
            case "paused":
                paused.add(one.queue)
            case "resumed":
                paused.discard(one.queue)
            case "admitted":
                left_ms = until_ms.get(one.queue, 0) - max(one.at_ms, one.real_ms)
                if left_ms > 0:
                    yield (
                        f"queue {one.queue} admitted place {one.place} though it was held back for "
                        f"{left_ms} ms more"
                    )
                if one.queue in paused:
                    yield f"queue {one.queue} admitted place {one.place} though it was paused"

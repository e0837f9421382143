"""The judge of queues: overlaps over a limit, rates that were exceeded, places that were passed
over.

Rules: pure functions over what was logged; no clock, no file, no Perdure. A sentence for each
violation. Intervals are half open: what begins in the instant in which another one ends does not
overlap it. The same judge counts for the systems that Perdure is compared with.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace

NO_KEY = "-"
TURNS_AHEAD_MAX = 1
"""Of a key over another one that waits: keys of one queue take turns, and one of them is first."""
RATE_TOLERANCE = 0.01
"""Tokens: buckets are kept in whole microseconds."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A place in a queue as it was seen: from when to when, who had it, for which key."""

    queue: str
    key: str
    worker: int
    begin_ns: int
    end_ns: int
    what: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a queue; None where there is none."""

    concurrency: int | None = None
    per_worker: int | None = None
    key_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Overlap:
    """More places were held at once than a limit allows: the one that began last, and the others
    that were held then.
    """

    limit: str
    last: Hold
    others: tuple[Hold, ...]

    def __str__(self) -> str:
        beside = ", ".join(
            f"{one.what} (worker {one.worker}, {(self.last.begin_ns - one.begin_ns) / 1e6:.1f} ms "
            f"before it, {(one.end_ns - self.last.begin_ns) / 1e6:.1f} ms longer)"
            for one in self.others
        )
        return f"{self.limit}: {self.last.what} (worker {self.last.worker}) began beside {beside}"


def overlaps(holds: Iterable[Hold], bounds: dict[str, Bounds]) -> list[Overlap]:
    """Each beginning at which a queue, one of its keys or one of its workers had more than it may
    have.
    """
    groups: dict[tuple[str, int], list[Hold]] = defaultdict(list)
    for one in holds:
        limits = bounds.get(one.queue, Bounds())
        for name, limit in (
            (f"queue {one.queue}", limits.concurrency),
            (f"key {one.key} of queue {one.queue}", limits.key_concurrency),
            (f"worker {one.worker} in queue {one.queue}", limits.per_worker),
        ):
            if limit is not None and not (one.key == NO_KEY and name.startswith("key ")):
                groups[f"{name}, limit {limit}", limit].append(one)
    return [found for (name, limit), held in groups.items() for found in _over(name, held, limit)]


def _over(name: str, holds: list[Hold], limit: int) -> Iterator[Overlap]:
    for one, others in beginnings(holds):
        if len(others) >= limit:
            yield Overlap(name, one, tuple(others))


def beginnings(holds: Iterable[Hold]) -> Iterator[tuple[Hold, list[Hold]]]:
    """Each place in the order of beginnings, with those that are held at that moment."""
    held: list[tuple[int, int, Hold]] = []
    for number, one in enumerate(sorted(holds, key=lambda hold: (hold.begin_ns, hold.end_ns))):
        while held and held[0][0] <= one.begin_ns:
            heapq.heappop(held)
        yield one, [other for _, _, other in held]
        heapq.heappush(held, (one.end_ns, number, one))


def overlapping_pairs(holds: Iterable[Hold]) -> int:
    """How many pairs of these were held at the same time: what a limit of 1 rules out."""
    return sum(len(others) for _, others in beginnings(holds))


# --- rates ----------------------------------------------------------------------------------------


def over_rate(
    admissions: Iterable[tuple[int, int]], limit: int, per_ms: int, burst: int
) -> list[str]:
    """Admissions (ms, weight), in order, against `limit` tokens in `per_ms`: a violation for each
    that brings a window above burst + rate × window.

    A bucket that starts full finds exactly those windows.
    """
    broken: list[str] = []
    tokens, last_ms = float(burst), None
    for at_ms, weight in admissions:
        if last_ms is not None:
            tokens = min(float(burst), tokens + limit * (at_ms - last_ms) / per_ms)
        last_ms = at_ms if last_ms is None else max(last_ms, at_ms)
        tokens -= weight
        if tokens < -RATE_TOLERANCE:
            broken.append(
                f"{-tokens:.2f} tokens over {limit} in {per_ms} ms, burst {burst}, at {at_ms} ms"
            )
            tokens = 0.0
    return broken


# --- the order of admissions ----------------------------------------------------------------------

ASKED, ADMITTED, RELEASED = "asked", "admitted", "released"


@dataclass(frozen=True, slots=True)
class Place:
    """A place as the store has it. `taker` is the worker that has it or its run, 0 where any may
    take it.
    """

    number: int
    queue: str
    key: str = NO_KEY
    priority: int = 0
    weight: int = 1
    taker: int = 0
    ready_ms: int = 0


@dataclass(slots=True)
class Standing:
    """One queue, replayed from its asks, admissions and releases in their order.

    `served` counts for each key what it was given while it waited: a key that comes, or comes
    back, begins at the least served of those that wait.
    """

    bounds: Bounds
    waiting: dict[int, Place] = field(default_factory=dict)
    held: dict[int, Place] = field(default_factory=dict)
    served: Counter[str] = field(default_factory=Counter)

    def full(self, place: Place) -> bool:
        """Whether a limit of its key or its worker keeps this place waiting."""
        limit, each = self.bounds.key_concurrency, self.bounds.per_worker
        keys = sum(one.key == place.key for one in self.held.values())
        takers = sum(one.taker == place.taker for one in self.held.values())
        return (limit is not None and place.key != NO_KEY and keys >= limit) or (
            each is not None and place.taker != 0 and takers >= each
        )

    def could(self, at_ms: int) -> list[Place]:
        """The places that wait and could be admitted, were there room in the queue."""
        return [
            one for one in self.waiting.values() if one.ready_ms <= at_ms and not self.full(one)
        ]

    def ask(self, place: Place) -> None:
        active = {one.key for one in self.waiting.values()}
        if place.key not in active:
            least = min((self.served[key] for key in active), default=0)
            self.served[place.key] = max(self.served[place.key], least)
        self.waiting[place.number] = place

    def release(self, place: Place) -> None:
        self.waiting.pop(place.number, None)
        self.held.pop(place.number, None)

    def admit(self, place: Place, at_ms: int, *, laws: bool) -> Iterator[str]:
        """Admit a place; the limits and orders that this violates."""
        asked = self.waiting.pop(place.number, place)
        place, who = replace(place, ready_ms=asked.ready_ms), f"place {place.number}"
        concurrency = self.bounds.concurrency
        if concurrency is not None and len(self.held) >= concurrency:
            yield f"{who} of queue {place.queue} was admitted beside {len(self.held)}"
        if self.full(place):
            yield (
                f"{who} of queue {place.queue} was admitted, though key {place.key} or worker "
                f"{place.taker} was full"
            )
        yield from self._order(place, at_ms) if laws else ()
        self.held[place.number] = place
        self.served[place.key] += 1

    def _order(self, place: Place, at_ms: int) -> Iterator[str]:
        head = f"place {place.number} of queue {place.queue}, priority {place.priority}"
        for one in self.could(at_ms):
            if one.priority > place.priority:
                yield f"{head}, was admitted before place {one.number}, priority {one.priority}"
                return
            ahead = self.served[place.key] - self.served[one.key]
            if one.priority == place.priority and ahead > TURNS_AHEAD_MAX:
                yield (
                    f"{head}, was admitted for key {place.key}, which is {ahead} turns ahead of "
                    f"key {one.key} of place {one.number}"
                )
                return


def order(
    steps: Iterable[tuple[str, Place, int]],
    bounds: dict[str, Bounds],
    *,
    ordered: Container[str] = (),
) -> list[str]:
    """Asks, admissions and releases (what, place, ms) in the order of the store's transactions: no
    limit is exceeded after any of them; and in the queues that are `ordered` none passes over a
    higher priority, and keys take turns.
    """
    broken: list[str] = []
    queues = {name: Standing(limits) for name, limits in bounds.items()}
    for what, place, at_ms in steps:
        queue = queues.setdefault(place.queue, Standing(Bounds()))
        if what == ASKED:
            queue.ask(place)
        elif what == RELEASED:
            queue.release(place)
        else:
            broken += queue.admit(place, at_ms, laws=place.queue in ordered)
    return broken

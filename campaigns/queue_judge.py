"""The judge of queues: overlaps over a limit, rates that were exceeded, places that were passed
over.

Rules: pure functions over what was logged; no clock, no file, no Perdure. A sentence for each
violation. Intervals are half open: what begins in the instant in which another one ends does not
overlap it. The same judge counts for the systems that Perdure is compared with.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

NO_KEY = "-"
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

ASKED, ADMITTED, MOVED, RELEASED = "asked", "admitted", "moved", "released"
ENDED = "ended"
"""Of a worker, which is the taker of the place: what it executed has no worker from then on."""


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

    @property
    def line(self) -> tuple[str, int]:
        """What takes turns."""
        return self.key, self.priority


@dataclass(slots=True)
class Standing:
    """One queue, replayed from its asks, admissions and releases in their order.

    `turns` are what each key was given at a priority while it waited: a key that comes, or comes
    back, begins at the least served of those that wait.
    """

    bounds: Bounds
    waiting: dict[int, Place] = field(default_factory=dict)
    held: dict[int, Place] = field(default_factory=dict)
    turns: dict[tuple[str, int], int] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    """Workers that have ended, and 0: nobody."""

    def full(self, place: Place) -> bool:
        """Whether a limit of its key or its worker keeps this place waiting."""
        limit, each = self.bounds.key_concurrency, self.bounds.per_worker
        keys = sum(one.key == place.key for one in self.held.values())
        takers = sum(one.taker == place.taker for one in self.held.values())
        return (limit is not None and place.key != NO_KEY and keys >= limit) or (
            each is not None and place.taker != 0 and takers >= each
        )

    def ask(self, place: Place) -> None:
        """A place waits; again, where it has another taker now."""
        if place.line not in self.turns:
            others = [n for (_, priority), n in self.turns.items() if priority == place.priority]
            self.turns[place.line] = min(others, default=0)
        self.waiting[place.number] = place

    def release(self, place: Place) -> None:
        """A place is gone: it was held, or waited."""
        self.held.pop(place.number, None)
        self._leave(place)

    def _leave(self, place: Place) -> Place | None:
        asked = self.waiting.pop(place.number, None)
        if asked and all(one.line != asked.line for one in self.waiting.values()):
            del self.turns[asked.line]
        return asked

    def admit(self, place: Place, *, laws: bool) -> Iterator[str]:
        """Admit a place; the limits and orders that this violates."""
        who, concurrency = f"place {place.number} of queue {place.queue}", self.bounds.concurrency
        if concurrency is not None and len(self.held) >= concurrency:
            yield f"{who} was admitted beside {len(self.held)}"
        if self.full(place):
            yield f"{who} was admitted, though key {place.key} or worker {place.taker} was full"
        if laws:
            yield from self._order(place)
        if place.number in self.waiting:
            self.turns[self.waiting[place.number].line] += 1
        self._leave(place)
        self.held[place.number] = place

    def _order(self, place: Place) -> Iterator[str]:
        """A place whose run no worker executes waits for a worker that has room for the run: steps
        of others may go before it.
        """
        owned = self.waiting.get(place.number, place).taker
        head = f"place {place.number} of queue {place.queue}, priority {place.priority}"
        mine = self.turns.get(place.line, 0) if place.number in self.waiting else None
        for one in self.waiting.values():
            if one.number == place.number or self.full(one):
                continue
            if owned and one.taker in self.gone:
                continue
            if one.priority > place.priority:
                yield f"{head}, was admitted before place {one.number}, priority {one.priority}"
                return
            if one.priority < place.priority:
                continue
            if mine is None:
                yield f"{head}, was admitted before place {one.number}, which waits"
                return
            if (ahead := mine - self.turns[one.line]) > 0:
                yield (
                    f"{head}, was admitted for key {place.key}, which is {ahead} turns ahead of "
                    f"key {one.key} of place {one.number}"
                )
                return


def order(
    steps: Iterable[tuple[str, Place]], bounds: dict[str, Bounds], *, ordered: Container[str] = ()
) -> list[str]:
    """Asks, admissions, moves to other workers and releases in the order of the store's
    transactions: no limit is exceeded after any of them; and in the queues that are `ordered` none
    passes over a higher priority, and keys take turns.
    """
    broken: list[str] = []
    gone = {0}
    queues = {name: Standing(limits, gone=gone) for name, limits in bounds.items()}
    for what, place in steps:
        if what == ENDED:
            gone.add(place.taker)
            continue
        queue = queues.setdefault(place.queue, Standing(Bounds(), gone=gone))
        match what:
            case "asked":
                queue.ask(place)
            case "released":
                queue.release(place)
            case "moved":
                queue.held[place.number] = place
            case _:
                broken += queue.admit(place, laws=place.queue in ordered)
    return broken

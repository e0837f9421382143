"""Searches for runs in bounded time: a walk down the source with the fewest candidates.

Rules: what is in an index is found however many runs there are; what has to be looked for is looked
for in the newest runs first, until the page is full or the time is spent, and goes on from there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from time import perf_counter, thread_time
from typing import Any, NamedTuple

import msgspec

from perdure.core import names, numbers
from perdure.core.lifecycle import STATUSES
from perdure.core.limits import NEVER_MS
from perdure.errors import DefinitionError
from perdure.reader.values import PLACES, RETRYING, RunQuery
from perdure.store.page_reads import ALL, NEWEST, PageReads, Source, Wanted, after_prefix

PAGE_S, COUNTS_S = 0.08, 0.04
"""How long one page is searched for, and how long its counts: a list is to be there in 150 ms. That
is time on a core; where others have it, or pages come from afar, it may take `PATIENCE` times that.
"""

PATIENCE = 3

LIMIT_MAX = 10_000
TEXT_CHARS_MAX = 1_000
PROBED = 500
"""Keys of each source that are read to choose one."""

BATCH_MIN, BATCH_MAX = 16, 4_096
BATCH_S = 0.01
"""Quicker batches are followed by larger ones, much slower ones by smaller ones."""

PREFIXED_MAX = 50
"""Runs whose ids begin with the text are found wherever they are, if they are no more than this."""


class Found(NamedTuple):
    """Keys of runs, where the next page begins (None: nowhere), and how many runs were looked at,
    where that ended the search.
    """

    keys: list[int]
    next: str | None
    searched: int | None


class Walk:
    """Keys of runs in order, from a place on."""

    def __init__(self, read: Callable[[Any, int], list[Any]], place: Any, mark: str) -> None:
        self._read, self.place, self._mark = read, place, mark
        self._places: dict[int, Any] = {}

    def batch(self, limit: int) -> list[int]:
        """The next keys; fewer than `limit` where there are no more."""
        rows = self._read(self.place, limit)
        self._places = {row if isinstance(row, int) else row[0]: row for row in rows}
        if rows:
            self.place = rows[-1]
        return list(self._places)

    def cursor(self, place: Any) -> str:
        """The text for going on behind a place."""
        if isinstance(place, int):
            return f"{self._mark}{place}"
        return f"{self._mark}{place[1]}.{place[0]}"

    def place_of(self, key: int) -> Any:
        """The place of a key of the last batch."""
        return self._places[key]


class Search:
    """One search. `begun` is when it began, by `perf_counter`."""

    def __init__(self, reads: PageReads, wanted: Wanted) -> None:
        self._reads, self._wanted = reads, wanted
        self._begun, self._begun_here = perf_counter(), thread_time()
        self._batch = 32 if wanted.text else 256

    def page(self, after: str | None, limit: int) -> Found:
        """Up to `limit` runs that match, behind a cursor."""
        keys = self._prefixed(after) if self._wanted.text else []
        if len(keys) > limit:
            return Found(keys[:limit], f"p{keys[limit - 1]}", None)
        walk = self._walk(after)
        if self._wanted.is_all:
            batch = walk.batch(limit + 1)
            more = walk.cursor(walk.place_of(batch[limit - 1])) if batch[limit:] else None
            return Found(batch[:limit], more, None)
        looked = 0
        while True:
            size, place = self._batch, walk.place
            batch = walk.batch(size)
            looked += len(batch)
            for key in self._timed(batch):
                if len(keys) == limit:
                    return Found(keys, walk.cursor(place), None)
                keys.append(key)
                place = walk.place_of(key)
            if len(batch) < size:
                return Found(keys, None, None)
            if self._spent(PAGE_S):
                return Found(keys, walk.cursor(walk.place), looked)

    def counts(self) -> tuple[Counter[str], bool]:
        """How many runs match by status, `retrying` besides; and whether that is all."""
        found: Counter[str] = Counter()
        walk = self._walk(None)
        while True:
            size = self._batch
            batch = walk.batch(size)
            begin = perf_counter()
            for _, status, retrying in self._match(batch):
                found[status] += 1
                found[RETRYING] += retrying
            self._adapt(perf_counter() - begin)
            if len(batch) < size:
                return found, True
            if self._spent(COUNTS_S):
                return found, False

    def _spent(self, seconds: float) -> bool:
        waited = perf_counter() - self._begun > PATIENCE * seconds
        return waited or thread_time() - self._begun_here > seconds

    # --- the walk ---------------------------------------------------------------------------------

    def _walk(self, after: str | None) -> Walk:
        mark, place = _cursor(after)
        wanted = self._wanted
        timed = wanted.since_ms is not None or wanted.until_ms is not None
        if (mark == "t" and not timed) or (mark == "p" and not wanted.text):
            raise _foreign(after)
        by_time = None
        if timed and self._reads.has_lists and mark != "k":
            until = NEVER_MS if wanted.until_ms is None else wanted.until_ms
            by_time = self._by_time(place if mark == "t" else (NEWEST, until))
            if mark == "t":
                return by_time
        before = place if mark == "k" else NEWEST  # those by id come before all others
        return self._chosen(before, by_time)

    def _by_time(self, place: tuple[int, int]) -> Walk:
        since = self._wanted.since_ms or 0

        def read(place: Any, limit: int) -> list[Any]:
            return self._reads.keys_by_time((place[1], place[0]), since, limit)

        return Walk(read, place, "t")

    def _chosen(self, before: int, by_time: Walk | None) -> Walk:
        """The walk that comes furthest down with a few steps."""
        ways = self._reads.sources(self._wanted)
        if len(ways) == 1 and by_time is None:
            return self._along(ALL, before)
        reach = [(self._reach(self._reads.keys(way, before, PROBED)), way) for way in ways]
        lowest, way = min(reach, key=lambda one: one[0])
        if by_time is not None:
            rows = self._reads.keys_by_time(
                (by_time.place[1], by_time.place[0]), self._wanted.since_ms or 0, PROBED
            )
            if self._reach([row[0] for row in rows]) < lowest:
                return by_time
        return self._along(way, before)

    def _reach(self, keys: Sequence[int]) -> tuple[bool, int]:
        """How far these keys come: all of a source is best, and then the fewest."""
        return (False, len(keys)) if len(keys) < PROBED else (True, keys[-1])

    def _along(self, way: Sequence[Source], before: int) -> Walk:
        def read(place: Any, limit: int) -> list[Any]:
            return self._reads.keys(way, place, limit)

        return Walk(read, before, "k")

    # --- what matches -----------------------------------------------------------------------------

    def _prefixed(self, after: str | None) -> list[int]:
        """Runs whose ids begin with the text, behind a cursor: they come first, and are not found
        again.
        """
        wanted, text = self._wanted, self._wanted.text or ""
        if "id" not in wanted.places:
            return []
        found = self._reads.keys_by_id(text, PREFIXED_MAX + 1)
        until = after_prefix(text)
        if len(found) > PREFIXED_MAX:
            found = [one for one in found[:1] if one[1] == text]
            until = text + "\0"
        if not found:
            return []
        keys = sorted((key for key, _ in found), reverse=True)
        matching = [key for key, *_ in self._reads.matching(keys, wanted)]
        self._wanted = msgspec.structs.replace(wanted, without_ids=(text, until))
        mark, place = _cursor(after)
        return [key for key in matching if after is None or (mark == "p" and key < place)]

    def _match(self, keys: Sequence[int]) -> list[tuple[int, str, int]]:
        wanted = self._wanted
        found = self._reads.matching(keys, wanted) if keys else []
        if wanted.text and found:
            those = [key for key, *_ in found]
            having = set(self._reads.with_text(those, wanted.text, wanted.places))
            found = [one for one in found if one[0] in having]
        order = {key: place for place, key in enumerate(keys)}
        return sorted(found, key=lambda one: order[one[0]])

    def _timed(self, keys: Sequence[int]) -> list[int]:
        begin = perf_counter()
        found = [key for key, *_ in self._match(keys)]
        self._adapt(perf_counter() - begin)
        return found

    def _adapt(self, took_s: float) -> None:
        """Larger batches while they are quick, smaller ones where runs are large."""
        if took_s < BATCH_S:
            self._batch = min(self._batch * 2, BATCH_MAX)
        elif took_s > BATCH_S * 4:
            self._batch = max(self._batch // 4, BATCH_MIN)


def _cursor(after: str | None) -> tuple[str, Any]:
    """The kind of a cursor, and the place that it names. Raises `DefinitionError`."""
    if after is None:
        return "", None
    mark, rest = after[:1], after[1:]
    try:
        if mark in ("k", "p"):
            return mark, int(rest)
        if mark == "t":
            at_ms, _, run = rest.partition(".")
            return mark, (int(run), int(at_ms))
    except ValueError:
        pass
    raise _foreign(after)


def _foreign(after: str | None) -> DefinitionError:
    return DefinitionError(
        f"after is `next` of the page before of the same list, not {numbers.shown(after)}: begin "
        "without it."
    )


def is_cursor(text: str) -> bool:
    """Whether a text can be `next` of a page."""
    return re.fullmatch(r"[kp]\d+|t\d+\.\d+", text) is not None


def cursor_key(after: str | None) -> int:
    """The key that a cursor names, of a list that has no other order. Raises `DefinitionError`."""
    mark, place = _cursor(after)
    if mark not in ("", "k"):
        raise _foreign(after)
    return NEWEST if place is None else int(place)


# --- questions ------------------------------------------------------------------------------------


def wanted_of(asked: RunQuery, parent: int | None) -> Wanted:
    """A query in the store's terms. Raises `DefinitionError` for what no run can have."""
    _check(asked)
    return Wanted(
        statuses=tuple(one for one in asked.status if one != RETRYING),
        retrying=RETRYING in asked.status,
        workflow=asked.workflow,
        since_ms=_ms("since", asked.since),
        until_ms=_ms("until", asked.until),
        tags=tuple((key, _json(value)) for key, value in asked.tags.items()),
        parent=parent,
        queue=asked.queue,
        text=asked.text or None,
        places=asked.in_ if asked.text else (),
    )


def _check(asked: RunQuery) -> None:
    for one in asked.status:
        if one not in STATUSES and one != RETRYING:
            raise DefinitionError(
                f"status is one of {', '.join(STATUSES)} and {RETRYING}, not {numbers.shown(one)}."
            )
    for one in asked.in_:
        if one not in PLACES:
            raise DefinitionError(f"in is one of {', '.join(PLACES)}, not {numbers.shown(one)}.")
    if asked.workflow is not None:
        names.checked("name of a workflow", asked.workflow)
    if asked.text is not None:
        if len(asked.text) > TEXT_CHARS_MAX:
            raise DefinitionError(f"A text to look for has at most {TEXT_CHARS_MAX:,} characters.")
        _json(asked.text)
    numbers.count(asked.limit, "limit", low=1, high=LIMIT_MAX)


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"No run can have {numbers.shown(value)}: {error}.") from None


def _ms(name: str, at: datetime | None) -> int | None:
    if at is None:
        return None
    if at.tzinfo is None:
        raise DefinitionError(f"{name} needs a time zone: it is {at.isoformat()}.")
    return round(at.timestamp() * 1_000)

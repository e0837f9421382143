"""Reads for pages: sources of runs in order, what matches, bounded counts, families.

Rules: each query costs what it returns, or what it is told to look at; a search is made of such
queries by `reader.search`, which stops in time; a file of an earlier schema lacks some sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import merge
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from perdure.core import lifecycle
from perdure.core.events import Event
from perdure.core.lifecycle import COMPLETED, STATUSES
from perdure.store.reads import Reads
from perdure.store.rows import BarRow
from perdure.store.sql import json_text

NEWEST = 1 << 62
"""In place of a key: before the newest run."""

INDEXED = frozenset(STATUSES) - {COMPLETED}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are looked for, in the store's terms; see `RunQuery`."""

    statuses: tuple[str, ...] = ()
    retrying: bool = False
    workflow: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    tags: tuple[tuple[str, str], ...] = ()
    """Keys, and values as JSON."""
    parent: int | None = None
    queue: str | None = None
    text: str | None = None
    places: tuple[str, ...] = ()
    without_ids: tuple[str, str] | None = None
    """From this id on, and before that one: those do not count."""

    @property
    def is_all(self) -> bool:
        """Whether every run matches."""
        return self == Wanted()


class Source(NamedTuple):
    """A query for keys, and what it takes besides a key and a number."""

    query: str
    bindings: tuple[Any, ...] = ()


ALL = (Source("keys_newest"),)


class RelativeRow(msgspec.Struct, gc=False):
    """A run as a tree shows it."""

    run: int
    id: str
    workflow: str
    status: str
    parent: int | None
    forked_from: str | None
    created_ms: int
    ended_ms: int | None
    parent_seq: int | None


class MarkedRow(NamedTuple):
    """A row of a history with a mark of what it holds: equal marks, equal payloads."""

    seq: int
    kind: str
    ref: int | None
    name: str | None
    mark: str | None


class Unread(NamedTuple):
    """Messages on a channel that were not received yet: how many, and of the first one who sent
    it and when.
    """

    number: int
    sender: str | None
    at_ms: int


class PageReads:
    """The reads of one store for pages."""

    def __init__(self, store: Reads) -> None:
        self._store, self._rows = store, store.rows
        self.has_lists = bool(store.rows("has_lists"))
        self.has_senders = bool(store.rows("has_senders"))

    # --- keys -------------------------------------------------------------------------------------

    def sources(self, wanted: Wanted) -> list[tuple[Source, ...]]:
        """Where all runs that match are among: sources to merge, in each of the ways there are."""
        found: list[tuple[Source, ...]] = []
        if wanted.parent is not None:
            found.append((Source("keys_of_parent", (wanted.parent,)),))
        found += [(Source("keys_of_tag", pair),) for pair in wanted.tags]
        statuses = set(wanted.statuses) | ({lifecycle.WAITING} if wanted.retrying else set())
        if statuses and statuses <= INDEXED:
            found.append(tuple(Source("keys_of_status", (one,)) for one in sorted(statuses)))
        if wanted.workflow is not None and self.has_lists:
            found.append((Source("keys_of_workflow", (wanted.workflow,)),))
        return [*found, ALL]

    def keys(self, sources: Sequence[Source], before: int, limit: int) -> list[int]:
        """The newest keys below one, of several sources together; fewer where there are no more."""
        each = [
            [key for (key,) in self._rows(one.query, before, limit, *one.bindings)]
            for one in sources
        ]
        if len(each) == 1:
            return each[0]
        return list(islice(merge(*each, reverse=True), limit))

    def keys_by_time(self, before: tuple[int, int], since_ms: int, limit: int) -> list[Any]:
        """Keys and times of starts, the newest start first, behind a time and a key."""
        at_ms, run = before
        return self._rows("keys_by_time", run, limit, at_ms, since_ms)

    def keys_by_id(self, prefix: str, limit: int) -> list[tuple[int, str]]:
        """Runs whose ids begin with a text, by id."""
        return self._rows("keys_by_id", prefix, limit, after_prefix(prefix))

    # --- what matches -----------------------------------------------------------------------------

    def matching(self, keys: Sequence[int], wanted: Wanted) -> list[tuple[int, str, int]]:
        """Of these those that match all but the text: key, status, and 1 where it waits for an
        attempt.
        """
        begin, end = wanted.without_ids or (None, None)
        return self._rows(
            "matching",
            json_text(keys),
            json_text(wanted.statuses) if wanted.statuses or wanted.retrying else None,
            int(wanted.retrying),
            wanted.workflow,
            wanted.since_ms,
            wanted.until_ms,
            json_text(wanted.tags) if wanted.tags else None,
            wanted.parent,
            wanted.queue,
            begin,
            end,
        )

    def with_text(self, keys: Sequence[int], text: str, places: Sequence[str]) -> list[int]:
        """Of these those that have a text in one of these places."""
        asked = [int(one in places) for one in ("id", "tags", "error", "payload")]
        texts = {text, json_text(text)[1:-1]}  # as JSON is written, and as a text is in JSON
        found = [
            key
            for one in texts
            for (key,) in self._rows(
                "with_text", json_text(keys), pattern(text), pattern(one), *asked
            )
        ]
        return sorted(set(found), reverse=True)

    # --- counts -----------------------------------------------------------------------------------

    def count_of_status(self, status: str, limit: int) -> int:
        """How many runs have a status that is not completed, up to `limit`."""
        return int(self._rows("count_of_status", status, limit)[0][0])

    def count_all(self, limit: int) -> int:
        """How many runs there are, up to `limit`."""
        return int(self._rows("count_all", limit)[0][0])

    def count_completed_roots(self, limit: int) -> int:
        """How many runs without a parent have completed, up to `limit`."""
        found = self._rows("count_ended_roots", COMPLETED, limit) if self.has_lists else [(0,)]
        return int(found[0][0])

    def count_retrying(self, looked_at: int) -> int:
        """How many of the newest runs that wait do so for an attempt."""
        return int(self._rows("count_retrying", looked_at)[0][0])

    def count_owned(self, worker: int, limit: int) -> int:
        """How many runs a worker owns, up to `limit`."""
        return int(self._rows("count_owned", worker, limit)[0][0])

    def started(self, since_ms: int, bucket_ms: int, looked_at: int) -> list[tuple[int, int, int]]:
        """Starts since a time, of the newest ones only: bucket, how many without a parent, and how
        many were looked at.
        """
        if not self.has_lists:
            return []
        return self._rows("started_in_buckets", since_ms, bucket_ms, looked_at)

    def ended(
        self, status: str, since_ms: int, bucket_ms: int, looked_at: int
    ) -> list[tuple[int, int, int]]:
        """The same of ends with a status."""
        if not self.has_lists:
            return []
        return self._rows("ended_in_buckets", since_ms, bucket_ms, looked_at, status)

    # --- names ------------------------------------------------------------------------------------

    def workflow_names(self, limit: int) -> list[str]:
        """Workflows that there are runs of, sorted; in an earlier schema those of the newest."""
        query = "workflow_names" if self.has_lists else "newest_workflow_names"
        return [name for (name,) in self._rows(query, limit)]

    def workflows_with_due(self) -> list[str]:
        """Workflows with runs that have no owner and are due, now or later."""
        return [name for (name,) in self._rows("workflows_with_due")]

    def streams(self, run: int, limit: int, items_max: int) -> list[tuple[str, int, int, int]]:
        """Streams of a run: name, position and time of the newest item, items up to a bound."""
        found = self._rows("stream_names", run, limit, items_max)
        return [
            (name, last, self._rows("stream_time", last)[0][0], count)
            for name, last, count in found
        ]

    def ticks_of(self, schedule: str, limit: int) -> list[int]:
        """Runs of a schedule's ticks, the newest tick first."""
        begin = f"{schedule}@"
        return [run for (run,) in self._rows("ticks_of", begin, after_prefix(begin), limit)]

    # --- people and families ----------------------------------------------------------------------

    def waits_for_a_person(self, keys: Sequence[int]) -> list[Any]:
        """Of these runs those that wait for a message, a request or a decision, and are not asked
        to end: key, id, workflow, status, waiting, reason, tags, time of the newest row.
        """
        return self._rows("waits_for_a_person", json_text(keys))

    def asked_to_end(self, keys: Sequence[int]) -> dict[int, int]:
        """Of these runs those in whose inbox a cancel waits, with its time in ms."""
        return dict(self._rows("asked_to_end", json_text(keys)))

    def unread(self, keys: Sequence[int]) -> dict[tuple[int, str], Unread]:
        """Messages to these runs that were not received yet, by run and channel."""
        query = "unread_messages" if self.has_senders else "unread_messages_of_earlier"
        found = self._rows(query, json_text(keys))
        return {
            (run, name): Unread(number, sender, at_ms)
            for run, name, number, _, sender, at_ms in found
        }

    def relative(self, run: int) -> RelativeRow | None:
        """A run as a tree shows it; None where it was pruned."""
        found = self._rows("relative", run)
        return RelativeRow(*found[0]) if found else None

    def children(self, run: int, limit: int) -> list[RelativeRow]:
        """Children of a run, the oldest first."""
        return [RelativeRow(*row) for row in self._rows("children_of", run, limit)]

    def forks(self, run_id: str, limit: int) -> list[RelativeRow]:
        """Forks of a run, the oldest first; none in an earlier schema, which can't find them."""
        found = self._rows("forks_of", run_id, limit) if self.has_lists else []
        return [RelativeRow(*row) for row in found]

    def generations(self, run_id: str, limit: int) -> list[RelativeRow]:
        """Runs that went before one under its id, the oldest first; of very many some."""
        found = [RelativeRow(*row) for row in self._rows("generations_of", run_id, limit)]
        return sorted(found, key=lambda row: row.run)

    # --- histories --------------------------------------------------------------------------------

    def rows_numbered(self, run: int, seqs: Sequence[int]) -> list[Event]:
        """Rows of a run by their numbers, with whole `data`."""
        return self._store.events(run, self._rows("rows_numbered", run, json_text(seqs)))

    def rows_marked(self, run: int, after_seq: int, limit: int) -> list[MarkedRow]:
        """Up to `limit` rows of a run behind one, to be compared with those of another."""
        found = self._rows("rows_marked", run, after_seq, limit)
        return [MarkedRow(*row) for row in found]

    # --- waterfalls -------------------------------------------------------------------------------

    def bars(self, run: int, after_seq: int, limit: int, label_chars: int) -> list[BarRow]:
        """Up to `limit` rows of a history behind one, each with the first `label_chars` characters
        of its payload; without them where that is stored in chunks.
        """
        found = self._rows("history_bars", run, after_seq, limit, label_chars)
        return [BarRow(*row) for row in found]

    def child_runs(self, run: int, after_seq: int, limit: int) -> dict[int, str]:
        """The ids of the children that rows behind `after_seq` started, by row."""
        return dict(self._rows("child_runs", run, after_seq, limit))


def pattern(text: str) -> str:
    """The pattern of LIKE that finds a text anywhere.

    >>> pattern("100%_a")
    '%100\\\\%\\\\_a%'
    """
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def after_prefix(prefix: str) -> str:
    """A text behind all that begin with `prefix`."""
    return prefix + "\U0010ffff"

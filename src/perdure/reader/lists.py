"""Lists of runs for pages: pages of a query, counts, the inbox, activity.

Rules: each has a bound in rows or in time, and says when it stopped there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from perdure.core import lifecycle, numbers
from perdure.core.lifecycle import COMPLETED, STATUSES
from perdure.errors import RunNotFound
from perdure.reader.activity import ActivityReads
from perdure.reader.parts import PageParts, is_answered
from perdure.reader.search import Search, cursor_key, is_cursor, wanted_of
from perdure.reader.values import (
    RETRYING,
    Activity,
    Bounded,
    InboxItem,
    InboxPage,
    RunPage,
    RunQuery,
)
from perdure.runtime import info
from perdure.runtime.info import OpenRequest, RunInfo, instant, moment
from perdure.store.page_reads import INDEXED, NEWEST, Source, Wanted

COUNT_MAX = 10_000
RETRYING_LOOKED_AT = 2_000
WORKFLOWS_MAX = 1_000
INBOX_BATCH = 200
INBOX_LOOKED_AT, INBOX_COUNTED = 10_000, 2_000
INBOX_MAX = 500
REQUESTS_MAX = 20
"""Requests of one inbox item that are shown."""

BUCKETS_MAX = 1_000

_FOR_PEOPLE = tuple(
    Source("keys_of_status", (one,)) for one in (lifecycle.WAITING, lifecycle.BLOCKED)
)
_ASKED = frozenset({"message", "request"})
_STEP = re.compile(r"while step (.+?) \(row (\d+)\)")


class ListQueries(PageParts):
    """See the module's text, and `StoreReader` for each."""

    _activity: ActivityReads | None = None

    def page(self, asked: RunQuery) -> RunPage:
        wanted = self._wanted(asked)
        found = Search(self._pages, wanted).page(asked.after, asked.limit)
        return RunPage(self.summaries_of(found.keys), found.next, found.searched)

    def _wanted(self, asked: RunQuery) -> Wanted:
        return wanted_of(asked, None if asked.parent is None else self.key(asked.parent))

    def infos(self, ids: Sequence[str]) -> list[RunInfo]:
        keys = list(self.keys(ids).values())
        return [info.run_info(row) for row in self._store.whole_rows(keys)] if keys else []

    def cursor(self, after: str) -> str:
        try:
            return f"k{self.key(self.find(after))}"
        except RunNotFound:
            if not is_cursor(after):
                raise
            return after

    def workflows(self) -> list[str]:
        return self._pages.workflow_names(WORKFLOWS_MAX)

    # --- counts -----------------------------------------------------------------------------------

    def counts_of(self, asked: RunQuery) -> dict[str, Bounded]:
        changed = {"status": (), "after": None, "limit": 1}
        wanted = self._wanted(msgspec.structs.replace(asked, **changed))
        if wanted.is_all:
            return self._all_counts()
        found, whole = Search(self._pages, wanted).counts()
        return {one: Bounded(found[one], not whole) for one in (*STATUSES, RETRYING)}

    def _all_counts(self) -> dict[str, Bounded]:
        counts = {one: self._pages.count_of_status(one, COUNT_MAX + 1) for one in INDEXED}
        found = {one: bounded(counts[one]) for one in STATUSES if one in INDEXED}
        retrying = self._pages.count_retrying(RETRYING_LOOKED_AT)
        found[COMPLETED] = self._completed(counts)
        found[RETRYING] = Bounded(retrying, counts[lifecycle.WAITING] > RETRYING_LOOKED_AT)
        return {one: found[one] for one in (*STATUSES, RETRYING)}

    def _completed(self, others: dict[str, int]) -> Bounded:
        """No index has those that have completed: they are the rest."""
        roots = self._pages.count_completed_roots(COUNT_MAX + 1)
        if roots > COUNT_MAX:
            return bounded(roots)
        if any(number > COUNT_MAX for number in others.values()):
            return Bounded(roots, True)
        rest = sum(others.values())
        return bounded(self._pages.count_all(rest + COUNT_MAX + 1) - rest)

    # --- the inbox --------------------------------------------------------------------------------

    def inbox(self, after: str | None, limit: int) -> InboxPage:
        numbers.count(limit, "limit", low=1, high=INBOX_MAX)
        items: list[InboxItem] = []
        for looked, (key, place) in enumerate(self._waiting_rows(cursor_key(after))):
            if key is not None:
                items += self._items(key)
            if len(items) >= limit or looked >= INBOX_LOOKED_AT:
                return InboxPage(items, f"k{place}")
        return InboxPage(items, None)

    def _waiting_rows(self, before: int) -> Iterator[tuple[Any, int]]:
        """Runs that wait or are blocked, the newest first: the row of each that waits for a
        person, else None, and its key.
        """
        while keys := self._pages.keys(_FOR_PEOPLE, before, INBOX_BATCH):
            found = {row[0]: row for row in self._asking(keys)}
            for key in keys:
                yield found.get(key), key
            before = keys[-1]

    def _asking(self, keys: Sequence[int]) -> list[Any]:
        """Rows of those that wait for a person, with what each waits for as a list: what was sent
        and not received yet, because no worker has taken the run, is asked no more.
        """
        rows, asking = self._pages.waits_for_a_person(keys), []
        unread = self._pages.unread([row[0] for row in rows])
        for key, id, workflow, status, waiting, *rest in rows:
            waits = [one for one in _decode(waiting) or [] if one.keys() & _ASKED]
            left = [one for one in waits if not is_answered(key, one, waits, unread)]
            if left or status == lifecycle.BLOCKED:
                asking.append((key, id, workflow, status, left, *rest))
        return asking

    def _items(self, row: Sequence[Any]) -> list[InboxItem]:
        key, run_id, workflow, status, waiting, reason, tags, last_ms = row
        shared = {"run": run_id, "workflow": workflow, "tags": _decode(tags) or {}}
        if status == lifecycle.BLOCKED:
            asked = _STEP.search(reason or "")
            step, seq = (asked[1], int(asked[2])) if asked else (None, None)
            return [
                InboxItem(
                    **shared, kind="unknown outcome", channel=None, type=None, schema=None,
                    prompt=None, since=instant(last_ms), seq=seq, step=step, reason=reason,
                )
            ]  # fmt: skip
        return [
            self._item(key, item, kind, instant(last_ms), shared)
            for item in waiting
            for kind in ("message", "request")
            if kind in item
        ]

    def _item(
        self, run: int, item: dict[str, Any], kind: Any, last: Any, shared: dict[str, Any]
    ) -> InboxItem:
        from perdure.codec.schemas import schema_named

        type_ = item.get("type")
        rows = self._store.open_requests(run, REQUESTS_MAX) if kind == "request" else []
        return InboxItem(
            **shared,
            kind=kind,
            channel=item[kind],
            type=type_,
            schema=item.get("schema") or (schema_named(type_) if type_ else None),
            prompt=item.get("prompt"),
            since=instant(item["since_ms"]) if "since_ms" in item else last,
            seq=item.get("seq"),
            requests=[
                OpenRequest(one.channel, one.key, one.sender, moment(one.at_ms))
                for one in rows
                if one.channel == item[kind]
            ],
        )

    def inbox_of(self, id: str) -> list[InboxItem]:
        rows = self._asking([self.key(id)])
        return [item for row in rows for item in self._items(row)]

    def inbox_count(self) -> Bounded:
        number = 0
        for looked, (row, _) in enumerate(self._waiting_rows(NEWEST)):
            number += row is not None
            if looked >= INBOX_COUNTED:
                return Bounded(number, True)
        return Bounded(number)

    # --- activity ---------------------------------------------------------------------------------

    def activity(self, buckets: int, bucket_ms: int) -> Activity:
        numbers.count(buckets, "buckets", low=1, high=BUCKETS_MAX)
        numbers.count(bucket_ms, "bucket_ms", low=1_000, high=31 * 86_400_000)
        if self._activity is None:
            self._activity = ActivityReads(self._pages)
        return self._activity.read(self._now_ms(), buckets, bucket_ms)


def bounded(number: int) -> Bounded:
    """A count that was made up to `COUNT_MAX` + 1."""
    return Bounded(min(number, COUNT_MAX), number > COUNT_MAX)


def _decode(text: str | None) -> Any:
    return msgspec.json.decode(text) if text else None

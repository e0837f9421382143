"""Reads of one run for pages: waterfall, reasons, time travel, comparison, streams.

Rules: a history is read without its payloads, and these only where they are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec

from perdure.core import names, numbers
from perdure.errors import DefinitionError
from perdure.reader.families import FamilyQueries
from perdure.reader.lists import bounded
from perdure.reader.parts import is_answered
from perdure.reader.values import WHYS_MAX, LogLine, StreamEntry, StreamInfo
from perdure.runtime import standing, stream_pages, stuck, workers
from perdure.runtime.info import HistoryEvent, OpenRequest, instant, moment
from perdure.runtime.naming import Names
from perdure.runtime.standing import ExposedValue, Standing
from perdure.runtime.validation import findable
from perdure.store.log_reads import LogRow
from perdure.store.page_reads import Unread
from perdure.store.rows import StreamItem
from perdure.views import compare as comparing
from perdure.views import moment as moments
from perdure.views.compare import BEFORE, Comparison, Mark, RowPair
from perdure.views.moment import Moment
from perdure.views.waiting import Places, Sent, Situation, in_queue, is_retrying, why
from perdure.views.waterfall import Bars, Waterfall
from perdure.views.waterfall import waterfall as waterfall_of

if TYPE_CHECKING:
    from perdure.store.base import Store

REQUESTS_MAX = 1_000
STREAMS_MAX = 200
STREAM_ITEMS_MAX = 10_000
ROWS_MAX = 100_000
"""Rows of a history that a moment or a comparison is made from."""

PAIRS_MAX = 1_000
NAMED_ROWS_MAX = 20_000
"""Rows that are read for the name of a step of a run that was retried or forked."""

LABELLED_ROWS_MAX = 2_000
LABEL_CHARS = 120
LABEL_CHARS_MANY = 40
"""How much of a payload a waterfall has, in a short history and in a long one."""


class RunQueries(FamilyQueries):
    """See the module's text, and `StoreReader` for each."""

    def bars(self, run_id: str, after: int, limit: int) -> Bars:
        head = self._store.run_head(findable(run_id))
        chars = LABEL_CHARS if head.history_rows <= LABELLED_ROWS_MAX else LABEL_CHARS_MANY
        return Bars(
            head.started_ms or head.created_ms,
            self._pages.bars(head.run, after, limit, chars),
            self._pages.child_runs(head.run, after, limit),
            head.history_rows,
        )

    def waterfall(self, run_id: str, after: int, limit: int) -> Waterfall:
        return waterfall_of(self.bars(run_id, after, limit))

    def idempotency_key(self, run_id: str, seq: int) -> str | None:
        run = self.key(run_id)
        row = self._store.run_row(run)
        if row.origin is None and row.forked_from is None:
            return f"{run_id}/{run}/{seq}"
        if seq > NAMED_ROWS_MAX:
            return None
        outline = self._store.history_outline(run, seq, NAMED_ROWS_MAX)
        if any(row.kind == "attempt" and row.ref is None and row.name for row in outline):
            return None  # it is of the run that this one was forked from
        rows = self._store.history_page(run, 0, seq)
        return f"{run_id}/{Names(row.origin or run, rows).of(seq)}"

    # --- why --------------------------------------------------------------------------------------

    def why(self, run_id: str) -> str | None:
        self.key(run_id)
        return self.whys([run_id]).get(run_id)

    def whys(self, ids: Sequence[str]) -> dict[str, str]:
        if len(ids) > WHYS_MAX:
            raise DefinitionError(f"Reasons are read for up to {WHYS_MAX} runs at once.")
        keys = self.keys(ids)
        runs = {run.id: run for run in self.summaries_of(list(keys.values()))}
        queued = [keys[id] for id, run in runs.items() if in_queue(run.waiting_for)]
        places = self._store.places_of(queued) if queued else {}
        now_ms = self._now_ms()
        there = self._store.workers()
        alive = {f"worker {one.worker}" for one in workers.alive(there, now_ms)}
        at_work = workers.take_what_is_due(there, now_ms)
        standings = {run: [standing.standing(row) for row in rows] for run, rows in places.items()}
        sent = self._pages.unread([keys[id] for id, run in runs.items() if run.waiting_for])
        ending = self._pages.asked_to_end(list(keys.values()))
        stuck_queues = self._stuck({one.queue for each in standings.values() for one in each})
        found = {}
        for id, run in runs.items():
            known = Situation(
                Places(standings.get(keys[id], ()), instant(now_ms)),
                instant(now_ms),
                at_work,
                None if run.owner is None else run.owner in alive,
                self.progress(id).last_error if is_retrying(run) else None,
                _answers(keys[id], run.waiting_for, sent),
                stuck_queues,
                instant(ending[keys[id]]) if keys[id] in ending else None,
            )
            if (text := why(run, known)) is not None:
                found[id] = text
        return found

    def _stuck(self, names: Iterable[str]) -> dict[str, str]:
        """Why these queues admit nothing, as far as they do not get on by themselves."""
        store = cast("Store", self._store)
        rows = [self._store.queue_row(name) for name in names]
        reasons = {row.name: stuck.queue(store, row, self._now_ms()) for row in rows}
        return {name: reason for name, reason in reasons.items() if reason}

    # --- time travel ------------------------------------------------------------------------------

    def at(self, run_id: str, seq: int) -> Moment:
        numbers.count(seq, "seq", low=1)
        run, key = self.summary(run_id), self.key(run_id)
        if seq > run.history_rows:
            raise DefinitionError(
                f"Run {run_id!r} has rows 1 to {run.history_rows:,}; there is no row {seq:,}."
            )
        outline = self.outline(run_id, 0, ROWS_MAX)
        about = {row.ref for row in outline if row.seq == seq and row.ref is not None}
        asked = {seq, seq + 1, *about, *moments.shown_at(outline, seq)}
        whole = self._numbered(key, sorted(asked))
        args = msgspec.json.decode(self._store.arguments(key))
        return moments.moment(run, outline, seq, whole, args)

    def _numbered(self, run: int, seqs: Sequence[int]) -> list[HistoryEvent]:
        """Rows with what they hold; for arguments and the result of a run, its own row."""
        return self._events(run, self._pages.rows_numbered(run, seqs))

    # --- comparison -------------------------------------------------------------------------------

    def compare(self, a: str, b: str, limit: int) -> Comparison:
        numbers.count(limit, "limit", low=1, high=PAIRS_MAX)
        keys = self.key(a), self.key(b)
        runs = self.summary(a), self.summary(b)
        marks = self._marks(keys[0]), self._marks(keys[1])
        args = [msgspec.json.decode(self._store.arguments(key)) for key in keys]
        same = comparing.first_difference(*marks)
        first, last = max(same - BEFORE, 0), max(map(len, marks))
        pairs = self._pairs(keys, marks, first, min(first + limit, last))
        outlines = [self.outline(run.id, 0, ROWS_MAX) for run in runs]
        totals = [comparing.totals(*one) for one in zip(runs, outlines, strict=True)]
        until = marks[0][same - 1].seq if same else 0
        equal = same == last and args[0] == args[1]
        more = first + limit < last
        return Comparison(*runs, equal, until, args[0] == args[1], pairs, more, *totals)

    def _marks(self, run: int) -> list[Mark]:
        return comparing.marks(self._pages.rows_marked(run, 0, ROWS_MAX))

    def _pairs(
        self, keys: tuple[int, int], marks: tuple[list[Mark], list[Mark]], first: int, last: int
    ) -> list[RowPair]:
        rows = [
            {row.seq: row for row in self._numbered(key, [one.seq for one in each[first:last]])}
            for key, each in zip(keys, marks, strict=True)
        ]
        found = []
        for place in range(first, last):
            one = marks[0][place] if place < len(marks[0]) else None
            other = marks[1][place] if place < len(marks[1]) else None
            whole = [
                rows[side].get(mark.seq) if mark is not None else None
                for side, mark in enumerate((one, other))
            ]
            found.append(comparing.pair(place, (one, other), *whole))
        return found

    # --- what a run shows -------------------------------------------------------------------------

    def streams(self, run_id: str) -> list[StreamInfo]:
        found = self._pages.streams(self.key(run_id), STREAMS_MAX, STREAM_ITEMS_MAX + 1)
        return [
            StreamInfo(name, bounded(count), last, instant(at_ms))
            for name, last, at_ms, count in found
            if name != names.LOGS
        ]

    def logs(
        self, run_id: str, after: int, limit: int, seq: int | None, attempt: int | None,
        newest: bool,
    ) -> list[LogLine]:  # fmt: skip
        numbers.count(after, "after", low=0)
        numbers.count(limit, "limit", low=1, high=STREAM_ITEMS_MAX)
        run, store = self.key(run_id), cast("Store", self._store)
        return [
            _line(row) for row in store.log_lines(run, after, limit, seq, attempt, newest=newest)
        ]

    def last_log_line(self, run_id: str) -> int:
        return cast("Store", self._store).last_log_line(self.key(run_id))

    def stream(self, run_id: str, name: str, after: int, limit: int) -> list[StreamEntry]:
        numbers.count(after, "after", low=0)
        numbers.count(limit, "limit", low=1, high=STREAM_ITEMS_MAX)
        rows = self._store.stream(self.key(run_id), names.checked("stream", name), after, limit)
        return [_entry(row) for row in rows]

    def stream_on(self, run_id: str, name: str, after: int) -> tuple[list[StreamEntry], bool]:
        store = cast("Store", self._store)
        run: int | None = stream_pages.first_run(
            store, run_id, names.checked("stream", name), after
        )
        while run is not None:
            page = stream_pages.page(store, run, run_id, name, after)
            if page.items or not page.over:
                return [_entry(row) for row in page.items], False
            run = page.later
        return [], True

    def exposed(self, run_id: str) -> list[ExposedValue]:
        return [standing.exposed_value(row) for row in self._store.exposed(self.key(run_id))]

    def requests(self, run_id: str) -> list[OpenRequest]:
        rows = self._store.open_requests(self.key(run_id), REQUESTS_MAX)
        return [OpenRequest(row.channel, row.key, row.sender, moment(row.at_ms)) for row in rows]

    def standings(self, ids: Sequence[str]) -> dict[str, list[Standing]]:
        runs = {id: self.key(id) for id in ids}
        found = self._store.places_of(list(runs.values()))
        return {id: [standing.standing(row) for row in found[run]] for id, run in runs.items()}


def _answers(
    run: int, waits: list[dict[str, Any]], unread: dict[tuple[int, str], Unread]
) -> list[Sent]:
    found = [one["message"] for one in waits if is_answered(run, one, waits, unread)]
    sent = [(channel, unread[run, channel]) for channel in found]
    return [Sent(channel, one.sender, instant(one.at_ms)) for channel, one in sent]


def _line(row: LogRow) -> LogLine:
    text = msgspec.json.decode(row.data)
    text = text if isinstance(text, dict) else {}
    trace, left_out, dropped = (text.get(name) for name in ("traceback", "left_out", "dropped"))
    return LogLine(
        position=row.position,
        seq=row.seq,
        attempt=row.attempt,
        at=instant(row.at_ms),
        level=str(text.get("level", "")),
        logger=str(text.get("logger", "")),
        message=str(text.get("message", "")),
        traceback=None if trace is None else str(trace),
        left_out=left_out if isinstance(left_out, int) else 0,
        dropped=dropped if isinstance(dropped, int) else 0,
    )


def _entry(row: StreamItem) -> StreamEntry:
    return StreamEntry(row.position, msgspec.json.decode(row.data), row.recorded)

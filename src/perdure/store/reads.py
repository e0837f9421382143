"""The reading half of a store, once for all databases: named queries become the values of `rows`.

Rules: payloads of inputs are joined at once, arguments when they are used; where a query crosses a
network, the chunks of a whole history come in one query; a list costs a fixed number of queries.
What people read has the mask in the place of secrets; what a run goes on with, and its result, has
their true text: the methods that give it say so.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

from perdure.core import events as ev
from perdure.core.events import INPUTS, Event
from perdure.core.lifecycle import COMPLETED, FINAL, STATUSES
from perdure.errors import PerdureError, RunNotFound, SecretsMissing
from perdure.store import payloads
from perdure.store.answer_reads import AnswerReads
from perdure.store.log_reads import LogReads
from perdure.store.queue_reads import QueueReads
from perdure.store.request_reads import RequestReads
from perdure.store.retention_reads import RetentionReads
from perdure.store.rows import (
    InboxRow,
    LoadedRun,
    OutcomeRow,
    ProgressRow,
    RunFilter,
    RunHead,
    RunRow,
    StreamItem,
    WorkerRow,
)
from perdure.store.schedule_reads import ScheduleReads
from perdure.store.sql import json_text
from perdure.store.writes import Family

ROWS_MAX = 1 << 62
"""In place of no limit."""
_OUTCOMES = frozenset({ev.COMPLETED, ev.FAILED, ev.ABANDON})
_INDEXED = frozenset(STATUSES) - {COMPLETED}
"""Statuses that the index run_open has."""


class LazyPayload:
    """Recorded data in chunks: compared by its digest, joined when it is read."""

    __slots__ = ("_bodies", "_reader", "_run", "_text")

    def __init__(
        self, reader: Reads, run: int, text: str, bodies: dict[int, str] | None = None
    ) -> None:
        self._reader, self._run, self._text, self._bodies = reader, run, text, bodies

    def same_as(self, raw: bytes) -> bool:
        if payloads.has_secrets(self._text):
            return self.read() == raw
        return payloads.recorded_digest(self._text) == payloads.digest_of(raw)

    def read(self) -> bytes:
        if self._bodies is not None:
            return self._reader.joined_true(self._text, self._bodies)
        return self._reader.true(self._run, self._text)


class Reads(AnswerReads, LogReads, QueueReads, RequestReads, RetentionReads, ScheduleReads):
    """The reads of `base.Store` over `_all`, which a database implements."""

    inline: bool
    path: str

    @abstractmethod
    def _all(self, query: str, *bindings: Any) -> list[Any]:
        """The rows of a named query. A value that the database can't store matches no row."""

    @abstractmethod
    def _damaged(self, error: Exception) -> PerdureError:
        """The error for a payload that is not what was recorded; the store refuses all after it."""

    def _run_rows(self, runs: Sequence[int]) -> list[Any]:
        """Whole rows of runs, in this order; one alone by the cheaper query."""
        if len(runs) == 1:
            return self._all("run_row", runs[0])
        return self._all("run_rows", json_text(runs))

    # --- payloads ---------------------------------------------------------------------------------

    def whole(self, run: int, text: str) -> bytes:
        """A payload column as JSON."""
        if not payloads.is_chunked(text):
            return text.encode()
        return self.all_whole([(run, text)])[0] or b""

    def all_whole(self, columns: Sequence[tuple[int, str | None]]) -> list[bytes | None]:
        """Payload columns of runs as JSON; the chunks of all of them are read in one query."""
        chunked = [(run, text) for run, text in columns if text and text[0] == "@"]
        if not chunked:
            return [None if text is None else text.encode() for _, text in columns]
        try:
            bodies = self._bodies(chunked)
            return [_joined(text, bodies.get(run, {})) for run, text in columns]
        except (LookupError, TypeError, ValueError) as error:
            raise self._damaged(error) from error

    def true(self, run: int, text: str) -> bytes:
        """A payload column as JSON with its secrets. Raises `SecretsMissing`."""
        if not payloads.is_chunked(text):
            return text.encode()
        return self.all_true([(run, text)])[0] or b""

    def all_true(self, columns: Sequence[tuple[int, str | None]]) -> list[bytes | None]:
        """Payload columns as JSON with their secrets. Raises `SecretsMissing`."""
        hidden = [(run, text) for run, text in columns if text and payloads.has_secrets(text)]
        if not hidden:
            return self.all_whole(columns)
        bodies = self._bodies([(run, text) for run, text in columns if text and text[0] == "@"])
        return [
            text.encode()
            if text and text[0] != "@"
            else text and self.joined_true(text, bodies.get(run, {}))  # type: ignore[misc]
            for run, text in columns
        ]

    def joined_true(self, text: str, bodies: dict[int, str]) -> bytes:
        """A payload with its secrets, from its chunks. Raises `SecretsMissing`."""
        try:
            found = payloads.join_true(text, bodies)
        except (LookupError, TypeError, ValueError) as error:
            raise self._damaged(error) from error
        if found is None:
            raise SecretsMissing(self.path)
        return found

    def _bodies(self, columns: Sequence[tuple[int, str]]) -> dict[int, dict[int, str]]:
        """The chunks that payloads are made of, by run and number; secrets have the negative
        number of their chunk.
        """
        needs: dict[int, list[tuple[int, int]]] = {}
        for run, text in columns:
            needs.setdefault(run, []).extend(payloads.needs(text))
        ranges = [(run, *one) for run, found in needs.items() for one in payloads.merged(found)]
        bodies: dict[int, dict[int, str]] = {run: {} for run in needs}
        if ranges:
            for run, n, body in self._all("chunks_of_runs", json_text(ranges)):
                bodies[run][n] = body
            if any(payloads.has_secrets(text) for _, text in columns):
                for run, n, body in self._all("secrets_of_runs", json_text(ranges)):
                    bodies[run][-n] = body
        return bodies

    # --- runs -------------------------------------------------------------------------------------

    def run_key(self, run_id: str) -> int:
        """See `base.Store`, also for what follows."""
        found = self._all("run_of_id", run_id)
        if not found:
            raise RunNotFound(run_id)
        return int(found[0][0])

    def has_run(self, run_id: str) -> bool:
        return bool(self._all("run_of_id", run_id))

    def durability(self, run_id: str) -> str | None:
        found = self._all("durability_of", run_id)
        return found[0][0] if found else None

    def find_ids(self, prefix: str, limit: int) -> list[str]:
        bounds = (prefix, prefix + "\U0010ffff", limit)
        levels = (
            self._all(name, *bounds) for name in ("root_ids_from", "child_ids_from", "ids_from")
        )
        return [run_id for (run_id,) in next(filter(None, levels), [])]

    def _one(self, query: str, run: int) -> tuple[Any, ...]:
        """The row of a run. Raises `RunNotFound` where it was pruned meanwhile."""
        found = self._all(query, run)
        if not found:
            raise RunNotFound.pruned(run)
        return cast("tuple[Any, ...]", found[0])

    def run_row(self, run: int, *, true: bool = False) -> RunRow:
        rows = self._rows_of([run], true=true)
        if not rows:
            raise RunNotFound.pruned(run)
        return rows[0]

    def whole_rows(self, runs: Sequence[int]) -> list[RunRow]:
        """Runs by their keys with their payloads, in this order: three queries at most."""
        return self._rows_of(runs)

    def _rows_of(self, runs: Sequence[int], *, true: bool = False) -> list[RunRow]:
        rows = [RunRow(*row) for row in self._run_rows(runs)]
        columns = [(one.run, text) for one in rows for text in (one.args, one.result, one.error)]
        read = self.all_true if true else self.all_whole
        whole = iter(read(cast("list[tuple[int, str | None]]", columns)))
        for one in rows:
            one.args, one.result, one.error = next(whole) or b"", next(whole), next(whole)
        return rows

    def status(self, run_id: str) -> str:
        return str(self._state(run_id)[1])

    def _state(self, run_id: str) -> tuple[int, str, str | None, str | None]:
        """The key of a run, its status, what it waits for and why it is blocked."""
        found = self._all("status_of_id", run_id)
        if not found:
            raise RunNotFound(run_id)
        return cast("tuple[int, str, str | None, str | None]", found[0])

    def run_head(self, run_id: str) -> RunHead:
        heads = self.heads([self.run_key(run_id)])
        if not heads:
            raise RunNotFound(run_id)
        return heads[0]

    def _head_rows(self, runs: str) -> list[Any]:
        return self._all("run_heads", runs)

    def rows(self, query: str, *bindings: Any) -> list[Any]:
        """The rows of a named query, for reads that only one database has."""
        return self._all(query, *bindings)

    def heads(self, runs: Sequence[int]) -> list[RunHead]:
        """Runs by their keys without arguments and results, in this order: two queries at most."""
        heads = [RunHead(*row) for row in self._head_rows(json_text(runs))]
        errors = [(one.run, cast("str | None", one.error)) for one in heads]
        for head, error in zip(heads, self.all_whole(errors), strict=True):
            head.error = error
        return heads

    def arguments(self, run: int, *, true: bool = False) -> bytes:
        read = self.true if true else self.whole
        return read(run, self._one("arguments_of", run)[0])

    def outcome(self, run: int, *, true: bool = False) -> OutcomeRow:
        read = self.true if true else self.whole
        status, successor, run_id, workflow, result, error, *rest = self._one("outcome", run)
        result = None if result is None else read(run, result)
        error = None if error is None else read(run, error)
        return OutcomeRow(status, successor, run_id, workflow, result, error, *rest)

    def run_rows(self, asked: RunFilter) -> list[RunRow]:
        """Runs, newest first: three queries at most, however many runs."""
        return self._rows_of(self._listed(asked))

    def run_heads(self, asked: RunFilter) -> list[RunHead]:
        """Runs without arguments and results, newest first: three queries at most."""
        return self.heads(self._listed(asked))

    def _listed(self, asked: RunFilter) -> list[int]:
        """The keys of runs, newest first."""
        bounds = asked.status, asked.workflow, asked.before, asked.limit
        if asked.tags:
            pairs = [[key, json_text(value)] for key, value in asked.tags.items()]
            (key, value), *more = pairs
            found = self._all("list_tagged_runs", *bounds, key, value, json_text(more))
        else:
            query = "list_open_runs" if asked.status in _INDEXED else "list_runs"
            found = self._all(query, *bounds)
        return [run for (run,) in found]

    def unfinished(self, workflows: tuple[str, ...], limit: int | None) -> list[int]:
        names = json_text(workflows) if workflows else None
        return [
            run
            for (run,) in self._all("unfinished_runs", names, ROWS_MAX if limit is None else limit)
        ]

    def statuses(self, runs: Sequence[int]) -> dict[int, tuple[str, int | None, int | None]]:
        found = {run: self._all("status_of", run) for run in runs}
        return {run: rows[0] for run, rows in found.items() if rows}

    # --- history ----------------------------------------------------------------------------------

    def load(self, run: int, owner: int, rows_max: int) -> LoadedRun | None:
        """A run's row, history and inbox; None where it has ended or is not this worker's."""
        rows = self._rows_of([run], true=True)
        if not rows or rows[0].owner != owner or rows[0].status in FINAL:
            return None
        row = rows[0]
        history = self.history(run) if 0 < row.history_rows <= rows_max else []
        loaded = LoadedRun(row, history, self.inbox(run, 0), {})
        if history:
            self._add_open_steps(loaded)
        return loaded

    def _add_open_steps(self, loaded: LoadedRun) -> None:
        """The heartbeats and places of steps without an outcome. Most runs have none at all."""
        run = loaded.row.run
        found = self._all("heartbeat_rows", run)
        if not found:
            return
        ended = {event.ref for event in loaded.history if event.kind in _OUTCOMES}
        loaded.places = {seq: place for seq, place in found if place and seq not in ended}
        for seq in {seq for seq, place in found if place is None} - ended:
            if (data := self.heartbeat(run, seq)) is not None:
                loaded.heartbeats[seq] = data

    def history(self, run: int, after_seq: int = 0) -> list[Event]:
        """Rows of a run in order, with their secrets; large arguments as `LazyPayload`."""
        found = self._all("history", run, after_seq)
        bodies = None if self.inline else self._chunks_of(run, found)
        events = []
        for seq, kind, at_ms, ref, name, text, took_ms, edited in found:
            data: Any = None
            if text is not None:
                if text[:1] != "@":  # most rows: here a call costs as much as the rest
                    data = text.encode()
                elif kind in INPUTS:
                    data = self.true(run, text)
                else:
                    data = LazyPayload(self, run, text, bodies)
            events.append(Event(seq, kind, at_ms, ref, name, data, took_ms, bool(edited)))
        return events

    def _chunks_of(self, run: int, rows: Sequence[tuple[Any, ...]]) -> dict[int, str]:
        """The chunks of all payloads in rows of a history: each once, however often it is used."""
        texts = [(run, row[5]) for row in rows if row[5] and payloads.is_chunked(row[5])]
        return self._bodies(texts).get(run, {})

    def history_page(self, run: int, after_seq: int, limit: int | None) -> list[Event]:
        """Up to `limit` rows of a run behind one, with all that they hold: two queries at most."""
        found = self._all("history_page", run, after_seq, ROWS_MAX if limit is None else limit)
        return self.events(run, found)

    def history_outline(self, run: int, after_seq: int, limit: int | None) -> list[Event]:
        """The same rows without what they hold, in one query; an attempt says whether it failed."""
        rows_max = ROWS_MAX if limit is None else limit
        return self.events(run, self._all("history_outline", run, after_seq, rows_max))

    def rows_about(self, run: int, seq: int) -> list[Event]:
        """A row and those that answer it, in order; empty where there is no such row."""
        return self.events(run, self._all("rows_about", run, seq))

    def events(self, run: int, found: Sequence[tuple[Any, ...]]) -> list[Event]:
        """Rows of a history as a query gives them, with whole `data`: one query more at most."""
        whole = self.all_whole([(run, row[5]) for row in found])
        return [
            Event(seq, kind, at_ms, ref, name, data, took_ms, bool(edited))
            for (seq, kind, at_ms, ref, name, _, took_ms, edited), data in zip(
                found, whole, strict=True
            )
        ]

    def row_names(self, run: int, seqs: Sequence[int]) -> dict[int, str]:
        found = self._all("row_names", run, json_text(seqs)) if seqs else []
        return {seq: name or kind for seq, kind, name in found}

    def inbox(self, run: int, after: int) -> list[InboxRow]:
        found = self._all("inbox", run, after)
        return [
            InboxRow(id_, to, kind, name, ref, None if data is None else self.true(to, data), at_ms)
            for id_, to, kind, name, ref, data, at_ms in found
        ]

    def inboxes_of(self, owner: int) -> list[int]:
        return [run for (run,) in self._all("inboxes_of", owner)]

    def paused_of(self, owner: int) -> list[int]:
        return [run for (run,) in self._all("paused_of", owner)]

    def stream(self, run: int, name: str, after: int, limit: int) -> list[StreamItem]:
        found = self._all("stream", run, name, after, limit)
        return [
            StreamItem(position, self.whole(run, text), bool(recorded))
            for position, text, recorded in found
        ]

    def stream_place(self, position: int) -> tuple[int, str, str] | None:
        found = self._all("stream_place", position)
        return found[0] if found else None

    def first_generation(self, run: int) -> int:
        run_id, chain = self._one("id_and_chain", run)
        first = self._all("run_of_id", f"{run_id}~1")
        if first or chain is None:
            return first[0][0] if first else run
        found = self._all("oldest_of", f"{run_id}~", f"{run_id}\x7f", chain)
        return int(found[0][0] or run)

    def generation_after(self, run: int) -> int | None:
        (run_id,) = self._one("id_of", run)
        name, _, number = run_id.partition("~")
        if not number:
            return None
        later = self._all("run_of_id", f"{name}~{int(number) + 1}") or self._all("run_of_id", name)
        return later[0][0] if later else None

    def heartbeat(self, run: int, seq: int) -> bytes | None:
        found = self._all("heartbeat", run, seq)
        return self.true(run, found[0][0]) if found else None

    # --- what is due ----------------------------------------------------------------------

    def next_due_ms(
        self,
        workflows: tuple[str, ...],
        families: Sequence[Family] | None = None,
        worker: int | None = None,
    ) -> int | None:
        if families is None:
            found = [ms for name in workflows for (ms,) in self._all("next_due", name)]
        else:
            each = [(family.run, family.root, name) for family in families for name in workflows]
            found = [
                ms for bindings in each for (ms,) in self._all("next_due_in_family", *bindings)
            ]
        found.append(self.next_admission_ms(workflows, families, worker))
        return min((ms for ms in found if ms is not None), default=None)

    def family(self, run: int) -> Family:
        (root,) = self._one("family_of", run)
        return Family(run, root)

    def due_count(self, workflows: tuple[str, ...], now_ms: int, limit: int) -> int:
        return int(self._all("due_count", json_text(workflows), now_ms, limit)[0][0])

    def blocked_in(self, family: Family, limit: int) -> list[tuple[str, str, str]]:
        return self._all("blocked_in_family", family.run, family.root, limit)

    def due_names(self, now_ms: int) -> list[tuple[str, str]]:
        return self._all("due_names", now_ms)

    def is_executed(self, workflow: str) -> bool:
        return bool(self._all("is_executed", workflow))

    def workers(self) -> list[WorkerRow]:
        return [WorkerRow(*row) for row in self._all("workers")]

    def progress(self, run_id: str, open_max: int) -> ProgressRow:
        """See `base.Store`: six queries at most."""
        run, status, waiting, reason = self._state(run_id)
        counts = self._all("step_counts", run)[0]
        scheduled, completed, failed, abandoned, left, error_seq = counts
        still_open = [name for (name,) in self._all("open_steps", run, open_max)] if left else []
        error = self.history_page(run, error_seq - 1, 1)[0] if error_seq else None
        name = self.row_names(run, [error.ref]).get(error.ref) if error and error.ref else None
        return ProgressRow(
            status,
            waiting,
            reason,
            scheduled,
            completed,
            failed,
            abandoned,
            still_open,
            error,
            name,
        )

    def status_counts(self) -> dict[str, int]:
        return dict(self._all("status_counts"))


def _joined(text: str | None, bodies: dict[int, str]) -> bytes | None:
    if text is None or not payloads.is_chunked(text):
        return None if text is None else text.encode()
    return payloads.join(text, bodies)

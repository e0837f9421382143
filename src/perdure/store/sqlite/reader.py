"""The reading half of the SQLite store: its own connection, which never waits for a writer.

Rules: rows come back as the values of `base`; payloads of inputs are joined at once, arguments on
demand; a file that was once found to be damaged gives nothing more, because what it gives may be
wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

import apsw
import msgspec

from perdure.core.events import INPUTS, Event
from perdure.core.lifecycle import COMPLETED, FINAL, STATUSES
from perdure.errors import PerdureError, RunNotFound, StoreCorrupt, StoreReplaced
from perdure.store import payloads
from perdure.store.rows import (
    InboxRow,
    LoadedRun,
    OutcomeRow,
    ProgressRow,
    RunHead,
    RunRow,
    StreamItem,
    WorkerRow,
)
from perdure.store.sqlite import connection
from perdure.store.sqlite.queries import Q
from perdure.store.writes import Family

_INDEXED = frozenset(STATUSES) - {COMPLETED}
"""Statuses that the index run_open has."""


class LazyPayload:
    """Recorded data in chunks: compared by digest, joined when somebody reads it."""

    __slots__ = ("_bodies", "_reader", "_run", "_text")

    def __init__(
        self, reader: Reader, run: int, text: str, bodies: dict[int, str] | None = None
    ) -> None:
        self._reader, self._run, self._text, self._bodies = reader, run, text, bodies

    def same_as(self, raw: bytes) -> bool:
        return payloads.recorded_digest(self._text) == payloads.digest_of(raw)

    def read(self) -> bytes:
        if self._bodies is not None:
            return payloads.join(self._text, self._bodies)
        return self._reader.whole(self._run, self._text)


class Reader:
    """Queries of the store; see `base.Store` for what each is for."""

    inline = True

    def __init__(self, read: apsw.Connection, path: str) -> None:
        self._read, self.path = read, path
        self.damaged: StoreCorrupt | None = None
        self.when_damaged: Callable[[], None] | None = None
        self.replaced: StoreReplaced | None = None
        self.beating = threading.Lock()
        """Held during a beat, so that none is under way any more when damage is reported."""

    def _all(self, name: str, *bindings: Any) -> list[Any]:
        if self.damaged is not None:
            raise self.damaged
        try:
            return self._read.execute(Q[name], bindings).fetchall()
        except (OverflowError, TypeError, UnicodeEncodeError):
            return []  # what SQLite can't store is the name of nothing here
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception, system: int = 0) -> PerdureError:
        """Our error for what went wrong with the database; damage is remembered."""
        if isinstance(error, apsw.Error):
            ours = connection.error_for(error, self.path, system)
        else:
            ours = StoreCorrupt(
                self.path, "it is damaged (a text or a payload is not what was recorded)"
            )
        if isinstance(ours, StoreCorrupt):
            with self.beating:
                self.damaged = ours
            if self.when_damaged is not None:
                self.when_damaged()
        return ours

    def pragma(self, name: str, db: apsw.Connection | None = None) -> Any:
        """A pragma's value, read to the end of its rows: a connection that goes on reading holds up
        checkpoints.
        """
        try:
            return (db or self._read).pragma(name)
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._failed(error) from error

    # --- payloads ---------------------------------------------------------------------------------

    def whole(self, run: int, text: str) -> bytes:
        """A payload column as JSON, with its chunks joined."""
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
            raise self._failed(error) from error

    def _bodies(self, columns: Sequence[tuple[int, str]]) -> dict[int, dict[int, str]]:
        """The chunks that payloads are made of, by run and number."""
        needs: dict[int, list[tuple[int, int]]] = {}
        for run, text in columns:
            needs.setdefault(run, []).extend(payloads.needs(text))
        ranges = [(run, *one) for run, found in needs.items() for one in payloads.merged(found)]
        bodies: dict[int, dict[int, str]] = {run: {} for run in needs}
        if ranges:
            for run, n, body in self._all("chunks_of_runs", _json(ranges)):
                bodies[run][n] = body
        return bodies

    # --- runs -------------------------------------------------------------------------------------

    def run_key(self, run_id: str) -> int:
        """The key of a full public id; raises `RunNotFound`."""
        found = self._all("run_of_id", run_id)
        if not found:
            raise RunNotFound(run_id)
        return int(found[0][0])

    def has_run(self, run_id: str) -> bool:
        """Whether there is a run with this id."""
        return bool(self._all("run_of_id", run_id))

    def durability(self, run_id: str) -> str | None:
        """The run's own level; None where it has none, or there is no such run."""
        found = self._all("durability_of", run_id)
        return found[0][0] if found else None

    def find_ids(self, prefix: str, limit: int) -> list[str]:
        """Ids that begin with `prefix`; a run stands for its children and its earlier generations,
        which count only without it.
        """
        bounds = (prefix, prefix + "\U0010ffff", limit)
        levels = (
            self._all(name, *bounds) for name in ("root_ids_from", "child_ids_from", "ids_from")
        )
        return [run_id for (run_id,) in next(filter(None, levels), [])]

    @cached_property
    def _run_rows(self) -> str:
        """Eight times as fast without a look at which columns there are."""
        return (
            "run_rows"
            if self.pragma("user_version") == connection.SCHEMA_VERSION
            else "run_rows_of_earlier"
        )

    def run_row(self, run: int) -> RunRow:
        (row,) = self._rows_of([run])
        return row

    def _rows_of(self, runs: Sequence[int]) -> list[RunRow]:
        rows = [RunRow(*row) for row in self._all(self._run_rows, _json(runs))]
        columns = [(one.run, text) for one in rows for text in (one.args, one.result, one.error)]
        whole = iter(self.all_whole(cast("list[tuple[int, str | None]]", columns)))
        for one in rows:
            one.args, one.result, one.error = next(whole) or b"", next(whole), next(whole)
        return rows

    def status(self, run_id: str) -> str:
        """The status of a run; raises `RunNotFound`."""
        return str(self._standing(run_id)[1])

    def _standing(self, run_id: str) -> tuple[int, str, str | None, str | None]:
        """The key of a run, its status, what it waits for and why it is blocked."""
        found = self._all("status_of_id", run_id)
        if not found:
            raise RunNotFound(run_id)
        return cast("tuple[int, str, str | None, str | None]", found[0])

    def run_head(self, run_id: str) -> RunHead:
        """A run without its arguments and its result; raises `RunNotFound`."""
        (head,) = self._heads_of([self.run_key(run_id)])
        return head

    def _heads_of(self, runs: Sequence[int]) -> list[RunHead]:
        heads = [RunHead(*row) for row in self._all("run_heads", _json(runs))]
        errors = [(one.run, cast("str | None", one.error)) for one in heads]
        for head, error in zip(heads, self.all_whole(errors), strict=True):
            head.error = error
        return heads

    def arguments(self, run: int) -> bytes:
        """The arguments of a run as whole JSON."""
        ((text,),) = self._all("arguments_of", run)
        return self.whole(run, text)

    def outcome(self, run: int) -> OutcomeRow:
        """How a run stands, in one small read."""
        ((status, successor, run_id, workflow, result, error, blocked_by, reason, durability),) = (
            self._all("outcome", run)
        )
        result, error = self.all_whole([(run, result), (run, error)])
        return OutcomeRow(
            status, successor, run_id, workflow, result, error, blocked_by, reason, durability
        )

    def run_rows(
        self,
        *,
        status: str | None,
        workflow: str | None,
        tags: dict[str, Any] | None,
        limit: int,
        before: int | None,
    ) -> list[RunRow]:
        """Runs, newest first: three queries at most, however many runs."""
        return self._rows_of(self._listed(status, workflow, tags, limit, before))

    def run_heads(
        self,
        *,
        status: str | None,
        workflow: str | None,
        tags: dict[str, Any] | None,
        limit: int,
        before: int | None,
    ) -> list[RunHead]:
        """Runs without arguments and results, newest first: three queries at most."""
        return self._heads_of(self._listed(status, workflow, tags, limit, before))

    def _listed(
        self,
        status: str | None,
        workflow: str | None,
        tags: dict[str, Any] | None,
        limit: int,
        before: int | None,
    ) -> list[int]:
        """The keys of runs, newest first."""
        if tags:
            pairs = [[key, _json(value)] for key, value in tags.items()]
            (key, value), *more = pairs
            found = self._all(
                "list_tagged_runs",
                status,
                workflow,
                before,
                limit,
                key,
                value,
                _json(more),
            )
        else:
            query = "list_open_runs" if status in _INDEXED else "list_runs"
            found = self._all(query, status, workflow, before, limit)
        return [run for (run,) in found]

    def unfinished(self, workflows: tuple[str, ...], limit: int | None) -> list[int]:
        """Keys of runs that have not ended, newest first; an empty `workflows` is every one, no
        `limit` is all of them.
        """
        names = _json(workflows) if workflows else None
        return [
            run for (run,) in self._all("unfinished_runs", names, -1 if limit is None else limit)
        ]

    def statuses(self, runs: Sequence[int]) -> dict[int, tuple[str, int | None, int | None]]:
        """Status, successor and owner of each run."""
        found = {run: self._all("status_of", run) for run in runs}
        return {run: rows[0] for run, rows in found.items() if rows}

    # --- history ----------------------------------------------------------------------------------

    def load(self, run: int, owner: int, rows_max: int) -> LoadedRun | None:
        """A run's row, history and inbox; None where it has ended or is not this worker's."""
        row = self.run_row(run)
        if row.owner != owner or row.status in FINAL:
            return None
        history = self.history(run) if 0 < row.history_rows <= rows_max else []
        return LoadedRun(row, history, self.inbox(run, 0))

    def history(self, run: int, after_seq: int = 0) -> list[Event]:
        """Rows of a run in order; large arguments as `LazyPayload`."""
        found = self._all("history", run, after_seq)
        bodies = None if self.inline else self._chunks_of(run, found)
        events = []
        for seq, kind, at_ms, ref, name, text, took_ms, edited in found:
            data: Any = None
            if text is not None:
                data = (
                    LazyPayload(self, run, text, bodies)
                    if payloads.is_chunked(text) and kind not in INPUTS
                    else self.whole(run, text)
                )
            events.append(Event(seq, kind, at_ms, ref, name, data, took_ms, bool(edited)))
        return events

    def _chunks_of(self, run: int, rows: Sequence[tuple[Any, ...]]) -> dict[int, str]:
        """The chunks of all payloads in rows of a history: each once, however often it is used."""
        texts = [(run, row[5]) for row in rows if row[5] and payloads.is_chunked(row[5])]
        return self._bodies(texts).get(run, {})

    def history_page(self, run: int, after_seq: int, limit: int | None) -> list[Event]:
        """Up to `limit` rows of a run behind one, with all that they hold: two queries at most."""
        found = self._all("history_page", run, after_seq, -1 if limit is None else limit)
        return self._events(run, found)

    def history_outline(self, run: int, after_seq: int, limit: int | None) -> list[Event]:
        """The same rows without what they hold, in one query; an attempt says whether it failed."""
        found = self._all("history_outline", run, after_seq, -1 if limit is None else limit)
        return self._events(run, found)

    def rows_about(self, run: int, seq: int) -> list[Event]:
        """A row and those that answer it, in order; empty where there is no such row."""
        return self._events(run, self._all("rows_about", run, seq))

    def _events(self, run: int, found: Sequence[tuple[Any, ...]]) -> list[Event]:
        whole = self.all_whole([(run, row[5]) for row in found])
        return [
            Event(seq, kind, at_ms, ref, name, data, took_ms, bool(edited))
            for (seq, kind, at_ms, ref, name, _, took_ms, edited), data in zip(
                found, whole, strict=True
            )
        ]

    def row_names(self, run: int, seqs: Sequence[int]) -> dict[int, str]:
        """What rows of a run are called: a step's name, say, or the kind where it has none."""
        found = self._all("row_names", run, _json(seqs)) if seqs else []
        return {seq: name or kind for seq, kind, name in found}

    def inbox(self, run: int, after: int) -> list[InboxRow]:
        """What has arrived for a run after row `after`, in order, up to a thousand at a time."""
        found = self._all("inbox", run, after)
        return [
            InboxRow(id_, to, kind, name, ref, None if data is None else data.encode(), at_ms)
            for id_, to, kind, name, ref, data, at_ms in found
        ]

    def inboxes_of(self, owner: int) -> list[int]:
        """Runs of a worker that have something in their inbox."""
        return [run for (run,) in self._all("inboxes_of", owner)]

    def paused_of(self, owner: int) -> list[int]:
        """Runs of a worker that somebody has paused."""
        return [run for (run,) in self._all("paused_of", owner)]

    def stream(self, run: int, name: str, after: int, limit: int) -> list[StreamItem]:
        found = self._all("stream", run, name, after, limit)
        return [
            StreamItem(position, self.whole(run, text), bool(recorded))
            for position, text, recorded in found
        ]

    def stream_place(self, position: int) -> tuple[int, str, str] | None:
        """The run that a stream item is of, by key and by id, and the stream's name; None where
        there is no such item.
        """
        found = self._all("stream_place", position)
        return found[0] if found else None

    def generation_after(self, run: int) -> int | None:
        """The run that went on under a run's id, by `continue_as` or by a retry; None where the run
        has the id itself.
        """
        ((run_id,),) = self._all("id_of", run)
        name, _, number = run_id.partition("~")
        if not number:
            return None
        later = self._all("run_of_id", f"{name}~{int(number) + 1}") or self._all("run_of_id", name)
        return later[0][0] if later else None

    def heartbeat(self, run: int, seq: int) -> bytes | None:
        found = self._all("heartbeat", run, seq)
        return found[0][0].encode() if found else None

    # --- polling and looking ----------------------------------------------------------------------

    def next_due_ms(
        self, workflows: tuple[str, ...], families: Sequence[Family] | None = None
    ) -> int | None:
        """When the next run that nobody owns is due; of these families only, if they are given."""
        if families is None:
            found = [ms for name in workflows for (ms,) in self._all("next_due", name)]
        else:
            each = [(family.run, family.root, name) for family in families for name in workflows]
            found = [
                ms for bindings in each for (ms,) in self._all("next_due_in_family", *bindings)
            ]
        return min((ms for ms in found if ms is not None), default=None)

    def family(self, run: int) -> Family:
        """A run and what belongs to it."""
        ((root,),) = self._all("family_of", run)
        return Family(run, root)

    def due_count(self, workflows: tuple[str, ...], now_ms: int, limit: int) -> int:
        """How many runs are due and nobody's, up to `limit`."""
        return int(self._all("due_count", _json(workflows), now_ms, limit)[0][0])

    def blocked_in(self, family: Family, limit: int) -> list[tuple[str, str, str]]:
        """The runs of a family that are blocked: id, by what, and why."""
        return self._all("blocked_in_family", family.run, family.root, limit)

    def due_names(self, now_ms: int) -> list[tuple[str, str]]:
        """The workflows of which runs are due that nobody owns, each with the id of one of them."""
        return self._all("due_names", now_ms)

    def is_executed(self, workflow: str) -> bool:
        """Whether a worker has a run of this workflow."""
        return bool(self._all("is_executed", workflow))

    def workers(self) -> list[WorkerRow]:
        return [WorkerRow(*row) for row in self._all("workers")]

    def progress(self, run_id: str, open_max: int) -> ProgressRow:
        """How far a run is, in six queries at most and without a payload but its newest error;
        raises `RunNotFound`.
        """
        run, status, waiting, reason = self._standing(run_id)
        ((scheduled, completed, failed, abandoned, left, error_seq),) = self._all(
            "step_counts", run
        )
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
        """How many runs have each status, for those that any has."""
        return dict(self._all("status_counts"))

    def facts(self, now_ms: int) -> dict[str, Any]:
        """What `doctor` shows of the database itself."""
        pragma = self.pragma
        return {
            "sqlite": apsw.sqlite_lib_version(),
            "apsw": apsw.apsw_version(),
            "schema_version": pragma("user_version"),
            "journal_mode": pragma("journal_mode"),
            "page_bytes": pragma("page_size"),
            "pages": pragma("page_count"),
            "integrity": pragma("quick_check"),
            "runs": self.status_counts(),
            "stuck": [
                dict(zip(("id", "workflow", "status", "reason", "due_ms"), row, strict=True))
                for row in self._all("stuck", now_ms - 5000)
            ],
        }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _joined(text: str | None, bodies: dict[int, str]) -> bytes | None:
    if text is None or not payloads.is_chunked(text):
        return None if text is None else text.encode()
    return payloads.join(text, bodies)

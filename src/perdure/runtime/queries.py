"""Reads of runs for callers: status, summaries, pages of a history, progress.

Rules: each is a fixed number of queries, however many runs or rows it returns; a payload is read
and decoded only where it is returned; nothing here writes or waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from perdure.core import events as ev
from perdure.core.events import Event
from perdure.errors import RunNotFound
from perdure.runtime import info, validation
from perdure.runtime.info import Blocked, Ends, HistoryEvent, Progress, RunInfo, RunSummary
from perdure.store.base import Store
from perdure.store.rows import RunFilter

OPEN_STEPS_MAX = 8
BLOCKED_MAX = 100
_SENT = frozenset({ev.MESSAGE, ev.ATTEMPT})
"""Kinds of rows that may have a sender: messages, decisions about steps."""


class RunFilters(TypedDict, total=False):
    """The filters of a list of runs; see `Engine.runs`."""

    status: str | None
    workflow: str | None
    tags: dict[str, Any] | None
    limit: int
    after: str | None


@dataclass(frozen=True)
class Filter:
    """Which runs a list has: a status, a workflow, tags that a run has at least; up to `limit`,
    behind the run `after`. Raises `DefinitionError` for what no run can have.
    """

    status: str | None = None
    workflow: str | None = None
    tags: dict[str, Any] | None = None
    limit: int = 50
    after: str | None = None

    def __post_init__(self) -> None:
        validation.check_filters(self.status, self.workflow, self.tags, self.limit)


class Queries:
    """What can be asked about the runs of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def key(self, run_id: str) -> int:
        """The key of a run. Raises `RunNotFound`."""
        return self._store.run_key(validation.findable(run_id))

    def find(self, prefix: str) -> str:
        """The full id that `prefix` is or begins. Raises `RunNotFound`, with candidates if there
        are several.
        """
        if self._store.has_run(validation.findable(prefix)):
            return prefix
        most = RunNotFound.CANDIDATES_MAX + 1
        found = self._store.find_ids(prefix, most) if prefix else []  # "" is how every id begins
        if len(found) != 1:
            raise RunNotFound(prefix, tuple(found))
        return found[0]

    def status(self, run_id: str) -> str:
        """The status of a run. Raises `RunNotFound`."""
        return self._store.status(validation.findable(run_id))

    def info(self, run_id: str) -> RunInfo:
        """A run with its payloads. Raises `RunNotFound`."""
        return info.run_info(self._store.run_row(self.key(run_id)))

    def summary(self, run_id: str) -> RunSummary:
        """A run without its payloads. Raises `RunNotFound`."""
        return info.run_summary(self._store.run_head(validation.findable(run_id)))

    def runs(self, asked: Filter) -> list[RunInfo]:
        """Runs with their payloads, newest first."""
        return [info.run_info(row) for row in self._store.run_rows(self._bounds(asked))]

    def summaries(self, asked: Filter) -> list[RunSummary]:
        """Runs without their payloads, newest first."""
        return [info.run_summary(row) for row in self._store.run_heads(self._bounds(asked))]

    def _bounds(self, asked: Filter) -> RunFilter:
        return RunFilter(
            status=asked.status,
            workflow=asked.workflow,
            tags=asked.tags,
            limit=asked.limit,
            before=None if asked.after is None else self.key(asked.after),
        )

    def counts(self) -> dict[str, int]:
        """How many runs have each status."""
        return self._store.status_counts()

    def progress(self, run_id: str) -> Progress:
        """How far a run is. Raises `RunNotFound`."""
        return info.progress(self._store.progress(validation.findable(run_id), OPEN_STEPS_MAX))

    def history(self, run_id: str, after: int, limit: int | None) -> list[HistoryEvent]:
        """Up to `limit` rows of a run behind row `after`. Raises `RunNotFound`."""
        run = self.key(run_id)
        return self._events(run, self._store.history_page(run, after, limit))

    def outline(self, run_id: str, after: int, limit: int | None) -> list[HistoryEvent]:
        """The same rows without arguments, results and data. Raises `RunNotFound`."""
        rows = self._store.history_outline(self.key(run_id), after, limit)
        return info.history_events(rows, Ends(), {row.seq: row.name or row.kind for row in rows})

    def entry(self, run_id: str, seq: int) -> list[HistoryEvent]:
        """A row of a run and those that answer it. Raises `RunNotFound`."""
        run = self.key(run_id)
        return self._events(run, self._store.rows_about(run, seq))

    def _events(self, run: int, rows: Sequence[Event]) -> list[HistoryEvent]:
        kinds, here = {row.kind for row in rows}, {row.seq: row.name or row.kind for row in rows}
        before = sorted({row.ref for row in rows if row.ref and row.ref not in here})
        ends = Ends(
            self._store.arguments(run) if ev.START in kinds else None,
            self._store.outcome(run) if ev.FINISH in kinds else None,
        )
        names = here | self._store.row_names(run, before)
        if not kinds & _SENT:
            return info.history_events(rows, ends, names)
        return info.history_events(
            rows, ends, names, self._store.senders(run, rows[0].seq, rows[-1].seq)
        )

    def blocked(self, run_id: str) -> list[Blocked]:
        """The blocked runs among a run and all that it has started. Raises `RunNotFound`."""
        family = self._store.family(self.key(run_id))
        return [Blocked(*row) for row in self._store.blocked_in(family, BLOCKED_MAX)]

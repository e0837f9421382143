"""The reading half of the SQLite store: its own connection, which never waits for a writer.

Rules: what is read is decided in `store.reads`; a file that was once found to be damaged gives
nothing more, because what it gives may be wrong.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import apsw

from perdure.errors import PerdureError, StoreCorrupt, StoreReplaced
from perdure.store.reads import Reads
from perdure.store.retention_writes import PruningState
from perdure.store.rows import AnswerRow, ExposedRow, RequestRow, UnansweredRow, WorkerRow
from perdure.store.sql import json_text
from perdure.store.sqlite import connection, error_map
from perdure.store.sqlite.checksum import HistoryChecksum
from perdure.store.sqlite.queries import RARE, Q
from perdure.store.sqlite.transaction import INCREMENTAL

REQUESTS_SCHEMA = 9
"""The first schema that has requests and exposed values."""

ANSWERS_SCHEMA = 13
"""The first schema that has senders of messages, and links."""

FIRST_SCHEMA_WITH_REPLICAS = 2
FIRST_SCHEMA_WITH_RETENTION = 10
FIRST_SCHEMA_WITH_SCHEDULES = 8
FIRST_SCHEMA_WITH_QUEUES = 7


class Reader(Reads):
    """The reads of `base.Store` on an SQLite connection."""

    inline = True

    def __init__(self, read: apsw.Connection, path: str) -> None:
        self._read, self.path = read, path
        self.damaged: StoreCorrupt | None = None
        self.when_damaged: Callable[[], None] | None = None
        self.replaced: StoreReplaced | None = None
        self.renewing = threading.Lock()
        """Held while a lease is renewed, so that none is under way when damage is reported."""

    def _all(self, query: str, *bindings: Any) -> list[Any]:
        if self.damaged is not None:
            raise self.damaged
        try:
            return self._rows_of_query(Q[query], bindings, keep=query not in RARE)
        except (OverflowError, TypeError, UnicodeEncodeError):
            return []  # what SQLite can't store names no run and no row
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._failed(error) from error

    def _rows_of_query(self, text: str, bindings: Sequence[Any], *, keep: bool = True) -> list[Any]:
        """Rows of a query; `keep` its statement for the next time."""
        return self._read.execute(text, bindings, can_cache=keep).fetchall()

    def _damaged(self, error: Exception) -> PerdureError:
        return self._failed(error)

    def _failed(self, error: Exception, system: int = 0) -> PerdureError:
        """The Perdure error for an error of the database; damage is remembered."""
        if isinstance(error, apsw.Error):
            ours = error_map.error_for(error, self.path, system)
        else:
            ours = StoreCorrupt(
                self.path, "it is damaged (a text or a payload is not what was recorded)"
            )
        if isinstance(ours, StoreCorrupt):
            with self.renewing:
                self.damaged = ours
            if self.when_damaged is not None:
                self.when_damaged()
        return ours

    def pragma(self, name: str, db: apsw.Connection | None = None) -> Any:
        """A pragma's value. Its rows are read to the end: an open read holds up checkpoints."""
        try:
            if db is not None:
                return db.pragma(name)
            rows = self._rows_of_query(f"PRAGMA {name}", ())
            return rows[0][0] if len(rows) == 1 else [value for (value,) in rows]
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self._failed(error) from error

    def check_runs(self) -> None:
        """Look whether the runs can be read as they were written, which costs a read of them all.
        Raises `StoreCorrupt`.
        """
        found = self.pragma("quick_check(run)")
        if found != "ok":
            first = str(found[0] if isinstance(found, list) else found).splitlines()[-1]
            raise StoreCorrupt(self.path, f"it is damaged ({first})")

    def version(self) -> int:
        """A number that changes with each commit; only beside one of the same connection."""
        return int(self.pragma("data_version")) + self._read.total_changes()

    @property
    def schema_version(self) -> int:
        """The version of the file's schema, which may be an earlier one."""
        return self._schema_version

    @cached_property
    def _schema_version(self) -> int:
        return int(self.pragma("user_version"))

    @property
    def _is_current(self) -> bool:
        return self._schema_version == connection.SCHEMA_VERSION

    @cached_property
    def _has_queues(self) -> bool:
        return int(self.pragma("user_version")) >= FIRST_SCHEMA_WITH_QUEUES

    @cached_property
    def _has_schedules(self) -> bool:
        return int(self.pragma("user_version")) >= FIRST_SCHEMA_WITH_SCHEDULES

    def _run_rows(self, runs: Sequence[int]) -> list[Any]:
        """The query for files of earlier schemas looks for columns, which takes eight times."""
        if self._is_current:
            return super()._run_rows(runs)
        return self._all("run_rows_of_earlier", json_text(runs))

    def _head_rows(self, runs: str) -> list[Any]:
        return (
            super()._head_rows(runs)
            if self._is_current
            else self._all("run_heads_of_earlier", runs)
        )

    def workers(self) -> list[WorkerRow]:
        if self._is_current:
            return super().workers()
        return [WorkerRow(*row) for row in self._all("workers_of_earlier")]

    def exposed(self, run: int) -> list[ExposedRow]:
        return super().exposed(run) if self._schema_version >= REQUESTS_SCHEMA else []

    def open_requests(self, run: int, limit: int) -> list[RequestRow]:
        return super().open_requests(run, limit) if self._schema_version >= REQUESTS_SCHEMA else []

    def unanswered(self, before_ms: int, limit: int) -> list[UnansweredRow]:
        known = self._schema_version >= REQUESTS_SCHEMA
        return super().unanswered(before_ms, limit) if known else []

    def answers(self, before: int, limit: int) -> list[AnswerRow]:
        known = self._schema_version >= ANSWERS_SCHEMA
        return super().answers(before, limit) if known else []

    def pruning(self) -> PruningState:
        known = self._schema_version >= FIRST_SCHEMA_WITH_RETENTION
        return super().pruning() if known else PruningState()

    def for_queries(self) -> contextlib.AbstractContextManager[apsw.Connection]:
        """The connection that people's own queries are asked on."""
        return contextlib.nullcontext(self._read)

    def checksum(self) -> HistoryChecksum | None:
        """The checksum of the history as of the last commit; None where it is not replicated."""
        if self._schema_version < FIRST_SCHEMA_WITH_REPLICAS:
            return None
        found = self._all("read_checksum")
        return HistoryChecksum(*found[0]) if found else None

    def senders(self, run: int, first: int, last: int) -> dict[int, str]:
        known = self._schema_version >= ANSWERS_SCHEMA
        return super().senders(run, first, last) if known else {}

    def declared_workflows(self, limit: int) -> list[tuple[str, str, str]]:
        known = self._schema_version >= ANSWERS_SCHEMA
        return super().declared_workflows(limit) if known else []

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
            "free_pages": pragma("freelist_count"),
            "gives_space_back": pragma("auto_vacuum") == INCREMENTAL,
            "integrity": pragma("quick_check"),
            "runs": self.status_counts(),
            "stuck": [
                dict(zip(("id", "workflow", "status", "reason", "due_ms"), row, strict=True))
                for row in [
                    *self._all("left_behind", now_ms - 5000),
                    *self._all("stuck", now_ms - 5000),
                ]
            ],
        }

"""The write transaction of an SQLite store: named queries on its one writing connection.

Rules: what was opened is read to its end, because an open statement would lock a table that a
transactional step drops; rows of history that a transaction adds are added to the checksum of a
replicated file in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw
import msgspec

from perdure.store.sqlite import checksum
from perdure.store.sqlite.authorizer import Authorizer
from perdure.store.sqlite.queries import RARE, Q
from perdure.store.transaction import Bindings

_encode = msgspec.json.Encoder().encode

INCREMENTAL = 2
"""The mode of auto_vacuum in which free pages are given back when we say so."""


class SqliteTransaction:
    """See `store.transaction.Transaction`; the driver begins and commits."""

    def __init__(self, db: apsw.Connection) -> None:
        self.db, self.cursor = db, db.cursor()
        self.replicated = False
        """Whether the file has a checksum of its history."""
        self._authorizer = Authorizer(db)
        self._added = checksum.Additions()

    # --- queries ----------------------------------------------------------------------------------

    def do(self, query: str, bindings: Bindings) -> None:
        self.cursor.execute(Q[query], bindings, can_cache=query not in RARE)

    def change(self, query: str, bindings: Bindings) -> int:
        self.cursor.execute(Q[query], bindings, can_cache=query not in RARE)
        return self.db.changes()

    def insert(self, query: str, bindings: Bindings) -> int | None:
        self.cursor.execute(Q[query], bindings)
        return self.db.last_insert_rowid() if self.db.changes() else None

    def row(self, query: str, bindings: Bindings) -> tuple[Any, ...] | None:
        found = self.cursor.execute(Q[query], bindings).fetchall()
        return found[0] if found else None

    def rows(self, query: str, bindings: Bindings) -> list[tuple[Any, ...]]:
        return self.cursor.execute(Q[query], bindings, can_cache=query not in RARE).fetchall()

    def many(self, query: str, each: Sequence[Bindings]) -> None:
        self.cursor.executemany(Q[query], each)

    # --- history ----------------------------------------------------------------------------------

    def insert_history(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self.cursor.executemany(Q["insert_event"], rows)
        if self.replicated:
            self._added.add(rows)

    def copy_history(
        self,
        run: int,
        source: int,
        before_seq: int,
        left_out: list[int],
        edits: Sequence[tuple[int, str | None]],
    ) -> None:
        self.do("copy_events", (run, source, before_seq, _encode(left_out).decode()))
        for seq, text in edits:
            self.do("edit_event", (text, run, seq))
        if self.replicated:
            self._added.add_run(self.db, run)

    def delete_history(self, up_to: int, rows_max: int) -> int:
        if not self.replicated:
            return self.change("sweep_event", (up_to, rows_max))
        return self._added.take_off(self.rows("sweep_event_rows", (up_to, rows_max)))

    # --- the file ---------------------------------------------------------------------------------

    def give_back_pages(self, pages: int) -> tuple[int, int, int]:
        if self.db.pragma("auto_vacuum") != INCREMENTAL:
            return 0, 0, 0
        if pages:
            self.cursor.execute(f"PRAGMA incremental_vacuum({pages})", can_cache=False).fetchall()
        pragma = self.db.pragma
        return pragma("freelist_count"), pragma("page_count"), pragma("page_size")

    def execute_step(self, work: Callable[[Any], Any]) -> tuple[Any, BaseException | None]:
        return self._authorizer.run(work)

    # --- its end ----------------------------------------------------------------------------------

    def update_checksum(self, changes_before: int) -> None:
        """Add this transaction to the checksum, if it has changed anything.

        A refusal, or an empty claim, has not.
        """
        if self.db.total_changes() != changes_before:
            self._added.write(self.db)

    def roll_back(self) -> None:
        """Undo the transaction, unless SQLite has."""
        self._added.forget()
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def in_child(self, dead: Any) -> None:
        """See `forked`."""
        self.db = self.cursor = dead
        self._authorizer.in_child(dead)

"""Authorizer of transactional steps: what a step's SQL may do in the store's own transaction.

Rules: its writes are kept or undone as one; it reads everything and writes tables of its own;
Perdure's tables, views and settings, the transaction and the connection are not its to change, and
what it has changed by another way is undone with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

from perdure.errors import NotAllowedInStep, TransactionEnded
from perdure.store.sqlite.queries import Q
from perdure.store.sqlite.reserved import is_reserved
from perdure.store.sqlite.step_connection import StepConnection

_SAVEPOINT = "perdure_step"
_ROWS = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_READS = frozenset(
    {apsw.SQLITE_READ, apsw.SQLITE_SELECT, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}
)
_TRANSACTION = frozenset({apsw.SQLITE_TRANSACTION, apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH})
PRAGMAS_OF_THE_SCHEMA = frozenset(
    {
        "collation_list",
        "compile_options",
        "database_list",
        "foreign_key_check",
        "foreign_key_list",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "module_list",
        "pragma_list",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
PRAGMAS_TO_READ = frozenset(  # full-text and R-tree tables read some of them
    {
        "application_id",
        "busy_timeout",
        "cache_size",
        "data_version",
        "encoding",
        "foreign_keys",
        "freelist_count",
        "journal_mode",
        "page_count",
        "page_size",
        "schema_version",
        "synchronous",
        "user_version",
    }
)


class RolledBack(Exception):
    """SQLite has rolled back the whole transaction during a step, which fails with `error`."""

    def __init__(self, error: TransactionEnded) -> None:
        self.error = error
        super().__init__(str(error))


class Authorizer:
    """Runs steps on one connection, inside its open transaction."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._versions: list[
            Any
        ] = []  # of the schema and of the temporary one, when we last looked
        self._schema: list[Any] = []
        self._refusal = ""
        self._step: StepConnection | None = None

    def in_child(self, dead: Any) -> None:
        """A step that has forked runs in the child, too; its connection is dead there."""
        self._db = dead
        if self._step is not None:
            self._step.in_child(dead)

    def run(self, work: Callable[[Any], Any]) -> tuple[Any, BaseException | None]:
        """Call a step's function.

        Returns its value, or its error with everything undone that it wrote. Raises `RolledBack`,
        and SQLite's errors for a damaged file.
        """
        value = None
        error: BaseException | None = None
        worker, schema = self._look()
        self._db.execute(f"SAVEPOINT {_SAVEPOINT}")
        self._step = step = StepConnection(self._db, self.refusal)
        self._db.authorizer = self._allow
        try:
            value = work(step)
        except BaseException as raised:  # sys.exit() in a step must not end the writer's thread
            error = raised
        finally:
            self._db.authorizer = None
            step.end()
            self._step = None
        if error is not None and (isinstance(error, KeyboardInterrupt) or _is_damage(error)):
            raise error
        if not self._db.in_transaction:
            raise RolledBack(step.ended(error)) from error
        if error is None and self._look() != (worker, schema):
            error = NotAllowedInStep("it changed Perdure's tables or their names")
        if error is not None:
            self._db.execute(f"ROLLBACK TO {_SAVEPOINT}")
            self._versions = []
        self._db.execute(f"RELEASE {_SAVEPOINT}")
        return (value, None) if error is None else (None, error)

    def refusal(self) -> NotAllowedInStep:
        """The error for the last operation that was refused."""
        return NotAllowedInStep(self._refusal or "it asked for something that is not a step's")

    def _look(self) -> tuple[Any, list[Any]]:
        """The last worker's number, and Perdure's part of the schema."""
        db = self._db
        versions = db.execute(
            "PRAGMA main.schema_version; PRAGMA temp.schema_version"
        ).fetchall()  # `pragma()` would compile it each time
        if versions != self._versions:
            rows = [*db.execute(Q["schema"]), *db.execute(Q["temp_schema"])]
            self._schema = [row for row in rows if is_reserved(row[1]) or is_reserved(row[2])]
            self._versions = versions
        return db.execute(Q["last_worker"]).fetchall(), self._schema

    def _allow(
        self,
        operation: int,
        first: str | None,
        second: str | None,
        database: str | None,
        trigger: str | None,
    ) -> int:
        if operation in _READS:
            return apsw.SQLITE_OK
        refusal = _why_not(operation, first, second)
        if refusal is None:
            return apsw.SQLITE_OK
        self._refusal = refusal + (f" (by trigger {trigger})" if trigger else "")
        return apsw.SQLITE_DENY


def _why_not(operation: int, first: str | None, second: str | None) -> str | None:
    """Why an operation is refused; None where it is allowed."""
    if operation in _TRANSACTION:
        return (
            "a step can't begin or end a transaction, or attach a database; `with db:` and "
            "SAVEPOINT work"
        )
    if operation == apsw.SQLITE_SAVEPOINT:
        return "this savepoint is Perdure's" if (second or "").lower() == _SAVEPOINT else None
    if operation == apsw.SQLITE_PRAGMA:
        name = (first or "").lower()
        allowed = name in PRAGMAS_OF_THE_SCHEMA or (second is None and name in PRAGMAS_TO_READ)
        return None if allowed else f"PRAGMA {first} is the store's"
    if operation in _ROWS:
        statistics = operation != apsw.SQLITE_DELETE and (first or "").startswith("sqlite_stat")
        return (
            f"table {first} is Perdure's; a step writes tables of its own"
            if statistics or is_reserved(first)
            else None
        )
    ours = next((name for name in (first, second) if is_reserved(name)), None)
    return f"{ours} is Perdure's, or a name that is kept for it" if ours is not None else None


def _is_damage(error: BaseException | None) -> bool:
    """Whether the file is damaged; an index of the step's own is only the step's failure."""
    return (
        isinstance(error, apsw.CorruptError | apsw.NotADBError)
        and getattr(error, "extendedresult", 0) != apsw.SQLITE_CORRUPT_VTAB
    )

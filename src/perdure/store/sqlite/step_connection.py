"""The connection of a transactional step: the store's own, while the step's function runs.

Rules: it offers the part of `apsw.Connection` that reads and writes rows; it works in the
function's own thread, while the transaction is open, and never after the function has returned;
what it opened is closed with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Self

import apsw

from perdure.errors import NotAllowedInStep, TransactionEnded
from perdure.store.sqlite.reserved import is_reserved

INTERRUPT_INSTRUCTIONS = 10_000
_OFFERED = (
    "execute, executemany, cursor, `with db:`, changes, total_changes, last_insert_rowid, "
    "blob_open, pragma, table_exists, "
    "column_metadata, in_transaction, filename and interrupt"
)
_PASSED_ON = frozenset(
    {
        "changes",
        "column_metadata",
        "filename",
        "in_transaction",
        "last_insert_rowid",
        "set_last_insert_rowid",
        "table_exists",
        "total_changes",
    }
)


class StepConnection:
    """See the module's text.

    Methods raise `NotAllowedInStep` for what is refused, `TransactionEnded` where SQLite has rolled
    the transaction back, and apsw's errors for the rest.
    """

    __slots__ = ("_alive", "_db", "_error", "_interrupted", "_opened", "_refusal", "_thread")

    def __init__(self, db: apsw.Connection, refusal: Callable[[], NotAllowedInStep]) -> None:
        put = object.__setattr__
        put(self, "_db", db)
        put(self, "_refusal", refusal)
        put(self, "_thread", threading.get_ident())
        put(self, "_alive", True)
        put(self, "_interrupted", False)
        put(self, "_error", None)
        put(self, "_opened", [])
        db.set_progress_handler(lambda: self._interrupted, INTERRUPT_INSTRUCTIONS)

    def execute(self, statements: str, bindings: Any = None, **options: Any) -> StepCursor:
        """As of `apsw.Connection`; the cursor can be iterated and has `fetchone` and `fetchall`."""
        return self.cursor().execute(statements, bindings, **options)

    def executemany(self, statements: str, sequence_of_bindings: Any, **options: Any) -> StepCursor:
        return self.cursor().executemany(statements, sequence_of_bindings, **options)

    def cursor(self) -> StepCursor:
        self.check()
        cursor = self._db.cursor()
        self._opened.append(cursor)
        return StepCursor(self, cursor)

    def pragma(self, name: str, value: Any = None, *, schema: str | None = None) -> Any:
        """A pragma's value; those that change something are refused."""
        self.check()
        try:
            return (
                self._db.pragma(name, schema=schema)
                if value is None
                else self._db.pragma(name, value, schema=schema)
            )
        except apsw.Error as error:
            self.explain(error)

    def blob_open(
        self, database: str, table: str, column: str, rowid: int, writeable: bool
    ) -> apsw.Blob:
        """As of `apsw.Connection`; the blob is closed when the step ends."""
        self.check()
        if writeable and is_reserved(table):
            raise NotAllowedInStep(f"table {table} is Perdure's; a step writes tables of its own")
        blob: apsw.Blob = self._db.blob_open(database, table, column, rowid, writeable)
        self._opened.append(blob)
        return blob

    def interrupt(self) -> None:
        """Stop the running statement, from any thread: it raises `apsw.InterruptError`."""
        object.__setattr__(self, "_interrupted", True)  # SQLite's own flag could outlive the step

    def __enter__(self) -> Self:
        self.check()
        self._db.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: PYI036
        if self._db.in_transaction:  # else its savepoints are gone as well
            self._db.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        if name not in _PASSED_ON:
            raise NotAllowedInStep(f"its connection has no {name!r}; it offers {_OFFERED}")
        self.check()
        return getattr(self._db, name)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise NotAllowedInStep(f"{name!r} of its connection can't be set")

    def __repr__(self) -> str:
        return "<connection of a transactional step>"

    # --- inside -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Before each statement: `check`, and forget an interrupt that came after the last one."""
        self.check()
        object.__setattr__(self, "_interrupted", False)

    def check(self) -> None:
        """Raise the reason why the connection can't be used now, if there is one."""
        if not self._alive:
            raise NotAllowedInStep("its connection was used after it had ended")
        if threading.get_ident() != self._thread:
            raise NotAllowedInStep("its connection works in the thread of the step only")
        if not self._db.in_transaction:
            raise self.ended(None)

    def explain(self, error: apsw.Error) -> NoReturn:
        """Raise an error of SQLite, or the refusal that caused it."""
        if isinstance(error, apsw.AuthError):
            raise self._refusal() from error
        object.__setattr__(self, "_error", error)
        raise error

    def ended(self, error: BaseException | None) -> TransactionEnded:
        """The error for a transaction that SQLite has rolled back."""
        cause = self._error or error
        return TransactionEnded("" if cause is None else f"{type(cause).__name__}: {cause}")

    def in_child(self, dead: Any) -> None:
        """This is the child of a step that has forked."""
        object.__setattr__(self, "_db", dead)
        self._opened.clear()

    def end(self) -> None:
        """The function has returned: close what it opened, and do nothing more for it."""
        object.__setattr__(self, "_alive", False)
        self._db.set_progress_handler(None)
        for opened in self._opened:
            opened.close(True)
        self._opened.clear()


class StepCursor:
    """The part of `apsw.Cursor` that reads and writes rows."""

    __slots__ = ("_cursor", "connection")

    def __init__(self, connection: StepConnection, cursor: apsw.Cursor) -> None:
        self.connection, self._cursor = connection, cursor

    def execute(self, statements: str, bindings: Any = None, **options: Any) -> Self:
        self.connection.begin()
        try:
            self._cursor.execute(statements, bindings, **options)
        except apsw.Error as error:
            self.connection.explain(error)
        return self

    def executemany(self, statements: str, sequence_of_bindings: Any, **options: Any) -> Self:
        self.connection.begin()
        try:
            self._cursor.executemany(statements, sequence_of_bindings, **options)
        except apsw.Error as error:
            self.connection.explain(error)
        return self

    def fetchone(self) -> Any:
        return next(self, None)

    def fetchall(self) -> list[Any]:
        self.connection.check()
        try:
            return self._cursor.fetchall()
        except apsw.Error as error:
            self.connection.explain(error)

    @property
    def get(self) -> Any:
        """As of `apsw.Cursor`: the one value, the one row, or all rows."""
        self.connection.check()
        try:
            return self._cursor.get
        except apsw.Error as error:
            self.connection.explain(error)

    @property
    def description(self) -> Any:
        return self._cursor.description

    def get_description(self) -> Any:
        return self._cursor.get_description()

    def close(self, force: bool = False) -> None:
        self._cursor.close(force)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.connection.check()
        try:
            return next(self._cursor)
        except apsw.Error as error:
            self.connection.explain(error)

"""Runs a transactional step's function on the store's own connection, fenced in.

Rules: its writes are kept or undone as one; it can't end the transaction that it runs in, and can't write to
Perdure's tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

_OURS = frozenset({"worker", "run", "event", "chunk", "inbox", "stream", "heartbeat", "tag", "replica"})
_WRITES = frozenset(
    {
        apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE, apsw.SQLITE_DROP_TABLE, apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_DROP_INDEX, apsw.SQLITE_DROP_VIEW,
    }
)  # fmt: skip
_FORBIDDEN = frozenset({apsw.SQLITE_TRANSACTION, apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH})


def guarded(db: apsw.Connection, work: Callable[[Any], Any]) -> tuple[Any, BaseException | None]:
    """The function's value, or its error with all that it wrote undone."""
    db.execute("SAVEPOINT perdure_step")
    db.authorizer = _allow
    try:
        value = work(db)
    except BaseException as error:  # sys.exit() in a step must not end the writer's thread
        db.authorizer = None
        db.execute("ROLLBACK TO perdure_step")
        db.execute("RELEASE perdure_step")
        return None, error
    db.authorizer = None
    db.execute("RELEASE perdure_step")
    return value, None


def _allow(operation: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if operation in _FORBIDDEN or (operation in _WRITES and (first in _OURS or (first or "").startswith("perdure_"))):
        return apsw.SQLITE_DENY
    if operation == apsw.SQLITE_SAVEPOINT and second == "perdure_step":
        return apsw.SQLITE_DENY
    return apsw.SQLITE_OK

"""Write type of an import, and the rows that it takes: runs of another store.

Rules: as in `writes`; `importing` says what it does. Keys are those of the other store. Payloads
are columns as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from perdure.core import lifecycle

if TYPE_CHECKING:
    from perdure.store.parcels import Head, Parcel

JSON = "json"
"""The type of a column with a payload, which may be in chunks."""
PLAIN = "plain"
"""The type of a column with JSON that never is."""
_WAITING = lifecycle.WAITING
"""A column of a run, which has the name of the status."""
PLAIN_TYPES: dict[str, Any] = {
    "tags": dict[str, Any] | None,
    _WAITING: list[dict[str, Any]] | None,
}
"""What is in those columns: lists of runs can't be read where there is anything else."""

TABLES: dict[str, dict[str, Any]] = {
    "run": {
        "run": int, "id": str, "workflow": str, "status": str, "args": JSON, "result": JSON,
        "error": JSON, _WAITING: PLAIN, "blocked_by": str, "reason": str, "due_ms": int,
        "crashes": int, "priority": int, "queue": str, "tags": PLAIN, "forked_from": str,
        "seed": int, "timeout_ms": int, "created_ms": int, "started_ms": int, "ended_ms": int,
        "durability": str, "unread": int, "generation": int, "python": str, "key": str,
        "weight": int, "scheduled_ms": int, "parent": int, "parent_seq": int, "successor": int,
        "origin": int, "chain": int, "root": int,
    },
    "event": {
        "run": int, "seq": int, "kind": str, "at_ms": int, "ref": int, "name": str, "data": JSON,
        "took_ms": int, "edited": int,
    },
    "request": {
        "request": int, "run": int, "key": str, "channel": str, "sender": str, "digest": str,
        "at_ms": int, "state": str, "replied_ms": int, "by_run": int, "seq": int,
    },
    "message": {
        "run": int, "kind": str, "name": str, "ref": int, "key": str, "data": JSON, "at_ms": int,
        "taken": int, "chain": int, "sender": str,
    },
    "stream": {
        "run": int, "name": str, "seq": int, "attempt": int, "data": JSON, "at_ms": int,
    },
    "heartbeat": {"run": int, "seq": int, "attempt": int, "data": JSON, "at_ms": int},
    "exposed": {"run": int, "name": str, "seq": int},
    "chunk": {"run": int, "n": int, "digest": bytes, "body": str},
    "secret": {"run": int, "n": int, "body": str},
}  # fmt: skip
"""The columns of the tables that an export has, in order."""


class RunSource(Protocol):
    """Runs of another store, which are only read. Not for two threads at once."""

    name: str
    """What it is called, for messages."""
    is_export: bool
    """Whether an export has made it, so that all of it was chosen by somebody."""

    def heads(self) -> list[Head]:
        """All runs, in the order of their keys."""

    def rows_of(self, table: str, run: int) -> Iterator[tuple[Any, ...]]:
        """The rows of a run in a table, in the order of their keys; columns as in `TABLES`."""

    def check_payloads(self, table: str, row: tuple[Any, ...]) -> None:
        """Raise `ImportRefused` where a payload of the row is not what was recorded."""


class ImportRuns(msgspec.Struct, gc=False):
    """Families of runs of another store, under the ids that they had there, under new keys.

    Gives `ImportedRuns`, or `RunExists` where one of the ids is taken by another run, or by one
    that has gone on otherwise; then nothing is written. A family that is here already is left as it
    is. With `go_on` runs that have not ended are due at once; without, they are paused. `without`
    are runs whose secrets were left out, `before` is how many runs of `name` are imported already.
    """

    name: str
    parcel: Parcel
    go_on: bool
    at_ms: int
    without: frozenset[int] = frozenset()
    before: int = 0


class ImportedRuns(msgspec.Struct):
    """What was imported: `ids` in the order of the first store; how many of them go on; which were
    here already.
    """

    ids: list[str]
    open: int
    already: list[str]

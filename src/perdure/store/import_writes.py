"""Write type of an import, and the rows that it takes: runs of another store.

Rules: as in `writes`; `importing` says what it does. Keys are those of the other store. Payloads
are columns as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from perdure.core import lifecycle

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
    """Runs of another store. Its rows may be read once for each table."""

    name: str
    """What it is called, for messages."""

    def rows(self, table: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a table, with the columns of `TABLES`, in the order of their keys."""

    def without_secrets(self) -> set[int]:
        """Runs whose secrets were left out."""

    def without_children(self) -> list[str]:
        """Ids of runs that wait for children which are not there."""


class ImportRuns(msgspec.Struct, gc=False):
    """Runs of another store, under the ids that they had there, under new keys.

    Gives `ImportedRuns`, `RunExists` where one of the ids is taken, or `ImportRefused`; then
    nothing is written. With `go_on` runs that have not ended are due at once; without, they are
    paused.
    """

    source: RunSource
    go_on: bool
    at_ms: int


class ImportedRuns(msgspec.Struct):
    """What was imported: `ids` in the order of their first store; how many of them go on."""

    ids: list[str]
    open: int

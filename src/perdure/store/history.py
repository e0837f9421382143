"""Rows of history in a transaction: gathered, and inserted together at its end.

Rules: a large payload is split into chunks, and a chunk that the run has is not stored again; what
was gathered is forgotten when the transaction is rolled back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.core.events import CHILD, SPAWN, STEP, Command, Event
from perdure.core.limits import INLINE_BYTES_MAX
from perdure.store import payloads
from perdure.store.transaction import Transaction

DIGESTS_OF_RUNS_MAX = 256
_WITH_ARGUMENTS = (STEP, CHILD, SPAWN)


class HistoryWriter:
    """Writes payloads and rows of history in the transaction `db`."""

    def __init__(self, db: Transaction) -> None:
        self._db = db
        self._rows: list[tuple[Any, ...]] = []
        self._digests: dict[int, dict[bytes, int]] = {}
        """Numbers of the chunks that a run has, ascending, as far as they are known."""
        self._complete: set[int] = set()
        """Runs of which all chunks are known: nothing was committed elsewhere since."""

    def append(self, run: int, rows: Sequence[Event | Command]) -> None:
        """Gather rows for the history of a run."""
        first, add = run << 24, self._rows.append
        for row in rows:
            data: Any = row.data
            if data is not None and (type(data) is not bytes or len(data) > INLINE_BYTES_MAX):
                raw = data if isinstance(data, bytes) else data.read()
                data = self.payload(run, raw, row.kind in _WITH_ARGUMENTS)
            add((
                first, row.seq, row.kind, row.at_ms, row.ref, row.name, data, row.took_ms,
                row.edited,
            ))  # fmt: skip

    def payload(self, run: int, raw: bytes | None, is_args: bool = False) -> str | None:
        """The text of a payload column; its new chunks are stored."""
        if raw is None:
            return None
        if len(raw) <= INLINE_BYTES_MAX:
            return raw.decode()
        text, new = payloads.split(raw, self._known(run), is_args)
        self._db.many("insert_chunk", [(run, n, digest, body) for n, digest, body in new])
        return text

    def _known(self, run: int) -> dict[bytes, int]:
        if run not in self._complete:
            if len(self._digests) > DIGESTS_OF_RUNS_MAX:
                self.forget_chunks()
            known = self._digests.setdefault(run, {})
            last = next(reversed(known.values()), 0)
            known.update(self._db.rows("chunk_digests", (run, last)))
            self._complete.add(run)
        return self._digests[run]

    def others_committed(self) -> None:
        """Another connection has committed: it may have owned a run, and added chunks to it."""
        self._complete.clear()

    def forget_run(self, run: int) -> None:
        """A run, or what it has in chunks, exists no more."""
        self._digests.pop(run, None)
        self._complete.discard(run)

    def forget_chunks(self) -> None:
        """Nothing is known of any run's chunks."""
        self._digests.clear()
        self._complete.clear()

    def flush(self) -> None:
        """Insert what was gathered."""
        if self._rows:
            self._db.insert_history(self._rows)
            self._rows.clear()

    def forget(self) -> None:
        """The transaction was rolled back: nothing that it wrote exists."""
        self._rows.clear()
        self.forget_chunks()

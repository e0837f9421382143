"""Rows of history in a transaction: gathered, and inserted together at its end.

Rules: a large payload is split into chunks, and a chunk that the run has is not stored again; what
was gathered is forgotten when the transaction is rolled back; here, and nowhere else, secrets are
taken out of what people read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perdure.codec.secrets import MARK_BYTES, Hides, Span, spans
from perdure.core.events import CHILD, EXPOSE, SPAWN, STEP, Command, Event
from perdure.core.limits import INLINE_BYTES_MAX
from perdure.store import payloads
from perdure.store.transaction import Transaction

DIGESTS_OF_RUNS_MAX = 256
_WITH_ARGUMENTS = (STEP, CHILD, SPAWN)


class HistoryWriter:
    """Writes payloads and rows of history in the transaction `db`. `hides` is the redaction."""

    def __init__(self, db: Transaction, hides: Hides | None = None) -> None:
        self._db, self._hides = db, hides
        self._plain_bytes_max = INLINE_BYTES_MAX if hides is None else -1
        """Up to this size a payload without a mark is stored as it is; a redaction looks at all."""
        self._rows: list[tuple[Any, ...]] = []
        self._digests: dict[int, dict[bytes, int]] = {}
        """Numbers of the chunks that a run has, ascending, as far as they are known."""
        self._complete: set[int] = set()
        """Runs of which all chunks are known: nothing was committed elsewhere since."""
        self._begun: set[int] = set()
        """Runs with known chunks whose chunks are only added to: those of one that was put off may
        be replaced elsewhere until it begins."""
        self._secrets: dict[int, dict[bytes, int]] = {}
        """Numbers of the chunks with secrets that were written since the run is known."""

    def append(self, run: int, rows: Sequence[Event | Command]) -> None:
        """Gather rows for the history of a run."""
        first, add, plain_bytes_max = run << 24, self._rows.append, self._plain_bytes_max
        for row in rows:
            data: Any = row.data
            if data is not None and (
                type(data) is not bytes or len(data) > plain_bytes_max or MARK_BYTES in data
            ):
                raw = data if isinstance(data, bytes) else data.read()
                if row.kind == EXPOSE and self._hides_name(row.name):
                    data = self._with_secrets(run, raw, [(0, len(raw))], False)
                else:
                    data = self.payload(run, raw, row.kind in _WITH_ARGUMENTS)
                if run in self._complete:
                    self._begun.add(run)
            add((
                first, row.seq, row.kind, row.at_ms, row.ref, row.name, data, row.took_ms,
                row.edited,
            ))  # fmt: skip

    def payload(self, run: int, raw: bytes | None, is_args: bool = False) -> str | None:
        """The text of a payload column; its new chunks are stored."""
        if raw is None:
            return None
        if hidden := self._hidden(raw):
            return self._with_secrets(run, raw, hidden, is_args)
        if len(raw) <= INLINE_BYTES_MAX:
            return raw.decode()
        text, new = payloads.split(raw, self._known(run), is_args)
        self._db.many("insert_chunk", [(run, n, digest, body) for n, digest, body in new])
        return text

    def fits_in_row(self, raw: bytes) -> bool:
        """Whether a payload is stored as it is, so that it needs no run yet."""
        return len(raw) <= INLINE_BYTES_MAX and not self._hidden(raw)

    def text(self, run: int, raw: bytes | None) -> str | None:
        """The text of a column that holds plain JSON of any size; in chunks it is for secrets."""
        if raw is None:
            return None
        hidden = self._hidden(raw)
        return self._with_secrets(run, raw, hidden, False) if hidden else raw.decode()

    def is_same(self, run: int, text: str, raw: bytes) -> bool:
        """Whether the column of a run holds this payload."""
        if not payloads.is_chunked(text):
            return text == raw.decode()
        if not payloads.has_secrets(text):
            return payloads.recorded_digest(text) == payloads.digest_of(raw)
        return payloads.join_true(text, self._bodies(run)) == raw

    def whole(self, run: int, text: str) -> bytes:
        """The payload of a column that is in chunks, with its secrets where the store has them."""
        bodies = self._bodies(run)
        true = payloads.join_true(text, bodies)
        return payloads.join(text, bodies) if true is None else true

    def _bodies(self, run: int) -> dict[int, str]:
        """All chunks of a run, and its secrets under the negative numbers."""
        found = dict(self._db.rows("chunk_bodies", (run,)))
        return found | {-n: body for n, body in self._db.rows("secrets_of_run", (run,))}

    def is_plain(self, raw: bytes) -> bool:
        """Whether a payload has no secrets."""
        return not self._hidden(raw)

    def _hides_name(self, name: str | None) -> bool:
        """Whether an exposed value with this name is hidden."""
        return self._hides is not None and name is not None and self._hides(name)

    def _hidden(self, raw: bytes) -> list[Span]:
        return [] if self._hides is None and MARK_BYTES not in raw else spans(raw, self._hides)

    def _with_secrets(self, run: int, raw: bytes, hidden: list[Span], is_args: bool) -> str:
        known = self._known(run)
        kept = self._secrets.setdefault(run, {})
        text, new, secrets = payloads.split_with_secrets(raw, hidden, known, kept, is_args)
        self._db.many("insert_chunk", [(run, n, digest, body) for n, digest, body in new])
        self._db.many("insert_secret", [(run, n, body) for n, body in secrets])
        return text

    def _known(self, run: int) -> dict[bytes, int]:
        if run not in self._complete:
            if len(self._digests) > DIGESTS_OF_RUNS_MAX:
                self.forget_chunks()
            if run not in self._begun:
                self.forget_run(run)
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
        self._secrets.pop(run, None)
        self._complete.discard(run)
        self._begun.discard(run)

    def forget_chunks(self) -> None:
        """Nothing is known of any run's chunks."""
        self._digests.clear()
        self._secrets.clear()
        self._complete.clear()
        self._begun.clear()

    def flush(self) -> None:
        """Insert what was gathered."""
        if self._rows:
            self._db.insert_history(self._rows)
            self._rows.clear()

    def forget(self) -> None:
        """The transaction was rolled back: nothing that it wrote exists."""
        self._rows.clear()
        self.forget_chunks()

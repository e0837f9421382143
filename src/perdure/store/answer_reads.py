"""Reads of links and answers: a part of `reads.Reads`.

Rules: as there; a file from before links were added has none.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from perdure.store.rows import AnswerRow, LinkRow


class AnswerReads:
    """See the module's text, and `base.Store` for the methods."""

    @abstractmethod
    def _all(self, query: str, *bindings: Any) -> list[Any]: ...

    @abstractmethod
    def all_whole(self, columns: Sequence[tuple[int, str | None]]) -> list[bytes | None]: ...

    def link(self, digest: str) -> LinkRow | None:
        found = self._all("link", digest)
        return LinkRow(*found[0]) if found else None

    def links_of(self, run: int, limit: int) -> list[LinkRow]:
        return [LinkRow(*row) for row in self._all("links_of", run, limit)]

    def answers(self, before: int, limit: int) -> list[AnswerRow]:
        found = self._all("answers", before, limit)
        whole = self.all_whole([(row[7], row[8]) for row in found])
        return [
            AnswerRow(inbox, id, workflow, kind, channel, sender, at_ms, seq, data or b"null")
            for (inbox, id, workflow, kind, channel, sender, at_ms, _, _, seq), data in zip(
                found, whole, strict=True
            )
        ]

    def declared_workflows(self, limit: int) -> list[tuple[str, str, str]]:
        return [
            (name, about, schema) for name, about, schema in self._all("declared_workflows", limit)
        ]

    def senders(self, run: int, first: int, last: int) -> dict[int, str]:
        return dict(self._all("senders", run, first, last))

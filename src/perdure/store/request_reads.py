"""Reads of requests and exposed values: a part of `reads.Reads`.

Rules: as there; what asks for many requests takes their keys only, and reads no payload.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from perdure.store.rows import ExposedRow, ReplyRow, RequestRow, UnansweredRow

UNANSWERED_LOOKED_AT_MAX = 100_000
"""Requests without a reply that are looked at: those to runs that have ended are among them."""


class RequestReads:
    """See the module's text, and `base.Store` for the methods."""

    @abstractmethod
    def _all(self, query: str, *bindings: Any) -> list[Any]: ...

    @abstractmethod
    def whole(self, run: int, text: str) -> bytes: ...

    @abstractmethod
    def true(self, run: int, text: str) -> bytes: ...

    @abstractmethod
    def all_whole(self, columns: Sequence[tuple[int, str | None]]) -> list[bytes | None]: ...

    def exposed(self, run: int) -> list[ExposedRow]:
        found = self._all("exposed", run)
        whole = self.all_whole([(run, data) for _, data, _, _ in found])
        return [
            ExposedRow(name, data or b"null", seq, at_ms)
            for (name, _, seq, at_ms), data in zip(found, whole, strict=True)
        ]

    def exposed_value(self, run: int, name: str) -> bytes | None:
        found = self._all("exposed_value", run, name)
        return self.whole(run, found[0][0]) if found else None

    def reply(self, request: int) -> ReplyRow | None:
        found = self._all("reply_of", request)
        if not found or found[0][2] is None:
            return None
        ((state, run, data),) = found
        return ReplyRow(state == "refused", self.true(run, data))

    def have_reply(self, requests: Sequence[int]) -> list[int]:
        found = {one: self._all("request_state", one) for one in requests}
        return [one for one, rows in found.items() if rows != [("open",)]]

    def open_requests(self, run: int, limit: int) -> list[RequestRow]:
        return [RequestRow(*row) for row in self._all("open_requests", run, limit)]

    def unanswered(self, before_ms: int, limit: int) -> list[UnansweredRow]:
        found = self._all("unanswered", before_ms, limit, UNANSWERED_LOOKED_AT_MAX)
        return [UnansweredRow(*row) for row in found]

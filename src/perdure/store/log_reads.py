"""Reads of the lines that steps log: a part of `reads.Reads`.

Rules: as there; a file from before lines were kept has none.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec


class LogRow(msgspec.Struct, gc=False):
    """A line that a step has logged, as JSON, with its position for reading on."""

    position: int
    seq: int
    attempt: int
    data: bytes
    at_ms: int


class LogReads:
    """A part of `reads.Reads`; see `base.Store` for the methods."""

    @abstractmethod
    def _all(self, query: str, *bindings: Any) -> list[Any]: ...

    @abstractmethod
    def all_whole(self, columns: Sequence[tuple[int, str | None]]) -> list[bytes | None]: ...

    def log_lines(
        self,
        run: int,
        after: int,
        limit: int,
        seq: int | None = None,
        attempt: int | None = None,
        *,
        newest: bool = False,
    ) -> list[LogRow]:
        query = "newest_log_lines" if newest else "log_lines"
        found = self._all(query, run, after, seq, attempt, limit)
        whole = self.all_whole([(run, data) for _, _, _, data, _ in found])
        rows = [
            LogRow(position, of, number or 0, data or b"{}", at_ms)
            for (position, of, number, _, at_ms), data in zip(found, whole, strict=True)
        ]
        return rows[::-1] if newest else rows

    def last_log_line(self, run: int) -> int:
        return int(self._all("last_log_line", run)[0][0])

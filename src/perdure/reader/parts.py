"""What the reads of `PageQueries` share: one store, and the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from perdure.runtime import info
from perdure.runtime.info import RunSummary
from perdure.runtime.queries import Queries
from perdure.store.page_reads import PageReads, Unread
from perdure.store.sqlite.reader import Reader


def is_answered(
    run: int,
    item: dict[str, Any],
    waits: Sequence[dict[str, Any]],
    unread: dict[tuple[int, str], Unread],
) -> bool:
    """Whether the message that an item of a run waits for was sent, and is not received yet: the
    same that refuses a second answer.
    """
    sent = unread.get((run, item.get("message", "")))
    here = [one for one in waits if _place(one) == _place(item)]
    return sent is not None and sent.number >= len(here)


def _place(item: dict[str, Any]) -> tuple[Any, Any]:
    return item.get("message"), item.get("seq")


class PageParts(Queries):
    """A store, its reads for pages, and the time in milliseconds UTC."""

    _store: Reader  # type: ignore[assignment]

    def __init__(self, store: Reader, now_ms: Callable[[], int]) -> None:
        super().__init__(store)  # type: ignore[arg-type]
        self._now_ms, self._pages = now_ms, PageReads(store)

    def keys(self, ids: Sequence[str]) -> dict[str, int]:
        """The keys of runs by id, of those that are there: a list may be older than the store."""
        found = {id: self._store.rows("run_of_id", id) for id in ids}
        return {id: rows[0][0] for id, rows in found.items() if rows}

    def summaries_of(self, keys: Sequence[int]) -> list[RunSummary]:
        """Runs without their payloads, in this order."""
        return [info.run_summary(row) for row in self._store.heads(keys)] if keys else []

"""Reads of retention: which runs may be deleted, and what has been.

Rules: a run goes with all that went before it under its id and all that these started as children,
once all of that has ended for long enough; of runs that go on under one id (`continue_as`), those
before the present one go as they get old, the oldest first; a failed run that was retried goes with
a later one. A page costs what it returns, however many runs there are.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from perdure.store.retention_writes import Prunable, PrunablePage, PruningState

EARLIER_MAX = 10_000
"""Runs under one id that go together; what is more goes with the next pass."""


class RetentionReads:
    """See `base.Store`."""

    @abstractmethod
    def _all(self, query: str, *bindings: Any) -> list[Any]: ...

    def prunable(
        self, status: str, before_ms: int, after: tuple[int, int], limit: int
    ) -> PrunablePage:
        rows = self._all("prunable", status, before_ms, *after, limit)
        page = PrunablePage([], [], (rows[-1][2], rows[-1][0]) if len(rows) == limit else None)
        newest = self._all("newest_run")[0][0] if rows else None
        seen: set[int] = set()
        for run, run_id, ended_ms, successor, generation, chain in rows:
            name, _, number = run_id.partition("~")
            if number and successor is None:
                continue  # it was retried, and goes with a run that went on after it
            before = int(number) - 1 if number else self._before(name, generation, chain)
            earlier = [*self._earlier(name, before, only_retried=bool(number))]
            earlier = [one for one in reversed(earlier) if one not in seen]
            below, open_id, last = self._below((*earlier, run), before_ms)
            if newest in (run, last):
                page.kept.append((run_id, "it has the newest run, whose number stays taken"))
            elif open_id is not None:
                page.kept.append((run_id, f"its child {open_id} has not ended for long enough"))
            else:
                page.found.append(Prunable(run, run_id, ended_ms, tuple(earlier), below))
                seen.update((*earlier, run))
        return page

    def _before(self, name: str, generation: int | None, chain: int | None) -> int:
        """How many runs went before the present one under its id."""
        if generation is not None or chain is None:
            return generation or 0
        return int(self._all("count_ids", f"{name}~", f"{name}\x7f")[0][0])

    def _earlier(self, name: str, number: int, *, only_retried: bool) -> Iterator[int]:
        """The runs up to this number under an id, the newest first; with `only_retried` up to one
        that went on by itself, and so goes by itself.
        """
        for n in range(number, max(0, number - EARLIER_MAX), -1):
            found = self._all("earlier_run", f"{name}~{n}")
            if not found or (only_retried and found[0][1] is not None):
                return
            yield found[0][0]

    def _below(self, runs: tuple[int, ...], before_ms: int) -> tuple[int, str | None, int]:
        """How many runs are below these, the id of one that keeps them, and the newest."""
        found = [self._all("family_below", run, before_ms)[0] for run in runs]
        open_id = next((row[1] for row in found if row[1] is not None), None)
        return sum(row[0] for row in found), open_id, max(row[2] or 0 for row in found)

    def pruning(self) -> PruningState:
        return PruningState(*self._all("pruning")[0])

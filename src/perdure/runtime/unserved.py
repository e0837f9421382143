"""Runs that are due and that no worker takes, because none knows their workflow: said in the log,
once for each name.

Rules: a look is one query, which reads a row for each name, however many runs there are; a name is
given the time to become known, by an engine that starts its first run, and by other workers, which
may be busy.
"""

from __future__ import annotations

from collections.abc import Collection

from perdure.runtime import log
from perdure.store.base import Store


class Unserved:
    """Looks for one worker that knows the workflows in `known`, which may grow."""

    def __init__(self, store: Store, known: Collection[str]) -> None:
        self._store, self._known = store, known
        self._seen: dict[
            str, int
        ] = {}  # of each name that is due and not known here: how many looks ago it was found first
        self._told: set[str] = set()

    def look(self, worker: int, now_ms: int, patience: int) -> bool:
        """Say which workflows no worker knows, if that was so at `patience` looks before this one,
        too. Returns whether a name is left for later looks.
        """
        due = {
            name: run_id
            for name, run_id in self._store.due_names(now_ms)
            if name not in self._known and name not in self._told
        }
        self._seen = {name: self._seen.get(name, -1) + 1 for name in due}
        for name in [name for name, looks in self._seen.items() if looks >= patience]:
            if self._store.is_executed(name):
                del self._seen[name]  # another worker does know it
            else:
                self._told.add(name)
                del self._seen[name]
                log.unknown_workflow(worker, name, due[name], self._known)
        return bool(self._seen)

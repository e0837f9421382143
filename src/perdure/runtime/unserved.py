"""Unserved workflows: logs, once a name, that runs are due and no worker knows their workflow.

Rules: a look is one query, which reads a row for each name, however many runs there are; a name is
logged only after several looks, because an engine may learn it with its first run, and another
worker may be busy.
"""

from __future__ import annotations

from collections.abc import Collection

from perdure.runtime import log
from perdure.store.base import Store


class Unserved:
    """Looks for one worker that knows the workflows in `known`, which may grow."""

    def __init__(self, store: Store, known: Collection[str]) -> None:
        self._store, self._known = store, known
        # of each name that is due and not known here: how many looks ago it was found first
        self._seen: dict[str, int] = {}
        self._logged: set[str] = set()

    def look(self, worker: int, now_ms: int, patience: int) -> bool:
        """Log the workflows that no worker knew at this look and the `patience` looks before it.

        Returns whether a name is left for later looks.
        """
        due = {
            name: run_id
            for name, run_id in self._store.due_names(now_ms)
            if name not in self._known and name not in self._logged
        }
        self._seen = {name: self._seen.get(name, -1) + 1 for name in due}
        for name in [name for name, looks in self._seen.items() if looks >= patience]:
            if self._store.is_executed(name):
                del self._seen[name]  # another worker does know it
            else:
                self._logged.add(name)
                del self._seen[name]
                log.unknown_workflow(worker, name, due[name], self._known)
        return bool(self._seen)

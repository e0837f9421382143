"""The floor: one-row durable commits through apsw, with the settings that Perdure uses."""

from __future__ import annotations

import apsw
from answering import System, serve


class Raw(System):
    """`crowd` is here a row for each step, committed one at a time."""

    async def open(self) -> None:
        self._db = apsw.Connection(str(self.folder / "raw.db"))
        for pragma in ("page_size=4096", "journal_mode=wal", "synchronous=full"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body TEXT) STRICT")

    async def close(self) -> None:
        self._db.close()

    async def crowd(self, runs: int, steps: int) -> None:
        execute = self._db.execute
        for _ in range(runs * steps):
            execute("BEGIN IMMEDIATE")
            execute("INSERT INTO t (body) VALUES (?)", ("x" * 100,))
            execute("COMMIT")


if __name__ == "__main__":
    serve(Raw)

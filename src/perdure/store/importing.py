"""Import of runs in a transaction: copied under new keys, whole or not at all.

Rules: all of it is checked before the first row is written; what names a run by its key names the
new one; a run that is not in the file is forgotten where others name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from perdure.core.lifecycle import BLOCKED, FINAL, PAUSED, PENDING, STATUSES, WAITING
from perdure.core.limits import HISTORY_ROWS_MAX
from perdure.errors import ImportRefused, RunExists
from perdure.store.import_writes import TABLES, ImportedRuns, ImportRuns
from perdure.store.tags import Tags
from perdure.store.transaction import Transaction

SLICE_ROWS = 1_000
"""Rows that are in memory at once."""
NO_SECRETS = (
    "it was imported without its secrets. Export it again with --with-secrets, and import that "
    "into another store"
)
RUN = tuple(TABLES["run"])
STATUS = RUN.index("status")
RELATED = 6
"""The last columns of a run name other runs."""


class Importing:
    """What an import does in the transaction `db`."""

    def __init__(self, db: Transaction, tags: Tags) -> None:
        self._db, self._tags = db, tags
        self._keys: dict[int, int] = {}

    def import_(self, asked: ImportRuns) -> ImportedRuns | RunExists | ImportRefused:
        """See `ImportRuns`."""
        source, self._keys = asked.source, {}
        runs = list(source.rows("run"))
        refusal = self._refusal(asked, runs)
        if refusal is not None:
            return refusal
        open_ = 0
        without = source.without_secrets()
        for row in runs:
            fields = dict(zip(RUN, row, strict=True))
            open_ += self._adapt(fields, asked)
            if row[0] in without and fields["status"] == PAUSED:
                fields["status"], fields["blocked_by"] = BLOCKED, "secrets"
                fields["reason"] = NO_SECRETS
            self._insert(fields)
        for row in runs:
            self._relate(row)
        self._copy_requests(asked)
        self._copy_rest(asked)
        return ImportedRuns([row[1] for row in runs], open_)

    def _refusal(
        self, asked: ImportRuns, runs: list[tuple[Any, ...]]
    ) -> RunExists | ImportRefused | None:
        source = asked.source
        taken = [row[1] for row in runs if self._db.row("existing_run", (row[1],)) is not None]
        if taken:
            more = f" (so do {len(taken) - 1:,} others of it)" if len(taken) > 1 else ""
            advice = f"Nothing was imported from {source.name!r}. Import it into another store."
            return RunExists(taken[0], f"the file has a run of this id, too{more}", advice=advice)
        if not runs:
            return ImportRefused(source.name, "it has no run")
        if odd := {row[STATUS] for row in runs}.difference(STATUSES):
            return ImportRefused(source.name, f"a run has the status {min(odd)!r}")
        if asked.go_on:
            open_ = {row[0]: row[1] for row in runs if row[STATUS] not in FINAL}
            without = [open_[run] for run in sorted(source.without_secrets() & open_.keys())]
            if without:
                detail = (
                    f"run {without[0]!r} can't go on without its secrets, which an export leaves "
                    "out: export it with --with-secrets, or import it without --go-on"
                )
                return ImportRefused(source.name, detail)
            if lone := source.without_children():
                detail = (
                    f"run {lone[0]!r} waits for children that are not there: export it without "
                    "--alone, or import it without --go-on"
                )
                return ImportRefused(source.name, detail)
        return None

    def _adapt(self, run: dict[str, Any], asked: ImportRuns) -> bool:
        """Change what is not as it was: a run has no owner, and no place in a queue. Returns
        whether it is open.
        """
        due_ms, run["due_ms"] = run["due_ms"], None
        if run["status"] in FINAL:
            return False
        begun = run["started_ms"] is not None
        if begun or self._db.row("queue_by_name", (run["queue"],)) is None:
            run["queue"] = None  # its place was in the other store
        if run["status"] != BLOCKED:
            run[WAITING], run["crashes"] = None, 0  # the column of this name
            run["status"] = PENDING if asked.go_on else PAUSED
            if asked.go_on:
                later = not begun and due_ms is not None and due_ms > asked.at_ms
                run["due_ms"] = due_ms if later else asked.at_ms
        return True

    def _insert(self, run: dict[str, Any]) -> None:
        fields = list(run.values())[1:-RELATED]
        key = self._keys[run["run"]] = self._db.insert("insert_imported_run", fields) or 0
        if run["tags"]:
            self._tags.put(key, msgspec.json.decode(run["tags"]))

    def _relate(self, row: tuple[Any, ...]) -> None:
        parent, seq, *others = row[-RELATED:]
        above = self._keys.get(parent)
        each = [self._keys.get(one) for one in others]
        self._db.do(
            "relate_imported_run",
            (above, None if above is None else seq, *each, self._keys[row[0]]),
        )

    def _copy_requests(self, asked: ImportRuns) -> None:
        """Requests, and the messages, of which some refer to one."""
        requests: dict[int, int] = {}
        for request, run, *fields, by_run, seq in asked.source.rows("request"):
            first = self._keys.get(run, self._keys.get(by_run or 0))
            if first is not None:
                row = (first, *fields, self._keys.get(by_run), seq)
                ((requests[request],),) = self._db.rows("insert_imported_request", row)
        for rows in _slices(asked.source.rows("message")):
            each = [
                (
                    self._keys[run], kind, name, requests.get(ref) if kind == "request" else ref,
                    key, data, at_ms, taken, self._keys.get(chain), sender,
                )
                for run, kind, name, ref, key, data, at_ms, taken, chain, sender in rows
            ]  # fmt: skip
            self._db.many("insert_imported_message", each)

    def _copy_rest(self, asked: ImportRuns) -> None:
        keys = self._keys
        for rows in _slices(asked.source.rows("event")):
            if odd := [row[1] for row in rows if not 0 < row[1] < HISTORY_ROWS_MAX]:
                raise ValueError(f"a row of history has the number {odd[0]}")
            self._db.insert_history([(keys[run] << 24, *rest) for run, *rest in rows])
        for table, query in _COPIED.items():
            for rows in _slices(asked.source.rows(table)):
                self._db.many(query, [(keys[run], *rest) for run, *rest in rows])


_COPIED = {
    "chunk": "insert_chunk",
    "secret": "insert_secret",
    "stream": "insert_stream",
    "heartbeat": "insert_heartbeat",
    "exposed": "insert_exposed",
}


def _slices(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    each = iter(rows)
    while found := list(islice(each, SLICE_ROWS)):
        yield found

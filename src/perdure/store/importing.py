"""Import of runs in a transaction: copied under new keys, whole or not at all.

Rules: a family is imported whole or not at all; rows are at hand, so that nothing is waited for
while the store is held; what names a run by its key names the new one; a run that is not in the
file is forgotten where others name it; a run that is here already is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.core.lifecycle import BLOCKED, FINAL, PAUSED, PENDING, WAITING
from perdure.errors import RunExists
from perdure.store.import_writes import TABLES, ImportedRuns, ImportRuns
from perdure.store.tags import Tags
from perdure.store.transaction import Transaction

if TYPE_CHECKING:
    from perdure.store.parcels import Head, Parcel

NO_SECRETS = (
    "it was imported without its secrets. Export it again with --with-secrets, and import that "
    "into another store"
)
ANOTHER = "the file has another run of this id"
RUN = tuple(TABLES["run"])
RELATED = 6
"""The last columns of a run name other runs."""


class Importing:
    """What an import does in the transaction `db`."""

    def __init__(self, db: Transaction, tags: Tags) -> None:
        self._db, self._tags = db, tags
        self._keys: dict[int, int] = {}

    def import_(self, asked: ImportRuns) -> ImportedRuns | RunExists:
        """See `ImportRuns`."""
        self._keys = {}
        already = self._already(asked)
        if isinstance(already, RunExists):
            return already
        rows = self._rows(asked.parcel, "run")
        runs = sorted([row for row in rows if row[0] not in already], key=itemgetter(0))
        open_ = 0
        for row in runs:
            fields = dict(zip(RUN, row, strict=True))
            open_ += self._adapt(fields, asked)
            if row[0] in asked.without and fields["status"] == PAUSED:
                fields["status"], fields["blocked_by"] = BLOCKED, "secrets"
                fields["reason"] = NO_SECRETS
            self._insert(fields)
        for row in runs:
            self._relate(row)
        self._copy_requests(asked.parcel)
        self._copy_rest(asked.parcel)
        return ImportedRuns(
            [row[1] for row in runs], open_, [id for _, id in sorted(already.items())]
        )

    def _rows(self, parcel: Parcel, table: str) -> Iterator[tuple[Any, ...]]:
        return (row for rows in parcel.slices(table) for row in rows)

    def _new(self, parcel: Parcel, table: str) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of runs that were not here, in slices."""
        keys = self._keys
        if len(keys) == len(parcel.runs):
            return parcel.slices(table)
        return ([row for row in rows if row[0] in keys] for rows in parcel.slices(table))

    def _already(self, asked: ImportRuns) -> dict[int, str] | RunExists:
        """The runs of families that are here already, all of them as they are in the file."""
        found: dict[int, str] = {}
        for family in asked.parcel.families:
            here = [self._db.row("run_to_compare", (head.id,)) for head in family]
            if not any(here):
                continue
            for head, row in zip(family, here, strict=True):
                if (detail := self._difference(head, row, asked.parcel)) is not None:
                    there = next(one.id for one, row in zip(family, here, strict=True) if row)
                    return taken(
                        asked.name, there if row is None else head.id, detail, asked.before
                    )
            found.update((head.run, head.id) for head in family)
        return found

    def _difference(self, head: Head, here: tuple[Any, ...] | None, parcel: Parcel) -> str | None:
        """How a run of the file differs from the one of this id; None where it is the same one,
        which may have gone on here.
        """
        if here is None:
            return f"the file has it together with {head.id!r}, which is not here"
        run, *known = here
        if known != [head.workflow, head.seed, head.created_ms]:
            return ANOTHER
        if (end := parcel.ends.get(head.run)) is None:
            return None
        seq, *last = end
        if (row := self._db.row("row_to_compare", (run << 24 | seq,))) is None:
            return f"in the file it has gone on to row {seq:,} of its history, and here it has not"
        return None if list(row) == last else f"it has gone on otherwise in the file (row {seq:,})"

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
            if not begun and due_ms is not None and due_ms > asked.at_ms:
                run["due_ms"] = due_ms  # its start is ahead, also for a later resume
            elif asked.go_on:
                run["due_ms"] = asked.at_ms
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

    def _copy_requests(self, parcel: Parcel) -> None:
        """Requests, and the messages, of which some refer to one."""
        requests: dict[int, int] = {}
        for request, run, *fields, by_run, seq in self._rows(parcel, "request"):
            first = self._keys.get(run, self._keys.get(by_run or 0))
            if first is not None:
                row = (first, *fields, self._keys.get(by_run), seq)
                ((requests[request],),) = self._db.rows("insert_imported_request", row)
        for rows in self._new(parcel, "message"):
            each = [
                (
                    self._keys[run], kind, name, requests.get(ref) if kind == "request" else ref,
                    key, data, at_ms, taken, self._keys.get(chain), sender,
                )
                for run, kind, name, ref, key, data, at_ms, taken, chain, sender in rows
            ]  # fmt: skip
            self._db.many("insert_imported_message", each)

    def _copy_rest(self, parcel: Parcel) -> None:
        keys = self._keys
        for rows in self._new(parcel, "event"):
            self._db.insert_history([(keys[run] << 24, *rest) for run, *rest in rows])
        for table, query in _COPIED.items():
            for rows in self._new(parcel, table):
                self._db.many(query, [(keys[run], *rest) for run, *rest in rows])


_COPIED = {
    "chunk": "insert_chunk",
    "secret": "insert_secret",
    "stream": "insert_stream",
    "heartbeat": "insert_heartbeat",
    "exposed": "insert_exposed",
}


def taken(name: str, run_id: str, detail: str, before: int = 0) -> RunExists:
    """The refusal of a run of the file `name`, of which so many runs were imported before it."""
    done = f"{before:,} runs that come before it in {name!r} were imported"
    advice = f"{done if before else f'Nothing was imported from {name!r}'}. "
    return RunExists(run_id, detail, advice=f"{advice}Import it into another store.")

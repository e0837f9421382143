"""Plan of an import: the runs of a file in families, checked before a store is touched.

Rules: a family is all runs that name each other, and is imported whole or not at
all; what would harm a store, or never end there, is refused with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from perdure.core.events import (
    ABANDON,
    ATTEMPT,
    CHILD,
    COMMANDS,
    COMPLETED,
    FAILED,
    INPUTS,
)
from perdure.core.lifecycle import FINAL, STATUSES
from perdure.core.limits import HISTORY_ROWS_MAX, NAME_CHARS_MAX, NEVER_MS
from perdure.errors import ImportRefused
from perdure.store.import_writes import JSON, PLAIN, TABLES, RunSource
from perdure.store.parcels import Head, Parcel

PARCEL_ROWS = 5_000
"""So many rows are written in one transaction, some 50 ms, unless one family has more."""
EVENTS = INPUTS | COMMANDS | {ATTEMPT}
MAIL = frozenset({"message", "request", "cancel", "completed", "failed", "resolve"})
_KINDS = {"event": EVENTS, "message": MAIL}
_NAMES = frozenset({"id", "workflow", "queue", "key", "channel", "name", "sender"})
_INT_MAX = 2**63


# --- runs -----------------------------------------------------------------------------------------


def families_of(heads: Sequence[Head]) -> list[list[Head]]:
    """The runs in families, each in the order of their keys."""
    above = {head.run: head.run for head in heads}

    def top(run: int) -> int:
        while above[run] != run:
            above[run] = run = above[above[run]]
        return run

    for head in heads:
        for other in (head.parent, head.successor, head.origin, head.chain, head.root):
            if other is not None and other in above:
                above[top(other)] = top(head.run)
    found: dict[int, list[Head]] = {}
    for head in heads:
        found.setdefault(top(head.run), []).append(head)
    return list(found.values())


def chosen(
    families: list[list[Head]], wanted: Iterable[str] | None
) -> tuple[list[list[Head]], str | None]:
    """The families that have runs with these ids, and an id that no run has."""
    if wanted is None:
        return families, None
    left = set(wanted)
    found = []
    for family in families:
        ids = {head.id for head in family}
        if ids & left:
            found.append(family)
            left -= ids
    return found, min(left, default=None)


def fault_of_runs(heads: Sequence[Head]) -> str | None:
    """What is wrong with the runs of a file; None where nothing is."""
    if not heads:
        return "it has no run"
    for what in ("run", "id"):
        there = set()
        for head in heads:
            if (value := getattr(head, what)) in there:
                return f"it has two runs with the {'number' if what == 'run' else 'id'} {value!r}"
            there.add(value)
    for head in heads:
        if head.status not in STATUSES:
            return f"a run has the status {head.status!r}"
        if not head.id.isprintable() or not head.id or head.id in (".", ".."):
            return f"a run has the id {head.id!r}, which is none"
        if (head.ended_ms is None) is (head.status in FINAL):
            return f"run {head.id!r} is {head.status!r}, and its end is said otherwise"
    if lost := _in_a_circle(heads, lambda head: head.parent):
        return f"run {lost!r} is below itself"
    if lost := _in_a_circle(heads, lambda head: head.successor):
        return f"run {lost!r} comes after itself"
    return None


def _in_a_circle(heads: Sequence[Head], next_of: Callable[[Head], int | None]) -> str | None:
    """The id of a run that leads to itself: reads of it would not end."""
    by_key = {head.run: head for head in heads}
    ends: set[int] = set()
    for head in heads:
        way: dict[int, None] = {}
        at: Head | None = head
        while at is not None and at.run not in ends:
            if at.run in way:
                return at.id
            way[at.run] = None
            at = by_key.get(next_of(at) or 0)
        ends.update(way)
    return None


# --- what they consist of -------------------------------------------------------------------------


class Survey:
    """A look at all rows of runs, before they are imported. Raises `ImportRefused`."""

    def __init__(self, source: RunSource, heads: Sequence[Head]) -> None:
        self._source = source
        self._open = {head.run: head.id for head in heads if head.status not in FINAL}
        self.without_secrets: set[int] = set()
        """Runs whose secrets were left out."""
        self._has_secrets: set[int] = set()
        self._children = {(run.parent, run.parent_seq) for run in heads}
        self._waits = dict[int, set[int]]()
        """Rows of children that are not there, by the run that waits for them."""
        for head in heads:
            for table in TABLES:
                for number, row in enumerate(source.rows_of(table, head.run)):
                    self._look_at(table, number, row)
        self.without_secrets -= self._has_secrets

    def _look_at(self, table: str, number: int, row: tuple[Any, ...]) -> None:
        if (fault := fault_of_row(table, row)) is not None:
            raise ImportRefused(self._source.name, f"row {number} of {table!r}: {fault}")
        self._source.check_payloads(table, row)
        if table != "request" and any(map(_has_mask, row)):
            self.without_secrets.add(row[0])
        if table == "secret":
            self._has_secrets.add(row[0])
        elif table == "event" and row[0] in self._open:
            run, seq, kind, _, ref, *_ = row
            waits = self._waits.setdefault(run, set())
            if kind == CHILD and (run, seq) not in self._children:
                waits.add(seq)
            elif kind in (COMPLETED, FAILED, ABANDON):
                waits.discard(ref)

    def fault_of_going_on(self) -> str | None:
        """Why runs that have not ended can't go on; None where they can."""
        if without := sorted(self.without_secrets & self._open.keys()):
            return (
                f"run {self._open[without[0]]!r} can't go on without its secrets, which an export "
                "leaves out: export it with --with-secrets, or import it without --go-on"
            )
        if lone := sorted(run for run, rows in self._waits.items() if rows):
            return (
                f"run {self._open[lone[0]]!r} waits for children that are not there: export it "
                "without --alone, or import it without --go-on"
            )
        return None


def _has_mask(value: Any) -> bool:
    """Whether it is a payload with secrets; see `payloads`."""
    return type(value) is str and value.startswith("@") and value.endswith(',""]')


# --- rows -----------------------------------------------------------------------------------------


def fault_of_row(table: str, row: Sequence[Any]) -> str | None:
    """What is wrong with a row, whose payloads are checked elsewhere; None where nothing is."""
    for (name, kind), value in zip(TABLES[table].items(), row, strict=True):
        if value is not None and (fault := _fault_of(name, kind, value)) is not None:
            return f"its {name!r} {fault}"
    if table in _KINDS and (kind := row[list(TABLES[table]).index("kind")]) not in _KINDS[table]:
        return f"its kind is {kind!r}"
    if table == "event" and not 0 < row[1] < HISTORY_ROWS_MAX:
        return f"its number in the history is {row[1]}"
    return None


def _fault_of(name: str, kind: Any, value: Any) -> str | None:
    wanted: Any = str if kind in (JSON, PLAIN) else kind
    if type(value) is not wanted:
        return f"is not of the type {wanted.__name__}"
    if wanted is int and not -_INT_MAX <= value < _INT_MAX:
        return "has more than 64 bits"
    if name.endswith("_ms") and abs(value) > NEVER_MS:
        return "is no time"
    if name in _NAMES and len(value) > NAME_CHARS_MAX:
        return f"has {len(value):,} characters"
    return None


def parcels(source: RunSource, families: list[list[Head]]) -> Iterator[Parcel]:
    """The families with all their rows, several small ones together."""
    parcel = Parcel()
    for family in families:
        parcel.families.append(family)
        for head in family:
            for table in TABLES:
                parcel.put(table, source.rows_of(table, head.run))
        if parcel.rows_put >= PARCEL_ROWS:
            yield parcel
            parcel = Parcel()
    if parcel.families:
        yield parcel

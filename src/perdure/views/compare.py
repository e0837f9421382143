"""Two runs side by side: until where they are the same, and what differs from there on.

Rules: rows are compared in their order by kind, name, what they answer, and payload; times never
differ, and notes about attempts are left out, because a retry changes no outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from perdure.core import events as ev
from perdure.runtime.info import HistoryEvent, RunSummary

BEFORE = 3
"""Rows that are shown before the first difference."""

_TIMES = frozenset({ev.START, ev.TIMER, ev.FINISH})
"""What these rows hold is a time, or stored elsewhere."""

_COMPARED = ("kind", "name", "args", "result", "error", "data")


class Totals(msgspec.Struct, frozen=True):
    """What a run cost: rows, steps that ended, failed attempts, time in steps, and in all."""

    rows: int
    steps: int
    failed_attempts: int
    in_steps_ms: int
    took_ms: int | None


class RowPair(msgspec.Struct, frozen=True):
    """The rows at one place in both runs. `differs` names what is different: kind, name, ref, args,
    result, error or data.
    """

    place: int
    state: Literal["same", "differs", "only a", "only b"]
    a: HistoryEvent | None
    b: HistoryEvent | None
    differs: list[str] = []


class Comparison(msgspec.Struct, frozen=True):
    """Two runs. `same_until` is the last row of `a` up to which both are the same, 0 for none, and
    `same` says that all of them are; `pairs` are from a few rows before the first difference on;
    `more` where the list was cut.
    """

    a: RunSummary
    b: RunSummary
    same: bool
    same_until: int
    same_args: bool
    pairs: list[RowPair]
    more: bool
    totals_a: Totals
    totals_b: Totals


class Mark(NamedTuple):
    """A row as it is compared: what it answers is a place in the same list, -1 for nothing."""

    seq: int
    kind: str
    name: str | None
    answers: int
    holds: str | None


def marks(rows: Iterable[tuple[int, str, int | None, str | None, str | None]]) -> list[Mark]:
    """Rows (number, kind, ref, name, what it holds) as they are compared."""
    found: list[Mark] = []
    places: dict[int | None, int] = {}
    for seq, kind, ref, name, holds in rows:
        if kind != ev.ATTEMPT:
            places[seq] = len(found)
            held = None if kind in _TIMES else holds
            found.append(Mark(seq, kind, name, places.get(ref, -1), held))
    return found


def first_difference(a: Sequence[Mark], b: Sequence[Mark]) -> int:
    """The first place at which two lists differ; the length of both where they don't."""
    for place, (one, other) in enumerate(zip(a, b, strict=False)):
        if one[1:] != other[1:]:
            return place
    return min(len(a), len(b))


def pair(
    place: int, marks: tuple[Mark | None, Mark | None], a: HistoryEvent | None,
    b: HistoryEvent | None,
) -> RowPair:  # fmt: skip
    """The rows at a place, with what differs."""
    one, other = marks
    if one is None or other is None:
        return RowPair(place, "only b" if one is None else "only a", a, b)
    if one[1:] == other[1:]:
        return RowPair(place, "same", a, b)
    named = [key for key in _COMPARED if getattr(a, key, None) != getattr(b, key, None)]
    named += ["ref"] if one.answers != other.answers else []
    return RowPair(place, "differs", a, b, named)


def totals(run: RunSummary, outline: Sequence[HistoryEvent]) -> Totals:
    """What a run cost."""
    steps = {row.seq for row in outline if row.kind == ev.STEP}
    ended = [row for row in outline if row.kind in (ev.COMPLETED, ev.FAILED) and row.ref in steps]
    tries = [row for row in outline if row.kind == ev.ATTEMPT and row.error is not None]
    begun = run.started_at or run.created_at
    took = None if run.ended_at is None else run.ended_at - begun
    return Totals(
        run.history_rows,
        len(ended),
        len(tries),
        sum(row.took_ms or 0 for row in [*ended, *tries]),
        None if took is None else round(took.total_seconds() * 1_000),
    )

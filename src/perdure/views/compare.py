"""Two runs side by side: until where they are the same, and what differs from there on.

Rules: rows are compared by kind, name, what they answer, and payload; times never differ.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from perdure.runtime.info import HistoryEvent, RunSummary


class Totals(msgspec.Struct, frozen=True):
    """What a run cost: steps that ended, failed attempts, and time in steps and in all."""

    rows: int
    steps: int
    failed_attempts: int
    in_steps_ms: int
    took_ms: int | None


class RowPair(msgspec.Struct, frozen=True):
    """The rows with one number in both runs. `differs` names what is different: kind, name, ref,
    args, result, error or data.
    """

    seq: int
    state: Literal["same", "differs", "only a", "only b"]
    a: HistoryEvent | None
    b: HistoryEvent | None
    differs: list[str] = []


class Comparison(msgspec.Struct, frozen=True):
    """Two runs. `same_until` is the last row up to which both are the same, 0 for none; `pairs` are
    rows from a few before the first difference on; `more` where the list was cut.
    """

    a: RunSummary
    b: RunSummary
    same_until: int
    same_args: bool
    pairs: list[RowPair]
    more: bool
    totals_a: Totals
    totals_b: Totals

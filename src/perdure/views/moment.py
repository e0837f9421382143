"""Time travel: what a workflow knew when a row of its history was recorded.

Rules: made from the rows up to that one, never from the run as it is now; payloads only of the row
itself.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from perdure.runtime.info import HistoryEvent, RunSummary


class Pending(msgspec.Struct, frozen=True):
    """A step, child or timer that had been asked for and had no answer yet."""

    seq: int
    kind: str
    name: str | None
    since: datetime
    attempts: int
    """Failed ones so far."""


class Known(msgspec.Struct, frozen=True):
    """An answer that the workflow had got: of row `ref`, in row `seq`."""

    seq: int
    ref: int
    kind: str
    name: str | None
    at: datetime


class Moment(msgspec.Struct, frozen=True):
    """A run as it was behind row `seq`, of `rows` in all.

    `row` is that row with its payload, `about` the row that it answers, `next` the row that came
    then. `known` are the newest answers, of `answers` in all; `messages` those that had arrived and
    been recorded, the newest first. `stops` are rows at which something new was known: what a
    slider stops at; `stops_more` where the list was cut.
    """

    run: RunSummary
    seq: int
    rows: int
    at: datetime
    after_ms: int
    row: HistoryEvent | None
    about: HistoryEvent | None
    next: HistoryEvent | None
    args: dict[str, Any] | None
    pending: list[Pending]
    known: list[Known]
    answers: int
    messages: list[Known]
    exposed: dict[str, Any]
    tags: dict[str, Any]
    emitted: dict[str, int]
    """Items by stream."""
    stops: list[int]
    stops_more: bool

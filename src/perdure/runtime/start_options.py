"""Starts that are put off: each further one within the pause puts the run off again.

Rules: a run is put off until it begins, and no longer than until `debounce_max` after its first
start; what is put off needs an id, because that says which starts are the same.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from perdure.api.options import to_ms
from perdure.core.limits import NEVER_MS
from perdure.errors import DefinitionError
from perdure.store.writes import StartRun


def put_off(
    start: StartRun,
    debounce: float | timedelta | None,
    debounce_max: float | timedelta | None,
    *,
    has_id: bool,
    at: datetime | None,
) -> None:
    """Put a start off. Raises `DefinitionError` for options that contradict each other."""
    pause_ms, most_ms = to_ms(debounce, "debounce"), to_ms(debounce_max, "debounce_max")
    if pause_ms is None:
        raise DefinitionError("debounce_max bounds debounce: give that, too.")
    if not has_id:
        raise DefinitionError(
            "debounce needs an id, which says what starts belong together: "
            "start(call, id='index-7', debounce=5)."
        )
    if at is not None:
        raise DefinitionError("A start has either at, a fixed time, or debounce, a pause.")
    if most_ms is not None and most_ms < pause_ms:
        raise DefinitionError(
            f"debounce_max={debounce_max!r} is less than debounce={debounce!r}: it is counted from "
            f"the first start."
        )
    start.debounce_ms = pause_ms
    start.due_ms = start.at_ms + pause_ms
    start.debounce_until_ms = NEVER_MS if most_ms is None else start.at_ms + most_ms

"""One step with its attempts, as its panel shows it."""

from __future__ import annotations

from datetime import UTC, datetime

from perdure.runtime.info import HistoryEvent
from perdure.views.step import step_view

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)


def test_attempts_go_on_from_the_number_that_a_row_says() -> None:
    """The first attempt died with its process, which is a row of the whole run."""
    found = step_view(
        [
            HistoryEvent(4, "step", "model", None, AT),
            HistoryEvent(
                6, "attempt", None, 4, AT, attempt=2, error={"type": "Boom", "message": "503"}
            ),
            HistoryEvent(7, "completed", None, 4, AT, result="ok", took_ms=5),
        ]
    )
    assert found is not None
    assert [(one.number, one.outcome) for one in found.attempts] == [
        (2, "failed"),
        (3, "completed"),
    ]

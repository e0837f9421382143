"""What a run waits for, as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure.runtime.info import RunSummary
from perdure.runtime.standing import Standing
from perdure.views.format import clock
from perdure.views.waiting import NO_PLACES, Places, needs, waiting_text

RUN = {"queue": "nightly"}
STEP = {"step": "think", "seq": 7, "queue": "openai"}
MESSAGE = {"message": "approval", "type": "bool"}
REQUEST = {"request": "quote", "type": "int"}
FIRST = "step think: 1st in queue openai; key acme is at its limit of 2"
PLACES = Places(
    [
        Standing("nightly", None, None, None, 4, 9, "line"),
        Standing("openai", 7, "think", "acme", 1, 3, "key_limit", 2),
    ],
    datetime(2026, 11, 29, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("waiting", "text"),
    [
        ([RUN], "waits in queue nightly"),
        ([STEP], "step think: waits in queue openai"),
        ([MESSAGE], "waits for a message on approval (bool)"),
        ([REQUEST], "waits for a request on quote (int)"),
        ([{"request": "quote", "type": "Any"}], "waits for a request on quote"),
    ],
)
def test_without_its_place(waiting: list[dict[str, Any]], text: str) -> None:
    assert waiting_text(waiting, NO_PLACES) == text


@pytest.mark.parametrize(
    ("waiting", "text"),
    [
        ([RUN], "4th in queue nightly"),
        ([STEP], FIRST),
        (
            [MESSAGE, STEP],
            f"{FIRST}; waits for a message on approval (bool)",
        ),
        (
            [STEP, {**STEP, "seq": 8}, {**STEP, "seq": 9}],
            f"{FIRST}, and 2 more steps",
        ),
        ([{**STEP, "seq": 8}], "step think: waits in queue openai"),
        ([{**STEP, "seq": 6}, STEP], f"{FIRST}, and 1 more step"),
    ],
)
def test_with_its_place(waiting: list[dict[str, Any]], text: str) -> None:
    assert waiting_text(waiting, PLACES) == text


def test_many_things_are_counted() -> None:
    text = waiting_text([{"child": f"c-{n}"} for n in range(1_005)], NO_PLACES)
    assert text == "waits for child c-0, child c-1, child c-2, child c-3, child c-4 and 1,000 more"


def pending(due_at: datetime, queue: str | None = None) -> RunSummary:
    empty: dict[str, Any] = dict.fromkeys(RunSummary.__struct_fields__)
    given = {"status": "pending", "due_at": due_at, "queue": queue, "waiting_for": []}
    return RunSummary(**empty | given)


def test_a_run_that_has_not_begun_says_when_it_does() -> None:
    later, now = PLACES.now + timedelta(hours=1), PLACES.now
    assert needs(pending(later, "q"), PLACES) == f"begins at {clock(later)}"
    assert needs(pending(now, "q"), PLACES) == "a worker puts it into queue q"
    assert needs(pending(now), PLACES) is None

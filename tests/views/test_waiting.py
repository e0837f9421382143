"""What a run waits for, as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure.runtime.info import ErrorHead, RunSummary
from perdure.runtime.standing import Standing
from perdure.views.format import clock
from perdure.views.waiting import NO_PLACES, Places, Situation, needs, waiting_text, why

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


NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
AGAIN = {"step": "charge", "seq": 2, "attempt": 2, "attempts": 5}
SOON_MS = round((NOW + timedelta(seconds=12)).timestamp() * 1_000)
ERROR = ErrorHead("Declined", "no money.")


@pytest.mark.parametrize(
    ("fields", "known", "said"),
    [
        ({"status": "running", "owner": "worker 1"}, {"owner_alive": True}, None),
        ({"status": "completed", "ended_at": NOW}, {}, None),
        ({"status": "running", "owner": "worker 1"}, {"owner_alive": False}, "worker 1) has gone"),
        ({"status": "pending", "due_at": NOW + timedelta(days=1)}, {}, "Begins at"),
        ({"status": "pending", "due_at": NOW}, {}, "A worker takes it next"),
        ({"status": "pending", "due_at": NOW}, {"workers": False}, "No worker is running"),
        ({"status": "pending", "due_at": NOW, "queue": "q"}, {}, "for queue q"),
        ({"status": "paused"}, {}, "resume it"),
        ({"status": "paused", "reason": "code changed"}, {}, "blocked: code changed"),
        ({"status": "blocked", "reason": "code changed"}, {}, "Blocked: code changed"),
        ({"status": "waiting", "waiting_for": [MESSAGE]}, {}, "(bool). Nobody has sent one."),
        ({"status": "waiting", "waiting_for": [REQUEST]}, {}, "(int). Nobody has asked."),
        (
            {"status": "waiting", "waiting_for": [MESSAGE], "due_at": NOW},
            {},
            "(bool). It is due: a worker goes on with it next.",
        ),
        (
            {"status": "waiting", "waiting_for": [{**AGAIN, "again_ms": SOON_MS}]},
            {"last_error": ERROR},
            "Step charge failed: Declined: no money. Attempt 2 of 5 begins at ",
        ),
        (
            {"status": "waiting", "waiting_for": [{**AGAIN, "again_ms": 0}]},
            {"last_error": ERROR, "workers": False},
            "begins now. No worker is running",
        ),
        (
            {
                "status": "waiting",
                "waiting_for": [{"timer": 0, "seq": 1}],
                "due_at": NOW - timedelta(hours=1),
            },
            {"workers": False},
            "No worker is running",
        ),
    ],
)
def test_why_it_does_not_go_on(
    fields: dict[str, Any], known: dict[str, Any], said: str | None
) -> None:
    plain: dict[str, Any] = {
        "id": "r", "workflow": "w", "reason": None, "created_at": NOW, "started_at": NOW,
        "ended_at": None, "due_at": None, "queue": None, "priority": 0, "tags": {}, "parent": None,
        "error": None, "history_rows": 1, "owner": None, "forked_from": None, "waiting_for": [],
        "python": None, "last": None, "last_at": NOW,
    }  # fmt: skip
    if fields.get("queue"):
        plain["started_at"] = None
    found = why(
        RunSummary(**(plain | fields)), Situation(NO_PLACES, NOW, **({"workers": True} | known))
    )
    assert found is None if said is None else said in (found or "")

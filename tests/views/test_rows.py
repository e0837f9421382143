"""Runs as lines of a list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from perdure.runtime.info import ErrorHead, OpenRequest, RunInfo, RunSummary
from perdure.runtime.standing import ExposedValue, Standing
from perdure.views.format import clock
from perdure.views.rows import exposed, facts, requests, run_line, standings
from perdure.views.waiting import Places

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = BEGUN + timedelta(seconds=90)
AGAIN = {"step": "pay", "attempt": 3, "attempts": 5, "again_ms": 0}


def summary(status: str, **fields: Any) -> RunSummary:
    empty = RunSummary(
        id="r",
        workflow="w",
        status=status,
        reason=None,
        created_at=BEGUN,
        started_at=BEGUN,
        ended_at=None,
        due_at=None,
        queue=None,
        priority=0,
        tags={},
        parent=None,
        error=None,
        history_rows=7,
        owner=None,
        forked_from=None,
        waiting_for=[],
        python=None,
        last="pay",
        last_at=BEGUN,
    )
    return replace(empty, **fields)


@pytest.mark.parametrize(
    ("run", "label", "note"),
    [
        (summary("running"), "running", "last: pay"),
        (summary("completed", ended_at=NOW), "completed", ""),
        (
            summary("failed", ended_at=NOW, error=ErrorHead("ValueError", "no\nmore")),
            "failed",
            "ValueError: no",
        ),
        (summary("blocked", reason="the code changed\nat row 4"), "blocked", "the code changed"),
        (
            summary("waiting", waiting_for=[{"message": "go", "type": "bool"}]),
            "waiting",
            "waits for a message on go (bool)",
        ),
    ],
)
def test_a_line_says_what_there_is_to_say(run: RunSummary, label: str, note: str) -> None:
    line = run_line(run, NOW)
    assert (line.label, line.note, line.took_ms) == (label, note, 90_000)


def test_a_reason_that_is_known_stands_for_what_the_row_says_and_an_error_for_both() -> None:
    waits = summary("waiting", waiting_for=[{"message": "go", "type": "bool"}])
    assert run_line(waits, NOW, "Answered on go.\nMore.").note == "Answered on go."
    failed = summary("failed", ended_at=NOW, error=ErrorHead("ValueError", "no"))
    assert run_line(failed, NOW, "It waits.").note == "ValueError: no"


def test_a_run_that_waits_for_another_attempt_is_retrying() -> None:
    line = run_line(summary("waiting", waiting_for=[AGAIN]), NOW)
    assert (line.status, line.label) == ("waiting", "retrying 3")
    assert line.note.startswith("waits for attempt 3 of 5 of pay at ")


def test_facts_say_where_a_run_waits_and_which_tick_started_it() -> None:
    run = RunInfo(
        id="r",
        workflow="w",
        status="waiting",
        reason=None,
        created_at=BEGUN,
        started_at=None,
        ended_at=None,
        due_at=None,
        queue="openai",
        priority=3,
        tags={},
        parent=None,
        args={},
        result=None,
        error=None,
        history_rows=0,
        owner=None,
        forked_from=None,
        waiting_for=[{"queue": "openai"}],
        key="acme",
        scheduled_at=BEGUN,
    )
    lines = facts(run, NOW, 100)
    assert "queue openai, key acme, priority 3" in lines
    assert f"started by a schedule, for {clock(BEGUN)}" in lines
    assert "queue openai" in facts(replace(run, key=None, priority=0), NOW, 100)


def test_steps_that_wait_in_queues_while_a_run_goes_on() -> None:
    found = [Standing("q", row, "think", None, row, 9, "line") for row in range(2, 7)]
    assert standings(Places(found[:2], NOW)) == [
        "step think (row 2): 2nd in queue q",
        "step think (row 3): 3rd in queue q",
    ]
    assert standings(Places(found, NOW))[3:] == ["more steps wait in queues"]
    assert standings(Places([replace(found[0], seq=None)], NOW)) == []


def test_what_a_run_shows_and_is_asked() -> None:
    values = [ExposedValue("stage", "new", BEGUN, 2), ExposedValue("left", 3, BEGUN, 3)]
    assert exposed(values, 100) == ['shows stage="new", left=3']
    assert exposed([], 100) == []
    asked = [OpenRequest("q", f"k{n}", "me", BEGUN) for n in range(7)]
    lines = requests(asked, NOW)
    assert lines[0] == "asked on q by me, 1 min 30 s ago, no reply yet (key k0)"
    assert lines[5:] == ["2 more requests without a reply"]

"""Runs as lines of a list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from perdure.runtime.info import ErrorHead, RunInfo, RunSummary
from perdure.views.format import clock
from perdure.views.rows import facts, run_line

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

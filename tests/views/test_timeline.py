"""Timelines of histories, without a store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from perdure.cli import format as shown_by_cli
from perdure.cli.output import plain
from perdure.runtime.info import HistoryEvent, RunInfo
from perdure.views import format, rows, timeline

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def row(
    seq: int, kind: str, name: str | None = None, ref: int | None = None, **fields: Any
) -> HistoryEvent:
    return HistoryEvent(seq, kind, name, ref, BEGUN + timedelta(seconds=seq), **fields)


def info(status: str = "running", **fields: Any) -> RunInfo:
    empty = RunInfo(
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
        args={},
        result=None,
        error=None,
        history_rows=0,
        owner=None,
        forked_from=None,
        waiting_for=[],
    )
    return replace(empty, **fields)


def lines(
    *rows: HistoryEvent, full: bool = False, run: RunInfo | None = None, more: bool = False
) -> list[str]:
    """A timeline and the end of it as the command line prints them."""
    run = run or info()
    begun = rows[0].at if rows else BEGUN
    shown = shown_by_cli.timeline(timeline.lines(rows, begun, full=full, more=more))
    return [plain(line) for line in [*shown, *shown_by_cli.ending(run)]]


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (row(1, "start", args={}), "start"),
        (row(2, "step", "pay", args={"amount": 3}), "… pay(amount=3)"),
        (row(2, "child", "other", args={"n": 1}, data={"id": "c"}), "… child other(n=1) as c"),
        (row(2, "spawn", "other", args={"n": 1}), "… started other(n=1)"),
        (row(2, "send", "x", data={"channel": "c", "value": [1]}), "… sent to x, channel c: [1]"),
        (
            row(2, "request", "c", data={"key": "k", "sender": "ada", "value": [1]}),
            "← request on c from ada: [1]",
        ),
        (row(3, "reply", "c", ref=2, data="yes"), 'replied to row 2: "yes"'),
        (row(3, "refuse", "c", ref=2, data="too late"), "refused row 2: too late"),
        (row(3, "reject", "c", ref=2, data="no"), "refused the request in row 2 on c: no"),
        (row(2, "expose", "stage", data="begin"), 'exposed stage: "begin"'),
        (row(2, "message", "c", data={"a": 1}), '← message on c: {"a":1}'),
        (row(2, "emit", "s", data="word"), 'emitted to s: "word"'),
        (row(2, "tag", data={"a": 1}), "tagged a=1"),
        (row(2, "patch", "v2"), "took the new path of v2"),
        (row(2, "reject", "c", data="no bool"), "refused the message on c: no bool"),
        (row(2, "cancel"), "← cancel"),
        (
            row(2, "attempt", data={"taken_back": True}),
            "what ended the run was here; a retry has taken it back",
        ),
        (
            row(2, "attempt", data={"released": True, "upto": 2, "retry": 1}),
            "retry 1: the rows above were kept",
        ),
        (
            row(2, "attempt", "r", data={"released": True, "upto": 2}),
            "forked: the rows above are of r",
        ),
        (row(2, "attempt", data={"released": True}), "released before a step began"),
        (row(2, "attempt", data={"crash": True}), "the process died"),
        (row(2, "news", "x"), "news x"),
    ],
)
def test_every_kind_of_row(event: HistoryEvent, text: str) -> None:
    assert lines(row(1, "start"), event)[-2].endswith(text)


def test_answers_stand_beneath_what_they_answer() -> None:
    shown = lines(
        row(1, "start"),
        row(2, "step", "a", args={}),
        row(3, "step", "b", args={}),
        row(
            4, "attempt", ref=3, attempt=1, error={"type": "ValueError", "message": "no"}, took_ms=5
        ),
        row(5, "failed", ref=3, error={"type": "ValueError", "message": "no again"}, took_ms=7),
        row(6, "completed", ref=2, result=[1], took_ms=9),
    )
    assert [line.split(maxsplit=1)[-1] for line in shown[1:]] == [
        "+1.0 s  ✓ a()  9 ms",
        "[1]",
        "+2.0 s  ✗ b()  7 ms",
        "attempt 1: ValueError: no  5 ms",
        "ValueError: no again",
        "running",
    ]


def test_a_failed_attempt_says_when_it_began_and_one_that_only_began_says_that() -> None:
    began = datetime(2026, 11, 29, 12, 3, 1, tzinfo=UTC)
    shown = lines(
        row(1, "start"),
        row(2, "step", "a", args={}),
        row(
            3,
            "attempt",
            ref=2,
            attempt=1,
            error={"type": "ValueError", "message": "no"},
            took_ms=5,
            began_at=began,
        ),
        row(4, "attempt", ref=2, attempt=2, data={"attempt": 2, "began": True}),
    )
    assert shown[2].endswith(f"├ attempt 1 at {format.clock(began)}: ValueError: no  5 ms")
    assert shown[3].endswith("└ attempt 2 began")


def test_a_step_that_was_cancelled() -> None:
    shown = lines(row(1, "start"), row(2, "step", "a", args={}), row(3, "abandon", "a", ref=2))
    assert "- a()" in shown[1]
    assert shown[2].endswith("└ cancelled")


def fan_out(count: int, *odd: HistoryEvent) -> list[HistoryEvent]:
    steps = [row(2 + i, "step", "parse", args={"n": i}) for i in range(count)]
    answers = [
        row(100 + i, "completed", ref=2 + i, result=i, took_ms=4)
        for i in range(count)
        if 2 + i not in {o.ref for o in odd}
    ]
    return [row(1, "start"), *steps, *answers, *odd]


def test_a_long_stretch_is_folded() -> None:
    shown = lines(*fan_out(30))
    assert sum("parse(" in line for line in shown) == 4
    assert any(
        "26 more of parse: 26 completed, 4 ms on average (rows 5 to 30; --full shows them)" in line
        for line in shown
    )
    assert sum("parse(" in line for line in lines(*fan_out(30), full=True)) == 30


def test_what_failed_is_never_folded_away() -> None:
    shown = lines(
        *fan_out(30, row(200, "failed", ref=16, error={"type": "ValueError", "message": "odd"}))
    )
    assert any("✗ parse(n=14)" in line for line in shown)
    assert any("ValueError: odd" in line for line in shown)


def test_a_short_stretch_is_not_folded() -> None:
    assert sum("parse(" in line for line in lines(*fan_out(12))) == 12


def test_open_steps_are_counted_in_a_fold() -> None:
    rows = [event for event in fan_out(30) if event.kind != "completed" or event.seq % 2]
    assert any("13 completed, 13 open" in line for line in lines(*rows))


def test_a_process_that_died_is_no_failure() -> None:
    crashed = row(
        300,
        "attempt",
        ref=16,
        attempt=1,
        error={"type": "ProcessDied"},
        data={"attempt": 1, "crash": True},
    )
    shown = lines(*fan_out(30), crashed)
    assert sum("parse(" in line for line in shown) == 4


def test_the_end_of_it() -> None:
    ended = {"ended_at": BEGUN}
    assert lines(run=info("completed", result={"a": 1}, **ended)) == ['completed → {"a":1}']
    assert lines(run=info("failed", error={"type": "ValueError", "message": "no"}, **ended)) == [
        "failed: ValueError: no"
    ]
    assert lines(run=info("cancelled", **ended)) == ["cancelled"]
    assert lines(run=info("blocked", reason="why")) == ["blocked: why"]
    waiting = [{"message": "c", "type": "bool"}, {"timer": 0, "seq": 3}, {"child": "x", "seq": 4}]
    text = lines(run=info("waiting", waiting_for=waiting))[0]
    assert text.startswith("waiting: waits for a message on c (bool), a timer until ")
    assert text.endswith(", child x")


def test_the_facts_of_a_run() -> None:
    run = info(args={"n": 1}, tags={"a": "b"}, parent="p", forked_from="f", python="2.7")
    text = "\n".join(rows.facts(run, BEGUN + timedelta(seconds=90), 100))
    for part in ("w(n=1)", "started ", ", for 1 min 30 s", 'tags: a="b"', "child of p"):
        assert part in text
    for part in ("forked from f", "executed by Python 2.7, this is "):
        assert part in text


def test_a_row_in_full_shows_a_traceback_as_one() -> None:
    text = "\n".join(
        timeline.row_in_full(
            row(
                4,
                "failed",
                ref=2,
                took_ms=3,
                error={"type": "ValueError", "traceback": 'File "x"\n  boom'},
            )
        )
    )
    assert 'File "x"\n  boom' in text
    assert "answers row 2" in plain(text)


def test_a_live_line_names_what_is_answered() -> None:
    completed = row(3, "completed", ref=2, result=1, took_ms=8, of="pay")
    line = plain(shown_by_cli.log_line(timeline.log_line(completed), "12:00:00.000"))
    assert line == "12:00:00.000     3  ✓ pay (row 2): 1  8 ms"
    finish = timeline.log_line(row(9, "finish", "failed"))
    assert plain(shown_by_cli.log_line(finish, "12:00:00.000")).endswith("     9  failed")


def test_on_a_page_answers_may_be_behind_it_and_commands_before_it() -> None:
    rows = fan_out(3)
    first, second = lines(*rows[:5], more=True), lines(*rows[5:], more=False)
    marks = [next(mark for mark in "✓⋮…" if mark in line) for line in first if "parse(" in line]
    assert marks == ["✓", "⋮", "⋮"]
    assert any("✓ row 3: 1  4 ms" in line for line in second)
    named = row(101, "completed", ref=3, result=1, took_ms=4, of="parse")
    assert any("✓ parse (row 3): 1  4 ms" in line for line in lines(named))

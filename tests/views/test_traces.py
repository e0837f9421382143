"""Recorded errors as text: the user's file and line below the error, and below what it
grew out of."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from perdure.codec.error_encoder import encode_error
from perdure.codec.frames import place
from perdure.runtime.info import HistoryEvent
from perdure.views import timeline, traces


def frame(file: str, line: int, function: str, source: str = "") -> dict[str, Any]:
    return {"file": file, "line": line, "function": function, "source": source}


def error(type_: str, message: str, **more: Any) -> dict[str, Any]:
    return {"type": type_, "module": "app", "message": message, "args": [], "cause": None, **more}


DECLINED = error(
    "Declined",
    "no money\nsecond line",
    frames=[frame("/x/app.py", 12, "charge", "raise Declined()")],
)


def test_the_error_comes_first_and_what_it_grew_out_of_beneath() -> None:
    failed = error(
        "StepFailed",
        "Step charge failed",
        frames=[frame("/x/app.py", 30, "pay", "await charge(5)")],
        cause=DECLINED,
    )
    assert traces.trace(failed) == [
        '  File "/x/app.py", line 30, in pay',
        "    await charge(5)",
        "caused by Declined: no money",
        '  File "/x/app.py", line 12, in charge',
        "    raise Declined()",
    ]


def test_groups_notes_and_what_was_left_out_are_told() -> None:
    group = error(
        "ExceptionGroup",
        "two",
        errors=[DECLINED, error("KeyError", "'k'")],
        notes=["at noon"],
        left_out={"page": "cut"},
    )
    text = traces.trace(group)
    assert text[:3] == [
        "  at noon",
        "  not recorded in full: page (cut)",
        "1 of 2: Declined: no money",
    ]
    assert text[-1] == "2 of 2: KeyError: 'k'"
    handled = error("ValueError", "x", context=DECLINED)
    assert traces.trace(handled)[0] == "while handling Declined: no money"


def test_the_place_is_the_last_line_of_the_users_own_code() -> None:
    library = frame("/v/lib/python3.11/site-packages/httpx/_client.py", 914, "send")
    assert place(DECLINED | {"frames": [*DECLINED["frames"], library]}) == "app.py:12 in charge"
    assert place({"frames": [library]}) == "_client.py:914 in send"
    assert place("text") == place({"frames": [7, {}]}) == place(None) == ""


def test_what_earlier_versions_recorded_is_shown_as_it_is() -> None:
    assert traces.trace(
        error("ValueError", "x", traceback="Traceback (most recent call last):\n  File ...\n")
    )[0].startswith("Traceback")
    assert traces.trace(error("ValueError", "x")) == traces.trace("by hand") == []


def test_a_row_in_full_shows_frames_as_a_traceback() -> None:
    row = HistoryEvent(4, "failed", None, 2, datetime(2026, 1, 1, tzinfo=UTC), error=DECLINED)
    text = "\n".join(timeline.row_in_full(row))
    assert '"frames"' not in text
    assert '  File "/x/app.py", line 12, in charge\n    raise Declined()' in text


def test_a_real_error_reads_so() -> None:
    nothing: dict[str, int] = {}
    try:
        nothing["k"]
    except KeyError as raised:
        recorded = json.loads(encode_error(raised))
    assert place(recorded).startswith("test_traces.py:")
    assert traces.trace(recorded)[-1] == '    nothing["k"]'

"""Decisions about steps as text."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.views.decisions import decision_text


@pytest.mark.parametrize(
    ("kind", "value", "seq", "text"),
    [
        ("resolve", {"attempt": 2, "began": True, "now": True}, 4, "attempt 2 at once"),
        ("resolve", {"wait": 9, "retry": True}, 0, "try again"),
        ("resolve", {"resolved": "retry"}, 4, "try again"),
        ("resolve", {"declined": "no int"}, 4, "a result that was not taken: no int"),
        ("resolve", {"refused": "no int"}, 4, "a result that was not taken: no int"),
        ("resolve", {"error": {"message": "lost"}, "attempts": 1}, 4, "failed: lost"),
        ("resolve", {"question": 2, "error": "lost"}, 0, "failed: lost"),
        ("resolve", None, 0, "too late: it changed nothing"),
        ("resolve", None, 4, None),
        ("resolve", 41, 4, None),
        ("message", {"resolved": "retry"}, 4, None),
    ],
)
def test_what_was_decided(kind: str, value: Any, seq: int, text: str | None) -> None:
    assert decision_text(kind, value, seq) == text

"""Decisions about steps as text: what a person has decided, of the row that came of it."""

from __future__ import annotations

from typing import Any


def decision_text(kind: str, value: Any, seq: int) -> str | None:
    """What was decided about a step, by the row `seq` of the history, or by what is in the inbox
    yet; None for a message or a result, whose value says it.
    """
    if kind != "resolve":
        return None
    match value:
        case {"now": True, "attempt": number}:
            return f"attempt {number} at once"
        case {"resolved": "retry"} | {"retry": True}:
            return "try again"
        case {"declined": why} | {"refused": why}:
            return f"a result that was not taken: {why}"
        case {"error": error, "attempts": _}:
            return f"failed: {_message(error)}"
        case {"error": error}:
            return f"failed: {error}"
        case None if seq == 0:
            return "too late: it changed nothing"
    return None


def _message(error: Any) -> Any:
    return error.get("message") if isinstance(error, dict) else error

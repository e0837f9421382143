"""What a run waits for as text, and the command that answers it.

Rules: one line; no colours; a command is shell-quoted.
"""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any

from perdure.core import lifecycle
from perdure.runtime.info import RunInfo, RunSummary
from perdure.views import format

_EXAMPLES = {"bool": "true", "int": "1", "float": "1.5", "str": "TEXT"}
_SHOWN_MAX = 5


def needs(info: RunInfo | RunSummary) -> str | None:
    """Why a run does not go on by itself right now; None while it runs or when it has ended."""
    if info.ended_at is not None:
        return None
    if info.status == lifecycle.WAITING and info.waiting_for:
        return waiting_text(info.waiting_for)
    return info.reason


def waiting_text(waiting_for: list[dict[str, Any]]) -> str:
    """Everything that the run waits for, on one line."""
    parts = [_one(item) for item in waiting_for[:_SHOWN_MAX]]
    more = len(waiting_for) - len(parts)
    return "waits for " + ", ".join(parts) + (f" and {more:,} more" if more else "")


def attempt_awaited(waiting_for: list[dict[str, Any]]) -> int | None:
    """The attempt of a failed step that the run waits for; None where it waits for none."""
    return next((item["attempt"] for item in waiting_for if "again_ms" in item), None)


def send_hint(run_id: str, waiting_for: list[dict[str, Any]], store_option: str) -> str | None:
    """The command that sends the message that the run waits for; None where it waits for none."""
    for item in waiting_for:
        if channel := item.get("message"):
            example = _EXAMPLES.get(str(item.get("type")), "JSON")
            return (
                f"perdure send {shlex.quote(run_id)} {shlex.quote(channel)} {example}{store_option}"
            )
    return None


def _one(item: dict[str, Any]) -> str:
    match item:
        case {"message": channel, "type": kind} if kind != "Any":
            return f"a message on {channel} ({kind})"
        case {"message": channel}:
            return f"a message on {channel}"
        case {"timer": None}:
            return "a timer that is never due"
        case {"timer": ms}:
            return f"a timer until {format.clock(datetime.fromtimestamp(ms / 1000, UTC))}"
        case {"child": name}:
            return f"child {name}"
        case {"step": name, "again_ms": ms}:
            at = format.clock(datetime.fromtimestamp(ms / 1000, UTC))
            return f"attempt {item['attempt']} of {item['attempts']} of {name} at {at}"
        case _:
            return ", ".join(f"{key} {thing}" for key, thing in item.items() if key != "seq")

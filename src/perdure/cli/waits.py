"""What a run waits for, in words, and the command that a person could type."""

from __future__ import annotations

from typing import Any


def needs(info: Any) -> str | None:
    """Why a run does not go on by itself right now; None while it runs or when it has ended."""
    if info.ended_at is not None or info.status == "running":
        return None
    return info.reason or None


def waiting_line(info: Any, store_option: str) -> tuple[str | None, str | None]:
    return needs(info), None

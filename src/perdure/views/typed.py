"""Values as people type them, on the command line, in forms and in filters."""

from __future__ import annotations

from typing import Any

import msgspec


def json_or_text(text: str) -> Any:
    """A value that was typed: JSON, else the text as it is."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text

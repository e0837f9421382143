"""Values and tags as people type them, on the command line, in forms and in filters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec


def json_or_text(text: str) -> Any:
    """A value that was typed: JSON, else the text as it is."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def tags(given: Iterable[str]) -> dict[str, Any]:
    """Tags, each as NAME=VALUE. Raises `ValueError`, with a message to show.

    >>> tags(["team=red", "size=3"])
    {'team': 'red', 'size': 3}
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"{text!r} is no tag. Write it as NAME=VALUE.")
        found[name] = json_or_text(value)
    return found

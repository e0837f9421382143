"""Items of a stream as the text that they make together.

Rules: an item is text, or has it under a name that models and our own documents use; the attempt is
that which the item says; what has no text is shown as JSON between the others. Items without white
space at any edge are words, and are shown with a space between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.reader.values import StreamEntry

_TEXT = ("text", "delta", "content")


class Piece(msgspec.Struct):
    """An item with its `text`, None where it has none, and its number of an attempt, if it says
    one. `again` says that another attempt begins with it.
    """

    position: int
    item: Any
    recorded: bool
    text: str | None
    attempt: int | None = None
    again: bool = False


def text_of(item: Any) -> str | None:
    """The text of an item; None where it has none.

    >>> text_of("rain"), text_of({"attempt": 1, "text": "rain"}), text_of({"done": True})
    ('rain', 'rain', None)
    """
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        return None
    found = (item.get(name) for name in _TEXT)
    return next((one for one in found if isinstance(one, str)), None)


def pieces(entries: Sequence[StreamEntry], attempt: int | None = None) -> list[Piece]:
    """The items with their texts; `attempt` is that of the item before them."""
    found = []
    for one in entries:
        number = one.item.get("attempt") if isinstance(one.item, dict) else None
        piece = Piece(one.position, one.item, one.recorded, text_of(one.item))
        if type(number) is int:
            piece.attempt = number
            piece.again = attempt is not None and number != attempt
            attempt = number
        found.append(piece)
    return found


def words(found: Sequence[Piece]) -> bool:
    """Whether the texts are words without the space between them."""
    return not any(one.text and one.text != one.text.strip() for one in found)

"""Marks in JSON text: what belongs to a value and has no place in plain JSON, written so that every reader of JSON still reads it.

Rules: a space in front of a member's name says that it was not given: its value is the default of the day on which it was recorded;
text without marks, written by an earlier version or by other tools, says that every member was given.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

import msgspec
from msgspec import Raw

_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode


class Member(NamedTuple):
    """A member of a JSON object: its name, the text of its value, and whether it was given."""

    name: str
    text: bytes
    given: bool = True


def members(raw: bytes) -> list[Member]:
    """The members of an object in order. Raises `msgspec.DecodeError` for what is no object."""
    found: list[Member] = []
    at = 1
    for name, value in _members(raw).items():
        text = bytes(value)
        given = not raw.startswith(b" ", at)
        whole = b"%s:%s" % (_encode(name), text)
        at += not given
        if not raw.startswith(whole, at):  # somebody else has written this text, and spaces mean nothing in it
            return [Member(name, bytes(value)) for name, value in _members(raw).items()]
        found.append(Member(name, text, given))
        at += len(whole) + 1
    return found


def joined(parts: list[Member]) -> bytes:
    """The text of an object."""
    return b"{%s}" % b",".join([b"%s%s:%s" % (b"" if one.given else b" ", _encode(one.name), one.text) for one in parts])


def given(raw: bytes) -> set[str]:
    """The names of the members that were given."""
    return {one.name for one in members(raw) if one.given}


def only(raw: bytes, names: Container[str]) -> bytes:
    """The object with these members alone."""
    return joined([one for one in members(raw) if one.name in names])

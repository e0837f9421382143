"""Marks in JSON text: what belongs to a value and has no place in plain JSON, written so that every reader of JSON still reads it.

Rules: a space in front of a member's name says that it was not given (a parameter that a call left out, a field of a pydantic model that
nobody set): its value is the default of the day on which it was recorded; a time in a named zone has it behind its offset, as RFC 9557
writes it: `2026-07-01T12:00:00+02:00[Europe/Berlin]`; text without marks, written by an earlier version or by other tools, says that every
member was given.
"""

from __future__ import annotations

import datetime as dt
import re
import sys
from collections.abc import Callable, Container, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from perdure.codec_records import children, force, is_model, json_names

_items = msgspec.json.Decoder(list[Raw]).decode
_text = msgspec.json.Decoder(str).decode
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode


class Member(msgspec.Struct, frozen=True):
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


def read(decode: Callable[[bytes], Any], raw: bytes) -> Any:
    """What a decoder reads from a text, with what the marks in it say."""
    try:
        value = decode(raw)
    except Exception:
        plain = re.sub(_ZONE, b"", raw)
        if plain == raw:
            raise
        value = decode(plain)
    else:
        plain = raw
    return value if plain is raw and b', "' not in raw and b'{ "' not in raw else _restored(value, raw)


_ZONE = rb'(?<=[\dZ])\[[A-Za-z][\w+/-]*\](?=")'  # some 20 letters, behind an offset or a time


def marked(value: Any, raw: bytes) -> bytes:
    """The text of a value with marks at the fields that nobody set."""
    if getattr(type(value), "__pydantic_root_model__", False):
        return marked(value.root, raw)
    if raw[:1] == b"[":
        inner = value if isinstance(value, list | tuple) else ()
        texts = [bytes(one) for one in _items(raw)]
        return b"[%s]" % b",".join(map(marked, inner, texts)) if len(inner) == len(texts) else raw
    if raw[:1] != b"{":
        return raw
    parts = members(raw)
    if isinstance(value, dict):
        return joined([Member(one.name, marked(inner, one.text), one.given) for one, inner in zip(parts, value.values(), strict=True)])
    names = {key: name for name, key in json_names(type(value)).items()}
    given = value.model_fields_set if is_model(type(value)) else names.values()
    for i, one in enumerate(parts):
        if (name := names.get(one.name)) is not None and hasattr(value, name):
            parts[i] = Member(one.name, marked(getattr(value, name), one.text), name in given)
    return joined(parts)


def _restored(value: Any, raw: bytes) -> Any:
    """The value that was read from a text, with what its marks say."""
    if getattr(type(value), "__pydantic_root_model__", False):
        force(value, "root", _restored(value.root, raw))
        return value
    match raw[:1]:
        case b'"':
            return _in_zone(value, _text(raw))
        case b"[":
            return _restored_items(value, [bytes(one) for one in _items(raw)])
        case b"{":
            return _restored_members(value, members(raw))
        case _:
            return value


def _restored_items(value: Any, texts: list[bytes]) -> Any:
    if isinstance(value, list | tuple):
        items = map(_restored, value, texts)
        if isinstance(value, list):
            value[:] = items
            return value
        return value._make(items) if hasattr(value, "_make") else tuple(items)
    if isinstance(value, msgspec.Struct):
        for name, text in zip(value.__struct_fields__, texts[len(texts) - len(value.__struct_fields__) :], strict=False):
            force(value, name, _restored(getattr(value, name), text))
    return value


def _restored_members(value: Any, parts: list[Member]) -> Any:
    if isinstance(value, dict):
        if len(value) == len(parts):
            pairs = [(_in_zone(key, one.name), _restored(inner, one.text)) for (key, inner), one in zip(value.items(), parts, strict=True)]
            value.clear()
            value.update(pairs)
        return value
    by_key = {one.name: one for one in parts}
    for name, key in json_names(type(value)).items():
        if (one := by_key.get(key)) is not None:
            force(value, name, _restored(getattr(value, name), one.text))
            if not one.given and is_model(type(value)):
                value.model_fields_set.discard(name)
    return value


# --- zones ----------------------------------------------------------------------------------------


def zone_of(value: Any) -> str | None:
    """The name of the zone that a time is in, as `zoneinfo` knows it; None for offsets and all other values."""
    zoneinfo = sys.modules.get("zoneinfo")
    zone: Any = value.tzinfo if zoneinfo is not None and isinstance(value, dt.datetime | dt.time) else None
    return zone.key if zoneinfo is not None and isinstance(zone, zoneinfo.ZoneInfo) else None


def has_zones(value: Any) -> bool:
    """Whether any time in a value is in a named zone."""
    return "zoneinfo" in sys.modules and any(zones(value))


def zones(value: Any) -> Iterator[str]:
    """The names of all zones in a value."""
    if (zone := zone_of(value)) is not None:
        yield zone
    elif isinstance(value, dict):
        for key in value:
            yield from zones(key)
    for _, inner in children(value):
        yield from zones(inner)


def zoned(value: Any) -> Any:
    """A time in a named zone as text that says so; other values as they are."""
    zone = zone_of(value)
    return value if zone is None else f"{_text(_encode(value))}[{zone}]"


def with_offset(value: Any) -> Any:
    """A datetime in a named zone with its offset alone; other values as they are."""
    if zone_of(value) is None or not isinstance(value, dt.datetime):
        return value
    return value.replace(tzinfo=dt.timezone(value.utcoffset() or dt.timedelta()))


def _in_zone(value: Any, text: str) -> Any:
    """What a decoder has read without its zone, in the zone that its text names."""
    plain, bracket, rest = text.rpartition("[")
    if not bracket or not rest.endswith("]") or not isinstance(value, dt.datetime | dt.time | str):
        return value
    if isinstance(value, str):
        return text if type(value) is str and value == plain else value  # it only looks like a time
    import zoneinfo

    zone = zoneinfo.ZoneInfo(rest[:-1])
    if isinstance(value, dt.time):
        return value.replace(tzinfo=zone)
    for fold in (0, 1):
        found = value.replace(tzinfo=zone, fold=fold)
        if abs((found.utcoffset() or dt.timedelta()) - (value.utcoffset() or dt.timedelta())) < dt.timedelta(minutes=1):
            return found
    return value.astimezone(zone)  # its rules have changed since: the moment stands

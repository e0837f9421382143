"""Marks in JSON text: facts of a value that JSON has no form for, invisible to readers of JSON.

Rules: a space in front of a member's name says that it was not given (a parameter that a call left
out, a field of a pydantic model that was not set): its value is the default of the day on which it
was recorded; a time in a named zone has it behind its offset, as RFC 9557 writes it:
`2026-07-01T12:00:00+02:00[Europe/Berlin]`; text without marks, written by an earlier version or by
other tools, says that every member was given.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
import sys
from collections.abc import Callable, Container
from typing import Any

import msgspec
from msgspec import Raw

from perdure.codec.records import fields_of, force, is_model, json_names

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
    texts, at = _members(raw), 1
    for name, value in texts.items():
        text = bytes(value)
        given = not raw.startswith(b" ", at)
        whole = b"%s:%s" % (_encode(name), text)
        at += not given
        if not raw.startswith(
            whole, at
        ):  # another program has written this text, and spaces mean nothing in it
            return [Member(name, bytes(value)) for name, value in texts.items()]
        found.append(Member(name, text, given))
        at += len(whole) + 1
    return found


def joined(parts: list[Member]) -> bytes:
    """The text of an object."""
    return b"{%s}" % b",".join(
        [b"%s%s:%s" % (b"" if one.given else b" ", _encode(one.name), one.text) for one in parts]
    )


def given(raw: bytes) -> set[str]:
    """The names of the members that were given."""
    return {one.name for one in members(raw) if one.given}


def only(raw: bytes, names: Container[str]) -> bytes:
    """The object with these members alone."""
    return joined([one for one in members(raw) if one.name in names])


def read(decode: Callable[[bytes], Any], raw: bytes) -> Any:
    """The value that a decoder of models reads from a text, with the facts of its marks."""
    value = read_times(decode, raw)
    if b' "' in raw:
        _unset(value, raw)
    return value


def read_times(decode: Callable[[bytes], Any], raw: bytes) -> Any:
    """The value that a decoder reads from a text, with the zones of its times."""
    try:
        return decode(raw)
    except Exception:
        plain = re.sub(_ZONE, b"", raw)
        if plain == raw:
            raise
        return _restored(decode(plain), raw)


_ZONE = rb'(?<=[\dZ])\[[A-Za-z][\w+/-]*\](?=")'  # some 20 letters, behind an offset or a time


# --- fields that were not set ---------------------------------------------------------------------


def marked(value: Any, raw: bytes) -> bytes:
    """The text of a value with marks at the fields that were not set."""
    if getattr(type(value), "__pydantic_root_model__", False):
        return marked(value.root, raw)
    if raw[:1] == b"[" and isinstance(value, list | tuple):
        texts = [bytes(one) for one in _items(raw)]
        return b"[%s]" % b",".join(map(marked, value, texts)) if len(value) == len(texts) else raw
    if raw[:1] != b"{":
        return raw
    if (keys := _keys(type(value))) and not _kinds(type(value)) & _RECORDS:
        unset = [keys[name] for name in keys.keys() - value.model_fields_set]
        if all(raw.count(key) < 2 for _, key, _ in unset):
            return functools.reduce(lambda text, one: text.replace(one[1], one[2]), unset, raw)
    parts = members(raw)
    if isinstance(value, dict):
        return joined(
            [
                Member(one.name, marked(inner, one.text), one.given)
                for one, inner in zip(parts, value.values(), strict=True)
            ]
        )
    names = {key: name for name, key in json_names(type(value)).items()}
    given = value.model_fields_set if is_model(type(value)) else names.values()
    for i, one in enumerate(parts):
        if (name := names.get(one.name)) is not None and hasattr(value, name):
            parts[i] = Member(one.name, marked(getattr(value, name), one.text), name in given)
    return joined(parts)


def _unset(value: Any, raw: bytes) -> None:
    """Mark fields of a model as not set where the text has marks."""
    if b' "' not in raw:
        return
    keys = _keys(type(value))
    alone = (
        not _kinds(type(value)) & _RECORDS
        and b'": ' not in raw
        and all(raw.count(key) < 2 for _, key, _ in keys.values())
    )
    found = (
        given(raw) if keys and not alone else ()
    )  # others have these names, too, or another program has written this text
    for name, (member, _, mark) in keys.items():
        if mark in raw and member not in found:
            value.model_fields_set.discard(name)
    if not keys or not alone:
        for _, inner, text in _inside(value, raw):
            _unset(inner, text)


def _inside(value: Any, raw: bytes) -> list[tuple[Any, Any, bytes]]:
    """The values in a value, each with its key or the name of its field, and its text; nothing
    where the text has another shape.
    """
    if getattr(type(value), "__pydantic_root_model__", False):
        return [("root", value.root, raw)]
    inner: list[tuple[Any, Any]] = []
    texts: list[Raw] = []
    names = json_names(type(value))
    if raw[:1] == b"[" and (names or isinstance(value, list | tuple)):
        inner = (
            [(name, getattr(value, name)) for name in names] if names else list(enumerate(value))
        )
        texts = (
            _items(raw)[-len(inner) :] if names else _items(raw)
        )  # a Struct may have a tag in front
    elif raw[:1] == b"{" and (names or isinstance(value, dict)):
        found = _members(raw)
        inner = (
            [(name, getattr(value, name)) for name, key in names.items() if key in found]
            if names
            else list(value.items())
        )
        texts = [found[names[name]] for name, _ in inner] if names else list(found.values())
    return (
        [(*one, bytes(text)) for one, text in zip(inner, texts, strict=True)]
        if len(inner) == len(texts)
        else []
    )


def _keys_of(cls: Any) -> dict[str, tuple[str, bytes, bytes]]:
    """The fields of a model: what each is called in JSON, and how its member begins, without and
    with a mark.

    Within a text a quotation mark has a backslash, and behind one that ends a text no letter
    follows: `"name":` begins a member. What only looks like one, with a name such as `:`, is one
    more of them.
    """
    names = json_names(cls) if getattr(cls, "__pydantic_root_model__", None) is False else {}
    return {
        name: (key, b"%s:" % _encode(key), b" %s:" % _encode(key)) for name, key in names.items()
    }


def _kinds_of(cls: Any) -> set[str]:
    """Whether a model may hold other records, and times; both for classes that are not known."""
    kinds = " ".join(_KINDS.findall(repr(getattr(cls, "__pydantic_core_schema__", None))))
    return (
        set(kinds.replace("model", "", 1).split()) if "model" in kinds else _RECORDS | _TIMES
    )  # the first one is its own


_KINDS = re.compile("'type': '(model|dataclass|definition-ref|any|datetime|time)'")
_RECORDS, _TIMES = (
    {"model", "dataclass", "definition-ref"},
    {"dataclass", "definition-ref", "any", "datetime", "time"},
)
_keys: Callable[[type], dict[str, tuple[str, bytes, bytes]]] = functools.lru_cache(maxsize=4096)(
    _keys_of
)
_kinds: Callable[[type], set[str]] = functools.lru_cache(maxsize=4096)(_kinds_of)


# --- what is in a zone ----------------------------------------------------------------------------


def _restored(value: Any, raw: bytes) -> Any:
    """A value that was read without its zones, with them."""
    if raw[:1] == b'"' and not getattr(type(value), "__pydantic_root_model__", False):
        return _in_zone(value, _text(raw))
    found = [(name, _restored(inner, text)) for name, inner, text in _inside(value, raw)]
    if isinstance(value, tuple) and found:
        return getattr(value, "_make", tuple)(one for _, one in found)
    if isinstance(value, dict) and found:
        value.clear()
        value.update(
            zip(
                map(_in_zone, [name for name, _ in found], _members(raw)),
                [one for _, one in found],
                strict=True,
            )
        )
    elif isinstance(value, list):
        value[:] = [one for _, one in found] or value
    else:
        for name, one in found:
            force(value, name, one)
    return value


def zone_of(value: Any) -> str | None:
    """The `zoneinfo` name of the zone of a time; None for offsets and other values."""
    zoneinfo = sys.modules.get("zoneinfo")
    zone = getattr(value, "tzinfo", None)
    return zone.key if zoneinfo is not None and isinstance(zone, zoneinfo.ZoneInfo) else None


def zones(value: Any, found: list[str] | None = None) -> list[str]:
    """The names of all zones in a value, appended to those found before."""
    found = [] if found is None else found
    inner: Any = ()
    if isinstance(value, dt.datetime | dt.time):
        found += [zone] if (zone := zone_of(value)) is not None else ()
    elif isinstance(value, dict):
        inner = [*value, *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        inner = value
    elif _kinds(type(value)) & _TIMES:
        inner = [getattr(value, name, None) for name in fields_of(type(value))]
    for one in inner:
        if type(one) not in _PLAIN:
            zones(one, found)
    return found


_PLAIN = {str, bytes, int, float, bool, type(None)}


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
    """A time that was read without its zone, in the zone that its text names."""
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
        if abs(
            (found.utcoffset() or dt.timedelta()) - (value.utcoffset() or dt.timedelta())
        ) < dt.timedelta(minutes=1):
            return found
    return value.astimezone(zone)  # its rules have changed since: the moment stands

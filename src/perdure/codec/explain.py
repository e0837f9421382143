"""Texts for values that can't be stored: which part, why, and what to do about it."""

from __future__ import annotations

import enum
import inspect
import io
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from perdure.api.secret import MARK, MASK
from perdure.codec.records import children, is_model, short
from perdure.codec.types import ENCODER, Difference, Slot, label_of


def explain_failure(slot: Slot, value: Any, error: Exception, place: str) -> str:
    """Why a value could not be written, or not be read again, and what to do."""
    if isinstance(error, RecursionError):
        return (
            "it contains itself, or is nested too deeply; give parts of it ids and refer to those"
        )
    path, culprit = _culprit(value, slot.encode)
    if culprit is not None and not is_model(
        type(culprit)
    ):  # pydantic knows better what is wrong with a model
        return _at(path) + _why(culprit)
    if (found := _not_finite(value)) is not None:
        return found
    return (
        f"{_at(path)}it does not fit `{slot.label}`: {tidy(error)}; pass what "
        f"{place or 'the type'} says, or change the annotation"
    )


def explain_difference(slot: Slot, found: Difference, place: str) -> str:
    """What would come back instead of a value, and what to annotate."""
    path, value, back = found
    if isinstance(value, float) and not math.isfinite(value):
        return f"{_at(path)}{_NAN.format(value)}"
    if type(value) is not type(back):
        return (
            f"{_at(path)}it would come back as {label_of(type(back))}, not "
            f"{label_of(type(value))}; {_advice(path, value, place)}"
        )
    keys = _key_types(value), _key_types(back)
    if keys[0] != keys[1]:
        return (
            f"{_at(path)}it would come back with keys of type {keys[1]}, not {keys[0]}; "
            f"{_advice(path, value, place)}"
        )
    if slot.foreign:  # its serializers may be there to hide what the value is
        return (
            f"{_at(path)}it would come back different: what pydantic writes for `{slot.label}` "
            f"is not read as the same value again"
        )
    return f"{_at(path)}it would come back different: {short(value)} became {short(back)}"


_QUOTED_SECRET = re.compile(rf"""(['"])(?:{MARK}|{re.escape(repr(MARK)[1:-1])}).*?\1""")


def tidy(error: Exception) -> str:
    """A validation error in one line, without the secrets that a library quotes."""
    text = _QUOTED_SECRET.sub(repr(MASK), str(error))
    return " ".join(
        line.strip() for line in text.splitlines() if "errors.pydantic.dev" not in line
    )[:400]


_NAN = "{} is not JSON; pass None or a string in its place"


def _at(path: str) -> str:
    return f"at {path}, " if path else ""


def _key_types(value: Any) -> str:
    return (
        ", ".join(sorted({label_of(type(key)) for key in value})) if isinstance(value, dict) else ""
    )


def _advice(path: str, value: Any, place: str) -> str:
    base = next(
        (
            cls
            for cls in (str, bool, int, float, list, dict, bytes)
            if isinstance(value, cls) and type(value) is not cls
        ),
        None,
    )
    if base is not None and not isinstance(value, enum.Enum):
        return f"convert it with {base.__name__}() first"
    if isinstance(value, bytearray | memoryview):
        return "convert it with bytes() first"
    wanted = _annotation_for(value)
    if not place:
        return (
            f"convert it to plain JSON values, or wrap it in a dataclass with a field of type "
            f"{wanted}"
        )
    return (
        f"annotate {place} as {wanted}"
        if not path
        else f"annotate {place} with a type that says {wanted} there"
    )


def _annotation_for(value: Any) -> str:
    inner = (
        {label_of(type(item)) for _, item in children(value)}
        if isinstance(value, tuple | set | frozenset | dict | list)
        else set[str]()
    )
    item = inner.pop() if len(inner) == 1 else "Any"
    match value:
        case tuple() if type(value) is tuple:
            return f"tuple[{item}, ...]"
        case set() | frozenset() | list() if type(value) in (set, frozenset, list):
            return f"{type(value).__name__}[{item}]"
        case dict() if type(value) is dict:
            keys = {label_of(type(key)) for key in value}
            return f"dict[{keys.pop() if len(keys) == 1 else 'str'}, {item}]"
        case _:
            return label_of(type(value))


def _culprit(
    value: Any, encode: Callable[[Any], bytes], path: str = "", depth: int = 0
) -> tuple[str, Any]:
    """The innermost part that can't be written; None if all can."""
    if _can(encode, value):
        return ("", None)
    if depth < 50:
        for step, inner in children(value):
            if not _can(ENCODER.encode, inner) and not isinstance(inner, set | frozenset):
                return _culprit(inner, ENCODER.encode, path + step, depth + 1)
    return (path, value)


def _can(encode: Callable[[Any], bytes], value: Any) -> bool:
    try:
        encode(value)
    except Exception:
        return False
    return True


def _why(value: Any) -> str:
    name = label_of(type(value))
    if isinstance(value, str):
        if type(value) is not str:
            return f"{name} has no JSON form; convert it with str() first"
        return (
            "the text has a lone surrogate, which is not valid Unicode; decode it with "
            "errors='replace'"
        )
    if isinstance(value, dict):
        return "its keys must be strings or numbers; use str keys, or a list of pairs"
    if inspect.isawaitable(value):
        return f"a {name} was not awaited; await it and pass its result"
    if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
        return f"a {name} can be read only once; pass a list of its items"
    if callable(value):
        return (
            f"a {name} is code, which is never stored; pass a name and look it up inside the step"
        )
    return (
        f"{name} has no JSON form; pass plain values, a dataclass or a msgspec Struct. Open "
        f"files, locks and clients are made inside steps"
    )


def _not_finite(value: Any, path: str = "", depth: int = 0) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return _at(path) + _NAN.format(value)
    inner = children(value) if depth < 50 else ()
    return next(
        (found for step, item in inner if (found := _not_finite(item, path + step, depth + 1))),
        None,
    )

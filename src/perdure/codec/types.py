"""Compiled types: how a value of each becomes JSON, comes back, and is compared.

Rules: nothing is guessed, a value that would come back as something else is reported with the place
and the reason; the same value gives the same bytes in every process, so sets are written in sorted
order; what a type means does not depend on what else the program has imported.
"""

from __future__ import annotations

import collections.abc
import copy
import datetime as dt
import decimal
import functools
import inspect
import marshal
import re
import sys
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from perdure.api.secret import MARK, Secret
from perdure.codec import marks, pydantic
from perdure.codec.pydantic import Unsupported
from perdure.codec.records import fields_of, force, is_model, short
from perdure.codec.secrets import MARK_BYTES

Difference = tuple[str, Any, Any]
"""Where two values differ: the path, what was given, what came back."""


_SCALARS = (str, int, bool)
_INT_MAX = 2**63 - 1  # beyond it JSON readers differ, so those are compared


class Slot:
    """One annotated place for a value.

    `native` slots are written and read by the plain encoder and decoder, `foreign` ones by
    pydantic; `times` says that there may be times in it, whose zones the plain encoder leaves out.
    """

    __slots__ = (
        "decode",
        "encode",
        "foreign",
        "label",
        "native",
        "plain",
        "scalar",
        "times",
        "type",
    )

    def __init__(
        self,
        type_: Any,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        *,
        native: bool = False,
        plain: bool = False,
        foreign: bool = False,
        times: bool = False,
    ) -> None:
        self.type, self.label = type_, label_of(type_)
        self.encode, self.decode = encode, decode
        self.native, self.plain, self.foreign, self.times = native, plain, foreign, times
        self.scalar = type_ if type_ in _SCALARS else None

    def surely_same(self, value: Any) -> bool:
        """Whether the value surely comes back the same, so that no comparison is needed."""
        cls = type(value)
        return cls is self.scalar and (cls is not int or -_INT_MAX <= value <= _INT_MAX)

    def compare(self, value: Any, back: Any) -> Difference | None:
        return same_plain(value, back) if self.plain else difference(value, back)


def slot_of(type_: Any) -> Slot:
    """The slot for an annotation; raises `Unsupported` with the reason. Hashable types are compiled
    once.
    """
    try:
        # `A | B` and `B | A` are equal, and not the same where both could be meant.
        return _cached_slot(type_, None if isinstance(type_, type) else repr(type_))
    except Unsupported:
        raise
    except TypeError:  # an annotation that can't be hashed
        return _compile(type_)


def label_of(type_: Any) -> str:
    """A type as in source, with the same text in every process."""
    if isinstance(type_, type) and not typing.get_args(type_):
        return type_.__qualname__
    return re.sub(r" at 0x[0-9a-f]+|typing\.", "", str(type_))


# --- compiling ------------------------------------------------------------------------------------

_PLAIN = {
    "AnyType",
    "NoneType",
    "BoolType",
    "IntType",
    "FloatType",
    "StrType",
    "ListType",
    "DictType",
    "UnionType",
    "TypedDictType",
}
_PLAIN |= {"LiteralType", "VarTupleType", "TupleType", "Field", "Metadata"}
_SETS = {"SetType", "FrozenSetType", "CollectionType"}
_TIMES = {"DateTimeType", "TimeType"}
_RECORDS = {"DataclassType", "TypedDictType", "NamedTupleType", "StructType"}


@functools.lru_cache(maxsize=1024)
def _cached_slot(type_: Any, _: str | None) -> Slot:
    return _compile(type_)


def _compile(type_: Any) -> Slot:
    """The slot for an annotation. Places without a type give secrets as such."""
    type_ = _normal(type_)
    if is_model(type_):
        return _adapted(type_, "")
    asked = pydantic.asked_for(type_)
    pydantic.check_unions(type_)
    try:
        decoder = msgspec.json.Decoder(type_, dec_hook=dec_hook)
        kinds, customs = _parts(type_)
    except (TypeError, NameError, AttributeError) as error:
        return _adapted(type_, asked or str(error))
    if foreign := [
        cls
        for cls in customs
        if not (is_model(cls) or cls in (object, Secret) or _is_iterable(cls) or _is_path(cls))
    ]:
        return _adapted(type_, asked or f"{label_of(foreign[0])} has no JSON form")
    if asked is not None:
        return _adapted(type_, f"{asked} is pydantic's", kinds)
    models, times = any(map(is_model, customs)), bool(kinds & _TIMES)
    read: Callable[[bytes], Any] = decoder.decode
    if "AnyType" in kinds or object in customs:
        read = functools.partial(_read_with_secrets, read)
    if not (kinds & _SETS or models or times):
        return Slot(type_, ENCODER.encode, read, native=True, plain=kinds <= _PLAIN)
    sets = bool(kinds & _SETS)
    encode = (lambda value: ENCODER.encode(ordered(value))) if sets else ENCODER.encode
    decode = functools.partial(marks.read if models else marks.read_times, read)
    return Slot(type_, encode, decode, native=not (sets or models), times=times)


def _adapted(type_: Any, reason: str, kinds: set[str] = frozenset()) -> Slot:  # type: ignore[assignment]
    """A slot by pydantic, for its models, for what only it checks, and for the unions that msgspec
    leaves out.
    """
    if "BytesType" in kinds and kinds & _RECORDS:
        raise Unsupported(
            f"{reason}, which writes bytes in another way: make the record a pydantic model"
        )
    adapter = pydantic.adapter_of(type_, reason, base64="BytesType" in kinds)

    def encode(value: Any) -> bytes:
        if adapter.sets or (adapter.times and marks.zones(value)):
            value = ordered(value)
        raw = adapter.dump(value)
        return raw if adapter.dump(value, exclude_unset=True) == raw else marks.marked(value, raw)

    return Slot(
        type_,
        encode,
        functools.partial(marks.read, adapter.load),
        foreign=True,
        times=adapter.times,
    )


def _normal(type_: Any) -> Any:
    """Annotations that mean the same as a simpler one."""
    if type_ is inspect.Parameter.empty or type_ is object:
        return Any
    if type_ in (typing.NoReturn, typing.Never):
        return None
    return type_


def _parts(type_: Any) -> tuple[set[str], list[Any]]:
    """The kinds of node in a type, and the classes that msgspec leaves to hooks."""
    kinds: set[str] = set()
    customs: list[Any] = []
    seen: set[int] = set()
    ahead: list[Any] = [msgspec.inspect.type_info(type_)]
    while ahead:
        node = ahead.pop()
        if isinstance(node, tuple | list):
            ahead.extend(node)
        elif (
            isinstance(node, msgspec.inspect.Type | msgspec.inspect.Field) and id(node) not in seen
        ):
            seen.add(id(node))
            kinds.add(type(node).__name__)
            if isinstance(node, msgspec.inspect.CustomType):
                customs.append(node.cls)
            ahead.extend(
                getattr(node, name)
                for name in node.__struct_fields__
                if name not in ("cls", "default", "default_factory")
            )
    return kinds, customs


def _read_with_secrets(decode: Callable[[bytes], Any], raw: bytes) -> Any:
    value = decode(raw)
    return _secrets(value) if MARK_BYTES in raw else value


def _secrets(value: Any) -> Any:
    """The value with secrets for marked texts, in lists and dicts, and in fields of records."""
    if type(value) is str:
        return Secret.recorded(value) if value.startswith(MARK) else value
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _secrets(item)
    elif isinstance(value, list):
        value[:] = map(_secrets, value)
    elif isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(_secrets, value))
    else:
        for name in fields_of(type(value)):
            if hasattr(value, name):
                force(value, name, _secrets(getattr(value, name)))
    return value


def _is_path(cls: Any) -> bool:
    """Pathlib is not imported for this: without it there is no path either."""
    pathlib = sys.modules.get("pathlib")
    return pathlib is not None and isinstance(cls, type) and issubclass(cls, pathlib.PurePath)


def _is_iterable(cls: Any) -> bool:
    return collections.abc.Iterable in (cls, typing.get_origin(cls))


def _enc_hook(value: Any) -> Any:
    if is_model(type(value)):
        return msgspec.Raw(slot_of(type(value)).encode(value))
    if _is_path(type(value)):
        return str(value)
    if type(value) is Secret:
        return value.marked()
    raise Unsupported(label_of(type(value)))


def dec_hook(type_: Any, data: Any) -> Any:
    if is_model(type_):
        return slot_of(type_).decode(ENCODER.encode(data))
    if _is_iterable(type_):  # a common annotation of lists
        return slot_of(list[typing.get_args(type_) or Any]).decode(ENCODER.encode(data))  # type: ignore[misc]
    if type_ is Secret:
        return Secret.recorded(data)
    return data if type_ is object else type_(data)


ENCODER = msgspec.json.Encoder(enc_hook=_enc_hook)


# --- looking into values --------------------------------------------------------------------------


def ordered(value: Any, leaf: Callable[[Any], Any] = marks.zoned) -> Any:
    """The value to encode, with sorted lists for its sets and text for times in a named zone."""
    if isinstance(value, set | frozenset):
        return sorted((ordered(item, leaf) for item in value), key=ENCODER.encode)
    if isinstance(value, list | tuple):
        return [ordered(item, leaf) for item in value]
    if isinstance(value, dict):
        return {leaf(key): ordered(item, leaf) for key, item in value.items()}
    if names := fields_of(type(value)):
        value = copy.copy(value)
        for name in names:
            if hasattr(value, name):
                force(value, name, ordered(getattr(value, name), leaf))
    return leaf(value)


# --- comparing ------------------------------------------------------------------------------------


def same_plain(value: Any, back: Any) -> Difference | None:
    """`difference` for types of JSON's own: nearly always one comparison of two byte strings."""
    try:
        if marshal.dumps(value, 2) == marshal.dumps(back, 2):  # version 2 knows no references
            return None
    except ValueError:
        pass  # a class that marshal does not know, so the slow way tells which
    return difference(value, back)


def difference(value: Any, back: Any) -> Difference | None:
    """Where `back` is not the same as `value`: types count, and so does the order of dicts."""
    cls = type(value)
    if cls is not type(back):
        return None if cls is int and type(back) is float and value == back else ("", value, back)
    return _comparer(cls)(value, back)


def _comparer_for(cls: type) -> Callable[[Any, Any], Difference | None]:
    if issubclass(cls, list | tuple):
        return _compare_items
    if issubclass(cls, dict):
        return _compare_entries
    if issubclass(cls, set | frozenset):
        return _compare_sets
    if issubclass(cls, dt.datetime | dt.time):
        return _compare_times
    if issubclass(cls, decimal.Decimal):
        return _compare_texts
    if is_model(cls):
        return _compare_models
    if fields_of(cls):
        return functools.partial(_compare_fields, fields_of(cls))
    return _compare_whole


_comparer: Callable[[type], Callable[[Any, Any], Difference | None]] = functools.lru_cache(
    maxsize=4096
)(_comparer_for)


def _compare_items(value: Any, back: Any) -> Difference | None:
    if len(value) != len(back):
        return ("", value, back)
    for index, item in enumerate(value):
        if (found := difference(item, back[index])) is not None:
            return (f"[{index}]{found[0]}", found[1], found[2])
    return None


def _compare_entries(value: Any, back: Any) -> Difference | None:
    if len(value) != len(back):
        return ("", value, back)
    for (key, item), (other_key, other) in zip(value.items(), back.items(), strict=True):
        if difference(key, other_key) is not None:
            return ("", value, back)
        if (found := difference(item, other)) is not None:
            return (f"[{short(key)}]{found[0]}", found[1], found[2])
    return None


def _compare_sets(value: Any, back: Any) -> Difference | None:
    same = len(value) == len(back) and {(type(item), item) for item in value} == {
        (type(item), item) for item in back
    }
    return None if same and not marks.zones(value) else ("", value, back)


def _compare_times(value: Any, back: Any) -> Difference | None:
    same = value.utcoffset() == back.utcoffset() and value.replace(tzinfo=None) == back.replace(
        tzinfo=None
    )
    return None if same and marks.zone_of(value) == marks.zone_of(back) else ("", value, back)


def _compare_models(value: Any, back: Any) -> Difference | None:
    zones = slot_of(type(value)).times and marks.zones(value)
    return (
        None
        if value == back and (not zones or marks.zones(value) == marks.zones(back))
        else ("", value, back)
    )


def _compare_texts(value: Any, back: Any) -> Difference | None:
    return None if str(value) == str(back) else ("", value, back)


def _compare_fields(names: tuple[str, ...], value: Any, back: Any) -> Difference | None:
    for name in names:
        found = difference(getattr(value, name, msgspec.UNSET), getattr(back, name, msgspec.UNSET))
        if found is not None:
            return (f".{name}{found[0]}", found[1], found[2])
    return None


def _compare_whole(value: Any, back: Any) -> Difference | None:
    if value == back:
        return None
    cls: Any = type(value)
    if cls.__eq__ is object.__eq__ and slot_of(cls).encode(value) == slot_of(cls).encode(back):
        return None
    return ("", value, back)

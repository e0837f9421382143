"""The invariants of values, for random types: a type and values of it from each seed.

Rules: a value either comes back the same (its type, the zones of its times and the set fields of
its models included), or is refused with an error of ours; what a run sees live is what it sees on
every replay; a failure names the seed, and `Made(seed)` makes it again.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import random
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import attrs
import msgspec
import pydantic
import pytest

from perdure.api.definitions import Step, step
from perdure.codec import marks
from perdure.codec.equality import same_arguments
from perdure.codec.json_codec import JsonCodec
from perdure.codec.records import children
from perdure.codec.signature import signature_of
from perdure.codec.types import difference
from perdure.errors import DefinitionError, NotSerializable

SEEDS_EACH = 150
CODER = JsonCodec()
ZONES = [
    None,
    dt.UTC,
    dt.timezone(dt.timedelta(hours=-3)),
    *map(zoneinfo.ZoneInfo, ["Europe/Berlin", "UTC", "Asia/Kathmandu"]),
]
TEXTS = [
    "",
    "a",
    "ü\u2028",
    'he said ", "',
    '{ "a":1}',
    "2026-07-01T12:00:00+02:00[Europe/Berlin]",
    "12:00[A]",
    "~",
    "\x7f\\",
]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def sealed(text: str) -> str:
    return text[::-1]


def _time(r: random.Random) -> dt.datetime:
    day = r.choice(
        [
            dt.datetime(2026, 10, 25, 2, 30),
            dt.datetime(2026, 3, 29, 2, 30),
            dt.datetime(2026, 7, 1),
            dt.datetime(1850, 1, 1),
        ]
    )
    return day.replace(tzinfo=r.choice(ZONES), fold=r.randrange(2), microsecond=r.choice([0, 5]))


LEAVES: list[tuple[Any, Callable[[random.Random], Any]]] = [
    (int, lambda r: r.choice([0, -1, 2**53 + 1, 10**30])),
    (float, lambda r: r.choice([0.5, -0.0, 1e300])),
    (str, lambda r: r.choice(TEXTS)),
    (bool, lambda r: r.random() < 0.5),
    (type(None), lambda r: None),
    (bytes, lambda r: r.choice([b"", b"\x00\xff"])),
    (dt.datetime, _time),
    (dt.datetime, _time),
    (dt.date, lambda r: dt.date(2024, 2, 29)),
    (dt.time, lambda r: dt.time(2, 30, tzinfo=r.choice([None, *ZONES[3:]]))),
    (dt.timedelta, lambda r: dt.timedelta(days=-1, microseconds=r.randrange(9))),
    (decimal.Decimal, lambda r: decimal.Decimal("1.10")),
    (uuid.UUID, lambda r: uuid.UUID(int=r.getrandbits(128))),
    (Colour, lambda r: r.choice(list(Colour))),
    (Literal["a", "b"], lambda r: r.choice("ab")),
    (Any, lambda r: r.choice([None, 1, "x", [1.5], {"k": [{}]}])),
    (pydantic.PositiveInt, lambda r: r.choice([1, 2**40])),
    (
        Annotated[str, pydantic.PlainSerializer(sealed), pydantic.AfterValidator(sealed)],
        lambda r: r.choice(TEXTS),
    ),
    (Annotated[int, msgspec.Meta(ge=0)], lambda r: r.randrange(5)),
]


class Made:
    """A type with a way to make values of it, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"value {seed}")
        self.type, self.make = self._any(3)

    def value(self) -> Any:
        return self.make(self.random)

    def _any(self, depth: int) -> tuple[Any, Callable[[random.Random], Any]]:
        if depth == 0 or self.random.random() < 0.3:
            return self.random.choice(LEAVES)
        kind = self.random.choice(
            ["list", "tuple", "many", "set", "dict", "union", *["record"] * 4]
        )
        return getattr(self, f"_{kind}")(depth - 1)  # type: ignore[no-any-return]

    def _list(self, depth: int) -> Any:
        inner, make = self._any(depth)
        return list[inner], lambda r: [make(r) for _ in range(r.randrange(3))]  # type: ignore[valid-type]

    def _tuple(self, depth: int) -> Any:
        (one, make_one), (two, make_two) = self._any(depth), self._any(depth)
        return tuple[one, two], lambda r: (make_one(r), make_two(r))  # type: ignore[valid-type]

    def _many(self, depth: int) -> Any:
        inner, make = self._any(depth)
        return tuple[inner, ...], lambda r: tuple(make(r) for _ in range(r.randrange(3)))  # type: ignore[valid-type]

    def _set(self, depth: int) -> Any:
        inner, make = self.random.choice(
            [leaf for leaf in LEAVES if leaf[0] in (int, str, uuid.UUID, Colour)]
        )
        return set[inner], lambda r: {make(r) for _ in range(r.randrange(3))}  # type: ignore[valid-type]

    def _dict(self, depth: int) -> Any:
        (key, make_key), (inner, make) = (
            self.random.choice([leaf for leaf in LEAVES if leaf[0] in (int, str, dt.datetime)]),
            self._any(depth),
        )
        return dict[key, inner], lambda r: {make_key(r): make(r) for _ in range(r.randrange(3))}  # type: ignore[valid-type]

    def _union(self, depth: int) -> Any:
        (one, make_one), (two, make_two) = self._any(depth), self._any(depth)
        return one | two if one is not Any is not two else Any, lambda r: r.choice(
            [make_one, make_two]
        )(r)

    def _record(self, depth: int) -> Any:
        inner = [self._any(depth) for _ in range(self.random.randrange(1, 4))]
        types = {f"f{n}": type_ for n, (type_, _) in enumerate(inner)}
        makes = {f"f{n}": make for n, (_, make) in enumerate(inner)}
        cls, left_out = _class_of(self.random, types)

        def make(r: random.Random) -> Any:
            return cls(
                **{name: one(r) for name, one in makes.items() if not left_out or r.random() < 0.6}
            )

        return cls, make


def _class_of(r: random.Random, types: dict[str, Any]) -> tuple[Any, bool]:
    """A record class with these fields, and whether they may be left out."""
    match r.choice(
        [
            "dataclass",
            "frozen",
            "attrs",
            "struct",
            "renamed",
            "array",
            "row",
            "model",
            "model",
            "extra",
        ]
    ):
        case "dataclass":
            return dataclasses.make_dataclass("Data", types.items()), False
        case "frozen":
            return dataclasses.make_dataclass(
                "Frozen", types.items(), frozen=True, slots=True
            ), False
        case "attrs":
            return attrs.make_class(
                "Attrs", {name: attrs.field(type=type_) for name, type_ in types.items()}
            ), False
        case "struct":
            return msgspec.defstruct("Struct", types.items()), False
        case "renamed":
            return msgspec.defstruct(
                "Renamed", types.items(), rename=lambda name: f"the {name}", frozen=True
            ), False
        case "array":
            return msgspec.defstruct("Array", types.items(), array_like=True, tag="array"), False
        case "row":
            return NamedTuple("Row", types.items()), False
        case "model":
            fields: Any = {
                name: (type_ | None if type_ is not Any else Any, None)
                for name, type_ in types.items()
            }
            return pydantic.create_model("Model", **fields), True
        case _:
            named: Any = {
                name: (type_, pydantic.Field(alias=f"the-{name}")) for name, type_ in types.items()
            }
            config = pydantic.ConfigDict(populate_by_name=True, extra="allow")
            return pydantic.create_model("Aliased", __config__=config, **named), False


def all_of(value: Any) -> Any:
    """What is told apart beyond equality: types, zones, and which fields are set."""
    inside = [all_of(inner) for _, inner in children(value)] if not isinstance(value, set) else []
    keys = [all_of(key) for key in value] if isinstance(value, dict) else []
    return type(value), marks.zone_of(value), getattr(value, "model_fields_set", None), keys, inside


def _step_of(type_: Any, default: Any) -> Step[..., Any]:
    def fn(one, two=default, *rest, three=default, **more): ...

    fn.__annotations__ = dict.fromkeys(("one", "two", "rest", "three", "more", "return"), type_)
    return step(fn)


def _hold(seed: int) -> bool:
    """Whether the value of a seed could be stored; raises where a invariant does not hold."""
    try:
        made = Made(seed)
        value = made.value()
    except (pydantic.ValidationError, pydantic.errors.PydanticUserError):
        return False  # such a model, or such a value of it, can't be made
    fn = _step_of(made.type, value)
    try:
        signature = signature_of(fn)
        raw = signature.encode_result(value)
    except (NotSerializable, DefinitionError):
        return False
    live, replayed = signature.decode_result(raw), signature.decode_result(raw)
    assert difference(value, live) is None, (made.type, value, raw, live)
    assert all_of(value) == all_of(live) == all_of(replayed), (made.type, value, raw, live)
    assert live is not value or type(value) in (
        int,
        float,
        str,
        bool,
        bytes,
        type(None),
        Colour,
        tuple,
    )
    assert signature.encode_result(live) == raw, (made.type, value, raw)
    _hold_as_arguments(fn, value)
    return True


def _hold_as_arguments(fn: Step[..., Any], value: Any) -> None:
    signature = signature_of(fn)
    for args, kwargs in [
        ((value,), {}),
        ((value, value, value), {"three": value, "four": value}),
        ((), {"one": value}),
    ]:
        asked = signature.encode_args(args, kwargs)
        given, named = signature.decode_args(asked)
        bound = fn.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        assert all_of([bound.args, bound.kwargs]) == all_of([given, named])
        passed = signature.encode_passed(args, kwargs)  # as an earlier version has recorded it
        assert same_arguments(fn, asked, asked)
        assert same_arguments(fn, passed, asked)
        assert same_arguments(fn, marks.only(asked, marks.given(asked)), asked)


@pytest.mark.parametrize("part", range(4))
def test_every_value_comes_back_the_same_or_is_refused(part: int) -> None:
    held = 0
    for seed in range(part * SEEDS_EACH, (part + 1) * SEEDS_EACH):
        try:
            held += _hold(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
    assert held > SEEDS_EACH / 2, f"too many are refused: {held}"

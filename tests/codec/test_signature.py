"""Values: what comes back is what was given, or the error names the argument and says
what to do."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import threading
import uuid
import zoneinfo
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Iterable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NoReturn,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.api import definitions
from perdure.api.definitions import step, workflow
from perdure.codec import types
from perdure.codec import values as codec
from perdure.codec.json_codec import JsonCodec
from perdure.codec.signature import signature_of
from perdure.errors import DefinitionError, DoesNotFit, NotSerializable, PayloadTooLarge

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = "fast"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    tags: frozenset[str] = frozenset()


@dataclasses.dataclass
class Tree:
    label: str
    branches: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class NoEq:
    x: int


@dataclasses.dataclass
class Loose:
    data: Any = None


@dataclasses.dataclass
class Forgetful:
    x: int

    def __post_init__(self) -> None:
        self.x += 1


@dataclasses.dataclass
class Box(Generic[T]):
    item: T


@dataclasses.dataclass
class Animal:
    name: str


@dataclasses.dataclass
class Dog(Animal):
    tricks: int = 0


@attrs.define
class Attr:
    x: int
    when: dt.date


class Reply(msgspec.Struct):
    text: str
    parts: list[Point] = []


class Renamed(msgspec.Struct, rename="camel", omit_defaults=True, array_like=False):
    first_name: str
    last_seen: set[int] = set()


class Cat(msgspec.Struct, tag=True):
    lives: int


class Bird(msgspec.Struct, tag=True):
    wings: int


class Message(TypedDict):
    role: str
    content: str


class Pair(NamedTuple):
    left: int
    right: str


class Model(pydantic.BaseModel):
    name: str
    price: decimal.Decimal = decimal.Decimal("1.10")
    tags: set[str] = set()
    when: dt.datetime | None = None


class Aliased(pydantic.BaseModel):
    user_id: int = pydantic.Field(alias="userId")


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, frozen=True)
    at: dt.datetime
    pair: tuple[int, str]


class Shape(pydantic.BaseModel):
    kind: Literal["circle", "square"]


class Circle(Shape):
    kind: Literal["circle"] = "circle"
    radius: float


class Square(Shape):
    kind: Literal["square"] = "square"
    side: float


@dataclasses.dataclass
class Holder:
    model: Model
    shapes: list[Circle | None]


UTC = dt.UTC
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
GOOD: list[tuple[Any, Any]] = [
    (Any, None),
    (Any, {"a": [1, 2.5, "ü\x00\u2028", True, None, {"b": {}}]}),
    (Any, {"z": 1, "a": 2}),
    (object, [1]),
    (int, 2**53 + 1),
    (int, -(2**63) - 1),
    (int, 10**40),
    (float, -0.0),
    (float, 5e-324),
    (float, 1e300),
    (float, 3),
    (str, "\x7f\U0001f600"),
    (bool, True),
    (None, None),
    (bytes, b"\x00\xff"),
    (bytearray, bytearray(b"ab")),
    (list[int], []),
    (Sequence[int], [1]),
    (Iterable[str], ["a"]),
    (Mapping[str, int], {"b": 1, "a": 2}),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (tuple, ()),
    (set[int], {3, 1, 2}),
    (frozenset[str], frozenset({"b", "a"})),
    (set[tuple[int, str]], {(1, "a"), (0, "b")}),
    (set[frozenset[str]], {frozenset({"a", "b"}), frozenset()}),
    (dict[str, set[int]], {"z": {2, 1}, "a": set()}),
    (dict[int, str], {2: "b", 1: "a"}),
    (dict[uuid.UUID, int], {uuid.UUID(int=1): 1}),
    (dict[dt.date, int], {dt.date(2024, 2, 29): 1}),
    (dict[Colour, int], {Colour.RED: 1}),
    (Optional[int], None),  # noqa: UP045
    (Union[int, str], "a"),  # noqa: UP007
    (int | str | None, 1),
    (Literal["a", "b"], "b"),
    (Annotated[int, msgspec.Meta(gt=0)], 1),
    (dt.datetime, dt.datetime(2024, 1, 1)),
    (dt.datetime, dt.datetime(2024, 1, 1, 12, 30, 1, 999999, tzinfo=UTC)),
    (dt.datetime, dt.datetime(2024, 7, 1, tzinfo=BERLIN)),
    (dt.datetime, dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)),
    (dt.date, dt.date(1, 1, 1)),
    (dt.time, dt.time(23, 59, 59, 1)),
    (dt.timedelta, dt.timedelta(days=-1, microseconds=3)),
    (decimal.Decimal, decimal.Decimal("1.10")),
    (decimal.Decimal, decimal.Decimal("1E+30")),
    (uuid.UUID, uuid.UUID(int=2**127)),
    (pathlib.Path, pathlib.Path("/a/b")),
    (Colour, Colour.BLUE),
    (Level, Level.HIGH),
    (Mode, Mode.FAST),
    (Rights, Rights.READ | Rights.WRITE),
    (Point, Point(1)),
    (Point, Point(1, 2)),
    (Point | None, None),
    (Frozen, Frozen("a", frozenset({"y", "x"}))),
    (Tree, Tree("a", [Tree("b", [Tree("c")])])),
    (NoEq, NoEq(1)),
    (Loose, Loose({"a": [1]})),
    (Box[int], Box(1)),
    (Attr, Attr(1, dt.date(2024, 1, 1))),
    (Reply, Reply("a", [Point(1)])),
    (Renamed, Renamed("a", {2, 1})),
    (Cat | Bird, Bird(2)),
    (list[Cat | Bird], [Bird(2), Cat(9)]),
    (Message, {"role": "user", "content": "hi"}),
    (Message, {"content": "hi", "role": "user"}),
    (list[Message], [{"role": "user", "content": "hi"}]),
    (Pair, Pair(1, "a")),
    (set[Pair], {Pair(1, "a"), Pair(0, "b")}),
    (Model, Model(name="a", tags={"y", "x"}, when=dt.datetime(2024, 1, 1, tzinfo=UTC))),
    (Model | None, Model(name="a")),
    (list[Model], [Model(name="a"), Model(name="b")]),
    (dict[str, Model], {"b": Model(name="a"), "a": Model(name="b")}),
    (Aliased, Aliased(userId=3)),
    (Strict, Strict(at=dt.datetime(2024, 1, 1, tzinfo=UTC), pair=(1, "a"))),
    (list[Strict], [Strict(at=dt.datetime(2024, 1, 1, tzinfo=UTC), pair=(1, "a"))]),
    (Circle | Square, Square(side=2)),
    (
        list[Annotated[Circle | Square, pydantic.Field(discriminator="kind")]],
        [Square(side=2), Circle(radius=1)],
    ),
    (Point | Animal | None, Point(1)),  # two records: msgspec leaves them to pydantic
    (Holder, Holder(Model(name="a"), [Circle(radius=1), None])),
]


@pytest.mark.parametrize(
    ("type_", "value"), GOOD, ids=[f"{n}-{type_}"[:40] for n, (type_, _) in enumerate(GOOD)]
)
def test_supported_types_come_back_the_same(type_: Any, value: Any) -> None:
    raw = codec.encode(value, type_)
    back = codec.decode(raw, type_)
    assert types.difference(value, back) is None
    again = codec.encode(back, type_)
    assert types.difference(codec.decode(again, type_), back) is None
    assert again == raw or b".0" in again, (
        "only an int in the place of a float is written differently once it was read"
    )


@pytest.mark.parametrize(
    ("type_", "value"), GOOD, ids=[f"{n}-{type_}"[:40] for n, (type_, _) in enumerate(GOOD)]
)
def test_supported_types_as_arguments_and_results(type_: Any, value: Any) -> None:
    def fn(one, /, two=None, *rest, three=None, **more): ...

    fn.__annotations__ = dict.fromkeys(("one", "two", "rest", "three", "more", "return"), type_)
    signature = signature_of(step(fn))
    args, kwargs = (value, value, value, value), {"three": value, "four": value}
    back_args, back_kwargs = signature.decode_args(signature.encode_args(args, kwargs))
    assert types.difference(args, back_args) is None
    assert types.difference(kwargs, back_kwargs) is None
    assert types.difference(value, signature.decode_result(signature.encode_result(value))) is None


def test_what_comes_back_is_fresh() -> None:
    @step
    def fn(items: list[list[int]]) -> None: ...

    given_ = [[1]]
    (back,), _ = signature_of(fn).decode_args(signature_of(fn).encode_args((given_,), {}))
    back[0].append(2)
    assert given_ == [[1]]


def test_an_aware_time_keeps_instant_and_offset() -> None:
    summer = dt.datetime(2024, 7, 1, 12, tzinfo=BERLIN)
    back = codec.decode(codec.encode(summer, dt.datetime), dt.datetime)
    assert back == summer
    assert back.utcoffset() == dt.timedelta(hours=2)


def test_sets_are_written_the_same_by_every_process() -> None:
    code = """
import sys; sys.path[:0] = sys.argv[1:]
from tests.codec.test_signature import Model, Renamed, codec
words = {f"w{i}" for i in range(50)}
print(codec.encode([{"b": words, "a": words}], list[dict[str, set[str]]]).decode())
print(codec.encode({frozenset(words), frozenset()}, set[frozenset[str]]).decode())
print(codec.encode([Renamed("x", {hash("a"), 8, 2**40} - {hash("a")})], list[Renamed]).decode())
print(codec.encode(Model(name="m", tags=words), Model).decode())
print(codec.encode([Model(name="m", tags=words)], list[Model]).decode())
"""
    root = pathlib.Path(__file__).parent.parent.parent
    outputs = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(root), str(root / "src")],
            env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert '"b":["w0","w1"' in outputs.pop()


# --- what can't be stored -------------------------------------------------------------------------


class Plain:
    pass


class Word(str):
    pass


class Broken:
    def __repr__(self) -> str:
        raise ValueError


Nt = namedtuple("Nt", "a")
loop: list[Any] = []
loop.append(loop)
deep: list[Any] = []
for _ in range(100_000):
    deep = [deep]


async def a_coroutine() -> None: ...


@step
def a_step() -> None: ...


BAD: list[tuple[Any, Any, str]] = [
    (
        Any,
        (1, 2),
        "it would come back as list, not tuple; annotate the parameter as tuple[int, ...]",
    ),
    (
        Any,
        {"a": (1, "x")},
        (
            "at ['a'], it would come back as list, not tuple; annotate the parameter with a "
            "type that says tuple[Any, ...] there"
        ),
    ),
    (Any, {1, 2}, "it would come back as list, not set; annotate the parameter as set[int]"),
    (Any, frozenset("a"), "annotate the parameter as frozenset[str]"),
    (Any, Colour.RED, "it would come back as str, not Colour; annotate the parameter as Colour"),
    (Any, Level.LOW, "it would come back as int, not Level; annotate the parameter as Level"),
    (Any, Mode.FAST, "it would come back as str, not Mode; annotate the parameter as Mode"),
    (Any, Point(1), "it would come back as dict, not Point; annotate the parameter as Point"),
    (Any, [Point(1)], "at [0], it would come back as dict, not Point"),
    (Any, Reply("a"), "it would come back as dict, not Reply; annotate the parameter as Reply"),
    (
        Any,
        Model(name="a"),
        "it would come back as dict, not Model; annotate the parameter as Model",
    ),
    (Any, Pair(1, "a"), "it would come back as list, not Pair; annotate the parameter as Pair"),
    (
        Any,
        {1: "a"},
        (
            "it would come back with keys of type str, not int; annotate the parameter as "
            "dict[int, str]"
        ),
    ),
    (Any, {None: 1}, "its keys must be strings or numbers; use str keys, or a list of pairs"),
    (Any, {(1, 2): 1}, "its keys must be strings or numbers"),
    (Any, b"ab", "it would come back as str, not bytes; annotate the parameter as bytes"),
    (
        Any,
        dt.datetime(2024, 1, 1),
        "it would come back as str, not datetime; annotate the parameter as datetime",
    ),
    (
        Any,
        decimal.Decimal(1),
        "it would come back as str, not Decimal; annotate the parameter as Decimal",
    ),
    (Any, uuid.UUID(int=1), "it would come back as str, not UUID; annotate the parameter as UUID"),
    (Any, pathlib.Path("a"), "annotate the parameter as PosixPath"),
    (Any, math.nan, "nan is not JSON; pass None or a string in its place"),
    (Any, {"a": [1.0, math.inf]}, "at ['a'][1], inf is not JSON"),
    (float, math.nan, "nan is not JSON"),
    (float | None, -math.inf, "-inf is not JSON"),
    (list[float], [1.0, math.nan], "at [1], nan is not JSON"),
    (Point, Point(1, math.inf), "at .y, inf is not JSON"),
    (
        Any,
        OrderedDict(a=1),
        "it would come back as dict, not OrderedDict; convert it with dict() first",
    ),
    (
        dict[str, int],
        defaultdict(int, a=1),
        "it would come back as dict, not defaultdict; convert it with dict() first",
    ),
    (str, Word("a"), "Word has no JSON form; convert it with str() first"),
    (
        bytes,
        bytearray(b"a"),
        "it would come back as bytes, not bytearray; convert it with bytes() first",
    ),
    (
        bytes,
        memoryview(b"a"),
        "it would come back as bytes, not memoryview; convert it with bytes() first",
    ),
    (list[int], (1,), "it would come back as list, not tuple"),
    (int, "1", "it does not fit `int`: Expected `int`, got `str`"),
    (int, None, "it does not fit `int`: Expected `int`, got `null`"),
    (int, True, "it does not fit `int`"),
    (float, 2**53 + 1, "it would come back as float, not int"),
    (list[int], [1, "x"], "it does not fit `list[int]`: Expected `int`, got `str` - at `$[1]`"),
    (Animal, Dog("rex", 1), "it would come back as Animal, not Dog; annotate the parameter as Dog"),
    (Point, Attr(1, dt.date(2024, 1, 1)), "it would come back as Point, not Attr"),
    (Loose, Loose((1,)), "at .data, it would come back as list, not tuple"),
    (Loose, Loose(Level.LOW), "at .data, it would come back as int, not Level"),
    (Forgetful, Forgetful(1), "at .x, it would come back different: 2 became 3"),
    (Message, {"role": "a", "content": "b", "extra": 1}, "it would come back different"),
    (
        Model,
        Model.model_construct(name=3),
        "it does not fit `Model`: 1 validation error for Model name Input should be a valid string",
    ),
    (
        dt.datetime,
        dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=5))),
        "it would come back different",
    ),
    (Any, "a\ud800", "the text has a lone surrogate, which is not valid Unicode"),
    (str, "\udcff", "the text has a lone surrogate"),
    (Any, {"a": ["\ud800"]}, "at ['a'][0], the text has a lone surrogate"),
    (Any, loop, "it contains itself, or is nested too deeply"),
    (list[Any], deep, "it contains itself, or is nested too deeply"),
    (Any, (i for i in [1]), "a generator can be read only once; pass a list of its items"),
    (Iterable[int], iter([1]), "a list_iterator can be read only once; pass a list of its items"),
    (Any, a_step(), "a Call was not awaited; await it and pass its result"),
    (Any, [lambda: 1], "at [0], a function is code, which is never stored"),
    (Any, Plain, "a type is code, which is never stored"),
    (Any, Plain(), "Plain has no JSON form; pass plain values, a dataclass or a msgspec Struct"),
    (Any, [Broken()], "at [0], Broken has no JSON form"),
    (Any, threading.Lock(), "lock has no JSON form"),
    (
        Any,
        sys.stdout,
        (
            "has no JSON form; pass plain values, a dataclass or a msgspec Struct. Open files, "
            "locks and clients are made inside steps"
        ),
    ),
    (Any, ValueError("x"), "ValueError has no JSON form"),
    (Any, 1j, "complex has no JSON form"),
    (Any, range(3), "range has no JSON form"),
    (Any, {}.keys(), "dict_keys has no JSON form"),
    (Point, Point(Plain()), "at .x, Plain has no JSON form"),  # type: ignore[arg-type]
    (Any, 10**5000, "int has no JSON form"),
    (set[str], {"a", "\ud800"}, "the text has a lone surrogate"),
]


@pytest.mark.parametrize(("type_", "value", "says"), BAD, ids=[f"{n}" for n in range(len(BAD))])
def test_a_bad_argument_is_named(type_: Any, value: Any, says: str) -> None:
    def fn(first, messages, **more): ...

    fn.__annotations__ = {"messages": type_, "first": int}
    with pytest.raises(NotSerializable) as caught:
        signature_of(
            step(
                fn,
            )
        ).encode_args((1, value), {"x": 1})
    assert str(caught.value).startswith("argument 'messages' of step fn can't be stored: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(("type_", "value", "says"), BAD, ids=[f"{n}" for n in range(len(BAD))])
def test_a_bad_result_is_named(type_: Any, value: Any, says: str) -> None:
    async def agent(): ...

    agent.__annotations__ = {"return": type_}
    with pytest.raises(NotSerializable) as caught:
        signature_of(workflow(agent)).encode_result(value)
    assert str(caught.value).startswith("the result of workflow agent can't be stored: ")
    assert says.replace("the parameter", "the return type") in str(caught.value)


def test_a_result_without_annotation() -> None:
    @step
    def think(): ...

    with pytest.raises(NotSerializable, match="annotate the return type as Reply") as caught:
        signature_of(think).encode_result(Reply("a"))
    assert str(caught.value) == (
        "the result of step think can't be stored: it would come back as dict, not Reply; "
        "annotate the return type as Reply"
    )


def test_errors_are_never_raw() -> None:
    class Evil:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = None  # type: ignore[assignment]

    for value in (Evil(), [Evil()], {"a": Evil()}):
        with pytest.raises(NotSerializable):
            codec.encode(value)


def test_a_payload_over_the_limit() -> None:
    @step
    def fn(text: str) -> str: ...

    limited = JsonCodec(payload_bytes_max=100)
    with pytest.raises(PayloadTooLarge) as caught:
        limited.encode_call(fn("x" * 100))
    assert (caught.value.where, caught.value.size_bytes, caught.value.limit_bytes) == (
        "the arguments of step fn",
        111,
        100,
    )
    with pytest.raises(PayloadTooLarge, match="the result of step fn is 102 bytes"):
        limited.encode_output(fn, "x" * 100)
    with pytest.raises(PayloadTooLarge, match="the message on channel 'a' is 102 bytes"):
        limited.encode("x" * 100, "the message on channel 'a'")
    assert len(limited.encode("x" * 98, "it")) == 100


# --- signatures -----------------------------------------------------------------------------------


def test_arguments_are_stored_by_name_with_the_defaults_of_those_that_were_left_out() -> None:
    @step
    def fn(a: int, b: str = "b", *rest: float, c: bool = False, **more: int) -> None: ...

    signature = signature_of(fn)
    assert signature.encode_args((1,), {}) == b'{"a":1, "b":"b", "c":false}'
    assert signature.encode_args((), {"c": True, "a": 1}) == b'{"a":1,"c":true, "b":"b"}'
    assert signature.encode_passed((), {"c": True, "a": 1}) == b'{"a":1,"c":true}'
    assert signature.encode_args((1, "x", 0.5, 2.0), {"z": 1, "y": 2}) == (
        b'{"a":1,"b":"x","rest":[0.5,2.0],"more":{"z":1,"y":2}, "c":false}'
    )
    assert signature.decode_args(b'{"b":"x","a":1}') == ((1, "x"), {})
    assert signature.decode_args(b'{"c":true,"a":1}') == ((1,), {"c": True})


def test_no_arguments() -> None:
    @step
    def fn() -> None: ...

    assert signature_of(fn).encode_args((), {}) == b"{}"
    assert signature_of(fn).decode_args(b"{}") == ((), {})


def test_awkward_names() -> None:
    @step
    def fn(self: int, a: int, /, p0: int = 0, **kw: int) -> None: ...

    signature = signature_of(fn)
    args, kwargs = (1, 2), {"a": 3, "self": 4, "kw": 5, "p0": 6}
    raw = signature.encode_args(args, kwargs)
    assert signature.decode_args(raw) == ((1, 2, 6), {"a": 3, "self": 4, "kw": 5})


@given(
    st.lists(st.integers(), max_size=5),
    st.dictionaries(st.sampled_from(["c", "d", "x", "y", "b"]), st.integers()),
)
def test_any_call_round_trips(args: list[int], kwargs: dict[str, int]) -> None:
    @step
    def fn(a: int = 0, b: int = 0, *rest: int, c: int = 0, d: int = 0, **more: int) -> None: ...

    def bound(args: Any, kwargs: Any) -> Any:
        return fn.signature.bind(*args, **kwargs).arguments

    try:
        expected = bound(args, kwargs)
    except TypeError:
        return
    signature = signature_of(fn)
    found = bound(*signature.decode_args(signature.encode_args(tuple(args), kwargs)))
    assert found == dict.fromkeys("abcd", 0) | expected


def test_clones_share_a_signature_and_names_do_not() -> None:
    def fn(a: int) -> None: ...

    one = step(fn)
    assert (
        signature_of(one.options(timeout=5))
        is signature_of(one)
        is signature_of(one.options(timeout=6))
    )
    assert signature_of(step(name="other")(fn)).what == "step other"


def test_the_connection_of_a_transactional_step_is_no_argument() -> None:
    @step(transactional=True)
    def save(db: Any, n: int) -> None: ...

    assert signature_of(save).encode_args((3,), {}) == b'{"n":3}'


def test_annotations_that_come_later_and_from_around() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    @step
    def fn(a: Local, b: Later) -> list[Local]: ...

    signature = signature_of(fn)
    assert signature.decode_args(signature.encode_args((Local(1), Later(2)), {})) == (
        (Local(1), Later(2)),
        {},
    )
    assert signature.decode_result(b'[{"x":1}]') == [Local(1)]


@dataclasses.dataclass
class Later:
    x: int


def test_an_annotation_that_can_not_be_resolved() -> None:
    @step
    def fn(a: int, reply: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(DefinitionError) as caught:
        signature_of(fn)
    assert str(caught.value) == (
        "Parameter 'reply' of step fn: the annotation 'Missing' can't be resolved (name "
        "'Missing' is not defined). Import or "
        "define what it names at module level, not only under TYPE_CHECKING, and before the "
        "first call."
    )


def test_a_type_that_can_not_be_stored() -> None:
    @step
    def fn(lock: Plain) -> None: ...

    with pytest.raises(
        DefinitionError,
        match=(
            r"Parameter 'lock' of step fn is annotated as .*Plain.* which can't be stored: "
            r"Plain has no JSON form"
        ),
    ):
        signature_of(fn)

    @workflow
    async def agent() -> Plain: ...

    with pytest.raises(DefinitionError, match="The result of workflow agent is annotated as"):
        signature_of(agent)


def test_a_parameter_that_is_left_out_may_have_any_type() -> None:
    @step
    def fn(a: int, lock: Plain | None = None) -> None: ...

    assert signature_of(fn).encode_args((1,), {}) == b'{"a":1}'
    assert signature_of(fn).decode_args(b'{"a":1}') == ((1,), {})
    with pytest.raises(DefinitionError, match="Parameter 'lock' of step fn"):
        signature_of(fn).encode_args((1, None), {})


def test_a_function_that_never_returns() -> None:
    @step
    def fn() -> NoReturn: ...

    assert signature_of(fn).decode_result(b"null") is None


def test_arguments_of_other_code() -> None:
    @step
    def fn(a: int, b: Point | None = None) -> int: ...

    signature = signature_of(fn)
    with pytest.raises(
        DoesNotFit,
        match="the recorded call of step fn does not fit: the code has no parameter c any more",
    ):
        signature.decode_args(b'{"a":1,"c":2}')
    with pytest.raises(
        DoesNotFit,
        match=r"argument 'b' of step fn does not fit: Expected `object \| null`, got `int`",
    ):
        signature.decode_args(b'{"a":1,"b":2}')
    with pytest.raises(
        DoesNotFit, match="the result of step fn does not fit: Expected `int`, got `str`"
    ):
        signature.decode_result(b'"x"')
    for raw in (b"", b"[]", b"{", b'{"a":'):
        with pytest.raises(DoesNotFit):
            signature.decode_args(raw)


def test_unions_without_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)  # it is not installed

    @dataclasses.dataclass
    class Other:
        y: int

    with pytest.raises(DefinitionError, match="may not contain more than one dataclass") as caught:
        codec.encode(Point(1), Point | Other, "the value")
    assert "pydantic could do it, and is not installed" in str(caught.value)
    assert "tagged, in unions" in str(caught.value)


# --- messages -------------------------------------------------------------------------------------


def test_a_message_may_be_of_a_class_that_its_reader_asks_for() -> None:
    coder = JsonCodec()
    for type_, value in GOOD:
        if type(value) is type_ and type_ not in (list, dict, tuple):
            back = coder.decode(coder.encode(value, "the message"), type_, "the message")
            assert types.difference(value, back) is None
    with pytest.raises(
        NotSerializable,
        match=(
            r"the message on channel 'x' can't be stored: at .0., it would come back as dict, "
            r"not Point"
        ),
    ):
        coder.encode([Point(1)], "the message on channel 'x'")


def test_a_message_that_does_not_fit() -> None:
    with pytest.raises(DoesNotFit) as caught:
        JsonCodec().decode(b'"yes"', bool, "the message on channel 'approval'")
    assert str(caught.value) == (
        "the message on channel 'approval' does not fit: Expected `bool`, got `str` (wanted: bool)"
    )
    assert isinstance(caught.value, NotSerializable)


def test_an_answer_without_a_call_is_plain() -> None:
    assert JsonCodec().decode_result(None, b'{"a":1}') == {"a": 1}


# --- invariants -----------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.dates()
    | st.decimals()
    | st.sampled_from(Colour)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.builds(Loose, inner)
    ),
    max_leaves=12,
)


@given(values)
def test_untyped_values_come_back_the_same_or_are_refused(value: Any) -> None:
    try:
        raw = codec.encode(value)
    except NotSerializable:
        return
    assert types.difference(value, json.loads(raw)) is None, "only plain JSON gets through"


def _floats_in(value: Any) -> list[float]:
    fields = (
        vars(value)
        if hasattr(value, "__dict__")
        else {name: getattr(value, name) for name in value.__slots__}
    )
    return [field for field in fields.values() if isinstance(field, float)]


@given(
    st.from_type(Point)
    | st.from_type(Frozen)
    | st.from_type(Attr)
    | st.builds(Tree, st.text(), st.lists(st.builds(Tree, st.text())))
)
def test_records_come_back_the_same_or_are_refused(value: Any) -> None:
    if not all(map(math.isfinite, _floats_in(value))):
        with pytest.raises(NotSerializable, match="not JSON"):
            codec.encode(value, type(value))
        return
    raw = codec.encode(value, type(value))
    assert codec.decode(raw, type(value)) == value


@given(st.dictionaries(st.text(), st.sets(st.integers() | st.text())))
def test_order_does_not_depend_on_how_sets_were_made(value: dict[str, set[Any]]) -> None:
    shuffled = {
        key: set(random.sample(sorted(items, key=repr), len(items))) for key, items in value.items()
    }
    type_ = dict[str, set[int | str]]
    assert codec.encode(value, type_) == codec.encode(shuffled, type_)
    assert list(codec.decode(codec.encode(value, type_), type_)) == list(value)


def test_coroutines_are_code() -> None:
    coroutine = a_coroutine()
    with pytest.raises(NotSerializable, match="a coroutine was not awaited"):
        codec.encode(coroutine)
    asyncio.run(coroutine)
    assert isinstance(a_step(), definitions.Call)

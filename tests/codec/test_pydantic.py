"""What only pydantic knows of a type is done by pydantic, or refused, wherever it stands and
whatever else is imported.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import subprocess
import sys
import zoneinfo
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

import annotated_types
import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from perdure import Engine, RunFailed, receive, step, workflow
from perdure.codec import records, types
from perdure.codec import values as codec
from perdure.codec.json_codec import JsonCodec
from perdure.codec.signature import signature_of
from perdure.errors import DefinitionError, DoesNotFit, NotSerializable
from tests.runtime.support import awaited


def turned(text: str) -> str:
    """A seal that everybody can open."""
    return text[::-1]


Sealed = Annotated[str, pydantic.PlainSerializer(turned), pydantic.AfterValidator(turned)]
Lossy = Annotated[str, pydantic.PlainSerializer(lambda text: "***")]
Few = Annotated[list[int], annotated_types.MaxLen(2)]


@dataclasses.dataclass
class Bill:
    amount: pydantic.PositiveInt
    note: Sealed = ""


@dataclasses.dataclass
class Holder:
    bills: list[Bill]


@pydantic.dataclasses.dataclass
class Checked:
    amount: int = pydantic.Field(gt=0)


class Row(NamedTuple):
    amount: pydantic.PositiveInt


class Model(pydantic.BaseModel):
    amount: int = 1


@dataclasses.dataclass
class HoldsModel:
    model: Model


class Struct(msgspec.Struct):
    amount: pydantic.PositiveInt


@attrs.define
class Attrs:
    amount: pydantic.PositiveInt


@dataclasses.dataclass
class WithBytes:
    amount: pydantic.PositiveInt
    data: bytes


@dataclasses.dataclass
class BothKinds:
    amount: pydantic.PositiveInt
    size: Annotated[int, msgspec.Meta(gt=0)]


class Dict(TypedDict):
    amount: pydantic.PositiveInt


Alias = dict[str, pydantic.PositiveInt]
BROKEN: list[tuple[Any, Any]] = [
    (pydantic.PositiveInt, -5),
    (Annotated[int, annotated_types.Gt(0)], -5),
    (pydantic.PositiveInt | None, -5),
    (list[pydantic.PositiveInt], [1, -5]),
    (tuple[pydantic.PositiveInt, ...], (1, -5)),
    (Alias, {"a": -5}),
    (Few, [1, 2, 3]),
    (pydantic.StrictInt, True),
    (Annotated[str, pydantic.StringConstraints(pattern="^a")], "b"),
    (Bill, Bill(-5)),
    (Holder, Holder([Bill(-5)])),
    (list[Holder], [Holder([Bill(-5)])]),
    (Row, Row(-5)),
    (Bill | Row, Bill(-5)),
]


@pytest.mark.parametrize(("type_", "value"), BROKEN, ids=[str(n) for n in range(len(BROKEN))])
def test_constraints_hold_wherever_they_stand(type_: Any, value: Any) -> None:
    """They were ignored outside of models: -5 was given as a PositiveInt."""

    @step
    def fn(one, *, two=None): ...

    fn.fn.__annotations__ = {"one": type_, "return": type_}
    fn.signature = fn.signature.replace(
        parameters=[one.replace(annotation=type_) for one in fn.signature.parameters.values()],
        return_annotation=type_,
    )
    with pytest.raises(NotSerializable, match="argument 'one' of step fn can't be stored: it "):
        signature_of(fn).encode_args((value,), {})
    with pytest.raises(NotSerializable):
        signature_of(fn).encode_result(value)
    plain = msgspec.json.encode(value)
    with pytest.raises(DoesNotFit):
        codec.decode(plain, type_)


SEALED: list[tuple[Any, Any]] = [
    (Sealed, "my secret"),
    (Sealed | None, "my secret"),
    (list[Sealed], ["my secret"]),
    (dict[str, Sealed], {"a": "my secret"}),
    (Bill, Bill(1, "my secret")),
    (Holder, Holder([Bill(1, "my secret")])),
    (tuple[int, Sealed], (1, "my secret")),
]


@pytest.mark.parametrize(("type_", "value"), SEALED, ids=[str(n) for n in range(len(SEALED))])
def test_what_a_serializer_seals_is_stored_sealed(type_: Any, value: Any) -> None:
    """It was stored in clear."""
    raw = codec.encode(value, type_)
    assert b"my secret" not in raw
    assert b"terces ym" in raw
    assert types.difference(value, codec.decode(raw, type_)) is None


@pytest.mark.parametrize(
    ("type_", "value"),
    [(Lossy, "my secret"), (pydantic.SecretStr, pydantic.SecretStr("my secret"))],
)
def test_what_does_not_come_back_is_refused_without_being_told(type_: Any, value: Any) -> None:
    with pytest.raises(NotSerializable, match="is not read as the same value again") as caught:
        codec.encode(value, type_)
    assert "my secret" not in str(caught.value)


Constrained = Annotated[int, msgspec.Meta(ge=0)]
REFUSED: list[tuple[Any, str]] = [
    (
        Constrained | tuple[float, str],
        "can't read a union of a collection and a type with constraints",
    ),  # it ended the process
    (
        dict[str, Annotated[str, msgspec.Meta(pattern="a")] | list[int] | None],
        "can't read a union of a collection",
    ),
    (Struct, "Gt.gt=0. is pydantic's, and pydantic: Unable to generate"),
    (list[Struct | None], "Gt.gt=0. is pydantic's"),
    (Attrs, "Gt.gt=0. is pydantic's"),
    (WithBytes, "which writes bytes in another way: make the record a pydantic model"),
    (BothKinds, "msgspec.Meta does not work beside what only pydantic does"),
    (type, "no JSON form"),
    ("int", "not supported"),
    (print, "not supported"),
]


@pytest.mark.parametrize(("type_", "says"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
def test_what_neither_library_can_do_alone_is_refused_where_it_is_asked_for(
    type_: Any, says: str
) -> None:
    with pytest.raises(DefinitionError, match=says):
        JsonCodec().check_type(type_, "the value")


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="pydantic takes the standard library's from 3.12 on"
)
def test_a_typed_dict_that_pydantic_does_not_take_is_refused() -> None:
    with pytest.raises(DefinitionError, match="typing_extensions"):
        JsonCodec().check_type(Dict, "the value")


def test_a_description_is_no_constraint() -> None:
    type_: Any = Annotated[
        list[Annotated[int, pydantic.Field(description="n")]], pydantic.Field(description="some")
    ]
    assert types.slot_of(type_).native


def test_bytes_with_a_constraint_are_read_as_they_were_written_before() -> None:
    type_: Any = Annotated[bytes, pydantic.Field(max_length=3)]
    assert codec.decode(msgspec.json.encode(b"\xff\xfe\xfb"), type_) == b"\xff\xfe\xfb"
    assert codec.decode(codec.encode(b"\xff\xfe\xfb", type_), type_) == b"\xff\xfe\xfb"


@dataclasses.dataclass
class Cat:
    name: str


@dataclasses.dataclass
class Dog:
    name: str
    tricks: int = 0


def test_what_a_union_means_goes_by_its_order_and_not_by_what_was_compiled_first() -> None:
    """`Cat | Dog` and `Dog | Cat` are equal, so that the one that a process met first stood for
    both.
    """
    raw = b'{"name":"x"}'
    for first, second in [(Cat, Dog), (Dog, Cat)]:
        assert type(codec.decode(raw, first | second)) is first
        assert type(codec.decode(raw, list[first | second] | first | second)) is first  # type: ignore[valid-type]


def test_a_union_that_can_not_be_told_apart_is_refused_with_the_value() -> None:
    assert codec.decode(codec.encode(Dog("x", 2), Cat | Dog), Cat | Dog) == Dog("x", 2)
    with pytest.raises(NotSerializable, match="it would come back as Dog, not Cat"):
        codec.encode(Cat("x"), Dog | Cat)


ALONE = """
import sys, dataclasses, datetime, ipaddress
from perdure.codec import values as codec
{imported}
@dataclasses.dataclass
class A:
    x: int
@dataclasses.dataclass
class B:
    y: str
address = ipaddress.ip_address("::1")
for value, type_ in [(B("b"), A | B), ([A(1), B("b")], list[A | B]), ("x", str | datetime.date),
                     (address, ipaddress.IPv6Address)]:
    raw = codec.encode(value, type_)
    print(raw, codec.decode(raw, type_) == value)
for type_ in ("int", type, object(), lambda: 1):
    try:
        print(codec.decode(b"1", type_))
    except codec.DefinitionError as error:
        print("refused")
"""


def test_what_works_does_not_depend_on_imports() -> None:
    """A union of two dataclasses worked where something had imported pydantic."""
    found = []
    for imported in ("assert 'pydantic' not in sys.modules", "import pydantic"):
        code = ALONE.format(imported=imported)
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert found[0] == found[1]
    assert found[0].count("True") == found[0].count("refused") == 4


# --- fields that were not set ---------------------------------------------------------------------


class Patch(pydantic.BaseModel):
    name: str | None = None
    email: str | None = pydantic.Field(default=None, alias="eMail")
    inner: Patch | None = None
    tags: set[str] = set()
    extra: dict[str, Patch] = {}


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    n: int = 0


class Closed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    n: int = 0
    m: int = 0


class Rooted(pydantic.RootModel[list[Patch]]):
    pass


@dataclasses.dataclass(frozen=True)
class Around:
    patches: tuple[Patch, ...]
    one: Patch | None = None


def _set(value: Any) -> Any:
    """Which fields are set, at every place of a value."""
    inner = [(place, _set(one)) for place, one in records.children(value)]
    return getattr(value, "model_fields_set", None), inner


class Named(pydantic.BaseModel):
    """Members that look like those of others."""

    name: str = ""
    odd: int = pydantic.Field(default=0, alias=":")
    more: dict[str, Any] = {}
    text: str = ""


class Hides(pydantic.BaseModel):
    name: str = pydantic.Field(default="", exclude=True)
    inner: Named = Named()
    after: str = ""


class Tree(pydantic.BaseModel):
    first: Tree | None = None
    name: str = ""
    rest: list[Tree] = []
    at: dt.datetime | None = None


TRAPS: list[tuple[Any, Any]] = [
    (
        Named,
        Named(
            more={"name": 1, ":": 2, 'x"name': 3, "text": {"name": 4}}, text='{ "name":1, "text":'
        ),
    ),
    (Named, Named.model_validate({"name": ' "text":', ":": 1})),
    (
        list[Named],
        [Named(name=":x", more={"a ": ":b"}), Named.model_validate({"name": ":", ":": 1})],
    ),
    (
        list[Named],
        [Named(), Named(name=": "), Named(name=' "name":'), Named(text="a"), Named(more={"": {}})],
    ),
    (Hides, Hides(inner=Named(text="x"))),
    (Hides, Hides(inner=Named(name="x"))),
    (dict[str, Hides], {"name": Hides(), "text": Hides(inner=Named()), "after": Hides(after="")}),
    (Tree, Tree(first=Tree(name="a"), rest=[Tree(), Tree(name="b", first=Tree(rest=[Tree()]))])),
    (
        Tree,
        Tree(
            rest=[
                Tree(at=dt.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))),
                Tree(name="b"),
            ]
        ),
    ),
    (list[Tree | Named], [Tree(first=None), Named(text=""), Named(more={})]),
]

MODELS: list[tuple[Any, Any]] = [
    *TRAPS,
    (Patch, Patch()),
    (Patch, Patch(name=None)),
    (Patch, Patch(eMail="a, b", tags={"b", "a"})),
    (Patch, Patch(inner=Patch(inner=Patch(name="x")), extra={"k": Patch(name="y")})),
    (Patch, Patch.model_construct(name="x")),
    (list[Patch], [Patch(), Patch(name="x")]),
    (dict[str, Patch], {"a": Patch(name="x")}),
    (Patch | Open, Patch(name="x")),
    (Open, Open.model_validate({"more": {"a": [1]}})),
    (Closed, Closed(m=1)),
    (Rooted, Rooted([Patch(), Patch(name="x")])),
    (Around, Around((Patch(name="x"), Patch()), Patch())),
    (list[Around], [Around((Patch(name="x"),))]),
]


@pytest.mark.parametrize(("type_", "value"), MODELS, ids=[str(n) for n in range(len(MODELS))])
def test_a_model_knows_which_fields_were_set(type_: Any, value: Any) -> None:
    """It came back with every field set: a partial update overwrote what was not given."""
    for raw in (
        (codec.encode(value, type_), JsonCodec().encode(value, "it"))
        if type(value) is type_
        else (codec.encode(value, type_),)
    ):
        back = codec.decode(raw, type_)
        assert _set(back) == _set(value)
        assert back == value
        assert codec.encode(back, type_) == raw
        if isinstance(value, pydantic.BaseModel):
            assert back.model_dump(exclude_unset=True) == value.model_dump(exclude_unset=True)


def test_in_a_model_that_was_changed_the_values_stand_also_where_no_field_was_set() -> None:
    one = Patch()
    one.tags.add("x")
    back = codec.decode(codec.encode(one, Patch), Patch)
    assert (back.tags, back.model_fields_set) == ({"x"}, set())


def test_what_an_earlier_version_has_written_has_every_field_set() -> None:
    back = codec.decode(b'{"name":"x","eMail":null,"inner":null,"tags":[],"extra":{}}', Patch)
    assert back.model_fields_set == {"name", "email", "inner", "tags", "extra"}


def test_spaces_of_others_are_no_marks() -> None:
    for raw in (
        b'{"name": "x", "eMail": null}',
        b'{"name":"x",\n "eMail": null}',
        b'[{"name": "x", "eMail": null}]',
    ):
        back = codec.decode(raw, list[Patch] | Patch)
        assert (back[0] if isinstance(back, list) else back).model_fields_set == {"name", "email"}
    assert codec.decode(b'{"n": 1, "m": 2}', Closed).model_fields_set == {"n", "m"}


class Blob(pydantic.BaseModel):
    data: bytes


def test_what_pydantic_can_not_write_is_said_in_its_words() -> None:
    """A model with bytes "had no JSON form"."""
    for value, type_ in ((Blob(data=b"\xff"), Blob), ([Blob(data=b"\xff")], list[Blob])):
        with pytest.raises(NotSerializable, match="invalid utf-8 sequence"):
            codec.encode(value, type_)


def test_other_readers_of_a_model_read_plain_json() -> None:
    raw = JsonCodec().encode(Patch(name="x"), "it")
    assert JsonCodec().decode(raw, dict, "it") == {
        "name": "x",
        "eMail": None,
        "inner": None,
        "tags": [],
        "extra": {},
    }


@awaited
async def test_in_steps_and_messages_and_results(db: str) -> None:
    seen: list[dict[str, Any]] = []

    @step
    async def apply(patch: Patch, others: list[Patch]) -> Patch:
        seen.append(patch.model_dump(exclude_unset=True))
        return others[0]

    @workflow
    async def rename(patch: Patch) -> list[Any]:
        given = await apply(patch, [patch])
        sent = await receive("patch", Patch)
        return [one.model_dump(exclude_unset=True) for one in (patch, given, sent)]

    async with Engine(db, workflows=[rename]) as engine:
        run = await engine.start(rename(Patch(name="x")), id="r")
        await run.send(Patch(eMail="y"), channel="patch")
        assert await run.result() == [{"name": "x"}, {"name": "x"}, {"email": "y"}]
    assert seen == [{"name": "x"}]


@awaited
async def test_an_impossible_type_of_receive_is_refused_at_the_call(db: str) -> None:
    """It was found with the first message, which may come in a week."""

    @workflow
    async def waits() -> Any:
        return await receive("x", Iterable[Struct])

    async with Engine(db, workflows=[waits]) as engine:
        with pytest.raises(
            RunFailed, match="DefinitionError: the message on channel 'x' is annotated as"
        ):
            await engine.run(waits())

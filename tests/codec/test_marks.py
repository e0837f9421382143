"""Marks in JSON text: read where they were written, meaningless where another program has put a
space.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import zoneinfo
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import Engine, emit, receive, step, workflow
from perdure.codec import marks, types
from perdure.codec import values as codec
from perdure.codec.equality import same_arguments, same_values
from perdure.codec.json_codec import JsonCodec
from perdure.codec.marks import Member
from perdure.codec.signature import signature_of
from perdure.errors import DefinitionError, DoesNotFit, NotSerializable
from tests.runtime.support import awaited, reached


@given(
    st.dictionaries(
        st.text(),
        st.tuples(st.recursive(st.none() | st.integers() | st.text(), st.lists), st.booleans()),
    )
)
def test_members_come_back_with_their_marks(content: dict[str, tuple[Any, bool]]) -> None:
    parts = [
        Member(name, msgspec.json.encode(value), given) for name, (value, given) in content.items()
    ]
    raw = marks.joined(parts)
    assert marks.members(raw) == parts
    assert json.loads(raw) == {name: value for name, (value, _) in content.items()}
    assert marks.given(raw) == {one.name for one in parts if one.given}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1, "b": 2}',
        b'{\n "a":1,\n "b":2\n}',
        b'{ "a" : 1, "b":2 }',
        b' {"a":1, "b":2}',
        b'{"\\u0061":1, "b":2}',
    ],
)
def test_spaces_of_others_mean_nothing(raw: bytes) -> None:
    assert marks.given(raw) == {"a", "b"}


def test_what_is_no_object_is_refused() -> None:
    for raw in (b"[1]", b"1", b"{"):
        with pytest.raises(msgspec.DecodeError):
            marks.members(raw)


# --- time zones -----------------------------------------------------------------------------------

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
SUMMER = dt.datetime(2026, 7, 1, 12, tzinfo=BERLIN)
TWICE = [
    dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=fold) for fold in (0, 1)
]  # clocks go back
LOOKS = "2026-07-01T12:00:00+02:00[Europe/Berlin]"  # and is a text


@dataclasses.dataclass(frozen=True)
class Record:
    at: dt.datetime
    text: str = LOOKS
    more: tuple[dt.datetime | None, ...] = ()


@attrs.define
class Attrs:
    at: dt.datetime


class Struct(msgspec.Struct, rename="camel", frozen=True):
    the_time: dt.datetime


class Array(msgspec.Struct, array_like=True, tag=True):
    n: int
    at: dt.datetime


class Row(NamedTuple):
    n: int
    at: dt.datetime


class Model(pydantic.BaseModel):
    at: dt.datetime = pydantic.Field(alias="theTime")
    when: dict[str, dt.datetime] = {}
    text: str = LOOKS


class Rooted(pydantic.RootModel[dt.datetime]):
    pass


ZONED: list[tuple[Any, Any]] = [
    (dt.datetime, SUMMER),
    (dt.datetime, TWICE[0]),
    (dt.datetime, TWICE[1]),
    (dt.datetime, dt.datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN, fold=1)),  # there is no such time
    (dt.datetime, dt.datetime(1850, 1, 1, tzinfo=BERLIN)),  # an offset with seconds
    (dt.datetime, dt.datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=zoneinfo.ZoneInfo("UTC"))),
    (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("Etc/GMT+5"))),
    (dt.datetime | None, SUMMER),
    (dt.time, dt.time(12, 30, tzinfo=BERLIN)),
    (list[dt.datetime], [SUMMER, SUMMER.astimezone(dt.UTC)]),
    (dict[dt.datetime, str], {SUMMER: LOOKS}),
    (dict[str, list[dt.datetime]], {LOOKS: TWICE}),
    (Record, Record(SUMMER, more=(None, TWICE[1]))),
    (list[Record], [Record(SUMMER)]),
    (Attrs, Attrs(SUMMER)),
    (Struct, Struct(SUMMER)),
    (Array, Array(1, SUMMER)),
    (Row, Row(1, SUMMER)),
    (Model, Model(theTime=SUMMER, when={"a": TWICE[1]})),
    (list[Model], [Model(theTime=SUMMER)]),
    (Rooted, Rooted(SUMMER)),
    (Record | Attrs, Record(SUMMER)),
]


@pytest.mark.parametrize(("type_", "value"), ZONED, ids=[str(n) for n in range(len(ZONED))])
def test_a_zone_survives(type_: Any, value: Any) -> None:
    """It became an offset, so that a day later could be an hour off."""
    try:
        raw = codec.encode(value, type_)
    except DefinitionError:
        assert type_ == Record | Attrs, "pydantic knows no attrs"
        return
    back = codec.decode(raw, type_)
    assert types.difference(value, back) is None
    assert list(marks.zones(back)) == list(marks.zones(value)) != []
    assert codec.encode(back, type_) == raw

    @step
    def fn(one, *, two=None): ...

    fn.signature = fn.signature.replace(
        parameters=[one.replace(annotation=type_) for one in fn.signature.parameters.values()]
    )
    signature = signature_of(fn)
    args, kwargs = signature.decode_args(signature.encode_args((value,), {"two": value}))
    assert list(marks.zones([args, kwargs])) == list(marks.zones([value, value]))


def test_days_are_days_of_the_zone() -> None:
    back = codec.decode(codec.encode(SUMMER, dt.datetime), dt.datetime)
    assert (back + dt.timedelta(days=180)).isoformat() == "2026-12-28T12:00:00+01:00"


def test_a_zone_where_it_can_not_be_kept_is_refused() -> None:
    with pytest.raises(NotSerializable, match="it would come back different"):
        codec.encode({SUMMER}, set[dt.datetime])


def test_an_offset_without_a_zone_stays_one() -> None:
    for zone in (dt.UTC, dt.timezone(dt.timedelta(hours=2))):
        assert b"[" not in codec.encode(SUMMER.astimezone(zone), dt.datetime)


def test_where_the_rules_of_a_zone_have_changed_the_moment_stands() -> None:
    back = codec.decode(b'"2026-07-01T12:00:00+07:00[Europe/Berlin]"', dt.datetime)
    assert back.isoformat() == "2026-07-01T07:00:00+02:00"
    assert back.tzinfo is BERLIN


def test_a_zone_that_this_machine_does_not_know() -> None:
    with pytest.raises(DoesNotFit, match="No time zone found with key Mars/Olympus"):
        codec.decode(b'"2026-07-01T12:00:00+02:00[Mars/Olympus]"', dt.datetime)


def test_other_readers_of_a_time() -> None:
    raw = JsonCodec().encode(SUMMER, "it")
    assert JsonCodec().decode(raw, str, "it") == LOOKS
    assert (
        JsonCodec().encode_item({"at": 1, "text": LOOKS}, "it")
        == b'{"at":1,"text":"%s"}' % LOOKS.encode()
    )
    assert (
        JsonCodec()
        .encode_item(Record(SUMMER), "it")
        .startswith(b'{"at":"2026-07-01T12:00:00+02:00","text":"2026')
    )
    assert (
        JsonCodec()
        .encode_item(Model(theTime=SUMMER), "it")
        .startswith(b'{"theTime":"2026-07-01T12:00:00+02:00",')
    )


def test_what_an_earlier_version_has_written_is_the_same_call() -> None:
    @step
    def fn(at: dt.datetime, n: int = 0) -> None: ...

    for value in (SUMMER, *TWICE):
        old = b'{"at":"%s"}' % value.isoformat().encode()
        assert same_arguments(fn, old, JsonCodec().encode_call(fn(value)))
        assert not same_arguments(
            fn, old, JsonCodec().encode_call(fn(value + dt.timedelta(hours=24)))
        )
        assert same_values(dt.datetime, old[6:-1], codec.encode(value, dt.datetime))


@awaited
async def test_live_and_replayed_runs_see_the_same_zone(db: str) -> None:
    @step
    async def next_month(at: dt.datetime) -> dt.datetime:
        return at + dt.timedelta(days=30)

    @workflow
    async def bills(at: dt.datetime) -> list[str]:
        then = await next_month(at)
        shown = [f"{one} {one.tzinfo}" for one in (at, then)]
        emit("bills", then)
        sent = await receive("at", dt.datetime)
        return [*shown, f"{sent} {sent.tzinfo}", str(then + dt.timedelta(days=180))]

    async with Engine(db, workflows=[bills]) as engine:
        run = await engine.start(bills(SUMMER), id="r")
        await reached(run, "waiting")
    async with Engine(db, workflows=[bills]) as engine:
        await engine.send("r", TWICE[1], channel="at")
        run = await engine.get("r")
        assert await run.result() == [
            "2026-07-01 12:00:00+02:00 Europe/Berlin", "2026-07-31 12:00:00+02:00 Europe/Berlin",
            "2026-10-25 02:30:00+01:00 Europe/Berlin", "2027-01-27 12:00:00+01:00",
        ]  # fmt: skip
        assert [item async for item in run.stream("bills")] == ["2026-07-31T12:00:00+02:00"]

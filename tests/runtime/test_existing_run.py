"""Starting again what exists: equal arguments that are written differently are the same, different
ones are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from perdure import Call, Engine, RunExists, continue_as, receive, start, workflow
from tests.runtime.support import awaited, reached


@dataclass
class Point:
    x: float
    tags: set[str]
    note: str = "none"


class Size(msgspec.Struct):
    w: float
    h: float = 1.0


class Model(pydantic.BaseModel):
    n: float
    m: int = 3


@workflow
async def main(
    a: float,
    b: list[int] | None = None,
    *rest: int,
    c: dict[str, Any] | None = None,
    d: bool = False,
    **more: Any,
) -> str:
    return "main"


@workflow
async def loose(a=None, b=1):  # as people write it who annotate nothing
    return "loose"


@workflow
async def shaped(point: Point, size: Size = Size(2), model: Model | None = None) -> str:  # noqa: B008
    return "shaped"


@workflow
async def timed(
    at: datetime, price: Decimal = Decimal(1), names: frozenset[str] = frozenset()
) -> str:
    return "timed"


NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
LONG = ["x" * 50] * 100
EQUAL: list[tuple[Call[Any], Call[Any]]] = [
    (main(1), main(1.0)),
    (main(1), main(a=1)),
    (main(1), main(1, None)),
    (main(1), main(1, d=False, c=None)),
    (
        main(1, None, c={"x": 1, "y": {"z": 2, "q": 1}}),
        main(1, c={"y": {"q": 1.0, "z": 2}, "x": 1}),
    ),
    (main(1, k=1, j=2), main(j=2, k=1, a=1)),
    (main(1, [1], 2, 3), main(1.0, [1], 2, 3, d=False)),
    (loose(), loose(None, 1)),
    (loose(1, 1), loose(1.0)),
    (loose({"a": LONG, "b": 1}), loose({"b": 1, "a": LONG})),
    (shaped(Point(1, {"a", "b", "c"})), shaped(Point(1.0, {"c", "b", "a"}, "none"), Size(2.0, 1))),
    (shaped(Point(1, set()), model=Model(n=1)), shaped(Point(1, set()), model=Model(n=1.0, m=3))),
    (timed(NOON), timed(NOON.astimezone(timezone(timedelta(hours=2))), Decimal("1.00"))),
    (timed(NOON, names=frozenset("abc")), timed(NOON, names=frozenset("cba"))),
]
DIFFERENT: list[tuple[Call[Any], Call[Any]]] = [
    (main(1), main(2)),
    (main(1), main(1, [])),
    (main(1), main(1, d=True)),
    (main(1, None, 2), main(1)),
    (main(1, k=1), main(1, k=2)),
    (main(1, k=1), main(1)),
    (loose(True), loose(1)),
    (loose(0), loose(False)),
    (loose("1"), loose(1)),
    (loose(), loose(None, 2)),
    (loose([1, 2]), loose([2, 1])),
    (loose({"a": LONG}), loose({"a": LONG[:-1]})),
    (shaped(Point(1, {"a"})), shaped(Point(1, {"b"}))),
    (shaped(Point(1, set()), model=Model(n=1)), shaped(Point(1, set()), model=Model(n=1, m=4))),
    (timed(NOON), timed(NOON + timedelta(milliseconds=1))),
    (timed(NOON), loose(1)),
]


@pytest.mark.parametrize(("first", "again"), EQUAL + [(b, a) for a, b in EQUAL])
@awaited
async def test_equal_arguments_that_are_written_differently_find_the_run(
    db: str, first: Call[Any], again: Call[Any]
) -> None:
    """They were compared byte by byte."""
    async with Engine(db) as engine:
        run = await engine.start(first, id="r")
        assert await (await engine.start(again, id="r")).result() == await run.result()
        assert len(await engine.runs()) == 1


@pytest.mark.parametrize(("first", "again"), DIFFERENT + [(b, a) for a, b in DIFFERENT])
@awaited
async def test_different_arguments_are_told_apart(
    db: str, first: Call[Any], again: Call[Any]
) -> None:
    async with Engine(db) as engine:
        await engine.start(first, id="r")
        with pytest.raises(RunExists):
            await engine.start(again, id="r")


@workflow
async def kid(n: float, k: int = 1) -> float:
    return n + await receive("x", int)


@workflow
async def spawns(n: float) -> list[str]:
    found = [await start(kid(n, 1), id="kid"), await start(kid(n=n), id="kid")]
    for other in (kid(n + 1), kid(n, 2)):
        try:
            await start(other, id="kid")
        except RunExists as error:
            found.append(error.difference)
    return found


@workflow
async def borrows() -> float:
    return await kid.options(id="kid")(k=1, n=2.0)


@awaited
async def test_starts_in_workflows_and_children_go_by_the_same_rule(db: str) -> None:
    async with Engine(db, workflows=[spawns, borrows, kid]) as engine:
        assert await engine.run(spawns(2)) == [
            "kid",
            "kid",
            "it has other arguments",
            "it has other arguments",
        ]
        await engine.send("kid", 5, channel="x")
        await reached(await engine.get("kid"), "completed")
        assert await engine.run(borrows()) == 7


@workflow
async def counting(n: float, stop: int = 3) -> float:
    if n < stop:
        continue_as(counting(n + 1, stop))
    return n if n == stop else await receive("x", float)


@awaited
async def test_what_has_gone_on_as_another_call_is_found_by_equal_arguments_too(db: str) -> None:
    async with Engine(db, workflows=[counting]) as engine:
        assert await engine.run(counting(0), id="c") == 3
        for same in (counting(0.0, 3), counting(stop=3, n=0), counting(3, stop=3)):
            assert await (await engine.start(same, id="c")).result() == 3
        for other in (counting(0, 4), counting(1)):
            with pytest.raises(RunExists):
                await engine.start(other, id="c")


@awaited
async def test_an_argument_that_code_no_longer_has_makes_a_run_another(db: str) -> None:
    @workflow(name="loose")
    async def narrower(a: Any = None) -> str:
        return "narrower"

    async with Engine(db) as engine:
        await engine.run(loose(1, 2), id="r")
    async with Engine(db) as engine:
        with pytest.raises(RunExists, match="it has other arguments"):
            await engine.start(narrower(1), id="r")

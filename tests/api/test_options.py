"""Options are checked where they are given, by name."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import DefinitionError, Engine, step, workflow
from tests.runtime.support import awaited


async def function() -> None: ...


@workflow
async def nothing() -> None: ...


NO_SECONDS = [0, -1, math.nan, math.inf, True, "5", timedelta(0), 10**400, [1]]


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        *(("timeout", value) for value in NO_SECONDS),
        *(("retry", value) for value in (0, -1, 2.0, "3", math.nan, [3], 10**400)),
        *(("readonly", value) for value in (None, 1, "yes")),
        *(("transactional", value) for value in (None, 1, "yes")),
        *(("on_crash", value) for value in (None, "again", 1)),
        *(("durability", value) for value in ("tape", 1)),
        *(("name", value) for value in (5, "nul\0", "half \ud800", b"bytes")),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_an_option_of_a_step(option: str, wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=f"{option}|attempts"):
        step(**{option: wrong})(function)


@pytest.mark.parametrize(
    "option",
    [*({"timeout": value} for value in NO_SECONDS), {"name": 5}, {"queue": 5}],
    ids=lambda option: repr(option)[:20],
)
def test_an_option_of_a_workflow(option: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(option))):
        workflow(**option)(function)


@pytest.mark.parametrize(
    "option",
    [
        *({"close_grace": value} for value in (-1, math.nan, math.inf, None, "2", True)),
        *({"replica_timeout": value} for value in (0, -1, math.nan, math.inf, None, "2")),
        *({"limits": value} for value in ({"threads_max": 1}, 5)),
        *({"name": value} for value in (5, "half \ud800")),
    ],
    ids=lambda option: ascii(option),
)
def test_an_option_of_an_engine(option: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(option))):
        Engine(":memory:", **option)


@awaited
@pytest.mark.parametrize(
    "option",
    [
        *({"timeout": value} for value in NO_SECONDS[:-2]),
        *({"priority": value} for value in (1.0, "1", None, True, 2**63, math.nan)),
        *({"at": value} for value in ("tomorrow", 5, datetime(2026, 1, 1))),
        *({"tags": value} for value in ("text", ["a"], {1: 2}, {("a",): 1})),
        *({"id": value} for value in (5, b"x", "x" * 201, "a~b")),
    ],
    ids=repr,
)
async def test_an_option_of_a_start(option: dict[str, Any]) -> None:
    async with Engine(":memory:", workflows=[nothing]) as engine:
        with pytest.raises(DefinitionError):
            await engine.start(nothing(), **option)
        assert await engine.runs() == []
        run = await engine.start(nothing(), at=datetime.now(UTC))
        for wrong in (math.nan, math.inf, "1", True, -1):
            with pytest.raises(DefinitionError, match="timeout"):
                await run.result(timeout=wrong)  # type: ignore[arg-type]
        await run.result(timeout=60)

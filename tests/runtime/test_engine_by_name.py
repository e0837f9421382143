"""Starts by name: arguments as JSON, typed where the code is known and kept where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from perdure import DefinitionError, Engine, RunExists, UnknownWorkflow, workflow
from perdure.errors import DoesNotFit
from tests.runtime.support import awaited


@dataclass
class Order:
    item: str
    cents: int = 5


@workflow
async def buy(order: Order, *, times: int = 1) -> int:
    return order.cents * times


@awaited
async def test_arguments_become_what_the_code_takes(tmp_path):
    async with Engine(tmp_path / "a.db", workflows=[buy]) as engine:
        run = await engine.start_by_name("buy", {"order": {"item": "tea"}, "times": 3}, id="one")
        assert await run.result() == 15
        again = await engine.start(buy(Order("tea"), times=3), id="one")
        assert again.id == "one"


@pytest.mark.parametrize(
    ("args", "error", "says"),
    [
        ({}, DefinitionError, "needs order"),
        ({"order": {"item": "tea"}, "color": 1}, DefinitionError, "no argument color"),
        ({"order": {"item": 7}}, DoesNotFit, "order"),
        ([], DefinitionError, "a dict of JSON values"),
    ],
)
@awaited
async def test_what_does_not_fit_is_refused_and_nothing_is_started(args: Any, error, says):
    async with Engine(":memory:", workflows=[buy]) as engine:
        with pytest.raises(error, match=says):
            await engine.start_by_name("buy", args)
        assert await engine.runs() == []
        with pytest.raises(UnknownWorkflow, match="buy"):
            await engine.start_by_name("sell", {})


@awaited
async def test_a_client_starts_what_another_process_executes(tmp_path):
    path, args = tmp_path / "a.db", {"order": {"item": "tea"}}
    async with Engine(path, execute=False) as client:
        await client.start_by_name("buy", args, id="one", tags={"of": "me"})
        await client.start_by_name("buy", args, id="one")
        with pytest.raises(RunExists):
            await client.start_by_name("buy", {"order": {"item": "milk"}}, id="one")
    async with Engine(path, workflows=[buy]) as engine:
        assert await (await engine.get("one")).result() == 5

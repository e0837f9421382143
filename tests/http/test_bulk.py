"""One verb for many runs: what is planned, and what is done."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Engine, receive, workflow
from perdure.core import lifecycle
from perdure.errors import DefinitionError, PerdureError
from perdure.http import bulk
from perdure.reader.values import RunQuery


@workflow
async def agent() -> bool:
    return await receive("approval", bool)


@workflow
async def digest() -> int:
    return 7


async def _some(engine: Engine) -> None:
    for number in range(3):
        await engine.start(agent(), id=f"agent-{number}")
    await (await engine.start(digest(), id="digest")).result()


def test_a_plan_says_what_is_left_and_the_rest_is_done() -> None:
    async def body() -> None:
        async with Engine(":memory:", workflows=[agent, digest]) as engine:
            await _some(engine)
            reader = engine.reader()
            ids = ["agent-0", "digest", "no such run", "agent-0"]
            plan = await bulk.plan_of_ids(reader, "cancel", ids)
            assert [one.id for one in plan.acts] == ["agent-0"]
            assert [(one.id, one.refused) for one in plan.leaves] == [
                ("digest", "it has ended"),
                ("no such run", "there is no such run"),
            ]
            done = [one async for one in bulk.carry_out(engine, "cancel", ids)]
            assert [one.id for one in done if one.error is None] == ["agent-0", "agent-0"]
            assert "digest" in str(done[1].error)

    asyncio.run(body())


def test_a_plan_of_a_filter_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "RUNS_MAX", 2)
    monkeypatch.setattr(bulk, "PAGE_RUNS", 1)

    async def body() -> None:
        async with Engine(":memory:", workflows=[agent, digest]) as engine:
            await _some(engine)
            plan = await bulk.plan_of_query(engine.reader(), "pause", RunQuery(workflow="agent"))
            assert ([one.id for one in plan.runs], plan.more) == (["agent-2", "agent-1"], True)
            rest = RunQuery(workflow="agent", after=plan.next)
            plan = await bulk.plan_of_query(engine.reader(), "pause", rest)
            assert ([one.id for one in plan.runs], plan.more) == (["agent-0"], False)
            with pytest.raises(DefinitionError, match="cancel, pause, resume, retry"):
                await bulk.plan_of_ids(engine.reader(), "delete", ["digest"])

    asyncio.run(body())


@pytest.mark.parametrize("verb", bulk.VERBS)
@pytest.mark.parametrize("status", lifecycle.STATUSES)
def test_a_plan_is_the_life_cycle(verb: str, status: str) -> None:
    outcome = lifecycle.outcome(verb, status)
    refused = bulk.refusal(verb, status)
    if isinstance(outcome, type) and issubclass(outcome, PerdureError):
        assert refused is not None
    elif outcome != status:
        assert refused is None

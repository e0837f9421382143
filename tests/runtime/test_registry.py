"""Which code a workflow's name stands for: one piece of code in a process, or an error that says
what to do.
"""

from __future__ import annotations

import asyncio
import types
from typing import Any

import pytest

from perdure import DefinitionError, Engine, RunBlocked, Workflow, continue_as, start, workflow
from perdure.runtime.registry import add_workflow
from tests.runtime.support import awaited, executed_again


def billing() -> Workflow[[str], str]:
    @workflow
    async def process(order: str) -> str:
        return f"billed {order}"

    return process


def shipping() -> Workflow[[str], str]:
    @workflow
    async def process(order: str) -> str:
        return f"shipped {order}"

    return process


BILLING, SHIPPING = billing(), shipping()
CHOICE = {"bill": BILLING, "ship": SHIPPING}  # where the code of a workflow does not mention them


@workflow
async def child(kind: str) -> str:
    return await CHOICE[kind]("A-1")


@workflow
async def independent(kind: str) -> str:
    return await start(CHOICE[kind]("A-1"), id=f"of-{kind}")


@workflow
async def successor(kind: str) -> str:
    continue_as(CHOICE[kind]("A-1"))


@pytest.mark.parametrize("flow", [child, independent, successor], ids=lambda flow: flow.name)
@awaited
async def test_a_run_of_a_name_that_stands_for_other_code_here_is_not_started(
    db: str, flow: Workflow[[str], str]
) -> None:
    """The code that had the name already was executed in its place, without a word."""
    async with Engine(db, workflows=[flow, BILLING]) as engine:
        assert await engine.run(flow("bill"), id="b") in ("billed A-1", "of-bill")
        run = await engine.start(flow("ship"), id="s")
        with pytest.raises(
            RunBlocked, match=r"Two workflows are called 'process': .*billing.*shipping.*name="
        ):
            await run.result()
        assert [event.kind for event in await run.history()] == ["start"]
        assert len(await engine.runs(workflow="process")) == 1
    assert await executed_again(db, [flow, SHIPPING], "s") in ("shipped A-1", "of-ship")


def made(value: Any) -> Workflow[[], Any]:
    @workflow(name="made")
    async def local() -> Any:
        return value

    return local


def doubled(value: int = 2) -> Workflow[[], int]:
    def double() -> int:
        return 2 * value

    @workflow(name="made")
    async def local(by: int = value) -> int:
        return by * double()

    return local


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (made(1), made(1), True),
        (made(1), made(2), False),
        (made(1), made(True), False),
        (made([]), made([]), False),  # two objects: one may change
        (made((1, "a")), made((1, "a")), True),
        (made(BILLING), made(BILLING.options(timeout=5)), False),
        (made(billing()), made(billing()), True),
        (made(billing()), made(shipping()), False),
        (doubled(), doubled(), True),
        (doubled(), doubled(3), False),
        (BILLING, BILLING.options(timeout=5), True),
    ],
)
def test_definitions_are_the_same_where_nothing_tells_them_apart(
    one: Any, other: Any, same: bool
) -> None:
    known: dict[str, Any] = {}
    add_workflow(known, one)
    if same:
        assert add_workflow(known, other) == ()
    else:
        with pytest.raises(DefinitionError, match="Two workflows are called"):
            add_workflow(known, other)
    assert known[one.name] is one


def test_a_workflow_that_mentions_two_of_one_name_is_refused_each_time() -> None:
    """The second attempt found the workflow registered already, and went on without its
    children."""
    known: dict[str, Any] = {}

    @workflow
    async def both() -> None:
        await BILLING("a")
        await SHIPPING("a")

    for _ in range(2):
        with pytest.raises(DefinitionError, match=r"'process'.*define it once|'process'.*name="):
            add_workflow(known, both)
    assert not known


def test_workflows_in_modules_and_in_inner_functions_are_found() -> None:
    shop: Any = types.ModuleType("shop")
    shop.process = BILLING
    scope: dict[str, Any] = {
        "workflow": workflow,
        "shop": shop,
        "asyncio": asyncio,
        "other": made(1),
    }
    exec(  # noqa: S102
        "@workflow\nasync def outer():\n async def inner():\n  return [await one for one in "
        "(lambda: [other()])()]\n"
        " await asyncio.gather(inner(), shop.process('a'))",
        scope,
    )
    known: dict[str, Any] = {}
    assert set(add_workflow(known, scope["outer"])) == {"outer", "process", "made"}


@awaited
async def test_a_local_child_without_values_around_it_is_one_definition(db: str) -> None:
    @workflow
    async def outer(n: int) -> int:
        @workflow
        async def inner(n: int) -> int:
            return n + 1

        return await inner(n)

    async with Engine(db, workflows=[outer]) as engine:
        assert [await engine.run(outer(n)) for n in range(3)] == [1, 2, 3]

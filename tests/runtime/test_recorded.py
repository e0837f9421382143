"""Guarantees 1, 3 and 4: what is recorded never changes, effects come after their commit, order is
data.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import re
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

import perdure
from perdure import (
    Engine,
    Nondeterminism,
    RunBlocked,
    RunFailed,
    StepFailed,
    StepTimeout,
    patched,
    receive,
    step,
    workflow,
)
from perdure.store.sqlite.connection import open_reader
from tests.runtime.support import awaited, executed_again, kinds, reached


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Thing:
    name: str
    at: datetime
    price: Decimal
    key: uuid.UUID
    raw: bytes
    pair: tuple[int, str]
    names: set[str]
    colour: Colour


THING = Thing(
    "a",
    datetime(2026, 1, 2, tzinfo=UTC),
    Decimal("1.50"),
    uuid.UUID(int=7),
    b"\x00\xff",
    (1, "x"),
    {"p", "q"},
    Colour.RED,
)


@awaited
async def test_changing_a_result_or_an_argument_in_the_workflow_changes_nothing_recorded(
    db: str,
) -> None:
    calls: list[list[int]] = []

    @step
    async def grow(items: list[int]) -> list[int]:
        calls.append(list(items))
        return [*items, len(items)]

    @workflow
    async def mutating() -> list[list[int]]:
        items: list[int] = []
        first = await grow(items)
        first.append(99)
        second = await grow(first)
        first.clear()
        await receive("go", bool)
        return [first, second]

    async with Engine(db, workflows=[mutating]) as engine:
        run = await engine.start(mutating(), id="m")
        await reached(run, "waiting")
        results = [event.result for event in await run.history() if event.kind == "completed"]
        assert results == [[0], [0, 99, 2]]
    async with Engine(db, workflows=[mutating]) as engine:
        run = await engine.get("m")
        await run.send(True, channel="go")
        assert await run.result() == [[], [0, 99, 2]]
    assert calls == [[], [0, 99]]


@awaited
async def test_a_step_that_changes_its_argument_changes_nothing_else(
    db: str,
) -> None:
    seen: list[list[int]] = []

    @step(retry=perdure.Retry(attempts=2, delay=0))
    async def spoil(items: list[int]) -> int:
        seen.append(list(items))
        items.append(5)
        if len(seen) == 1:
            raise ValueError("once more")
        return len(items)

    @workflow
    async def main() -> list[int]:
        items = [1]
        await spoil(items)
        return items

    async with Engine(db, workflows=[main]) as engine:
        run = await engine.start(main(), id="m")
        assert await run.result() == [1]
        assert seen == [[1], [1]]
        (asked,) = [event for event in await run.history() if event.kind == "step"]
        assert asked.args == {"items": [1]}


@awaited
async def test_a_live_value_equals_the_replayed_one_types_included(db: str) -> None:
    seen: list[Any] = []

    @step
    async def make() -> Thing:
        return THING

    @step
    async def take(thing: Thing) -> str:
        seen.append(thing)
        return type(thing.pair).__name__

    @workflow
    async def main() -> Thing:
        thing = await make()
        seen.append(thing)
        await take(thing)
        await receive("go", bool)
        return thing

    async with Engine(db, workflows=[main]) as engine:
        await reached(await engine.start(main(), id="m"), "waiting")
    async with Engine(db, workflows=[main]) as engine:
        run = await engine.get("m")
        await run.send(True, channel="go")
        assert await run.result() == THING
    assert seen == [THING, THING, THING]  # live, in the step, replayed
    assert seen[0] is not THING
    assert [type(value.names) for value in seen] == [set, set, set]


@awaited
async def test_a_recorded_step_is_not_done_again(db: str) -> None:
    done: list[int] = []

    @step
    async def count(n: int) -> int:
        done.append(n)
        return n

    @workflow
    async def main() -> int:
        total = 0
        for n in range(20):
            total += await count(n)
        return total + await receive("more", int)

    for _ in range(3):
        async with Engine(db, workflows=[main]) as engine:
            await reached(await engine.start(main(), id="m"), "waiting")
    async with Engine(db, workflows=[main]) as engine:
        run = await engine.start(main(), id="m")
        await run.send(10, channel="more")
        assert await run.result() == 200
    assert done == list(range(20))


@awaited
async def test_the_order_of_completion_is_replayed(db: str) -> None:
    gates = {n: asyncio.Event() for n in range(3)}
    orders: list[list[int]] = []

    @step
    async def wait_for(n: int) -> int:
        await gates[n].wait()
        return n

    @workflow
    async def race() -> list[int]:
        order: list[int] = []
        for next_done in asyncio.as_completed([wait_for(n) for n in range(3)]):
            order.append(await next_done)  # noqa: PERF401
        orders.append(order)
        await receive("go", bool)
        return order

    async with Engine(db, workflows=[race]) as engine:
        run = await engine.start(race(), id="r")
        for n in (2, 0, 1):
            gates[n].set()
            while sum(kind == "completed" for kind in kinds(await run.history())) < len(  # noqa: ASYNC110
                [g for g in gates.values() if g.is_set()]
            ):
                await asyncio.sleep(0.001)
        await reached(run, "waiting")
    async with Engine(db, workflows=[race]) as engine:
        run = await engine.get("r")
        await run.send(True, channel="go")
        assert await run.result() == [2, 0, 1]
    assert orders == [[2, 0, 1]] * 2


@awaited
async def test_an_effect_starts_after_its_history_is_in_the_file_and_readonly_may_run_ahead(
    db: str,
) -> None:
    seen: dict[str, list[str]] = {}

    def recorded() -> list[str]:
        reader = open_reader(db)
        try:
            return [
                name
                for (name,) in reader.execute(
                    "SELECT name FROM event WHERE kind = 'step' ORDER BY seq"
                )
            ]
        finally:
            reader.close()

    @step
    async def effect(n: int) -> int:
        seen[f"effect{n}"] = recorded()
        return n

    @step(readonly=True)
    async def look() -> int:
        return 1

    @workflow
    async def main() -> int:
        await effect(1)
        await look()
        await effect(2)
        return 1

    async with Engine(db, workflows=[main]) as engine:
        await engine.run(main())
    assert seen == {"effect1": ["effect"], "effect2": ["effect", "look", "effect"]}


@awaited
async def test_another_code_blocks_with_a_diff_and_the_right_code_goes_on(db: str) -> None:
    @step
    async def pay(amount: int) -> int:
        return amount

    def version(amount: int) -> Any:
        @workflow(name="shop")
        async def shop() -> int:
            paid = await pay(amount)
            return paid + await receive("tip", int)

        return shop

    right, wrong = version(5), version(6)
    async with Engine(db, workflows=[right]) as engine:
        await reached(await engine.start(right(), id="s"), "waiting")
    async with Engine(db, workflows=[wrong]) as engine:
        run = await engine.get("s")
        await run.send(1, channel="tip")
        with pytest.raises(Nondeterminism) as raised:
            await run.result()
        text = str(raised.value)
        assert "history, row 2: step pay" in text
        assert '"amount":5' in text
        assert '"amount":6' in text
        info = await run.info()
        assert info.status == "blocked"
        assert "does not fit the history" in (info.reason or "")
        (stuck,) = (await engine.doctor())["stuck"]
        assert stuck["id"] == "s"
    assert await executed_again(db, [right], "s") == 6


@awaited
async def test_other_arguments_another_step_and_a_missing_step_all_block(db: str) -> None:
    @step
    async def one() -> int:
        return 1

    @step
    async def two() -> int:
        return 2

    def version(*steps: Any) -> Any:
        @workflow(name="w")
        async def w() -> int:
            for item in steps:
                await item()
            return await receive("x", int)

        return w

    first = version(one, two)
    async with Engine(db, workflows=[first]) as engine:
        await reached(await engine.start(first(), id="w"), "waiting")
    for other, words in [((two, two), "step one"), ((one,), "nothing"), ((), "nothing")]:
        code = version(*other)
        async with Engine(db, workflows=[code]) as engine:
            run = await engine.get("w")
            if await run.status() == "waiting":
                await run.send(3, channel="x")
            with pytest.raises(RunBlocked, match=words):
                await run.result()
    assert await executed_again(db, [first], "w") == 3


@awaited
async def test_patched_keeps_old_runs_on_the_old_path(db: str) -> None:
    @step
    async def old() -> str:
        return "old"

    @step
    async def new() -> str:
        return "new"

    @workflow(name="w")
    async def before() -> str:
        path = await old()
        await receive("go", bool)
        return path

    @workflow(name="w")
    async def after() -> str:
        path = await new() if patched("new-way") else await old()
        await receive("go", bool)
        return path

    async with Engine(db, workflows=[before]) as engine:
        await reached(await engine.start(before(), id="one"), "waiting")
    for _ in range(2):
        async with Engine(db, workflows=[after]) as engine:
            await reached(await engine.start(after(), id="two"), "waiting")
    async with Engine(db, workflows=[after]) as engine:
        for name in ("one", "two"):
            await engine.send(name, True, channel="go")
        assert [await (await engine.get(name)).result() for name in ("one", "two")] == [
            "old",
            "new",
        ]


# --- steps ----------------------------------------------------------------------------------------


def failing_with(error: BaseException) -> Any:
    @step(retry=None)
    async def bad() -> int:
        raise error

    @step(retry=None)
    def bad_in_thread() -> int:
        raise error

    @workflow
    async def main(thread: bool) -> str:
        try:
            await (bad_in_thread() if thread else bad())
        except StepFailed as failed:
            return f"{failed} / {type(failed.__cause__).__name__}"
        return "no error"

    return main


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StopIteration(3), "StopIteration"),
        (SystemExit(3), r"sys.exit\(3\)"),
        (asyncio.CancelledError(), "CancelledError by itself"),
        (TimeoutError("mine"), "mine"),
        (ValueError("plain"), "plain / ValueError"),
        (ExceptionGroup("several", [ValueError("a"), KeyError("b")]), "several"),
    ],
    ids=["stop", "exit", "cancelled", "timeout", "value", "group"],
)
@awaited
async def test_whatever_a_step_raises_is_recorded_as_its_failure(
    db: str, error: BaseException, words: str, thread: bool
) -> None:
    main = failing_with(error)
    async with Engine(db, workflows=[main]) as engine:
        found = await engine.run(main(thread))
    assert "failed after 1 attempt" in found
    assert re.search(words, found), found


@awaited
async def test_retry_policy_attempts_notes_and_never_on(db: str) -> None:
    tries: list[int] = []

    @step(retry=perdure.Retry(attempts=3, delay=0))
    async def flaky() -> int:
        tries.append(perdure.current_step().attempt)
        if len(tries) < 3:
            raise ValueError(f"try {len(tries)}")
        return 7

    @step(retry=perdure.Retry(attempts=3, delay=0, never_on=(KeyError,)))
    async def hopeless() -> int:
        raise KeyError("never")

    @workflow
    async def main() -> int:
        found = await flaky()
        with pytest.raises(StepFailed, match="after 1 attempt"):
            await hopeless()
        return found

    async with Engine(db, workflows=[main]) as engine:
        run = await engine.start(main(), id="m")
        assert await run.result() == 7
        notes = [event for event in await run.history() if event.kind == "attempt"]
    assert tries == [1, 2, 3]
    assert [(note.attempt, note.error["message"]) for note in notes if note.error] == [
        (1, "try 1"),
        (2, "try 2"),
    ]


@awaited
async def test_timeout_of_an_attempt(db: str) -> None:
    cancelled: list[bool] = []

    @step(retry=None, timeout=0.05)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    @workflow
    async def main() -> str:
        try:
            await slow()
        except StepTimeout as error:
            return str(error)
        return "no timeout"

    async with Engine(db, workflows=[main]) as engine:
        assert "0.05 s" in await engine.run(main())
    assert cancelled == [True]


@awaited
async def test_a_result_that_cannot_be_stored_fails_the_step_by_name_and_is_not_tried_again(
    db: str,
) -> None:
    tries: list[int] = []

    @step
    async def handle() -> Any:
        tries.append(1)
        return object()

    @workflow
    async def main() -> None:
        await handle()

    async with Engine(db, workflows=[main]) as engine:
        with pytest.raises(RunFailed, match="the result of step handle"):
            await engine.run(main())
    assert tries == [1]


@awaited
async def test_heartbeats_reach_the_next_attempt_and_the_key_stays(db: str) -> None:
    seen: list[Any] = []

    @step(retry=perdure.Retry(attempts=2, delay=0))
    async def long() -> int:
        me = perdure.current_step()
        seen.append((me.attempt, me.last_heartbeat, me.idempotency_key, me.run_id))
        if me.attempt == 1:
            await me.heartbeat({"page": 4})
            raise ValueError("half way")
        return 1

    @workflow
    async def main() -> int:
        return await long()

    async with Engine(db, workflows=[main]) as engine:
        await engine.run(main(), id="m")
    assert [(attempt, beat) for attempt, beat, _, _ in seen] == [(1, None), (2, {"page": 4})]
    assert seen[0][2:] == seen[1][2:]


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@awaited
async def test_a_plain_step_runs_in_a_thread_with_its_current_step(db: str) -> None:
    @step
    def where() -> list[str]:
        return [threading.current_thread().name, perdure.current_step().run_id]

    @workflow
    async def main() -> list[str]:
        return await where()

    async with Engine(db, workflows=[main]) as engine:
        thread, run_id = await engine.run(main(), id="m")
    assert thread.startswith("perdure-step")
    assert run_id == "m"


@awaited
async def test_context_variables_set_in_workflow_code_stay_in_its_tasks(db: str) -> None:
    @workflow
    async def main(value: str) -> list[str]:
        VARIABLE.set(value)
        await asyncio.sleep(0.001)

        async def inner() -> str:
            mine = VARIABLE.get()
            VARIABLE.set("inner")
            await asyncio.sleep(0.001)
            return mine

        return [await asyncio.create_task(inner()), VARIABLE.get()]

    async with Engine(db, workflows=[main]) as engine:
        found = await asyncio.gather(engine.run(main("a")), engine.run(main("b")))
        assert list(found) == [["a", "a"], ["b", "b"]]
    assert VARIABLE.get() == "unset"

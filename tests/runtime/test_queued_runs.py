"""Runs in queues: a run begins when its queue admits it and holds its place to its end, wherever it
is executed; what it starts asks for places of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

import perdure
from perdure import (
    DefinitionError,
    Engine,
    Queue,
    QueueFull,
    QueueNotFound,
    Rate,
    RunFailed,
    SyncEngine,
    continue_as,
    receive,
    start,
    step,
    workflow,
)
from perdure.store.writes import Claim, Turn, Write
from perdure.testing import CrashHarness
from tests.runtime.support import awaited, outside, reached, until

CLOSED = Queue("q", concurrency=1)

begun: list[str] = []
under_way: set[str] = set()
most: list[int] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    begun.clear()
    under_way.clear()
    most.clear()


@step
async def note(name: str) -> None:
    begun.append(name)


@step
async def enter(name: str) -> None:
    under_way.add(name)
    most.append(len(under_way))


@step
async def leave(name: str) -> None:
    under_way.remove(name)


@workflow
async def held(name: str) -> str:
    await note(name)
    await receive("go", bool)
    return name


@step
async def all_places_taken() -> None:
    """Ends once three were under way at a time: no run may leave before that."""
    await until(lambda: 3 in most)


@workflow
async def busy(name: str) -> str:
    await enter(name)
    await asyncio.sleep(0.001)
    await leave(name)
    return name


@workflow
async def crowded(name: str) -> str:
    await enter(name)
    await all_places_taken()
    await leave(name)
    return name


def row_of(db: str, run_id: str) -> dict[str, Any]:
    (row,) = outside(db, f"SELECT * FROM run WHERE id = '{run_id}'")
    return row


def last_is(name: str) -> bool:
    return begun[-1:] == [name]


# --- waiting --------------------------------------------------------------------------------------


@awaited
async def test_what_waits_behind_a_run_is_claimed_in_the_transaction_that_ends_it(db: str) -> None:
    paused = Queue("q", concurrency=1, paused=True)
    async with Engine(db, workflows=[busy], queues=[paused]) as engine:
        store, both = engine._store, []
        write = store.write

        def watched(batch: Sequence[Write], wait_for_lock: bool) -> list[Any]:
            ends = any(isinstance(one, Turn) and one.finish is not None for one in batch)
            both.append(ends and any(isinstance(one, Claim) for one in batch))
            return write(batch, wait_for_lock)

        store.write = watched  # type: ignore[method-assign]
        runs = [await engine.start(busy(f"n{n}"), queue="q") for n in range(9)]
        await engine.queue("q", paused=False)
        await asyncio.gather(*(run.result() for run in runs))
        store.write = write  # type: ignore[method-assign]
    assert sum(both) >= 4  # the first one is claimed alone, as is one behind a claim for nothing
    assert max(most) == 1


@awaited
async def test_a_run_waits_until_its_queue_admits_it(db: str) -> None:
    async with Engine(db, workflows=[held], queues=[CLOSED]) as engine:
        first = await engine.start(held("first"), id="first", queue="q")
        await until(lambda: begun)
        second = await engine.start(held("second"), id="second", queue="q")
        assert await second.status() == "waiting"
        row = row_of(db, "second")
        assert json.loads(row["waiting"]) == [{"queue": "q"}]
        assert (row["started_ms"], row["due_ms"], row["owner"]) == (None, None, None)
        await engine.send("second", True, channel="go")  # a message does not begin it
        await reached(first, "waiting")  # parked, it holds its place
        assert begun == ["first"]
        await first.send(True, channel="go")
        assert [await first.result(), await second.result()] == ["first", "second"]
        assert begun == ["first", "second"]
    assert outside(db, "SELECT * FROM perdure_place") == []


@awaited
async def test_no_more_runs_are_under_way_than_the_limit(db: str) -> None:
    async with (
        Engine(db, workflows=[crowded], queues=[Queue("q", concurrency=3)]) as one,
        Engine(db, workflows=[crowded]) as two,
        Engine(db, execute=False) as client,
    ):
        runs = []
        for n in range(60):
            engine = (one, two, client)[n % 3]
            runs.append(await engine.start(crowded(str(n)), queue="q", priority=n % 5))
        await asyncio.gather(*(run.result() for run in runs))
        assert max(most) == 3
        assert not under_way


@awaited
async def test_higher_priority_first_then_keys_take_turns_then_the_oldest(db: str) -> None:
    async with Engine(db, workflows=[held], queues=[CLOSED]) as engine:
        await engine.start(held("first"), id="first", queue="q")
        await until(lambda: begun)
        for name, key, priority in (
            ("a1", "a", 0), ("a2", "a", 0), ("a3", "a", 0), ("b1", "b", 0), ("top", "a", 5),
        ):  # fmt: skip
            await engine.start(held(name), id=name, queue="q", key=key, priority=priority)
        for name in ("first", "top", "a1", "b1", "a2", "a3"):
            await until(partial(last_is, name))
            await engine.send(name, True, channel="go")


@awaited
async def test_a_rate_spreads_the_runs(db: str) -> None:
    async with Engine(db, workflows=[busy], queues=[Queue("q", rate=Rate(2, 3600))]) as engine:
        runs = [await engine.start(busy(str(n)), queue="q") for n in range(2)]
        third = await engine.start(busy("third"), queue="q")
        await asyncio.gather(*(run.result() for run in runs))
        assert await third.status() == "waiting"
        (queue,) = await engine.queues()
        assert queue.next_at is not None
        assert queue.next_at > datetime.now(UTC)
        await engine.queue("q", rate=None)
        assert await third.result() == "third"


@awaited
async def test_a_run_in_line_is_cancelled_at_once(db: str) -> None:
    async with Engine(db, workflows=[held], queues=[CLOSED]) as engine:
        first = await engine.start(held("first"), id="first", queue="q")
        await until(lambda: begun)
        second, third = [
            await engine.start(held(name), id=name, queue="q") for name in ("second", "third")
        ]
        await second.cancel()
        assert await second.status() == "cancelled"
        await first.send(True, channel="go")
        await third.send(True, channel="go")
        await third.result()
        assert begun == ["first", "third"]


@awaited
async def test_a_paused_run_lets_others_pass_and_is_first_when_it_goes_on(db: str) -> None:
    async with Engine(db, workflows=[held], queues=[CLOSED]) as engine:
        first = await engine.start(held("first"), id="first", queue="q")
        await until(lambda: begun)
        for name in ("second", "third", "fourth"):
            await engine.start(held(name), id=name, queue="q")
        await engine.pause("second")
        await first.send(True, channel="go")
        await until(lambda: begun == ["first", "third"])
        await engine.resume("second")
        await engine.send("third", True, channel="go")
        await until(lambda: begun == ["first", "third", "second"])
        await engine.pause("second")  # while it is under way: its place is free
        await until(lambda: begun[3:] == ["fourth"])
        await engine.send("fourth", True, channel="go")
        await engine.resume("second")
        await engine.send("second", True, channel="go")
        assert await (await engine.get("second")).result() == "second"
        assert begun == ["first", "third", "second", "fourth"]


def test_a_run_that_starts_later_asks_when_it_is_due(perdure_time: CrashHarness) -> None:
    """In virtual time: on a slow machine it may be due before the other one has begun."""

    async def main() -> None:
        async with perdure_time.engine(workflows=[held], queues=[CLOSED]) as engine:
            soon = datetime.fromtimestamp(engine._clock.now_ms() / 1000 + 0.2, UTC)
            later = await engine.start(held("later"), id="later", queue="q", at=soon)
            assert await later.status() == "pending"
            first = await engine.start(held("first"), id="first", queue="q")
            assert await reached(later, "waiting")
            assert begun == ["first"]
            await first.send(True, channel="go")
            await later.send(True, channel="go")
            assert await later.result() == "later"

    perdure_time.run(main())


@awaited
async def test_a_start_that_was_put_off_gets_in_line_with_its_last_arguments(db: str) -> None:
    async with Engine(db, workflows=[held], queues=[CLOSED]) as engine:
        first = await engine.start(held("first"), id="first", queue="q")
        for name in ("one", "two"):
            later = await engine.start(held(name), id="later", queue="q", debounce=0.1)
        await reached(later, "waiting")
        await engine.start(held("three"), id="later", queue="q", debounce=0.1)  # it has not begun
        assert await later.status() == "waiting"
        await first.send(True, channel="go")
        await later.send(True, channel="go")
        assert await later.result() == "three"


# --- what runs start ------------------------------------------------------------------------------


@awaited
async def test_children_and_started_runs_wait_in_their_queues(db: str) -> None:
    @workflow
    async def parent(name: str) -> str:
        one = busy.options(queue="q")(f"{name}-child")
        two = await start(busy.options(queue="q", key="k")(f"{name}-own"), id=f"{name}-own")
        return f"{await one} {two}"

    async with Engine(db, workflows=[parent, busy], queues=[CLOSED]) as engine:
        runs = [await engine.start(parent(str(n)), key=f"for-{n}") for n in range(5)]
        assert await asyncio.gather(*(run.result() for run in runs)) == [
            f"{n}-child {n}-own" for n in range(5)
        ]
        for n in range(5):
            await (await engine.get(f"{n}-own")).result()
        assert max(most) == 1
        keys = outside(db, "SELECT key FROM run WHERE workflow = 'busy' ORDER BY key")
        assert [row["key"] for row in keys] == [*(f"for-{n}" for n in range(5)), *["k"] * 5]


@awaited
async def test_a_child_in_line_can_be_given_up(db: str) -> None:
    @workflow
    async def impatient() -> str:
        try:
            async with asyncio.timeout(0.05):
                return await held.options(queue="q")("child")
        except TimeoutError:
            return "gave up"

    async with Engine(db, workflows=[impatient, held], queues=[CLOSED]) as engine:
        first = await engine.start(held("first"), queue="q")
        await until(lambda: begun)
        assert await engine.run(impatient()) == "gave up"
        await first.send(True, channel="go")
        await first.result()
        assert begun == ["first"]
    assert outside(db, "SELECT * FROM perdure_place") == []


@workflow
async def countdown(n: int) -> str:
    await note(str(n))
    await receive("go", bool)
    return "done" if n == 0 else continue_as(countdown(n - 1))


@awaited
async def test_a_run_that_continues_hands_its_place_on(db: str) -> None:
    async with Engine(db, workflows=[countdown], queues=[CLOSED]) as engine:
        counting = await engine.start(countdown(2), id="c", queue="q", key="k", priority=3)
        await until(lambda: begun)
        other = await engine.start(countdown(0), id="o", queue="q", priority=9)
        for n in (2, 1, 0):
            await until(partial(last_is, str(n)))
            assert await other.status() == "waiting"
            await engine.send("c", True, channel="go")
        assert await counting.result() == "done"
        await other.send(True, channel="go")
        assert await other.result() == "done"
        rows = outside(db, "SELECT queue, key, priority FROM run WHERE workflow = 'countdown'")
        assert rows[-1] == {"queue": "q", "key": "k", "priority": 3}


@awaited
async def test_a_run_that_is_retried_asks_anew(db: str) -> None:
    broken = [True]

    @step(retry=None)
    async def fragile() -> None:
        if broken:
            raise ConnectionError

    @workflow
    async def fails() -> str:
        await fragile()
        return "done"

    async with Engine(db, workflows=[fails, held], queues=[CLOSED]) as engine:
        with pytest.raises(RunFailed):
            await engine.run(fails(), id="f", queue="q")
        first = await engine.start(held("first"), queue="q")
        await until(lambda: begun)
        broken.clear()
        await engine.retry("f")
        again = await engine.get("f")
        await reached(again, "waiting")
        await first.send(True, channel="go")
        assert await again.result() == "done"


# --- what can't be --------------------------------------------------------------------------------


@awaited
async def test_unknown_and_full_queues_are_refused_and_nothing_is_written(db: str) -> None:
    async with Engine(db, workflows=[held], queues=[Queue("q", concurrency=1, waiting_max=1)]) as e:
        with pytest.raises(QueueNotFound, match=r"no queue 'p'.*There are: q"):
            await e.start(held("x"), queue="p")
        for name in ("first", "second"):
            await e.start(held(name), id=name, queue="q")
        with pytest.raises(QueueFull, match="'q' is full: 1 place"):
            await e.start(held("third"), id="third", queue="q")
        assert len(outside(db, "SELECT * FROM run")) == 2
        same = await e.start(held("second"), id="second", queue="q")  # it is there: no place asked
        assert same.id == "second"


@awaited
async def test_a_child_gets_the_refusal_at_its_await(db: str) -> None:
    @workflow
    async def parent(queue: str) -> list[str]:
        said = []
        try:
            await busy.options(queue=queue)("child")
        except (QueueNotFound, QueueFull) as error:
            said.append(type(error).__name__)
        try:
            await start(busy.options(queue=queue)("own"))
        except (QueueNotFound, QueueFull) as error:
            said.append(type(error).__name__)
        return said

    queue = Queue("q", concurrency=1, waiting_max=1)
    async with Engine(db, workflows=[parent, busy, held], queues=[queue]) as engine:
        assert await engine.run(parent("p")) == ["QueueNotFound"] * 2
        for name in ("first", "second"):
            await engine.start(held(name), queue="q")
        assert await engine.run(parent("q")) == ["QueueFull"] * 2


@awaited
async def test_a_weight_that_never_fits_is_refused(db: str) -> None:
    async with Engine(db, workflows=[held], queues=[Queue("q", rate=Rate(5, 1))]) as engine:
        with pytest.raises(DefinitionError, match="burst of 5"):
            await engine.start(held("x"), queue="q", weight=6)
        with pytest.raises(DefinitionError, match="give queue, too"):
            await engine.start(held("x"), weight=2)
        assert outside(db, "SELECT * FROM run") == []


@awaited
async def test_a_function_of_a_childs_key_that_fails_blocks_its_parent(db: str) -> None:
    def no_key(name: str) -> str:
        raise LookupError(name)

    @workflow
    async def parent() -> None:
        await busy.options(queue="q", key=no_key)("child")

    async with Engine(db, workflows=[parent, busy], queues=[CLOSED]) as engine:
        run = await engine.start(parent())
        await reached(run, "blocked")
        assert "LookupError" in ((await run.info()).reason or "")


@awaited
async def test_limits_that_contradict_what_is_stored_change_nothing(db: str) -> None:
    async with Engine(db, queues=[Queue("q", concurrency=5, per_worker=3)]) as engine:
        with pytest.raises(DefinitionError, match="per_worker=3 is more than concurrency=2"):
            await engine.queue("q", concurrency=2, paused=True)
        (queue,) = await engine.queues()
        assert (queue.concurrency, queue.per_worker, queue.paused) == (5, 3, False)
        assert (await engine.queue("q", concurrency=2, per_worker=None)).concurrency == 2


@awaited
async def test_what_an_operator_has_set_survives_a_restart(db: str) -> None:
    declared = Queue("q", concurrency=5, rate=Rate(10, 1))
    async with Engine(db, queues=[declared]) as engine:
        await engine.queue("q", concurrency=2, paused=True)
    async with Engine(db, queues=[declared]) as engine:
        (queue,) = await engine.queues()
        assert (queue.concurrency, queue.paused, queue.rate) == (2, True, Rate(10, 1))
    async with Engine(db, queues=[Queue("q", concurrency=5, rate=Rate(20, 1))]) as engine:
        (queue,) = await engine.queues()  # a deploy changes what it changes
        assert (queue.concurrency, queue.paused, queue.rate) == (2, True, Rate(20, 1))


# --- any engine -----------------------------------------------------------------------------------


def test_a_script_waits_for_its_place(db: str) -> None:
    with SyncEngine(db, queues=[CLOSED]) as engine:
        engine.queue("q", concurrency=2)
        assert engine.run(busy("x"), queue="q", key="k", weight=1) == "x"
    assert perdure.run(busy.options(queue="q")("y"), store=db) == "y"


@awaited
async def test_an_engine_for_what_it_is_asked_takes_no_other_run(db: str) -> None:
    async with Engine(db, execute=False, queues=[CLOSED]) as client:
        await client.start(held("worker's"), id="worker's", queue="q")
        async with Engine(db, workflows=[held], execute="asked") as engine:
            mine = await engine.start(held("mine"), id="mine", queue="q")
            await until(lambda: begun)
            assert begun == ["mine"]
            assert await (await client.get("worker's")).status() == "waiting"
            await mine.send(True, channel="go")
            assert await mine.result() == "mine"


@awaited
async def test_two_engines_execute_what_they_know(db: str) -> None:
    """The first in line is a run that only the other engine knows: it takes nobody's place."""

    @workflow(name="theirs")
    async def theirs(name: str) -> str:
        await note(name)
        return name

    async with Engine(db, workflows=[held], queues=[CLOSED]) as here:
        first = await here.start(held("first"), queue="q")
        await until(lambda: begun)
        async with Engine(db, execute=False) as client:
            waiting = await client.start(theirs("theirs"), queue="q", priority=9)
            mine = await here.start(held("mine"), queue="q")
            await first.send(True, channel="go")
            await until(partial(last_is, "mine"))
            await mine.send(True, channel="go")
            await mine.result()
            async with Engine(db, workflows=[theirs]):
                assert await waiting.result() == "theirs"

"""Steps in queues: an attempt begins when its queue admits it, among the attempts of all engines,
and what a step does not need any more it gives back.
"""

from __future__ import annotations

import asyncio
import json
import threading
from functools import partial
from typing import Any

import pytest

from perdure import (
    DefinitionError,
    Engine,
    Limits,
    Observer,
    Queue,
    QueueFull,
    QueueNotFound,
    Rate,
    Retry,
    RetryAfter,
    RunFailed,
    StepFailed,
    SyncEngine,
    current_step,
    receive,
    run,
    step,
    workflow,
)
from perdure.runtime import steps
from perdure.runtime.queues import Lines
from perdure.runtime.scheduler import Scheduler
from perdure.runtime.steps import InThread
from perdure.testing import CrashHarness
from tests.runtime.support import awaited, kinds, outside, reached, until
from tests.runtime.test_durability import Copy

AT_ONCE = Retry(attempts=3, delay=0)
CLOSED = Queue("q", concurrency=1)


class Gates:
    """What steps of these tests wait for, by name; `under_way` are those that have begun."""

    def __init__(self) -> None:
        self.under_way: list[str] = []
        self.begun: list[str] = []
        self.most = 0
        self.open: dict[str, asyncio.Event] = {}

    def gate(self, name: str) -> asyncio.Event:
        return self.open.setdefault(name, asyncio.Event())

    def is_last(self, name: str) -> bool:
        return self.begun[-1] == name

    async def through(self, name: str) -> None:
        self.under_way.append(name)
        self.begun.append(name)
        self.most = max(self.most, len(self.under_way))
        try:
            await self.gate(name).wait()
        finally:
            self.under_way.remove(name)


gates = Gates()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global gates
    gates = Gates()


@step(queue="q")
async def pass_gate(name: str) -> str:
    await gates.through(name)
    return name


@step(queue="q", retry=None)
async def quick(n: int) -> int:
    gates.under_way.append(str(n))
    gates.most = max(gates.most, len(gates.under_way))
    await asyncio.sleep(0)
    gates.under_way.remove(str(n))
    return n


@workflow
async def one(name: str) -> str:
    return await pass_gate(name)


@workflow
async def many(n: int) -> int:
    return sum(await asyncio.gather(*map(quick, range(n))))


def places(db: str) -> list[dict[str, Any]]:
    return outside(db, "SELECT * FROM perdure_places ORDER BY asked_at")


# --- limits ---------------------------------------------------------------------------------------


@awaited
async def test_at_most_so_many_steps_are_under_way(db: str) -> None:
    async with Engine(db, workflows=[many], queues=[Queue("q", concurrency=3)]) as engine:
        runs = [await engine.start(many(10)) for _ in range(10)]
        assert await asyncio.gather(*(run.result() for run in runs)) == [45] * 10
        assert gates.most == 3
        (queue,) = await engine.queues()
        assert (queue.waiting, queue.running, queue.next_at) == (0, 0, None)
    assert outside(db, "SELECT * FROM perdure_place") == []
    assert outside(db, "SELECT * FROM perdure_line") == []


@awaited
async def test_a_step_that_is_admitted_at_once_costs_no_commit(db: str) -> None:
    """The rows of a run with a queue are in the transactions that they would be in without."""
    commits: list[int] = []

    class Counter(Observer):
        def committed(self, writes: int, took_ms: float) -> None:
            commits.append(writes)

    @step
    async def free(n: int) -> int:
        return n

    @workflow
    async def both(queued: bool) -> None:
        for n in range(20):
            await (quick(n) if queued else free(n))

    counts = []
    async with Engine(db, workflows=[both], queues=[CLOSED], observer=Counter()) as engine:
        for queued in (False, True):
            await engine.run(both(queued), id=f"warm-{queued}")
            del commits[:]
            await engine.run(both(queued), id=f"r-{queued}")
            counts.append(len(commits))
    assert counts[1] <= counts[0] + 1


@awaited
async def test_a_step_in_line_says_so_and_its_run_parks(db: str) -> None:
    async with Engine(db, workflows=[one], queues=[CLOSED]) as engine:
        first = await engine.start(one("first"), id="first")
        await until(lambda: gates.begun)
        second = await engine.start(one("second"), id="second")
        await reached(second, "waiting")
        (row,) = outside(db, "SELECT waiting FROM run WHERE id = 'second'")
        assert json.loads(row["waiting"]) == [{"step": "pass_gate", "seq": 2, "queue": "q"}]
        (queue,) = await engine.queues()
        assert (queue.waiting, queue.running) == (1, 1)
        gates.gate("first").set()
        await first.result()
        await until(lambda: gates.begun == ["first", "second"])
        await reached(second, "running")
        gates.gate("second").set()
        assert await second.result() == "second"
        assert kinds(await second.history()) == ["start", "step", "completed", "finish"]


@awaited
async def test_a_readonly_step_waits_too(db: str) -> None:
    @step(queue="q", readonly=True)
    async def look(name: str) -> str:
        await gates.through(name)
        return name

    @workflow
    async def looks(name: str) -> str:
        return await look(name)

    async with Engine(db, workflows=[looks], queues=[CLOSED]) as engine:
        runs = [await engine.start(looks(name)) for name in "ab"]
        await reached(runs[1], "waiting")
        assert gates.begun == ["a"]
        for name in "ab":
            gates.gate(name).set()
        assert [await run.result() for run in runs] == ["a", "b"]


@awaited
async def test_each_key_has_its_limit_and_a_full_one_holds_up_nobody(db: str) -> None:
    @step(queue="q", key=lambda name: name[0])
    async def keyed(name: str) -> str:
        await gates.through(name)
        return name

    @workflow
    async def by_key(name: str) -> str:
        return await keyed(name)

    async with Engine(
        db, workflows=[by_key], queues=[Queue("q", concurrency=3, key_concurrency=1)]
    ) as engine:
        runs = [await engine.start(by_key(name)) for name in ("a1", "a2", "a3", "b1")]
        await until(lambda: len(gates.begun) == 2)
        assert sorted(gates.begun) == ["a1", "b1"]
        for name in ("a1", "a2", "a3", "b1"):
            gates.gate(name).set()
        assert [await run.result() for run in runs] == ["a1", "a2", "a3", "b1"]


@awaited
async def test_steps_have_the_key_and_the_priority_of_their_run(db: str) -> None:
    async with Engine(db, workflows=[one], queues=[CLOSED]) as engine:
        await engine.start(one("first"), id="first")
        await until(lambda: gates.begun)
        for name, priority in (("low", -1), ("middle", 0), ("high", 7)):
            waiting = await engine.start(one(name), id=name, key=f"for-{name}", priority=priority)
            await reached(waiting, "waiting")
        assert {(row["run_id"], row["key"], row["priority"]) for row in places(db)} == {
            ("first", None, 0), ("low", "for-low", -1), ("middle", "for-middle", 0),
            ("high", "for-high", 7),
        }  # fmt: skip
        for name in ("first", "high", "middle", "low"):
            await until(partial(gates.is_last, name))
            gates.gate(name).set()


@awaited
async def test_limits_change_while_runs_wait(db: str) -> None:
    async with Engine(db, workflows=[one], queues=[Queue("q", paused=True)]) as engine:
        runs = [await engine.start(one(name)) for name in "abc"]
        for waiting in runs:
            await reached(waiting, "waiting")
        assert gates.begun == []
        await engine.queue("q", concurrency=2, paused=False)
        await until(lambda: len(gates.begun) == 2)
        await engine.queue("q", concurrency=None)
        await until(lambda: len(gates.begun) == 3)
        for name in "abc":
            gates.gate(name).set()
        assert [await run.result() for run in runs] == ["a", "b", "c"]


# --- attempts -------------------------------------------------------------------------------------


@awaited
async def test_a_failed_attempt_gives_its_place_back_and_asks_again(db: str) -> None:
    @step(queue="q", retry=AT_ONCE)
    async def fails_twice(name: str) -> int:
        await gates.through(name)
        if current_step().attempt < 3:
            raise ConnectionError(name)
        return current_step().attempt

    @workflow
    async def fragile(name: str) -> int:
        return await fails_twice(name)

    async with Engine(db, workflows=[fragile], queues=[CLOSED]) as engine:
        runs = [await engine.start(fragile(name)) for name in "ab"]
        for name in "ab":
            gates.gate(name).set()
        assert [await run.result() for run in runs] == [3, 3]
        assert gates.most == 1
        assert gates.begun == ["a", "b"] * 3
    assert places(db) == []


@awaited
async def test_while_a_step_waits_for_its_next_attempt_it_holds_no_place(db: str) -> None:
    @step(queue="q", retry=Retry(attempts=2, delay=3_600, max_delay=3_600))
    async def down() -> None:
        raise ConnectionError

    @workflow
    async def waits() -> None:
        await down()

    async with Engine(db, workflows=[waits, many], queues=[CLOSED]) as engine:
        await reached(await engine.start(waits()), "waiting")
        assert await engine.run(many(3)) == 3
        assert places(db) == []


@awaited
async def test_a_cancelled_attempt_holds_its_place_until_it_has_ended(db: str) -> None:
    may_end, begun = threading.Event(), threading.Event()

    @step(queue="q")
    def stubborn() -> None:
        begun.set()
        may_end.wait(60)

    @workflow
    async def impatient() -> str:
        try:
            await stubborn()
        except asyncio.CancelledError:
            return "gave up"
        return "done"

    async with Engine(db, workflows=[impatient, one], queues=[CLOSED]) as engine:
        gives_up = await engine.start(impatient())
        await until(begun.is_set)
        await gives_up.cancel()
        assert await gives_up.result() == "gave up"
        next_one = await engine.start(one("next"))
        await reached(next_one, "waiting")
        assert gates.begun == []
        may_end.set()
        await until(lambda: gates.begun)
        gates.gate("next").set()
        assert await next_one.result() == "next"
    assert places(db) == []


@awaited
async def test_a_retry_does_not_share_the_place_of_a_thread_that_goes_on(db: str) -> None:
    may_end, begun = threading.Event(), threading.Semaphore(0)

    # on a slow machine an attempt may time out before its thread has begun: it is tried again
    @step(queue="q", timeout=0.05, retry=Retry(attempts=10_000, delay=0))
    def hangs_once() -> str:
        begun.release()
        may_end.wait(60)
        return "done"

    @workflow
    async def hangs() -> str:
        return await hangs_once()

    async with Engine(db, workflows=[hangs], queues=[CLOSED]) as engine:
        hanging = await engine.start(hangs())
        await until(lambda: len(places(db)) == 2)
        await reached(hanging, "waiting")
        assert begun.acquire(blocking=False) and not begun.acquire(blocking=False)
        assert [(row["seq"], row["status"]) for row in places(db)] == [
            (2, "running"),
            (2, "waiting"),
        ]
        may_end.set()
        assert await hanging.result() == "done"
    assert places(db) == []


@awaited
async def test_a_step_that_is_given_up_before_its_confirmation_gives_its_place_back(
    db: str,
) -> None:
    @workflow
    async def impatient() -> str:
        try:
            async with asyncio.timeout(0.01):
                return await pass_gate("first")
        except TimeoutError:
            return await receive("answer", str)

    async with Engine(db, workflows=[impatient, one], queues=[CLOSED]) as engine, Copy() as copy:
        engine._scheduler.gate = copy.gate
        gives_up = await engine.start(impatient())
        await reached(gives_up, "waiting")
        await until(lambda: places(db) == [])
        await copy.confirm()
        gates.gate("next").set()
        assert await engine.run(one("next")) == "next"
        await gives_up.send("late", channel="answer")
        assert await gives_up.result() == "late"
    assert gates.begun == ["next"]


@awaited
async def test_a_run_that_leaves_memory_lets_a_step_go_on_here(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker may execute one thing of the queue: the run, or the step. No look at the store
    for another reason helps.
    """
    monkeypatch.setattr(Lines, "others_committed", lambda _: None)

    @workflow
    async def sleeper() -> str:
        return await receive("answer", str)

    per_worker, limits = Queue("q", per_worker=1), Limits(runs_parked_max=1)
    async with Engine(db, workflows=[sleeper, one], queues=[per_worker], limits=limits) as engine:
        sleeping = await engine.start(sleeper(), queue="q")
        await reached(sleeping, "waiting")
        gates.gate("step").set()
        assert await engine.run(one("step")) == "step"
        await sleeping.send("now", channel="answer")
        assert await sleeping.result() == "now"


@awaited
async def test_a_step_that_is_given_up_leaves_its_line(db: str) -> None:
    @workflow
    async def impatient() -> str:
        try:
            async with asyncio.timeout(0.03):
                return await pass_gate("never")
        except TimeoutError:
            return "gave up"

    async with Engine(db, workflows=[one, impatient], queues=[CLOSED]) as engine:
        first = await engine.start(one("first"))
        await until(lambda: gates.begun)
        assert await engine.run(impatient()) == "gave up"
        assert [row["status"] for row in places(db)] == ["running"]
        gates.gate("first").set()
        await first.result()
    assert places(db) == []
    assert gates.begun == ["first"]


@awaited
async def test_a_cancelled_run_leaves_its_line(db: str) -> None:
    async with Engine(db, workflows=[one], queues=[CLOSED]) as engine:
        first = await engine.start(one("first"))
        await until(lambda: gates.begun)
        second, third = await engine.start(one("second")), await engine.start(one("third"))
        await reached(third, "waiting")
        await second.cancel()
        await reached(second, "cancelled")
        gates.gate("first").set()
        await first.result()
        await until(lambda: gates.begun == ["first", "third"])
        gates.gate("third").set()
        await third.result()
    assert places(db) == []


@awaited
async def test_a_paused_run_takes_no_place_and_asks_again(db: str) -> None:
    async with Engine(db, workflows=[one], queues=[CLOSED]) as engine:
        await engine.start(one("first"), id="first")
        await until(lambda: gates.begun)
        second = await engine.start(one("second"), id="second")
        await reached(second, "waiting")
        await engine.pause("second")
        third = await engine.start(one("third"), id="third")
        await reached(third, "waiting")
        gates.gate("first").set()
        await until(lambda: gates.begun == ["first", "third"])
        await engine.resume("second")
        gates.gate("third").set()
        await until(lambda: gates.begun == ["first", "third", "second"])
        gates.gate("second").set()
        assert await second.result() == "second"


@awaited
async def test_runs_in_line_leave_memory_and_are_admitted_from_the_store(db: str) -> None:
    limits = Limits(runs_parked_max=2)
    async with Engine(db, workflows=[one], queues=[CLOSED], limits=limits) as engine:
        runs = [await engine.start(one(str(n)), id=str(n)) for n in range(12)]
        for waiting in runs[1:]:
            await reached(waiting, "waiting")
        loaded = engine._scheduler.memory.active
        await until(lambda: len(loaded) <= 4)
        for n in range(12):
            gates.gate(str(n)).set()
        assert [await run.result() for run in runs] == [str(n) for n in range(12)]
        assert gates.most == 1
        for waiting in runs:  # no attempt was counted that had not begun
            assert kinds(await waiting.history()).count("completed") == 1
    assert places(db) == []


@awaited
async def test_an_evicted_run_in_line_can_be_paused_and_resumed(db: str) -> None:
    limits = Limits(runs_parked_max=0)
    async with Engine(db, workflows=[one], queues=[CLOSED], limits=limits) as engine:
        first = await engine.start(one("first"))
        await until(lambda: gates.begun)
        second = await engine.start(one("second"), id="second")
        await until(lambda: second._key not in engine._scheduler.memory.active)
        await engine.pause("second")
        gates.gate("first").set()
        await first.result()
        third = await engine.start(one("third"))
        await until(lambda: gates.begun == ["first", "third"])
        gates.gate("third").set()
        await third.result()
        await engine.resume("second")
        gates.gate("second").set()
        assert await second.result() == "second"
    assert places(db) == []


@awaited
async def test_a_cancelled_run_that_has_left_memory_leaves_its_line(db: str) -> None:
    limits = Limits(runs_parked_max=0)
    async with Engine(db, workflows=[one], queues=[CLOSED], limits=limits) as engine:
        first = await engine.start(one("first"))
        await until(lambda: gates.begun)
        second = await engine.start(one("second"))
        await until(lambda: second._key not in engine._scheduler.memory.active)
        await second.cancel()
        await reached(second, "cancelled")
        assert [row["status"] for row in places(db)] == ["running"]
        gates.gate("first").set()
        await first.result()
    assert places(db) == []
    assert gates.begun == ["first"]


@awaited
async def test_an_engine_that_closes_leaves_its_lines_to_the_next(db: str) -> None:
    async with Engine(db, workflows=[one], queues=[CLOSED], close_grace=0) as engine:
        for name in "abc":
            await reached(await engine.start(one(name), id=name), "waiting", "running")
        await until(lambda: gates.begun)
    rows = outside(db, "SELECT id, status FROM run ORDER BY id")
    assert [row["status"] for row in rows] == ["pending", "waiting", "waiting"]
    assert [row["status"] for row in places(db)] == ["waiting", "waiting"]
    async with Engine(db, workflows=[one]) as engine:
        for name in "abc":
            gates.gate(name).set()
        for name in "abc":
            run = await engine.get(name)
            assert await run.result() == name
        assert kinds(await run.history()).count("attempt") <= 1  # it had not begun: no crash
    assert gates.most == 1
    assert places(db) == []


@awaited
async def test_a_history_that_grows_too_long_gives_its_places_back(db: str) -> None:
    @workflow
    async def grows() -> None:
        await asyncio.gather(*(pass_gate(str(n)) for n in range(5)))

    async with Engine(
        db, workflows=[grows, many], queues=[CLOSED], limits=Limits(history_rows_max=8)
    ) as engine:
        run = await engine.start(grows())
        await until(lambda: gates.begun)
        for n in range(5):
            gates.gate(str(n)).set()
        await reached(run, "blocked")
        assert places(db) == []
        assert await engine.run(many(1)) == 0


class OneRead:
    """A host of lines whose read gives what a test says."""

    owner = 1

    def __init__(self) -> None:
        self.found: list[tuple[int, int, int]] = []
        self.store = self.reads = self

    def admitted(self, worker: int) -> list[tuple[int, int, int]]:
        return self.found

    def then(self, act: Any, read: Any, *args: Any) -> None:
        act(read(*args))


@awaited
async def test_news_of_a_place_may_come_before_it_is_known_and_old_news_mean_nothing() -> None:
    host, begun = OneRead(), list[int]()
    lines = Lines(host)  # type: ignore[arg-type]
    lines.others_committed()
    host.found = [(7, 2, 40)]
    lines.add(7, 2, 41, begun.append)  # the place of an earlier attempt was 40
    await asyncio.sleep(0)
    assert begun == []
    host.found = [(7, 2, 41), (8, 2, 42)]
    lines.add(9, 2, 43, begun.append)
    await asyncio.sleep(0)
    assert begun == [2]
    assert len(lines) == 1
    lines.remove(9, 2)
    lines.admitted([(9, 2, 43)])
    assert begun == [2]


# --- what a step says to its queue ----------------------------------------------------------------


def test_retry_after_holds_the_queue_for_other_engines_too(perdure_time: CrashHarness) -> None:
    """In virtual time: on a slow machine the pause may be over before anything looks."""
    tried: list[int] = []

    @step(queue="q", retry=None)
    async def limited(n: int) -> int:
        tried.append(n)
        if tried == [1]:
            raise RetryAfter(60)
        return current_step().attempt

    @workflow
    async def asks(n: int) -> int:
        return await limited(n)

    async def main() -> None:
        async with (
            perdure_time.engine(workflows=[asks], queues=[Queue("q")]) as here,
            perdure_time.engine(workflows=[asks]) as there,
        ):
            first = await here.start(asks(1))
            await reached(first, "waiting")
            (queue,) = await there.queues()
            assert queue.held_until is not None
            second = await there.start(asks(2))
            await reached(second, "waiting")
            assert tried == [1]
            assert (await first.result(), await second.result()) == (2, 1)
            note = next(row for row in await first.history() if row.kind == "attempt")
            assert note.error is not None
            assert note.error["type"] == "RetryAfter"

    perdure_time.run(main())


@awaited
async def test_the_place_of_a_step_that_says_retry_after_goes_to_no_other(db: str) -> None:
    """It is given back in the transaction that holds the queue back."""
    tried: list[int] = []

    @step(queue="q", retry=None)
    async def limited(n: int) -> int:
        tried.append(n)
        if tried == [1]:
            await gates.gate("both in line").wait()
            raise RetryAfter(3_600)
        return n

    @workflow
    async def asks(n: int) -> int:
        return await limited(n)

    async with Engine(db, workflows=[asks], queues=[CLOSED]) as engine:
        first = await engine.start(asks(1))
        await until(lambda: tried)
        second = await engine.start(asks(2))
        await reached(second, "waiting")
        gates.gate("both in line").set()
        await reached(first, "waiting")
        (queue,) = await engine.queues()
        assert (queue.running, queue.waiting, tried) == (0, 1, [1])
        assert queue.held_until is not None


@awaited
async def test_retry_after_does_not_count_for_the_policy(db: str) -> None:
    @step(retry=Retry(attempts=2, delay=0))
    async def limited() -> int:
        if current_step().attempt in (1, 2, 4):
            raise RetryAfter(0)
        raise ConnectionError(f"attempt {current_step().attempt}")

    @workflow
    async def asks() -> None:
        await limited()

    async with Engine(db, workflows=[asks]) as engine:
        with pytest.raises(RunFailed, match="after 2 attempts: ConnectionError: attempt 5"):
            await engine.run(asks(), id="r")
        assert kinds(await engine.history("r")).count("attempt") == 4


@awaited
async def test_spending_makes_the_next_one_wait(db: str) -> None:
    @step(queue="q", weight=2)
    async def use(tokens: int) -> None:
        current_step().spend("q", tokens)

    @step(queue="q", weight=2)
    def use_in_thread(tokens: int) -> None:
        current_step().spend("q", tokens)

    @workflow
    async def uses(tokens: int, in_thread: bool) -> None:
        await (use_in_thread if in_thread else use)(tokens)

    for in_thread in (False, True):
        store = f"{db}-{in_thread}"
        async with Engine(store, workflows=[uses], queues=[Queue("q", rate=Rate(10, 3600))]) as eng:
            await eng.run(uses(1, in_thread))  # of 2 that were paid one comes back: 9 are left
            await eng.run(uses(7, in_thread))  # 2 are left
            await eng.run(uses(2, in_thread))  # none is
            third = await eng.start(uses(1, in_thread))
            await reached(third, "waiting")
            (queue,) = await eng.queues()
            assert (queue.waiting, queue.running) == (1, 0)
            assert queue.next_at is not None
            await third.cancel()


@awaited
async def test_what_can_not_be_spent_is_refused(db: str) -> None:
    @step(retry=None)
    async def use(amount: Any) -> str:
        try:
            current_step().spend("q", amount)
        except DefinitionError as error:
            return str(error)
        return "taken"

    @workflow
    async def uses(amount: Any) -> str:
        return await use(amount)

    async with Engine(db, workflows=[uses], queues=[CLOSED]) as engine:
        for amount in (-1, 1.5, "1", None):
            assert "spend() takes is a whole number" in await engine.run(uses(amount))
        assert await engine.run(uses(0)) == "taken"


@awaited
async def test_what_a_step_gives_back_early_is_there_for_the_next_one(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No look at the store for another reason helps."""
    monkeypatch.setattr(Lines, "others_committed", lambda _: None)
    monkeypatch.setattr(Scheduler, "changed_by_others", lambda _: None)

    @step(queue="q", weight=10)
    async def generous(name: str) -> str:
        if name == "first":
            await gates.gate("spend").wait()
            current_step().spend("q", 0)
        await gates.through(name)
        return name

    @workflow
    async def one_of(name: str) -> str:
        return await generous(name)

    hourly = Queue("q", rate=Rate(10, per=3600))
    async with Engine(db, workflows=[one_of], queues=[hourly]) as engine:
        first = await engine.start(one_of("first"))
        second = await engine.start(one_of("second"))
        await reached(second, "waiting")
        gates.gate("spend").set()
        gates.gate("second").set()
        assert await second.result() == "second"
        gates.gate("first").set()
        await first.result()


@pytest.mark.parametrize("in_thread", [False, True], ids=["on the event loop", "in a thread"])
@awaited
async def test_spending_of_a_queue_that_is_missing_fails_at_its_line(
    db: str, in_thread: bool
) -> None:
    def spend_both() -> str:
        current_step().spend("q", 1)
        try:
            current_step().spend("mistyped", 1)
        except QueueNotFound as error:
            return str(error)
        return "taken"

    @step(retry=None)
    async def on_the_loop() -> str:
        return spend_both()

    use: Any = step(retry=None, name="in_a_thread")(spend_both) if in_thread else on_the_loop

    @workflow
    async def uses() -> Any:
        return await use()

    async with Engine(db, workflows=[uses], queues=[CLOSED]) as engine:
        assert "no queue 'mistyped' in this store" in await engine.run(uses())


@awaited
async def test_what_waits_for_tokens_begins_when_they_are_there(db: str) -> None:
    """Nothing else wakes this engine: it looks at its file once a day."""

    @workflow
    async def at_once(n: int) -> int:
        return sum(await asyncio.gather(*(quick(i) for i in range(n))))

    queue = Queue("q", rate=Rate(1, 0.05, burst=2))
    async with Engine(db, workflows=[at_once], queues=[queue]) as engine:
        engine._scheduler.clock.idle_s_max = 86_400.0
        assert await engine.run(at_once(8)) == 28


@awaited
async def test_what_waits_for_a_hold_begins_when_it_is_over(db: str) -> None:
    @step(queue="q", retry=None)
    async def limited(n: int) -> int:
        if n == 0 and current_step().attempt == 1:
            raise RetryAfter(0.1)
        return n

    @workflow
    async def at_once(n: int) -> int:
        return sum(await asyncio.gather(*map(limited, range(n))))

    async with Engine(db, workflows=[at_once], queues=[CLOSED]) as engine:
        engine._scheduler.clock.idle_s_max = 86_400.0
        assert await engine.run(at_once(8)) == 28


# --- what can't be --------------------------------------------------------------------------------


@awaited
async def test_a_queue_that_is_missing_blocks_the_run_until_it_is_there(db: str) -> None:
    async with Engine(db, workflows=[one]) as engine:
        gates.gate("x").set()
        run = await engine.start(one("x"), id="x")
        assert await reached(run, "blocked") == "blocked"
        info = await run.info()
        assert "no queue 'q'" in (info.reason or "")
        await engine.queue("q")
        assert await run.result() == "x"


@awaited
async def test_a_full_queue_does_not_count_for_the_policy(db: str) -> None:
    @workflow
    async def tries(name: str) -> str:
        return await pass_gate.options(retry=None)(name)

    queue = Queue("q", concurrency=1, waiting_max=1)
    async with Engine(db, workflows=[tries], queues=[queue]) as engine:
        runs = [await engine.start(tries(name)) for name in "ab"]
        await reached(runs[1], "waiting")
        runs.append(await engine.start(tries("c"), id="c"))
        await reached(runs[2], "waiting")
        for name in "abc":
            gates.gate(name).set()
        assert [await run.result() for run in runs] == ["a", "b", "c"]
        note = next(row for row in await engine.history("c") if row.kind == "attempt")
        assert note.error is not None
        assert note.error["type"] == "QueueFull"


@awaited
async def test_a_queue_that_stays_full_fails_the_step(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "HELD_MAX", 0)

    @workflow
    async def tries(name: str) -> str:
        try:
            return await pass_gate.options(retry=None)(name)
        except StepFailed as failed:
            return "full" if isinstance(failed.__cause__, QueueFull) else "other"

    queue = Queue("q", concurrency=1, waiting_max=1)
    async with Engine(db, workflows=[tries], queues=[queue]) as engine:
        runs = [await engine.start(tries(name)) for name in "ab"]
        await reached(runs[1], "waiting")
        assert await engine.run(tries("c")) == "full"
        for name in "ab":
            gates.gate(name).set()
        assert [await run.result() for run in runs] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 11}, "burst of 10"),
        ({"weight": lambda n: n + 10}, "burst of 10"),
        ({"weight": lambda n: 1.5}, "weight is a whole number"),
        ({"key": lambda n: n}, "key is a text"),
        ({"key": lambda n: [][n]}, "out of range"),
    ],
    ids=["weight", "weight of", "no weight", "no key", "no answer"],
)
def test_a_step_that_can_not_ask_fails(db: str, options: dict[str, Any], message: str) -> None:
    asks: Any = quick.options(**options)

    @workflow
    async def tries() -> str:
        try:
            await asks(1)
        except StepFailed as failed:
            return str(failed)
        return "passed"

    with SyncEngine(db, workflows=[tries], queues=[Queue("q", rate=Rate(10, 1))]) as engine:
        assert message in engine.run(tries())
        assert engine.queues()[0].waiting == 0


# --- any engine -----------------------------------------------------------------------------------


def test_a_script_and_an_engine_without_a_loop(db: str) -> None:
    with SyncEngine(db, queues=[Queue("q", concurrency=2)]) as engine:
        assert engine.queue("q", concurrency=1).concurrency == 1
        assert [queue.name for queue in engine.queues()] == ["q"]
    assert run(many(20), store=db) == 190
    assert gates.most == 1


@awaited
async def test_engines_with_different_workflows_share_a_queue(db: str) -> None:
    """Neither executes what it does not know, nor keeps its place, whoever is first in line."""

    @workflow(name="theirs")
    async def theirs(name: str) -> str:
        return await pass_gate(name)

    async with (
        Engine(db, workflows=[one], queues=[CLOSED]) as here,
        Engine(db, workflows=[theirs]) as there,
    ):
        runs = []
        for n in range(6):
            engine, flow = ((here, one), (there, theirs))[n % 2]
            runs.append(await engine.start(flow(str(n)), id=str(n)))
        for n in range(6):
            gates.gate(str(n)).set()
        assert await asyncio.gather(*(run.result() for run in runs)) == [str(n) for n in range(6)]
        assert gates.most == 1
    assert places(db) == []


@awaited
async def test_a_function_that_was_given_up_before_its_thread_began_never_begins() -> None:
    begun: list[str] = []
    late = InThread(lambda: begun.append("late"), asyncio.get_running_loop())
    assert not late.when_ended(lambda: None)
    late()
    assert begun == []

"""A step that waits for its next attempt begins it when a person asks for it, once, whatever
process has its run, and whichever of them dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Engine,
    Limits,
    Queue,
    Retry,
    RetryAfter,
    RunBlocked,
    RunFailed,
    RunFinished,
    StepNotWaiting,
    current_step,
    receive,
    step,
    workflow,
)
from perdure.core.events import Command
from perdure.errors import DefinitionError
from perdure.runtime.backoff import Backoff
from perdure.runtime.control import Resolution
from perdure.runtime.plans import PendingAttempt
from perdure.testing import VirtualLoop
from perdure.testing.virtual_time import VirtualClock
from perdure.views import timeline
from perdure.views.step import step_view
from tests.runtime import retry_victim, victim
from tests.runtime.support import Victim, awaited, freeze, kinds, outside, reached, until

UNREAD = "SELECT 1 FROM perdure_messages WHERE kind = 'resolve' AND history_row IS NULL"
SLOW = Retry(attempts=4, delay=3_600, factor=2, max_delay=36_000, jitter=False)

begun: list[tuple[str, int]] = []
up: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    begun.clear()
    up.clear()


def try_it(name: str) -> int:
    begun.append((name, current_step().attempt))
    if name not in up:
        raise ConnectionError("503")
    return current_step().attempt


@step(retry=SLOW)
async def charge(name: str) -> int:
    return try_it(name)


@step(retry=SLOW, transactional=True)
def charge_here(db: Any, name: str) -> int:
    return try_it(name)


@step(retry=SLOW, queue="bank")
async def charge_in_queue(name: str) -> int:
    if name == "busy":
        begun.append((name, current_step().attempt))
        raise RetryAfter(3_600)
    return try_it(name)


@workflow
async def order(*names: str) -> list[int]:
    return list(await asyncio.gather(*map(charge, names)))


@workflow
async def order_here(name: str) -> int:
    return await charge_here(name)


@workflow
async def order_in_queue(name: str) -> int:
    return await charge_in_queue(name)


@workflow
async def many_in_queue(steps: int) -> list[int]:
    return list(await asyncio.gather(*(charge_in_queue(str(n)) for n in range(steps))))


@workflow
async def order_and_wait(name: str) -> list[int]:
    charged = asyncio.create_task(charge(name))
    return [await receive("go", int), await charged]


WORKFLOWS: list[Any] = [order, order_here, order_in_queue, many_in_queue, order_and_wait]


async def waiting(engine: Engine, id: str = "o") -> list[dict[str, Any]]:
    """What the run waits for, once it waits."""
    run = await engine.get(id)
    await reached(run, "waiting")
    return (await run.info()).waiting_for


async def tried(run_id: str, engine: Engine, attempt: int) -> None:
    """Wait until the attempts of the run have failed this often and it waits again."""

    async def again() -> bool:
        info = await engine.info(run_id)
        items = [one for one in info.waiting_for if "again_ms" in one]
        return info.status == "waiting" and all(one["attempt"] > attempt for one in items)

    while not await again():  # noqa: ASYNC110
        await asyncio.sleep(0.003)


@awaited
@pytest.mark.parametrize("make", [order, order_here, order_in_queue])
async def test_its_next_attempt_begins_at_once(db: str, make: Any) -> None:
    async with Engine(db, workflows=WORKFLOWS, queues=[Queue("bank", concurrency=1)]) as engine:
        run = await engine.start(make("a"), id="o")
        await waiting(engine)
        up.add("a")
        assert await engine.retry("o", sender="ada") == [2]
        assert await run.result() in (2, [2])
        rows = await engine.entry("o", 2)
        early = next(row for row in rows if row.data and row.data.get("now"))
        said = timeline.answer_of(early, 90).text
        assert (early.attempt, said) == (2, "attempt 2 began early, as asked for by ada")
        view = step_view(rows)
        assert view is not None and view.again_at_ms is None
    assert begun == [("a", 1), ("a", 2)]


@awaited
async def test_delays_and_the_count_of_attempts_go_on(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        run = await engine.start(order("a"), id="o")
        delays = []
        for attempt in (1, 2, 3):
            (item,) = await waiting(engine)
            failed = [row for row in await engine.history("o") if row.error][-1]
            delays.append(round((item["again_ms"] / 1000 - failed.at.timestamp()) / 3_600))
            assert (item["attempt"], item["attempts"]) == (attempt + 1, 4)
            await engine.retry("o")
            if attempt < 3:
                await tried("o", engine, attempt + 1)
        with pytest.raises(RunFailed, match="after 4 attempts: ConnectionError: 503"):
            await run.result()
    assert delays == [1, 2, 4]
    assert begun == [("a", n) for n in (1, 2, 3, 4)]


@awaited
async def test_all_that_wait_or_the_one_that_is_named(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        run = await engine.start(order("a", "b", "c"), id="o")
        seqs = sorted(item["seq"] for item in await waiting(engine))
        assert await engine.retry("o", seq=seqs[1]) == [seqs[1]]
        await until(lambda: len(begun) == 4)
        assert begun[3] == ("b", 2)
        await tried("o", engine, 1)
        await until(lambda: not engine._scheduler.memory.active or len(begun) == 4)
        up.update("abc")
        assert sorted(await engine.retry("o")) == seqs
        assert await run.result() == [2, 3, 2]


@awaited
async def test_asked_for_twice_it_is_done_once(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await engine.start(order("a"), id="o")
        await waiting(engine)
    async with Engine(db, execute=False) as client:
        for _ in range(3):
            assert await client.retry("o", sender="ada") == [2]
        unread = "SELECT count(*) AS n FROM perdure_messages WHERE kind = 'resolve'"
        assert outside(db, unread) == [{"n": 1}]
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await tried("o", engine, 2)
    assert begun == [("a", 1), ("a", 2)]


@awaited
async def test_of_two_decisions_about_one_wait_the_second_is_refused(db: str) -> None:
    """The first one counts; a result that was accepted and went nowhere would be worse."""
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await engine.start(order("a", "b"), id="o")
        await waiting(engine)
    up.update("ab")
    async with Engine(db, execute=False) as client:
        first, second = (one["seq"] for one in (await client.info("o")).waiting_for)
        await client.resolve("o", seq=second, result=9, sender="ada")
        with pytest.raises(StepNotWaiting, match="a decision about it by 'ada' is there already"):
            await client.retry("o", seq=second)
        assert await client.retry("o") == [first], "the one that is decided is left alone"
        with pytest.raises(StepNotWaiting, match="a decision about it is there already"):
            await client.resolve("o", seq=first, error="no")
    async with Engine(db, workflows=WORKFLOWS) as engine:
        assert await (await engine.get("o")).result() == [2, 9]


@awaited
async def test_a_request_that_comes_too_late_changes_nothing(db: str) -> None:
    """Another client looked at the same wait, and its request arrives behind the attempt."""
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await engine.start(order("a"), id="o")
        (item,) = await waiting(engine)
        await engine.retry("o")
        await tried("o", engine, 2)
        rows = kinds(await engine.history("o"))
        row = await engine._control._row("o")
        again = Resolution(b'{"retry":true}', None, True)
        await engine._control._end_wait(row, 2, item["again_ms"], again, None)
        unread = "SELECT 1 FROM perdure_messages WHERE history_row IS NULL"
        await until(lambda: not outside(db, unread))
        assert kinds(await engine.history("o")) == rows
    assert begun == [("a", 1), ("a", 2)]


@awaited
async def test_a_run_at_work_on_other_things_and_one_that_was_paused(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        run = await engine.start(order_and_wait("a"), id="o")
        await waiting(engine)
        await engine.pause("o")
        await until(lambda: not engine._scheduler.memory.active)
        up.add("a")
        assert await engine.retry("o") == [2], "a retry ends a pause"
        await until(lambda: len(begun) == 2)
        await run.send(7, channel="go")
        assert await run.result() == [7, 2]


@awaited
async def test_a_run_that_has_left_memory(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS, limits=Limits(runs_parked_max=0)) as engine:
        run = await engine.start(order("a"), id="o")
        await waiting(engine)
        await until(lambda: not engine._scheduler.memory.active)
        up.add("a")
        await engine.retry("o")
        assert await run.result() == [2]


@awaited
async def test_what_does_not_wait_is_told_apart(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS, queues=[Queue("bank", concurrency=1)]) as engine:
        await engine.start(order_and_wait("a"), id="o")
        await waiting(engine)
        for seq, why in ((1, "no step"), (99, "no step")):
            with pytest.raises(StepNotWaiting, match=f"row {seq} .*{why}"):
                await engine.retry("o", seq=seq)
        up.add("a")
        await engine.retry("o")
        await until(lambda: len(begun) == 2)
        while "completed" not in kinds(await engine.history("o")):  # noqa: ASYNC110
            await asyncio.sleep(0.003)
        with pytest.raises(StepNotWaiting, match="it has ended"):
            await engine.retry("o", seq=2)
        assert await engine.retry("o") == [], "nothing waits for an attempt"
        await engine.send("o", 1, channel="go")
        await (await engine.get("o")).result()
        with pytest.raises(StepNotWaiting, match="the run is completed"):
            await engine.retry("o", seq=2)
        with pytest.raises(RunFinished):
            await engine.retry("o")
        with pytest.raises(DefinitionError):
            await engine.retry("o", seq="2")  # type: ignore[arg-type]


@awaited
async def test_a_queue_decides_for_a_step_that_is_in_line(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS, queues=[Queue("bank", paused=True)]) as engine:
        await engine.start(order_in_queue("a"), id="o")
        await waiting(engine)
        with pytest.raises(StepNotWaiting, match="waits in queue 'bank', which decides"):
            await engine.retry("o", seq=2)
        assert await engine.retry("o") == []
        assert begun == []


@awaited
async def test_a_step_far_behind_in_a_line_is_told_its_queue(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS, queues=[Queue("bank", paused=True)]) as engine:
        await engine.start(many_in_queue(12), id="o")
        await waiting(engine)
        for seq in (2, 13):
            with pytest.raises(StepNotWaiting, match="waits in queue 'bank', which decides"):
                await engine.retry("o", seq=seq)


@awaited
async def test_a_queue_that_is_held_back_stays_so(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS, queues=[Queue("bank")]) as engine:
        await engine.start(order_in_queue("busy"), id="o")
        (item,) = await waiting(engine)
        assert "again_ms" in item
        assert await engine.retry("o") == [2]

        async def in_line() -> bool:
            return any("queue" in one for one in (await engine.info("o")).waiting_for)

        while not await in_line():  # noqa: ASYNC110
            await asyncio.sleep(0.003)
        (place,) = await engine.standing("o")
        assert place.why == "held"
    assert begun == [("busy", 1)]


# --- other decisions ------------------------------------------------------------------------------


@awaited
async def test_a_waiting_step_is_given_its_result_or_its_failure(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        run = await engine.start(order("a", "b"), id="o")
        first, second = sorted(item["seq"] for item in await waiting(engine))
        with pytest.raises(DefinitionError, match=f"rows {first}, {second} wait"):
            await engine.resolve("o", result=1)
        await engine.resolve("o", seq=first, result=41, sender="ada")
        while "completed" not in kinds(await engine.history("o")):  # noqa: ASYNC110
            await asyncio.sleep(0.003)
        await engine.resolve("o", seq=second, error="the card is stolen")
        with pytest.raises(RunFailed, match="after 1 attempt: Resolved: the card is stolen"):
            await run.result()
        ended = {row.ref: (row.kind, row.result) for row in await engine.history("o") if row.ref}
        assert ended[first] == ("completed", 41)
    assert len(begun) == 2


@awaited
async def test_a_result_of_another_type_is_declined_and_the_step_goes_on_waiting(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await engine.start(order("a"), id="o")
        before = await waiting(engine)
    async with Engine(db, execute=False) as client:
        await client.resolve("o", result="much")
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await until(lambda: not outside(db, UNREAD))
        assert await waiting(engine) == before
        up.add("a")
        await engine.retry("o")
        assert await (await engine.get("o")).result() == [2]
        said = [timeline.answer_of(row, 200).text for row in await engine.entry("o", 2)]
        assert any("not taken: the result of step charge does not fit" in text for text in said)


@awaited
async def test_a_fork_and_a_replay_follow_an_early_attempt(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS, limits=Limits(runs_parked_max=0)) as engine:
        run = await engine.start(order_and_wait("a"), id="o")
        await waiting(engine)
        await engine.retry("o")
        await tried("o", engine, 2)
        up.add("a")
        made = await engine.fork("o", at=2)
        await made.send(1, channel="go")
        assert await made.result() == [1, 3], "in a fork an open step is done again at once"
        (item,) = (one for one in await waiting(engine) if "step" in one)
        assert item["attempt"] == 3
        await engine.retry("o")
        await run.send(2, channel="go")
        assert await run.result() == [2, 3]


# --- processes ------------------------------------------------------------------------------------


@awaited
async def test_the_owner_is_killed_between_the_request_and_the_attempt(
    db: str, tmp_path: Path
) -> None:
    with Victim(db, tmp_path, "ask", script=Path(retry_victim.__file__)) as owner:
        owner.says("WAITING")
        freeze(owner.pid, db)
        async with Engine(db, execute=False) as client:
            assert await client.retry("o") == [2]
        owner.kill()
    (tmp_path / "up").touch()
    async with Engine(db, workflows=[retry_victim.order]) as engine:
        assert await (await engine.get("o")).result() == 2
    assert victim.effects(tmp_path) == ["try 1", "try 2"]


@awaited
@pytest.mark.parametrize("on_crash", ["retry", "ask"])
async def test_the_owner_is_killed_during_the_attempt(
    db: str, tmp_path: Path, on_crash: str
) -> None:
    with Victim(db, tmp_path, on_crash, script=Path(retry_victim.__file__)) as owner:
        owner.says("WAITING")
        (tmp_path / "hang").touch()
        async with Engine(db, execute=False) as client:
            await client.retry("o")
        owner.says("HANGING")
        owner.kill()
    (tmp_path / "hang").unlink()
    (tmp_path / "up").touch()
    async with Engine(db, workflows=[retry_victim.order]) as engine:
        run = await engine.get("o")
        if on_crash == "ask":
            with pytest.raises(RunBlocked, match="it is not known whether its effect happened"):
                await run.result()
            return
        assert await run.result() == 3, "the attempt that died counts, and its date is over"
    assert victim.effects(tmp_path) == ["try 1", "try 2", "try 3"]


@awaited
async def test_many_clients_ask_the_process_that_has_the_run(db: str, tmp_path: Path) -> None:
    with Victim(db, tmp_path, "retry", script=Path(retry_victim.__file__)) as owner:
        owner.says("WAITING")
        (tmp_path / "up").touch()
        async with Engine(db, execute=False) as one, Engine(db, execute=False) as two:
            asked = (client.retry("o") for client in (one, two, one, two))
            await asyncio.gather(*asked, return_exceptions=True)
            assert await (await one.get("o")).result() == 2
        owner.tell("end")
        assert owner.ended() == 0
    assert victim.effects(tmp_path) == ["try 1", "try 2"]


# --- parts ----------------------------------------------------------------------------------------


def test_a_wait_is_known_by_its_step_and_its_date() -> None:
    backoff = Backoff()
    first, second = (PendingAttempt(Command(n, "step", name="s"), 2, 1, 50) for n in (1, 2))
    backoff.add(first)
    backoff.add_in_line(second)
    assert [backoff.take_wait(1, 49), backoff.take_wait(2, 50), backoff.take_wait(3, 50)] == [
        None, None, None,
    ]  # fmt: skip
    assert backoff.take_wait(1, 50) is first
    assert (backoff.take_wait(1, 50), backoff.due_ms()) == (None, None)


# --- laws -----------------------------------------------------------------------------------------


class Timeless(Engine):
    """An engine by virtual time."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self._clock = VirtualClock(loop)


@pytest.mark.parametrize("seed", range(4))
def test_requests_at_any_moment_make_each_attempt_once(tmp_path: Path, seed: int) -> None:
    """Attempts that are due by themselves, and requests for them by two clients, in one engine
    after the other: no attempt is made twice, none is left out, and the policy holds.
    """
    print("seed", seed)
    chance = random.Random(seed)
    made: dict[str, list[int]] = {}
    short, long = (Retry(attempts=6, delay=d, factor=1, jitter=False) for d in (0.004, 40))

    async def attempt(name: str) -> int:
        me = current_step()
        made.setdefault(name, []).append(me.attempt)
        if me.attempt < 5:
            raise ConnectionError(name)
        return me.attempt

    work = step(name="work")(attempt)

    @workflow
    async def flow(name: str) -> list[int]:
        policies = [(short, long)[number % 2] for number in range(4)]
        calls = [work.options(retry=one)(f"{name}/{n}") for n, one in enumerate(policies)]
        return list(await asyncio.gather(*calls))

    async def press(engine: Engine, names: list[str]) -> None:
        for _ in range(chance.randrange(5, 30)):
            name = chance.choice(names)
            rows = [2, 3, 4, 5, None]
            with contextlib.suppress(StepNotWaiting, RunFinished):
                await engine.retry(name, seq=chance.choice(rows))
            await asyncio.sleep(chance.choice([0, 0, 0.003, 0.02, 5]))

    async def main() -> None:
        db, names = str(tmp_path / "perdure.db"), ["a", "b", "c"]
        for life in range(4):
            most = chance.choice([0, 1, 100])
            limits = Limits(runs_parked_max=most)
            async with Timeless(db, workflows=[flow], limits=limits, close_grace=9) as engine:
                if not life:
                    for name in names:
                        await engine.start(flow(name), id=name)
                async with Timeless(db, execute=False) as client:
                    await asyncio.gather(press(engine, names), press(client, names))
        async with Timeless(db, workflows=[flow]) as engine:
            for name in names:
                assert await (await engine.get(name)).result() == [5] * 4

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert made == {f"{name}/{n}": [1, 2, 3, 4, 5] for name in "abc" for n in range(4)}

"""Requests and exposed values: replies here and elsewhere, ends, timeouts, kills, bad input."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, assert_type

import pytest

from perdure import (
    AlreadyReplied,
    BadName,
    DefinitionError,
    Engine,
    InboxFull,
    Limits,
    NotExposed,
    NotInWorkflow,
    NotSerializable,
    PayloadTooLarge,
    PerdureError,
    RequestKeyUsed,
    RequestRefused,
    RequestTimeout,
    RequestUnanswered,
    RunBlocked,
    RunExists,
    RunFailed,
    RunFinished,
    RunNotFound,
    SyncEngine,
    continue_as,
    current_run,
    expose,
    receive,
    receive_request,
    send,
    workflow,
)
from tests.runtime import request_victim
from tests.runtime.remote_store import RemoteEngine
from tests.runtime.request_victim import desk, tally
from tests.runtime.support import Victim, awaited, kinds, outside, reached, until

ASKER = Path(request_victim.__file__)


@workflow
async def counter(total: int) -> int:
    """Adds what it is asked to, and shows the total; 0 ends it."""
    while True:
        expose(total=total)
        request = await receive_request("add", int)
        if request.value < 0:
            request.refuse("only upwards.")
            continue
        total += request.value
        request.reply({"total": total, "for": request.sender})
        if not request.value:
            return total


@workflow
async def silent(error: bool) -> None:
    """Takes a request, and ends without a reply when it is told so."""
    await receive_request("q")
    expose(taken=True)
    await receive("end")
    if error:
        raise ValueError("no answer")


@workflow
async def generations(left: int) -> list[str]:
    """Replies to nothing before its last generation."""
    if left:
        await receive_request("q")
        continue_as(generations(left - 1))
    replied = []
    for _ in range(2):
        request = await receive_request("q", str)
        request.reply(f"{request.value} at last")
        replied.append(request.key)
    return replied


@workflow
async def deaf() -> Any:
    return await receive("q")


EVERY: list[Any] = [counter, silent, generations, deaf, desk, tally]


# --- replies --------------------------------------------------------------------------------------


@awaited
async def test_a_request_gets_its_reply_and_shows_who_asked(db: str) -> None:
    async with Engine(db, workflows=EVERY, name="front") as engine:
        run = await engine.start(counter(1), id="c")
        assert await run.ask(2, channel="add") == {"total": 3, "for": "front"}
        asked = await engine.ask("c", 3, channel="add", sender="ada", timeout=timedelta(minutes=1))
        assert asked == {"total": 6, "for": "ada"}
        typed = await engine.ask("c", 0, channel="add", type=dict[str, int | str])
        assert typed["total"] == 6
        assert await run.result() == 6
        assert kinds(await run.history()).count("reply") == 3


@awaited
async def test_many_ask_at_once_and_each_gets_its_own(db: str) -> None:
    async with Engine(db, workflows=EVERY) as engine:
        await engine.start(tally(), id="t")
        asked = [engine.ask("t", True, channel="next") for _ in range(300)]
        assert sorted(await asyncio.gather(*asked)) == list(range(1, 301))


@awaited
async def test_the_same_key_is_the_same_reply_also_after_the_end(db: str) -> None:
    async with Engine(db, workflows=EVERY) as engine:
        await engine.start(counter(0), id="c")
        both = [engine.ask("c", 5, channel="add", key="one") for _ in range(2)]
        first, second = await asyncio.gather(*both)
        assert first == second == {"total": 5, "for": engine._options.name}
        await engine.ask("c", 0, channel="add", key="end")
        assert await (await engine.get("c")).result() == 5
    async with Engine(db, execute=False) as later:
        assert await later.ask("c", 5, channel="add", key="one") == first
        with pytest.raises(RunFinished, match="Can't ask run 'c'"):
            await later.ask("c", 5, channel="add", key="two")
        with pytest.raises(RequestKeyUsed, match="another value"):
            await later.ask("c", 6, channel="add", key="one")
        with pytest.raises(RequestKeyUsed, match="on channel 'add'"):
            await later.ask("c", 5, channel="sub", key="one")


@awaited
async def test_a_refusal_has_its_reason_and_stays(db: str) -> None:
    async with Engine(db, workflows=EVERY) as engine:
        await engine.start(counter(0), id="c")
        for _ in range(2):
            with pytest.raises(RequestRefused, match=r"'c' refused .*: only upwards\. Ask") as told:
                await engine.ask("c", -1, channel="add", key="down")
            assert told.value.reason == "only upwards."
        with pytest.raises(RequestRefused, match="Expected `int`"):
            await engine.ask("c", "one", channel="add")
        assert await engine.exposed("c") == {"total": 0}


@awaited
async def test_replies_are_on_replay_what_they_were(db: str) -> None:
    async with Engine(db, workflows=EVERY) as engine:
        await engine.start(counter(0), id="c")
        before = await engine.ask("c", 5, channel="add", key="one")
    async with Engine(db, workflows=EVERY) as engine:
        assert await engine.ask("c", 1, channel="add") == before | {"total": 6}
        assert await engine.ask("c", 5, channel="add", key="one") == before
        assert await engine.exposed("c") == {"total": 6}


def test_code_without_a_loop_asks_as_well(db: str) -> None:
    with SyncEngine(db, workflows=EVERY) as engine:
        run = engine.start(counter(0), id="c")
        assert run.ask(4, channel="add", sender="me") == {"total": 4, "for": "me"}
        assert engine.ask("c", 0, channel="add", type=dict[str, Any])["total"] == 4
        assert run.exposed() == {"total": 4}
        assert run.exposed("total", timeout=5) == 4
        assert engine.requests("c") == []


# --- no reply -------------------------------------------------------------------------------------


@awaited
async def test_a_timeout_leaves_the_request_where_it_is(db: str) -> None:
    async with Engine(db, workflows=EVERY, name="me") as engine:
        await engine.start(silent(False), id="s")
        with pytest.raises(RequestTimeout, match="asking again with key='mine'") as told:
            await engine.ask("s", 1, channel="q", key="mine", timeout=0.05)
        assert isinstance(told.value, TimeoutError)
        (waits,) = await engine.requests("s")
        assert (waits.channel, waits.key, waits.sender) == ("q", "mine", "me")
        with pytest.raises(RequestTimeout) as unkeyed:
            await engine.ask("s", 1, channel="q", timeout=0)
        assert unkeyed.value.key in {one.key for one in await engine.requests("s")}


@awaited
async def test_a_timeout_says_what_the_run_does_instead(db: str) -> None:
    async with Engine(db, workflows=EVERY) as engine:
        run = await engine.start(deaf(), id="d")
        await reached(run, "waiting")
        with pytest.raises(RequestTimeout, match="no requests, so send"):
            await engine.ask("d", 1, channel="q", timeout=0.01)
        with pytest.raises(RequestTimeout, match="waits for a message on 'q'"):
            await engine.ask("d", 1, channel="other", timeout=0.01)
    async with Engine(db, execute=False) as client:
        await client.start(deaf(), id="nobody")
        with pytest.raises(RequestTimeout, match="no process executes it"):
            await client.ask("nobody", 1, channel="q", timeout=0.01)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
@awaited
async def test_a_run_that_ends_first_is_named_with_its_outcome(
    db: str, how: str, elsewhere: bool
) -> None:
    async with Engine(db, workflows=EVERY) as engine, Engine(db, execute=False) as client:
        run = await engine.start(silent(how == "failed"), id="s")
        asker = client if elsewhere else engine
        asked = asyncio.create_task(asker.ask("s", 1, channel="q", key="k"))
        await run.exposed("taken", timeout=30)
        await (run.cancel() if how == "cancelled" else run.send(1, channel="end"))
        with pytest.raises(RequestUnanswered, match=rf"'s' ended \({how}") as told:
            await asked
        assert told.value.status == how
        assert ("retry" in str(told.value)) == (how != "completed")
        assert ("ValueError: no answer" in str(told.value)) == (how == "failed")


@awaited
async def test_a_retried_run_replies_to_what_its_predecessor_left(db: str) -> None:
    fails = True

    @workflow
    async def moody() -> None:
        request = await receive_request("q", str)
        if fails:
            raise ValueError("not today")
        request.reply(request.value.upper())

    async with Engine(db, workflows=[moody]) as engine:
        run = await engine.start(moody(), id="m")
        asked = engine.ask("m", "hello", channel="q", key="k")
        with pytest.raises(RequestUnanswered, match="perdure retry m"):
            await asked
        with pytest.raises(RunFailed):
            await run.result()
        fails = False
        waits = asyncio.create_task(engine.ask("m", "hello", channel="q", key="k"))
        with pytest.raises(RequestUnanswered):
            await waits
        await engine.retry("m")
        assert await engine.ask("m", "hello", channel="q", key="k") == "HELLO"


@awaited
async def test_a_blocked_run_is_no_reason_to_wait(db: str) -> None:
    @workflow(name="changing")
    async def before() -> None:
        expose(kind="before")
        await receive_request("q")

    @workflow(name="changing")
    async def after() -> None:
        expose(kind="after")
        (await receive_request("q")).reply("fine")

    async with Engine(db, workflows=[before]) as engine:
        await engine.start(before(), id="b")
        await engine.exposed("b", "kind", timeout=30)
    async with Engine(db, workflows=[after]) as engine:
        with pytest.raises(RunBlocked, match=r"(?s)code does not fit.*again with key='k'"):
            await engine.ask("b", 1, channel="q", key="k")
        with pytest.raises(RunBlocked):
            await engine.exposed("b", "more")


@pytest.mark.parametrize("elsewhere", [False, True])
@awaited
async def test_a_run_that_is_blocked_or_cancelled_meanwhile_ends_the_wait(
    db: str, elsewhere: bool
) -> None:
    @workflow
    async def careless() -> None:
        request = await receive_request("q")
        with contextlib.suppress(Exception):
            time.sleep(0)  # refused, which the code ignores  # noqa: ASYNC251
        request.reply(1)

    async with Engine(db, workflows=[careless]) as engine, Engine(db, execute=False) as client:
        asker = client if elsewhere else engine
        run = await engine.start(careless(), id="c")
        await engine.pause("c")
        asked = asyncio.create_task(asker.ask("c", 1, channel="q", key="k"))
        await until(lambda: engine._store.open_requests(engine._store.run_key("c"), 1))
        await engine.resume("c")
        with pytest.raises(RunBlocked, match=r"(?s)swallowed.*again with key='k'"):
            await asked
        assert await run.status() == "blocked"
        later = datetime.now(UTC) + timedelta(days=1)
        await client.start(deaf(), id="d", at=later)
        asked = asyncio.create_task(asker.ask("d", 1, channel="q"))
        await until(lambda: engine._store.open_requests(engine._store.run_key("d"), 1))
        await engine.cancel("d")
        with pytest.raises(RequestUnanswered, match="cancelled"):
            await asked


@awaited
async def test_a_store_that_is_read_in_threads_gives_replies_and_values(db: str) -> None:
    async with RemoteEngine(db, workflows=EVERY) as engine:
        run = await engine.start(counter(0), id="c")
        asked = await asyncio.gather(*(run.ask(1, channel="add") for _ in range(50)))
        assert sorted(one["total"] for one in asked) == [*range(1, 51)]
        assert await run.exposed("total", timeout=30) == 50
        waits = [asyncio.create_task(run.ask(1, channel="other")) for _ in range(5)]
        await run.ask(0, channel="add")
        for one in waits:
            with pytest.raises((RequestUnanswered, RunFinished)):
                await one
        assert await engine.requests("c") != []


@awaited
async def test_requests_go_on_with_continue_as_until_they_have_a_reply(db: str) -> None:
    async with Engine(db, workflows=EVERY) as engine, Engine(db, execute=False) as client:
        run = await engine.start(generations(3), id="g")
        first = asyncio.create_task(client.ask("g", "one", channel="q", key="a"))
        assert await first == "one at last"
        assert await engine.ask("g", "two", channel="q", key="b") == "two at last"
        assert await run.result() == ["a", "b"]
        assert await client.ask("g", "one", channel="q", key="a") == "one at last"
    rows = outside(db, "SELECT key, state, reply FROM perdure_requests ORDER BY key")
    assert [(row["key"], row["state"], row["reply"]) for row in rows] == [
        ("a", "replied", '"one at last"'),
        ("b", "replied", '"two at last"'),
    ]


@awaited
async def test_a_fork_answers_nobody_who_asked_its_source(db: str) -> None:
    async with Engine(db, workflows=EVERY) as engine:
        await engine.start(counter(0), id="c")
        first = await engine.ask("c", 5, channel="add", key="one")
        fork = await engine.fork("c", 4, new_id="f")
        assert await fork.ask(7, channel="add", key="one") != first
        assert await engine.ask("c", 5, channel="add", key="one") == first


# --- starting -------------------------------------------------------------------------------------


@awaited
async def test_what_is_sent_or_asked_starts_its_run_once(db: str) -> None:
    async with Engine(db, workflows=[]) as engine:
        asked = [
            engine.ask("c", 1, channel="add", start=counter(10 * number)) for number in range(20)
        ]
        totals = sorted(one["total"] for one in await asyncio.gather(*asked))
        assert [one - totals[0] for one in totals] == list(range(20))
        await engine.send("d", "hello", channel="q", start=deaf.options(timeout=60)())
        assert await (await engine.get("d")).result() == "hello"
        assert len(await engine.runs()) == 2
        with pytest.raises(RunFinished):
            await engine.send("d", "late", channel="q", start=deaf())
        with pytest.raises(RunExists, match="'deaf'"):
            await engine.ask("c", 1, channel="add", start=deaf())


@awaited
async def test_a_client_starts_what_a_worker_executes(db: str) -> None:
    with Victim(db, "serve", script=ASKER) as worker:
        worker.says("OPEN")
        async with Engine(db, execute=False) as client:
            assert await client.ask("t", True, channel="next", start=tally(), timeout=60) == 1
            assert await client.ask("t", True, channel="next", start=tally(), timeout=60) == 2


@awaited
async def test_a_workflow_starts_what_it_sends_to(db: str) -> None:
    @workflow
    async def total() -> list[int]:
        return [await receive("add", int) for _ in range(3)]

    @workflow
    async def sale(number: int) -> str:
        await send("total", number, channel="add", start=total())
        return current_run().id

    async with Engine(db, workflows=[sale]) as engine:
        await asyncio.gather(*(engine.run(sale(number)) for number in range(3)))
        assert sorted(await (await engine.get("total")).result()) == [0, 1, 2]


# --- exposed values -------------------------------------------------------------------------------


@awaited
async def test_values_are_seen_from_anywhere_and_waited_for(db: str) -> None:
    @workflow
    async def stages() -> None:
        expose(stage="waiting", items=[{"n": 1}], nothing=None)
        await receive("go")
        expose(stage="done", late={"deep": [1, 2]})

    async with Engine(db, workflows=[stages]) as engine, Engine(db, execute=False) as client:
        run = await engine.start(stages(), id="s")
        there = await client.get("s")
        assert await there.exposed("stage", timeout=30) == "waiting"
        assert await there.exposed() == {"stage": "waiting", "items": [{"n": 1}], "nothing": None}
        assert await run.exposed("nothing", timeout=30) is None
        with pytest.raises(TimeoutError, match=r"'s' has not set 'late' .* within 0\.01 s"):
            await there.exposed("late", timeout=0.01)
        late = [asyncio.create_task(one.exposed("late")) for one in (run, there)]
        await run.send(1, channel="go")
        assert await asyncio.gather(*late) == [{"deep": [1, 2]}] * 2
        await run.result()
        assert (await there.exposed())["stage"] == "done"
        with pytest.raises(NotExposed, match=r"\(completed\) without expose\(more=.*It set: "):
            await there.exposed("more")
    rows = outside(db, "SELECT run_id, name, value FROM perdure_exposed ORDER BY history_row")
    assert {row["name"]: row["value"] for row in rows}["late"] == '{"deep":[1,2]}'


@awaited
async def test_a_value_that_waits_for_the_end_of_a_run_is_not_set(db: str) -> None:
    async with Engine(db, workflows=EVERY) as engine:
        run = await engine.start(deaf(), id="d")
        waits = asyncio.create_task(run.exposed("stage"))
        await run.send(1, channel="q")
        with pytest.raises(NotExposed, match="It set none"):
            await waits


# --- processes that die ---------------------------------------------------------------------------


@awaited
async def test_a_worker_that_is_killed_before_its_reply_is_replaced(db: str) -> None:
    async with Engine(db, execute=False) as client:
        with Victim(db, "serve", script=ASKER) as first:
            first.says("OPEN")
            asked = asyncio.create_task(
                client.ask("desk", "lamp", channel="price", key="k", start=desk("x"))
            )
            assert await asyncio.to_thread(first.says, "PRICING") == "PRICING lamp"
            first.kill()
        with Victim(db, "serve", script=ASKER) as second:
            await asyncio.to_thread(second.says, "PRICING")
            second.tell("go on")
            assert await asked == [4, 1]
            second.kill()
        assert await client.ask("desk", "lamp", channel="price", key="k") == [4, 1]
        assert await client.exposed("desk") == {"replies": 1}
        assert kinds(await client.history("desk")).count("request") == 1


@awaited
async def test_an_asker_that_is_killed_asks_again_for_the_same_reply(db: str) -> None:
    with Victim(db, "serve", script=ASKER) as worker:
        worker.says("OPEN")
        async with Engine(db, execute=False) as client:
            await client.start(desk("x"), id="desk")
            with Victim(db, "ask", "desk", "chair", "k", script=ASKER) as asker:
                await asyncio.to_thread(worker.says, "PRICING")
                asker.kill()
            assert [one.sender for one in await client.requests("desk")] == ["the asker"]
            worker.tell("go on")
            await until(lambda: outside(db, "SELECT 1 FROM perdure_requests WHERE state <> 'open'"))
            with Victim(db, "ask", "desk", "chair", "k", script=ASKER) as again:
                assert await asyncio.to_thread(again.says, "REPLY") == "REPLY [5, 1]"
            assert await client.ask("desk", "close", channel="price") == 1
            assert kinds(await client.history("desk")).count("request") == 2


# --- bad input ------------------------------------------------------------------------------------


def test_a_reply_has_the_type_that_was_asked_for(db: str) -> None:
    """For the type checker, which reads this file, too."""
    totals = dict[str, int | str]

    async def main() -> None:
        async with Engine(db, workflows=EVERY) as engine:
            asked = await engine.ask("c", 2, channel="add", type=totals, start=counter(1))
            assert assert_type(asked, totals)["total"] == 3
            again = await (await engine.get("c")).ask(2, channel="add", type=totals)
            assert assert_type(again, totals)["total"] == 5
            assert_type(await engine.ask("c", 0, channel="add"), Any)

    asyncio.run(main())


def test_a_refusal_without_a_reason_says_so() -> None:
    assert "on channel 'add' without a reason. Ask" in str(RequestRefused("c", "add", ""))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"channel": 3}, BadName),
        ({"channel": "q\0"}, BadName),
        ({"key": ""}, BadName),
        ({"key": 4}, BadName),
        ({"key": "k" * 1_001}, BadName),
        ({"sender": 5}, BadName),
        ({"value": object()}, NotSerializable),
        ({"value": "x" * 2_000}, PayloadTooLarge),
        ({"timeout": -1}, DefinitionError),
        ({"timeout": "1"}, DefinitionError),
        ({"type": object()}, DefinitionError),
        ({"start": "flow"}, DefinitionError),
        ({"start": counter.options(id="other")(1)}, DefinitionError),
        ({"id": "nobody"}, RunNotFound),
        ({"id": 7}, BadName),
    ],
    ids=lambda one: str(one)[:30],
)
@awaited
async def test_bad_arguments_write_nothing(
    db: str, given: dict[str, Any], error: type[PerdureError]
) -> None:
    async with Engine(db, workflows=EVERY, limits=Limits(payload_bytes_max=1_000)) as engine:
        await engine.start(tally(), id="t")
        asked: dict[str, Any] = {"id": "t", "value": True, "channel": "next"} | given
        with pytest.raises(error):
            await engine.ask(**asked)
        assert await engine.requests("t") == []
        assert len(await engine.runs()) == 1


@awaited
async def test_a_full_inbox_takes_no_request(db: str) -> None:
    async with Engine(db, workflows=EVERY, limits=Limits(inbox_rows_max=2)) as engine:
        await engine.start(deaf(), id="d")
        for key in ("a", "b"):
            with pytest.raises(RequestTimeout):
                await engine.ask("d", 1, channel="other", key=key, timeout=0)
        with pytest.raises(InboxFull):
            await engine.ask("d", 1, channel="other", key="c", timeout=0)
        with pytest.raises(RequestTimeout):
            await engine.ask("d", 1, channel="other", key="a", timeout=0)


@awaited
async def test_a_second_reply_fails_the_run_at_its_line(db: str) -> None:
    @workflow
    async def twice() -> None:
        request = await receive_request("q")
        request.reply(1)
        request.refuse("or not")  # the guilty line

    async with Engine(db, workflows=[twice]) as engine:
        run = await engine.start(twice(), id="t")
        assert await run.ask(1, channel="q") == 1, "the first reply stands"
        with pytest.raises(RunFailed) as told:
            await run.result()
        assert isinstance(told.value.__cause__, AlreadyReplied)
        assert "the guilty line" in "".join(
            getattr(told.value.__cause__, "__notes__", [""])
        ) or str((await run.info()).error).count("test_requests.py")


@awaited
async def test_a_reply_outside_of_its_workflow_is_an_error(db: str) -> None:
    kept: list[Any] = []

    @workflow
    async def leaks() -> None:
        kept.append(await receive_request("q"))
        expose(leaked=True)
        await receive("end")

    async with Engine(db, workflows=[leaks]) as engine:
        run = await engine.start(leaks(), id="l")
        asked = asyncio.create_task(run.ask(1, channel="q"))
        await run.exposed("leaked", timeout=30)
        with pytest.raises(NotInWorkflow, match=r"Request\.reply\(\)"):
            kept[0].reply(1)
        with pytest.raises(NotInWorkflow):
            expose(a=1)
        await run.send(1, channel="end")
        with pytest.raises(RequestUnanswered):
            await asked

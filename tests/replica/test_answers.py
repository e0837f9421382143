"""Answers about a run are as durable as that run asks for: every verb, at every level, of the
engine and of a client.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    Call,
    DefinitionError,
    Engine,
    Every,
    RequestRefused,
    RunFailed,
    continue_as,
    emit,
    expose,
    receive,
    receive_request,
    start,
    workflow,
)
from perdure.api.options import Durability
from perdure.errors import ReplicaUnavailable, RunCancelled, RunExists, RunFinished
from perdure.runtime.run_handle import Run
from tests.replica.support import hasty, litestream_of
from tests.runtime.support import PATIENCE_S, awaited, reached, until

ACKNOWLEDGED = {
    "start",
    "run",
    "send",
    "cancel",
    "pause",
    "resume",
    "retry",
    "resolve",
    "fork",
    "result",
    "ask",
    "exposed",
    "answer",
    "answer_link",
    "answer_by_link",
    "start_by_name",
}
"""Verbs whose answer is confirmed at the run's level; so are the items that a workflow emits, and
the end of a stream.
"""

READS = {
    "counts",
    "get",
    "find",
    "store_lost",
    "entry",
    "info",
    "summaries",
    "summary",
    "status",
    "history",
    "progress",
    "runs",
    "doctor",
    "blocked",
    "links",
    "export",
    "left_to_workers",
    "requests",
    "exposed_values",
    "get_schedule",
    "queues",
    "queue_keys",
    "queue_places",
    "schedules",
    "standing",
    "standings",
}
"""Verbs that show what is on this disk."""

OF_THE_STORE = {"queue", "schedule", "import_"}
"""Verbs about no run: their answer is confirmed at the engine's level."""
NEVER_CONFIRMED = {"prune"}
"""A run that was deleted, and is back with a copy, is deleted again."""

FAR = datetime.now(UTC) + timedelta(days=1000)


@workflow
async def echo(n: int = 0) -> str:
    return await receive("word", str)


@workflow
async def says(n: int = 0) -> str:
    emit("out", "hello")
    return await receive("word", str)


@workflow
async def desk() -> None:
    while True:
        expose(open=True)
        request = await receive_request("q", int)
        if request.value:
            request.reply(request.value)
        else:
            request.refuse("nothing")


@workflow
async def quick(n: int = 0) -> int:
    return n


@workflow
async def fails() -> None:
    raise ValueError("no")


WORKFLOWS: list[Any] = [echo, says, desk, quick, fails]


@asynccontextmanager
async def held(engine: Engine) -> AsyncIterator[None]:
    """Litestream copies, and its answers do not arrive."""
    litestream = litestream_of(engine)
    sync, free = litestream.sync, asyncio.Event()

    async def late() -> Any:
        position = await sync()
        await free.wait()
        return position

    litestream.sync = late  # type: ignore[method-assign]
    try:
        yield
    finally:
        free.set()
        litestream.sync = sync  # type: ignore[method-assign]


async def prepared(engine: Engine, level: Durability | None) -> None:
    """A run for each verb."""
    for name in (
        "sent",
        "sent-twice",
        "cancelled",
        "paused",
        "resumed",
        "forked",
        "asked",
        "known",
        "linked",
    ):
        await engine.start(echo(), id=name, durability=level)
    await engine.start(says(), id="says", durability=level)
    await engine.start(desk(), id="desk", durability=level)
    assert await engine.ask("desk", 7, channel="q", key="k") == 7
    await engine.start(quick(), id="done", durability=level)
    await (await engine.get("done")).result()
    failed = await engine.start(fails(), id="failed", durability=level)
    with pytest.raises(RunFailed):
        await failed.result()
    links[:] = [(await engine.answer_link("linked")).token]
    await engine.pause("resumed")
    await engine.send("sent-twice", "a", channel="other", key="k")


async def item(run: Run[Any]) -> Any:
    async for one in run.stream("out"):
        return one
    raise AssertionError("no item")


async def end(run: Run[Any]) -> None:
    async for _ in run.stream("out"):
        pass


async def answer_by_link(engine: Engine, level: Durability | None) -> Any:
    return await engine.answer_by_link(links.pop(), "x")


links: list[str] = []
"""The token of a link to a run, made before the copies are held up."""

Verb = Callable[[Engine, "Durability | None"], Awaitable[Any]]


def of(run_id: str, act: Callable[[Run[Any]], Awaitable[Any]]) -> Verb:
    async def verb(engine: Engine, level: Durability | None) -> Any:
        return await act(await engine.get(run_id))

    return verb


ANSWERS: dict[str, tuple[Verb, type[Exception] | None]] = {
    "start": (lambda e, level: e.start(echo(), id="new", durability=level), None),
    "start again": (lambda e, _: e.start(echo(), id="known"), None),
    "start with other arguments": (lambda e, _: e.start(echo(5), id="known"), RunExists),
    "run": (lambda e, level: e.run(quick(), id="ran", durability=level), None),
    "run again": (lambda e, _: e.run(quick(), id="done"), None),
    "send": (lambda e, _: e.send("sent", "x", channel="other"), None),
    "send again by key": (lambda e, _: e.send("sent-twice", "a", channel="other", key="k"), None),
    "send to a run that has ended": (
        lambda e, _: e.send("done", "x", channel="other"),
        RunFinished,
    ),
    "send and start": (
        lambda e, level: e.send(
            "sent-new", "x", channel="other", start=echo.options(durability=level)()
        ),
        None,
    ),
    "ask": (lambda e, _: e.ask("desk", 1, channel="q"), None),
    "ask again by key": (lambda e, _: e.ask("desk", 7, channel="q", key="k"), None),
    "ask and be refused": (lambda e, _: e.ask("desk", 0, channel="q"), RequestRefused),
    "ask a run that has ended": (lambda e, _: e.ask("done", 1, channel="q"), RunFinished),
    "ask and start": (
        lambda e, level: e.ask("desk-new", 1, channel="q", start=desk.options(durability=level)()),
        None,
    ),
    "exposed": (lambda e, _: e.exposed("desk"), None),
    "answer": (lambda e, _: e.answer("known", "x"), None),
    "answer_link": (lambda e, _: e.answer_link("sent"), None),
    "answer_by_link": (answer_by_link, None),
    "start_by_name": (
        lambda e, level: e.start_by_name("echo", {}, id="named", durability=level),
        None,
    ),
    "exposed by name": (lambda e, _: e.exposed("desk", "open"), None),
    "cancel": (lambda e, _: e.cancel("cancelled"), None),
    "cancel a run that has ended": (lambda e, _: e.cancel("done"), RunFinished),
    "pause": (lambda e, _: e.pause("paused"), None),
    "resume": (lambda e, _: e.resume("resumed"), None),
    "retry": (lambda e, _: e.retry("failed"), None),
    "resolve": (lambda e, _: e.resolve("asked", result=1), DefinitionError),
    "fork": (lambda e, _: e.fork("forked", 1, new_id="fork"), None),
    "result": (of("done", lambda run: run.result()), None),
    "an item": (of("says", item), None),
    "the end of a stream": (of("done", end), None),
}


def test_every_verb_is_acknowledged_or_a_read() -> None:
    for kind in (Engine, Run):
        verbs = {
            name
            for name in dir(kind)
            if not name.startswith("_") and inspect.iscoroutinefunction(getattr(kind, name))
        }
        assert verbs <= ACKNOWLEDGED | READS | OF_THE_STORE | NEVER_CONFIRMED
    assert {name.split()[0] for name in ANSWERS} - {"an", "the"} == ACKNOWLEDGED


@pytest.mark.parametrize("by_client", [False, True], ids=["engine", "client"])
@pytest.mark.parametrize(
    ("of_engine", "of_run", "waits"),
    [
        ("replica", None, True),
        ("replica", "disk", False),
        ("disk", "replica", True),
        ("disk", None, False),
    ],
)
def test_an_answer_is_as_durable_as_its_run(
    tmp_path: Path, of_engine: str, of_run: Durability | None, waits: bool, by_client: bool
) -> None:
    @awaited
    async def main() -> None:
        patience_s = 0.5 if waits else PATIENCE_S
        options: dict[str, Any] = {"replica": f"file://{tmp_path}/bucket", "durability": of_engine}
        async with Engine(tmp_path / "a.db", workflows=WORKFLOWS, **options) as engine:
            await prepared(engine, of_run)
            client = Engine(tmp_path / "a.db", workflows=WORKFLOWS, execute=False)
            async with client, held(engine):
                await engine.start(quick(), id="something is not confirmed", durability="disk")
                asked = client if by_client else engine
                with hasty(asked, seconds=patience_s):
                    found = await asyncio.gather(
                        *(outcome(verb(asked, of_run), patience_s) for verb, _ in ANSWERS.values())
                    )
        answered = {
            name: one
            for (name, (_, refusal)), one in zip(ANSWERS.items(), found, strict=True)
            if one is refusal
        }
        assert set(answered) == (set() if waits else set(ANSWERS)), found

    main()


@pytest.mark.parametrize("by_client", [False, True], ids=["engine", "client"])
@pytest.mark.parametrize("level", ["replica", "disk"])
@awaited
async def test_what_is_set_for_a_store_is_as_durable_as_the_engine(
    tmp_path: Path, level: Durability, by_client: bool
) -> None:
    patience_s = 0.5 if level == "replica" else PATIENCE_S
    options: dict[str, Any] = {"replica": f"file://{tmp_path}/bucket", "durability": level}
    async with Engine(tmp_path / "a.db", workflows=WORKFLOWS, **options) as engine:
        set_before = await engine.schedule("before", Every(timedelta(days=1)), quick())
        client = Engine(tmp_path / "a.db", execute=False)
        async with client, held(engine):
            await engine.start(quick(), id="something is not confirmed", durability="disk")
            asked = client if by_client else engine
            handle = await asked.get_schedule("before")
            verbs: list[Awaitable[Any]] = [
                asked.queue("model", concurrency=2),
                asked.schedule("new", "@daily", quick()),
                handle.pause(),
                handle.trigger(),
            ]
            with hasty(asked, seconds=patience_s):
                found = await asyncio.gather(*(outcome(verb, patience_s) for verb in verbs))
    assert set_before.name == "before"
    assert set(found) == ({ReplicaUnavailable} if level == "replica" else {None})


async def outcome(verb: Awaitable[Any], patience_s: float) -> type[Exception] | None:
    """None if it came back, else the class of what was raised."""
    try:
        async with asyncio.timeout(patience_s + 1):
            await verb
    except (
        ReplicaUnavailable, TimeoutError, RunExists, RunFinished, RequestRefused, DefinitionError,
    ) as error:  # fmt: skip
        return type(error)
    return None


@awaited
async def test_a_start_that_asks_for_more_than_the_run_that_it_finds_waits(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "replica": f"file://{tmp_path}/bucket",
        "workflows": WORKFLOWS,
    }
    async with Engine(tmp_path / "a.db", **options) as engine:
        await engine.start(echo(), id="a", durability="disk")
        async with held(engine):
            await engine.start(echo(), id="a")
            with hasty(engine), pytest.raises(ReplicaUnavailable):
                await engine.start(echo(), id="a", durability="replica")
            ran = asyncio.create_task(engine.run(quick(), id="b", durability="replica"))
            await until(lambda: engine._store.has_run("b"))
            await reached(await engine.get("b"), "completed")
            with pytest.raises(TimeoutError):  # the run has its level for good
                await (await engine.get("b")).result(timeout=0.3)
            assert not ran.done()
        await ran


@awaited
async def test_commits_of_another_process_are_not_acknowledged_before_a_copy_has_them(
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {
        "replica": f"file://{tmp_path}/bucket",
        "durability": "replica",
        "workflows": WORKFLOWS,
    }
    async with Engine(tmp_path / "a.db", **options) as engine:
        run = await engine.start(quick(), id="later", at=FAR)
        client = Engine(tmp_path / "a.db", execute=False)
        async with client:
            async with held(engine):
                cancel = asyncio.create_task(client.cancel("later"))
                while await run.status() != "cancelled":  # noqa: ASYNC110
                    await asyncio.sleep(0.003)
                with pytest.raises(TimeoutError):
                    await run.result(timeout=0.3)
                assert not cancel.done()
            with pytest.raises(RunCancelled):
                await run.result()
            await cancel


@workflow
async def family() -> None:
    emit("out", 1)
    await start(quick(1), id="spawned")
    await start(quick.options(durability="disk")(2), id="spawned-less")
    await quick.options(id="child")(3)
    await continue_as(quick.options(durability="disk")(4))


@pytest.mark.parametrize(
    ("of_run", "expected"),
    [
        (
            "replica",
            {"spawned": "replica", "spawned-less": "disk", "child": "replica", "family": "replica"},
        ),
        (None, {"spawned": None, "spawned-less": "disk", "child": None, "family": "disk"}),
    ],
)
def test_what_a_run_starts_has_its_level_unless_the_call_names_another(
    tmp_path: Path, of_run: Durability | None, expected: dict[str, str | None]
) -> None:
    @awaited
    async def main() -> None:
        async with Engine(
            tmp_path / "a.db", workflows=[family], replica=f"file://{tmp_path}/bucket"
        ) as engine:
            call: Call[Any] = family()
            await engine.run(call, id="family", durability=of_run)
            assert {name: engine._store.durability(name) for name in expected} == expected
            assert engine._store.durability("family~1") == of_run

    main()


@awaited
async def test_a_message_arrives_although_its_sender_has_given_up_waiting(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "replica": f"file://{tmp_path}/bucket",
        "durability": "replica",
        "workflows": WORKFLOWS,
    }
    async with Engine(tmp_path / "a.db", **options) as engine:
        run = await engine.start(echo(), id="a", durability="replica")
        async with held(engine):
            with hasty(engine), pytest.raises(ReplicaUnavailable):
                await engine.send("a", "hello", channel="word")
            await until(
                lambda: engine._store.statuses([run._key or 0])[run._key or 0][0] == "completed"
            )
        assert await run.result() == "hello"

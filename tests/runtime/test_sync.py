"""`SyncEngine` is `Engine` with verbs that wait: the same verbs, parameters and documentation, and
types that checkers see.

The command that checks types reads this file too: a line that `assert_type` is wrong about fails
there, and so does one whose `type: ignore` is not needed, that is, one that a type checker would
let through.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any, assert_type, get_type_hints

import pytest

import perdure
from perdure import (
    Call,
    DefinitionError,
    Engine,
    EngineClosed,
    HistoryEvent,
    Progress,
    Run,
    RunInfo,
    RunNotFound,
    ScheduleHandle,
    SyncEngine,
    SyncRun,
    SyncScheduleHandle,
    emit,
    receive,
    workflow,
)
from perdure.api.options import StartOptions


@workflow
async def double(n: int) -> int:
    return n * 2


@workflow
async def talks(times: int) -> list[str]:
    heard = []
    for _ in range(times):
        heard.append(await receive("x", str))
        emit("heard", heard[-1])
    return heard


IN_A_LOOP = {"add_observer", "asgi", "in_child", "reader"}  # for code with an event loop only


def verbs(owner: type) -> set[str]:
    return {
        name
        for name in dir(owner)
        if not name.startswith("_") and callable(getattr(owner, name)) and name not in IN_A_LOOP
    }


def test_every_verb_has_the_types_of_the_engines(db: str) -> None:
    with SyncEngine(db, workflows=[double, talks], close_grace=1.0) as engine:
        assert_type(engine, SyncEngine)
        run = engine.start(double(4), id="four", tags={"of": "four"})
        assert_type(run, SyncRun[int])
        assert assert_type(run.result(timeout=60), int) == 8
        assert assert_type(engine.run(double(4), id="four", priority=3), int) == 8
        talk = engine.start(talks(2), id="talk")
        for n, text in enumerate(("a", "b")):
            engine.send("talk", text, channel="x", key=str(n))
        assert assert_type(talk.result(), list[str]) == ["a", "b"]
        assert assert_type(talk.status(), str) == "completed"
        assert assert_type(engine.find("tal"), str) == "talk"
        assert assert_type(engine.info("talk"), RunInfo) == assert_type(talk.info(), RunInfo)
        assert assert_type(engine.history("talk"), list[HistoryEvent]) == talk.history()
        assert assert_type(engine.progress("four"), Progress).status == "completed"
        assert [info.id for info in assert_type(engine.runs(limit=1), list[RunInfo])] == ["talk"]
        assert list(assert_type(talk.stream("heard", after=0), Iterator[Any])) == ["a", "b"]
        assert_type(talk.stream_with_positions("heard"), Iterator[tuple[int, Any]])
        (first, _), (last, heard) = talk.stream_with_positions("heard")
        assert (
            list(talk.stream_with_positions("heard", after=first)),
            list(talk.stream("heard", after=last)),
        ) == ([(last, heard)], [])
        assert assert_type(engine.get("talk"), SyncRun[Any]).id == "talk"
        fork = engine.fork("talk", 1, new_id="again")
        assert repr(assert_type(fork, SyncRun[Any])) == "<run again>"
        engine.pause("again")
        engine.resume("again")
        fork.cancel()
        assert assert_type(engine.doctor(), dict[str, Any])["path"] == engine.path
        assert (engine.durability, engine.replica, engine.limits.threads_max) == ("disk", None, 16)
        assert set(engine.workflows) == {"double", "talks"}


def test_what_a_type_checker_refuses_is_refused_here_too(db: str) -> None:
    with pytest.raises(TypeError, match="exexute"):
        SyncEngine(db, exexute=False)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="begin"):
        SyncEngine(db).begin  # type: ignore[attr-defined]  # noqa: B018
    with SyncEngine(db, workflows=[double]) as engine:
        with pytest.raises(DefinitionError, match="takes the call of a workflow"):
            engine.start(double)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="idd"):
            engine.run(double(1), idd="x")  # type: ignore[call-arg]
        with pytest.raises(DefinitionError):
            engine.run(double(1), id=3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="channel"):
            engine.send("x", 1)  # type: ignore[call-arg]
        with pytest.raises(RunNotFound):
            engine.get("none").nothing()  # type: ignore[attr-defined]
    with pytest.raises(EngineClosed):
        engine.run(double(1))


@pytest.mark.parametrize(
    ("sync", "engine"),
    [(SyncEngine, Engine), (SyncRun, Run), (SyncScheduleHandle, ScheduleHandle)],
    ids=["engine", "run", "schedule"],
)
def test_no_verb_is_missing_and_each_says_what_the_engines_says(sync: type, engine: type) -> None:
    assert verbs(engine) <= verbs(sync)
    assert verbs(sync) - verbs(engine) <= {"wait"}
    for name in verbs(engine):
        mine, theirs = (
            inspect.signature(getattr(owner, name)).parameters for owner in (sync, engine)
        )
        assert list(mine.values()) == list(theirs.values())
        assert (getattr(engine, name).__doc__ or "").partition("\n")[0] in (
            getattr(sync, name).__doc__ or ""
        ), name
        assert not inspect.iscoroutinefunction(getattr(sync, name))
        assert getattr(sync, name).__qualname__ == f"{sync.__name__}.{name}"


async def _runs_it() -> None:
    perdure.run(double(1), store=":memory:")


def test_run_inside_an_event_loop_says_what_to_use_there() -> None:
    with pytest.raises(DefinitionError, match="await engine"):
        asyncio.run(_runs_it())


def test_run_takes_what_start_takes() -> None:
    start = inspect.signature(Engine.start).parameters
    assert list(get_type_hints(StartOptions)) == [
        name for name, one in start.items() if one.kind is one.KEYWORD_ONLY
    ]
    assert_type(double(1), Call[int])

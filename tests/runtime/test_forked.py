"""A child that was forked from an engine's process: what it inherits is dead there, alive in the
parent, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from perdure import Engine, EngineClosed, Limits, SyncEngine, connect, step, workflow
from perdure.store.sqlite.driver import SqliteStore
from tests.runtime.support import awaited, environment

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@step
async def one(n: int) -> int:
    return n


@workflow
async def adds(n: int) -> int:
    return sum([await one(1) for _ in range(n)])


def in_child(act: Callable[[], Any], *, leave: Callable[[int], None] = os._exit) -> str:
    """What `act` gives or raises in a forked child, as text."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        faulthandler.register(signal.SIGALRM, chain=True)
        signal.alarm(60)  # a child that hangs ends, and says where
        try:
            said = repr(act())
        except BaseException as error:
            said = type(error).__name__
        os.write(write, said.encode())
        leave(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read().decode()
    assert os.waitpid(pid, 0)[1] == 0
    return said


async def _starts(engine: Engine) -> Any:
    return await engine.start(adds(1))


async def _enters(engine: Engine) -> Any:
    async with engine:
        return await engine.run(adds(2))


@awaited
async def test_an_engine_and_its_file_are_dead_in_a_child_and_well_in_the_parent(db: str) -> None:
    async with Engine(db, workflows=[adds]) as engine:
        assert await engine.run(adds(2), id="before") == 2
        store = engine._store
        for act in (
            lambda: _starts(engine).send(None),
            lambda: engine._store,
            lambda: store.run_key("before"),
            lambda: store.write([], True),
            lambda: connect(db),
            lambda: _enters(Engine(db)).send(None),
            lambda: _enters(engine).send(None),
        ):
            assert in_child(act) == "UsedAfterFork"
        assert await engine.run(adds(3), id="after") == 3
    assert connect(db).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    async with Engine(db, workflows=[adds]) as engine:
        assert [run.status for run in await engine.runs()] == ["completed", "completed"]


def test_a_fork_during_a_write_leaves_no_lock_behind(db: str) -> None:
    store = SqliteStore(db, limits=Limits())
    with store._used:  # as during a transaction in the writer's thread
        assert in_child(lambda: store.write([], True)) == "UsedAfterFork"
        assert in_child(lambda: store.run_key("before")) == "UsedAfterFork"
    store.close()


def _other_file(path: str) -> Any:
    async def main() -> Any:
        async with Engine(path, workflows=[adds]) as engine:
            return await engine.run(adds(2))

    return asyncio.run(main())


def test_a_child_has_engines_of_its_own_on_other_files_and_after_the_parents_is_closed(
    db: str,
) -> None:
    with SyncEngine(db, workflows=[adds]) as engine:
        assert in_child(lambda: _other_file(db + "2")) == "2"
        assert engine.run(adds(1)) == 1
    assert in_child(lambda: _other_file(db)) == "2"


def test_a_sync_engine_that_was_made_before_the_fork_is_entered_after_it(db: str) -> None:
    """Its thread was made with it, and a thread does not survive a fork: workers of a preloading
    server hung.
    """
    engine = SyncEngine(db, workflows=[adds])

    def works() -> Any:
        with engine:
            return engine.run(adds(3))

    assert in_child(works) == "3"
    assert in_child(works) == "3"
    with engine:
        run = engine.start(adds(1), id="r")
        assert run.result() == 1
        assert in_child(lambda: engine.run(adds(1))) == "UsedAfterFork"
        assert in_child(run.result) == "UsedAfterFork"
        assert in_child(lambda: engine.__exit__(None, None, None)) == "None"
        assert engine.run(adds(2)) == 2
    with pytest.raises(EngineClosed):
        engine.run(adds(1))


_CHILD_IN_A_TRANSACTION = """
import asyncio, os, sys
from perdure import Engine, connect, step, workflow
@step(transactional=True, retry=None)
def forks(db) -> int:
    db.execute("CREATE TABLE mine (a)")
    db.execute("INSERT INTO mine VALUES (1)")
    pid = os.fork()
    if pid == 0:
        try:
            db.execute("INSERT INTO mine VALUES (2)")
        except Exception as error:
            os.write(1, type(error).__name__.encode() + b"\\n")
        sys.exit(0) if sys.argv[2] == "exit" else os._exit(0)
    os.waitpid(pid, 0)
    return 1
@workflow
async def work() -> int:
    return await forks()
async def main():
    async with Engine(sys.argv[1], workflows=[work]) as engine:
        print("RESULT", await engine.run(work(), id="w"), flush=True)
    print("ROWS", connect(sys.argv[1]).execute("SELECT a FROM mine").fetchall(), flush=True)
asyncio.run(main())
"""


def test_a_child_of_a_transactional_step_ends_without_touching_the_transaction(db: str) -> None:
    command = [sys.executable, "-c", _CHILD_IN_A_TRANSACTION, db, "now"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["UsedAfterFork", "RESULT 1", "ROWS [(1,)]"], done.stderr[
        -2000:
    ]


_CHILD_ENDS = """
import os, sys
from perdure import SyncEngine, connect, step, workflow
@workflow
async def work() -> int:
    return 1
with SyncEngine(sys.argv[1], workflows=[work]) as engine:
    engine.run(work())
    if os.fork() == 0:
        sys.exit(0)  # through the whole end of the interpreter
    os.wait()
    engine._inner._store._db.execute("BEGIN IMMEDIATE").execute("ROLLBACK")
    print("RESULT", engine.run(work()), os.path.exists(sys.argv[1] + "-wal"))
"""


def test_a_child_that_ends_frees_no_connection_of_the_parent(db: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD_ENDS, db],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.stdout == "RESULT 1 True\n", done.stderr[-2000:]
    assert done.returncode == 0

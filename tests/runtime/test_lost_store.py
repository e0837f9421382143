"""The file goes away under a running engine: it stops, says so to everybody, and touches nothing that is there now."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import apsw
import pytest
from tests.runtime.support import awaited, reached

from perdure import Engine, StoreError, StoreReplaced, StoreTooNew, receive, workflow
from perdure.core.events import Event
from perdure.runtime import runner
from perdure.store import connection
from perdure.store.connection import SCHEMA_VERSION
from perdure.store.sqlite import SqliteStore

LEASE_S = 0.4  # the file is looked at four times in that


@workflow
async def listen() -> int:
    return await receive("x", int)


async def another_store(path: str) -> None:
    async with Engine(path, workflows=[listen]) as engine:
        await reached(await engine.start(listen(), id="another"), "waiting")


@awaited
async def test_a_deleted_file_is_told_to_who_waits_and_who_asks(db: str) -> None:
    async with Engine(db, workflows=[listen], lease_ttl=LEASE_S) as engine:
        run = await engine.start(listen(), id="one")
        await reached(run, "waiting")
        waits = asyncio.ensure_future(run.result())
        items = asyncio.ensure_future(anext(run.stream("s")))
        os.unlink(db)
        for waiting in (waits, items):
            with pytest.raises(StoreReplaced, match="deleted, moved or replaced"):
                await asyncio.wait_for(waiting, 20)
        assert isinstance(await engine.store_lost(), StoreReplaced)
        for late in (run.result(), engine.start(listen(), id="two"), run.send(1, channel="x")):
            with pytest.raises(StoreReplaced):
                await asyncio.wait_for(late, 20)
    assert not os.path.exists(db)


@awaited
async def test_a_file_put_in_its_place_is_not_touched(db: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other.db")
    await another_store(other)
    async with Engine(other, workflows=[]) as client:  # so that it has a WAL with something in it
        await client.send("another", 7, channel="x")
        for end in ("", "-wal"):
            shutil.copy(other + end, f"{other}.copy{end}")
    async with Engine(db, workflows=[listen], lease_ttl=LEASE_S) as engine:
        await reached(await engine.start(listen(), id="one"), "waiting")
        for end in ("-wal", ""):
            os.replace(f"{other}.copy{end}", db + end)
        before = {end: Path(db + end).read_bytes() for end in ("", "-wal")}
        assert isinstance(await asyncio.wait_for(engine.store_lost(), 20), StoreReplaced)
    assert {end: Path(db + end).read_bytes() for end in ("", "-wal")} == before
    os.unlink(f"{db}-shm")  # it belonged to the file that is gone
    async with Engine(db, workflows=[listen]) as engine:
        assert await (await engine.get("another")).result(20) == 7


@awaited
@pytest.mark.parametrize("execute", [True, False])
async def test_an_older_engine_stops_when_a_newer_one_has_migrated_the_file(db: str, execute: bool) -> None:
    async with Engine(db, workflows=[listen], lease_ttl=LEASE_S, execute=execute) as engine:
        run = await engine.start(listen(), id="one")
        newer = apsw.Connection(db)
        newer.pragma("user_version", SCHEMA_VERSION + 1)
        error = await asyncio.wait_for(engine.store_lost(), 20)
        assert isinstance(error, StoreTooNew)
        with pytest.raises(StoreError, match="Upgrade perdure"):
            await run.send(1, channel="x")
        assert newer.execute("SELECT count(*) FROM inbox").fetchall() == [(0,)]
        newer.close()


@awaited
async def test_a_process_that_goes_to_another_folder_has_its_file_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Engine("perdure.db", workflows=[listen], lease_ttl=LEASE_S) as engine:
        run = await engine.start(listen(), id="one")
        (tmp_path / "elsewhere").mkdir()
        os.chdir(tmp_path / "elsewhere")
        await engine._runner._beat()  # what the lease's loop does four times in a lease
        await run.send(3, channel="x")
        assert await run.result() == 3
    assert not caplog.records
    assert (tmp_path / "perdure.db").exists()
    assert os.listdir(tmp_path / "elsewhere") == []


def test_where_nobody_can_look_nothing_is_said_to_be_gone(db: str) -> None:
    folder = os.path.dirname(db)
    file = connection.identity_of(folder)
    assert not connection.is_another(folder, file)
    assert connection.is_another(db, file)
    assert connection.is_another(f"{db}/below", file)
    assert not connection.is_another("x" * 5_000, file)  # an error of the system that says nothing about the file


@awaited
async def test_reading_goes_on_by_itself_after_an_error_that_passes(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose history could not be read is not blocked for it: it is not the run's fault."""
    monkeypatch.setattr(runner, "WATCH_S_AFTER_ERROR", 0.01)
    async with Engine(db, workflows=[listen]) as engine:
        await reached(await engine.start(listen(), id="one"), "waiting")
    history, failures = SqliteStore.history, iter([apsw.IOError("disk I/O error")] * 3)

    def fails_three_times(self: SqliteStore, run: int, after_seq: int = 0) -> list[Event]:
        for error in failures:
            raise connection.error_for(error, self.path)
        return history(self, run, after_seq)

    monkeypatch.setattr(SqliteStore, "history", fails_three_times)
    async with Engine(db, workflows=[listen]) as engine:
        await engine.send("one", 4, channel="x")
        assert await (await engine.get("one")).result() == 4
    assert list(failures) == []

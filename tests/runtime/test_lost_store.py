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
from perdure.store.connection import SCHEMA_VERSION

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

"""The file goes away under a running engine: it stops, says so to everybody, and touches nothing
that is there now.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import apsw
import pytest

from perdure import Engine, StoreError, StoreReplaced, StoreTooNew, connect, receive, workflow
from perdure.core.events import Event
from perdure.runtime import read_executor
from perdure.store.sqlite import error_map, files
from perdure.store.sqlite.connection import SCHEMA_VERSION
from perdure.store.sqlite.driver import SqliteStore
from tests.runtime.support import awaited, outside, reached

LEASE_S = 1.0  # the file is looked at four times in that


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
                await asyncio.wait_for(waiting, 60)
        assert isinstance(await engine.store_lost(), StoreReplaced)
        for late in (run.result(), engine.start(listen(), id="two"), run.send(1, channel="x")):
            with pytest.raises(StoreReplaced):
                await asyncio.wait_for(late, 60)
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
        assert isinstance(await asyncio.wait_for(engine.store_lost(), 60), StoreReplaced)
    assert {end: Path(db + end).read_bytes() for end in ("", "-wal")} == before
    async with Engine(db, workflows=[listen]) as engine:
        assert await (await engine.get("another")).result(60) == 7


@workflow
async def plain(n: int) -> int:
    return n


def runs_in(path: str) -> set[str]:
    """What a store holds that is whole."""
    assert outside(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    return {row["id"] for row in outside(path, "SELECT id FROM perdure_runs")}


@awaited
@pytest.mark.parametrize("noticed", [True, False])
async def test_a_file_renamed_over_ours_is_not_taken_for_what_our_wal_belongs_to(
    db: str, tmp_path: Path, noticed: bool
) -> None:
    """As in restoring a copy: nobody thinks of the WAL, and SQLite would play it into
    the new file."""
    other = str(tmp_path / "other.db")
    await another_store(other)
    async with Engine(db, workflows=[plain], lease_ttl=LEASE_S if noticed else 60) as engine:
        for n in range(20):
            await engine.run(plain(n), id=f"ours {n}")
        before = Path(other).read_bytes()
        os.replace(other, db)
        if noticed:
            assert isinstance(await asyncio.wait_for(engine.store_lost(), 60), StoreReplaced)
            assert runs_in(db) == {
                "another"
            }  # also to another process that comes before we have closed
    assert Path(db).read_bytes() == before
    assert runs_in(db) == {"another"}


@awaited
async def test_a_file_moved_away_holds_everything_without_its_wal(db: str) -> None:
    async with Engine(db, workflows=[plain], lease_ttl=LEASE_S) as engine:
        await engine.run(plain(1), id="one")
        os.rename(db, db + ".moved")
        assert isinstance(await asyncio.wait_for(engine.store_lost(), 60), StoreReplaced)
        assert runs_in(db + ".moved") == {"one"}


@awaited
@pytest.mark.parametrize("end", ["-wal", "-shm"])
async def test_nothing_is_lost_when_a_file_beside_it_was_deleted(db: str, end: str) -> None:
    """What stands in the WAL was acknowledged; without its name the next process would
    not find it."""
    async with Engine(db, workflows=[plain], lease_ttl=LEASE_S) as engine:
        await engine.run(plain(1), id="one")
        os.unlink(db + end)
        with pytest.raises(StoreReplaced, match=f"perdure.db{end}' was deleted"):
            raise await asyncio.wait_for(engine.store_lost(), 60)
        assert outside(db, "SELECT id FROM perdure_runs WHERE status = 'completed'") == [
            {"id": "one"}
        ]  # as if we were killed now
    async with Engine(db, workflows=[plain]) as engine:
        assert await (await engine.get("one")).result() == 1


@awaited
async def test_a_wal_that_another_process_deletes_because_a_copy_made_here_dropped_our_locks(
    db: str, tmp_path: Path
) -> None:
    """What docs/adr/0002 warns of: the other process takes itself for the last one on the file."""
    async with Engine(db, workflows=[plain], lease_ttl=LEASE_S) as engine:
        await engine.run(plain(1), id="one")
        shutil.copyfile(
            db, tmp_path / "copy.db"
        )  # it opens and closes the file: our locks are gone
        outside(db, "SELECT count(*) FROM perdure_runs")
        # so does SQLite 3.53, which seems to look at the shared memory's lock as well: all is well
        if Path(f"{db}-wal").exists():
            assert await engine.run(plain(2), id="two") == 2
            return
        assert isinstance(await asyncio.wait_for(engine.store_lost(), 60), StoreReplaced)
    assert runs_in(db) == {"one"}


@awaited
async def test_what_is_no_replacement_is_not_taken_for_one(db: str, tmp_path: Path) -> None:
    async with Engine(db, workflows=[plain], lease_ttl=LEASE_S) as engine:
        await engine.run(plain(1), id="one")
        os.utime(db)
        os.chmod(db, 0o600)
        os.link(db, tmp_path / "another name.db")
        outside(db, "VACUUM")
        connect(db).close()
        engine._store.check_identity()
        assert await engine.run(plain(2), id="two") == 2


@awaited
@pytest.mark.parametrize("execute", [True, False])
async def test_an_older_engine_stops_when_a_newer_one_has_migrated_the_file(
    db: str, execute: bool
) -> None:
    async with Engine(db, workflows=[listen], lease_ttl=LEASE_S, execute=execute) as engine:
        run = await engine.start(listen(), id="one")
        newer = apsw.Connection(db)
        newer.pragma("user_version", SCHEMA_VERSION + 1)
        error = await asyncio.wait_for(engine.store_lost(), 60)
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
        await engine._scheduler._beat()  # what the lease's loop does four times in a lease
        await run.send(3, channel="x")
        assert await run.result() == 3
    assert not caplog.records
    assert (tmp_path / "perdure.db").exists()
    assert os.listdir(tmp_path / "elsewhere") == []


def test_where_nobody_can_look_nothing_is_said_to_be_gone(tmp_path: Path) -> None:
    ours = files.files_of(str(tmp_path))
    identity = ours[str(tmp_path)]
    assert files.lost_file(ours) is None
    assert files.lost_file({str(tmp_path / "no"): identity}) is not None
    assert (
        files.lost_file({"x" * 5_000: identity}) is None
    )  # an error of the system that says nothing about the file


@awaited
async def test_reading_goes_on_by_itself_after_an_error_that_passes(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose history could not be read is not blocked for it: it is not the run's fault."""
    monkeypatch.setattr(read_executor, "AGAIN_S", 0.01)
    async with Engine(db, workflows=[listen]) as engine:
        await reached(await engine.start(listen(), id="one"), "waiting")
    history, failures = SqliteStore.history, iter([apsw.IOError("disk I/O error")] * 3)

    def fails_three_times(self: SqliteStore, run: int, after_seq: int = 0) -> list[Event]:
        for error in failures:
            raise error_map.error_for(error, self.path)
        return history(self, run, after_seq)

    monkeypatch.setattr(SqliteStore, "history", fails_three_times)
    async with Engine(db, workflows=[listen]) as engine:
        await engine.send("one", 4, channel="x")
        assert await (await engine.get("one")).result() == 4
    assert list(failures) == []

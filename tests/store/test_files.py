"""Guarantees 9 and 11, files: what can't be used is refused by name and left as it is; what is full or locked recovers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from tests.runtime.support import Victim, awaited, outside

import perdure
from perdure import (
    Engine,
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreNotFound,
    StoreReadOnly,
    StoreTooNew,
    StoreUnavailable,
    step,
    workflow,
)
from perdure.runtime.checking import Checker
from perdure.store import connection


@workflow
async def plain(n: int) -> int:
    return n


@step
async def one(n: int) -> int:
    return n


@workflow
async def stepping(n: int) -> int:
    return sum([await one(i) for i in range(n)])


async def filled(db: str) -> None:
    async with Engine(db, workflows=[plain]) as engine:
        for n in range(20):
            await engine.run(plain(n), id=f"r{n}")


async def refused(db: str, error: type[Exception], words: str) -> None:
    """Both an engine and a reader refuse the file, and leave its bytes alone."""
    before = Path(db).read_bytes()
    with pytest.raises(error, match=words):
        async with Engine(db, workflows=[plain]):
            pass
    with pytest.raises(error, match=words):
        perdure.connect(db)
    assert Path(db).read_bytes() == before
    assert [path.name for path in Path(db).parent.iterdir()] == [Path(db).name]


@awaited
async def test_a_newer_file_is_refused_and_left_untouched(db: str) -> None:
    await filled(db)
    newer = apsw.Connection(db)
    newer.pragma("journal_mode", "delete")
    newer.pragma("user_version", 99)
    newer.close()
    await refused(db, StoreTooNew, "schema version 99; this Perdure knows versions up to 1.*left untouched.*Upgrade")


@awaited
async def test_a_file_of_another_program(db: str) -> None:
    other = apsw.Connection(db)
    other.execute("CREATE TABLE photos (name TEXT)")
    other.close()
    await refused(db, StoreCorrupt, "belongs to another program .it has photos")


@awaited
async def test_a_file_that_is_no_database(db: str) -> None:
    Path(db).write_bytes(b"hello " * 1000)
    await refused(db, StoreCorrupt, "it is not an SQLite database.*left untouched")


@awaited
async def test_a_short_file_that_is_no_database(db: str) -> None:
    Path(db).write_bytes(b"hello")
    await refused(db, StoreCorrupt, "it is not an SQLite database")


@awaited
async def test_what_is_no_database_is_left_alone_with_a_file_beside_it_that_is_no_journal(db: str) -> None:
    for name in (db, db + "-journal"):
        Path(name).write_bytes(b"hello " * 1000)
    with pytest.raises(StoreCorrupt, match="it is not an SQLite database"):
        async with Engine(db, workflows=[plain]):
            pass
    with pytest.raises(StoreCorrupt, match="it is not an SQLite database"):
        perdure.connect(db)
    assert {path.read_bytes() for path in Path(db).parent.iterdir()} == {b"hello " * 1000}
    assert len(list(Path(db).parent.iterdir())) == 2


@awaited
async def test_a_truncated_file(db: str) -> None:
    await filled(db)
    whole = Path(db).read_bytes()
    Path(db).write_bytes(whole[: len(whole) // 2])
    await refused(db, StoreCorrupt, "it is truncated: [0-9,]+ of [0-9,]+ bytes are left")


@awaited
async def test_a_damaged_file_says_so_when_it_is_read(db: str) -> None:
    await filled(db)
    raw = bytearray(Path(db).read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    Path(db).write_bytes(raw)
    with pytest.raises(StoreCorrupt, match="it is damaged"):
        async with Engine(db, workflows=[plain]) as engine:
            await engine.runs()


@awaited
async def test_an_empty_file_becomes_a_store(db: str) -> None:
    Path(db).touch()
    async with Engine(db, workflows=[plain]) as engine:
        assert await engine.run(plain(3)) == 3


@awaited
async def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="it is a folder; name a file in it"):
        async with Engine(tmp_path):
            pass


@awaited
async def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist; create it first"):
        async with Engine(tmp_path / "no" / "perdure.db"):
            pass
    assert not (tmp_path / "no").exists()


@awaited
async def test_a_missing_file(db: str) -> None:
    with pytest.raises(StoreNotFound, match="There is no store at"):
        async with Engine(db, create=False):
            pass
    with pytest.raises(StoreNotFound):
        perdure.connect(db)
    assert not Path(db).exists()


@awaited
async def test_connect_reads_and_cannot_write(db: str) -> None:
    await filled(db)
    reader = perdure.connect(db)
    assert reader.execute("SELECT count(*) FROM perdure_runs").fetchone() == (20,)
    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("DELETE FROM run")
    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("CREATE TABLE mine (n)")
    reader.close()


# --- locks ------------------------------------------------------------------------------------------


@awaited
async def test_the_engine_keeps_its_lock_so_that_a_reader_of_another_library_does_no_harm(db: str) -> None:
    """The last one to close a file removes its WAL; who opens and closes beside the engine must see that it is not alone."""
    async with Engine(db, workflows=[plain]) as engine:
        await engine.run(plain(1), id="one")
        assert len(outside(db, "SELECT * FROM perdure_runs")) == 1
        assert Path(db + "-wal").exists()
        await engine.run(plain(2), id="two")
        perdure.connect(db).close()
        async with Engine(db, execute=False) as client:
            await client.info("two")
        assert len(outside(db, "SELECT * FROM perdure_runs")) == 2
        assert Path(db + "-wal").exists()
        await engine.run(plain(3), id="three")
        assert len(outside(db, "SELECT * FROM perdure_runs")) == 3


@awaited
async def test_an_idle_engine_does_not_hold_up_checkpoints(db: str) -> None:
    """Who looks for news of others must not go on reading: the WAL could never begin anew, for us and for who copies it."""
    async with Engine(db, workflows=[plain]) as engine:
        await engine.run(plain(1), id="one")
        engine._store.changed_by_others()
        [found] = outside(db, "PRAGMA wal_checkpoint(TRUNCATE)")
        assert found["busy"] == 0
        assert Path(db + "-wal").stat().st_size == 0


_LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE"); print("LOCKED", flush=True)
sys.stdin.readline(); db.execute("ROLLBACK"); print("FREE", flush=True)
"""


@awaited
async def test_a_file_locked_by_anothers_transaction(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BUSY_MS", 300)
    async with Engine(db, workflows=[stepping]) as engine:
        await engine.run(stepping(2))
        locker = subprocess.Popen([sys.executable, "-c", _LOCK, db], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert locker.stdout is not None
        assert await asyncio.to_thread(locker.stdout.readline) == b"LOCKED\n"
        with pytest.raises(StoreLocked, match=r"stayed locked by another process for \d+ ms. Nothing was written"):
            await engine.start(stepping(3), id="late")
        locker.communicate(b"\n")
        assert await engine.run(stepping(3), id="late") == 3


# --- full and read-only -----------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "tiny"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield place
    subprocess.run(["mount", "-o", "remount,rw", str(place)], capture_output=True, check=False)
    subprocess.run(["umount", str(place)], check=True)


@awaited
async def test_a_full_disk_is_said_and_the_runs_go_on_when_there_is_space(tiny: Path) -> None:
    db = str(tiny / "perdure.db")
    go = asyncio.Event()

    @step
    async def waits() -> int:
        await go.wait()
        return 5

    @workflow
    async def long() -> int:
        return await waits()

    async with Engine(db, workflows=[plain, long]) as engine:
        assert await engine.run(plain(1), id="before") == 1
        run = await engine.start(long(), id="long")
        filler = tiny / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):  # noqa: PT012
            while True:
                file.write(b"x" * 1024)
        with pytest.raises(StoreFull, match=r"is full\. Nothing that was recorded is lost; free some space"):  # noqa: PT012
            for n in range(300):
                await engine.start(plain(n), id=f"many-{n}")
        go.set()
        assert (await engine.info("before")).result == 1
        filler.unlink()
        assert await run.result() == 5
        assert await engine.run(plain(7), id="after") == 7
    assert {row["id"] for row in outside(db, "SELECT id FROM perdure_runs")} >= {"before", "long", "after"}


@awaited
async def test_a_read_only_file_system_is_said_and_can_be_read(tiny: Path) -> None:
    db = str(tiny / "perdure.db")
    await filled(db)
    subprocess.run(["mount", "-o", "remount,ro", str(tiny)], check=True)
    with pytest.raises(StoreReadOnly, match="the file or its folder is read-only"):
        async with Engine(db, workflows=[plain]):
            pass
    reader = perdure.connect(db)
    assert reader.execute("SELECT count(*) FROM perdure_runs").fetchone() == (20,)
    reader.close()
    checker = Checker(db, {})
    assert checker.unfinished() == []  # they have all ended
    checker.close()


def test_a_killed_engine_leaves_a_file_that_opens(db: str) -> None:
    with Victim(db, "execute") as process:
        process.says("OPEN")
        process.kill()
    assert outside(db, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]

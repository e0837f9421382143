"""Guarantees 9 and 11, files: what can't be used is refused by name and left as it is; what is full
or locked recovers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import perdure
from campaigns.forking import Forked
from perdure import (
    Engine,
    Retry,
    RunFailed,
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
from perdure.check.replay import Checker
from perdure.store.sqlite import connection
from tests.runtime.support import Victim, awaited, outside, reached, until


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
    await refused(
        db,
        StoreTooNew,
        (
            f"schema version 99; this Perdure knows versions up to "
            f"{connection.SCHEMA_VERSION}.*left untouched.*Upgrade"
        ),
    )


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
async def test_what_is_no_database_is_left_alone_with_a_file_beside_it_that_is_no_journal(
    db: str,
) -> None:
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


# --- locks ----------------------------------------------------------------------------------------


@awaited
async def test_the_engine_keeps_its_lock_so_that_a_reader_of_another_library_does_no_harm(
    db: str,
) -> None:
    """The last one to close a file removes its WAL; who opens and closes beside the engine must see
    that it is not alone.
    """
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
    """Who looks for news of others must not go on reading: the WAL could never begin anew, for us
    and for who copies it.
    """
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
async def test_a_file_locked_by_anothers_transaction(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_MS", 300)
    async with Engine(db, workflows=[stepping]) as engine:
        await engine.run(stepping(2))
        locker = Forked(
            [sys.executable, "-c", _LOCK, db], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert locker.stdout is not None
        assert await asyncio.to_thread(locker.stdout.readline) == b"LOCKED\n"
        with pytest.raises(
            StoreLocked, match=r"stayed locked by another process for \d+ ms. Nothing was written"
        ):
            await engine.start(stepping(3), id="late")
        locker.communicate(b"\n")
        assert await engine.run(stepping(3), id="late") == 3


# --- full and read-only ---------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "tiny"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    ).returncode:
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
        with pytest.raises(  # noqa: PT012
            StoreFull, match=r"is full\. Nothing that was recorded is lost; free some space"
        ):
            for n in range(300):
                await engine.start(plain(n), id=f"many-{n}")
        go.set()
        assert (await engine.info("before")).result == 1
        filler.unlink()
        assert await run.result() == 5
        assert await engine.run(plain(7), id="after") == 7
    assert {row["id"] for row in outside(db, "SELECT id FROM perdure_runs")} >= {
        "before",
        "long",
        "after",
    }


@awaited
async def test_a_transactional_step_that_fills_the_disk_fails_alone(tiny: Path) -> None:
    """SQLite gives up the whole transaction for it, and other runs' writes were in that."""

    @step(transactional=True, retry=None)
    def fills(db: Any) -> None:
        db.execute("CREATE TABLE big (b)")
        while True:
            db.execute("INSERT INTO big VALUES (zeroblob(200000))")

    @workflow
    async def greedy() -> None:
        await fills()

    async with Engine(str(tiny / "perdure.db"), workflows=[plain, greedy]) as engine:
        runs: list[Any] = [
            await engine.start(greedy(), id="greedy"),
            *[await engine.start(plain(n), id=f"plain-{n}") for n in range(20)],
        ]
        with pytest.raises(RunFailed, match=r"full"):
            await runs[0].result()
        assert await asyncio.gather(*(run.result() for run in runs[1:])) == list(range(20))
        assert await engine.run(plain(7), id="after") == 7


def fill(place: Path) -> None:
    """Take all the space that is left, to the last byte."""
    with (place / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)


@awaited
async def test_a_disk_that_is_full_again_and_again_loses_nothing_and_does_nothing_twice(
    tiny: Path,
) -> None:
    done: list[str] = []
    let = asyncio.Event()

    @step(retry=Retry(attempts=1))
    async def effect(name: str, n: int) -> str:
        done.append(f"{name} {n}")
        await let.wait()
        return "x" * 200

    @workflow
    async def worked(name: str, times: int) -> int:
        return sum([len(await effect(name, n)) for n in range(times)])

    db, accepted = str(tiny / "perdure.db"), []
    async with Engine(db, workflows=[worked]) as engine:
        for turn in range(3):
            let.clear()
            runs = [
                await engine.start(worked(f"w{turn}-{n}", 6), id=f"w{turn}-{n}") for n in range(3)
            ]
            await until(lambda: len(done) == 18 * turn + 3)  # each is in its first step  # noqa: B023
            fill(tiny)
            with pytest.raises(StoreFull):  # noqa: PT012
                for n in range(300):
                    await engine.start(worked(f"late{turn}-{n}", 0), id=f"late{turn}-{n}")
                    accepted.append(f"late{turn}-{n}")
            let.set()
            await until(
                lambda: engine._parts().writer._retry is not None
            )  # outcomes have come, and there is no room for them
            assert [await run.status() for run in runs] == ["running"] * 3
            (tiny / "filler").unlink()
            assert [await run.result() for run in runs] == [1_200] * 3
            assert (await engine.start(worked(f"more{turn}", 0))).id
    names = [f"w{turn}-{n} {i}" for turn in range(3) for n in range(3) for i in range(6)]
    assert sorted(done) == sorted(names)
    assert {row["id"] for row in outside(db, "SELECT id FROM perdure_runs")} >= {
        *accepted,
        *(name.split()[0] for name in names),
    }
    assert outside(db, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


@awaited
@pytest.mark.parametrize("execute", [True, False])
async def test_opening_on_a_full_disk_says_that_it_is_full(tiny: Path, execute: bool) -> None:
    for path in (str(tiny / "perdure.db"), str(tiny / "new.db")):
        if path.endswith("perdure.db"):
            await filled(path)
        fill(tiny)
        with pytest.raises(StoreFull, match="is full"):
            async with Engine(path, workflows=[plain], execute=execute):
                pass
        (tiny / "filler").unlink()
        async with Engine(path, workflows=[plain]) as engine:
            assert await engine.run(plain(5), id="later") == 5


@awaited
async def test_a_quota_or_a_size_limit_is_a_full_disk(db: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with Engine(db, workflows=[plain]) as engine:
        await engine.run(plain(1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(db + "-wal") + 20_000, hard))
        try:
            with pytest.raises(StoreFull, match="is full"):  # noqa: PT012
                for n in range(100):
                    await engine.start(plain(n), id=f"r{n}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert await engine.run(plain(7), id="later") == 7


@awaited
async def test_an_engine_that_closes_on_a_full_disk_leaves_nothing_behind_in_the_event_loop(
    tiny: Path,
) -> None:
    db, go = str(tiny / "perdure.db"), asyncio.Event()

    @step
    async def waits() -> str:
        await go.wait()
        return "x" * 5_000

    @workflow
    async def long() -> str:
        return await waits()

    async with Engine(db, workflows=[long, plain], lease_ttl=1) as engine:
        run = await engine.start(long(), id="long")
        await reached(run, "running")
        fill(tiny)
        with pytest.raises(StoreFull):  # noqa: PT012
            for n in range(300):
                await engine.start(plain(n), id=f"many-{n}")
        go.set()
        await until(lambda: engine._parts().writer._retry is not None)  # its outcome is kept
        kept = engine._parts().writer._retry
        assert kept is not None
    assert kept.cancelled()
    (tiny / "filler").unlink()
    async with Engine(db, workflows=[long, plain], lease_ttl=1) as engine:  # and it is done again
        assert await (await engine.get("long")).result() == "x" * 5_000


@contextlib.contextmanager
def nobody() -> Iterator[Path]:
    """A folder of our own, and the rights of somebody who is not root."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        if root:
            os.chown(folder, 65534, 65534)
            os.setresuid(65534, 65534, 0)
        try:
            yield Path(folder)
        finally:
            if root:
                os.setresuid(0, 0, 0)
            Path(folder).chmod(0o700)


@pytest.mark.parametrize("what", ["file", "folder", "file and folder"])
def test_without_the_right_to_write_it_is_said_and_can_be_read(what: str) -> None:
    with nobody() as folder:
        db = folder / "perdure.db"
        asyncio.run(filled(str(db)))
        before = db.read_bytes()
        if "file" in what:
            db.chmod(0o400)
        if "folder" in what:
            folder.chmod(0o500)
        for execute in (True, False):
            with pytest.raises(
                StoreReadOnly,
                match=(
                    r"can't be written: the file or its folder is read-only\. Fix the "
                    r"permissions"
                ),
            ):
                asyncio.run(filled_by(Engine(db, workflows=[plain], execute=execute)))
        with contextlib.closing(perdure.connect(db)) as reader:
            assert reader.execute("SELECT count(*) FROM perdure_runs").fetchone() == (20,)
        assert db.read_bytes() == before


async def filled_by(engine: Engine) -> None:
    async with engine:
        await engine.run(plain(1), id="one more")


def test_without_the_right_to_read() -> None:
    with nobody() as folder:
        db = folder / "perdure.db"
        asyncio.run(filled(str(db)))
        db.chmod(0)
        with pytest.raises(StoreReadOnly):
            asyncio.run(filled_by(Engine(db, workflows=[plain])))
        with pytest.raises((StoreReadOnly, StoreUnavailable)):
            perdure.connect(db)


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


# --- several processes make one file --------------------------------------------------------------


def test_a_file_that_another_process_is_making_is_waited_for(db: str) -> None:
    """Switching to WAL is the one thing for which SQLite does not wait: two workers on a new file,
    and one ended at once.
    """
    other = apsw.Connection(db)
    other.execute("BEGIN IMMEDIATE")  # as one that is just switching
    opened: list[apsw.Connection] = []
    thread = threading.Thread(target=lambda: opened.append(connection.open_writer(db)))
    thread.start()
    thread.join(0.1)
    waits = thread.is_alive()
    other.execute("COMMIT")
    other.close()
    thread.join()
    assert waits
    [made] = opened
    assert made.pragma("journal_mode") == "wal"
    made.close()


def test_many_processes_may_make_one_file_at_the_same_moment(db: str) -> None:
    code = (
        f"import sys; from perdure.store.sqlite import connection; sys.stdin.readline(); "
        f"connection.open_writer({db!r}).close()"
    )
    makers = [
        Forked([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write(b"now\n")
        maker.stdin.close()
    for maker in makers:
        assert maker.stderr is not None
        assert maker.stderr.read() == b""
        maker.stderr.close()
        assert maker.wait() == 0


@awaited
async def test_a_link_is_the_store_that_it_names(tmp_path: Path) -> None:
    """The file beside which the WAL lies is the one that is opened, watched and checked."""
    (tmp_path / "data").mkdir()
    db, link = tmp_path / "data" / "a.db", tmp_path / "link.db"
    link.symlink_to(db)
    async with Engine(link, workflows=[plain]) as engine:  # makes the file
        await engine.run(plain(1), id="one")
        async with Engine(db, workflows=[plain]) as other:
            assert await (await other.get("one")).result() == 1
        assert engine.path == str(db)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "link.db"]
    with contextlib.closing(perdure.connect(link)) as reader:
        assert reader.execute("SELECT id FROM perdure_runs").fetchall() == [("one",)]

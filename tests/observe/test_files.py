"""Single files: a store that runs, a copy of one with its WAL and without, and what is no store."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from perdure import Engine, Limits
from perdure.errors import BadReplicaAddress, StoreCorrupt, StoreError, StoreNotFound, StoreTooNew
from perdure.observe import listing
from perdure.observe.databases import Databases
from perdure.reader import StoreReader
from perdure.reader.values import RunQuery
from perdure.store.sqlite.driver import SqliteStore
from tests.observe.support import WORKFLOWS, notes
from tests.runtime.support import awaited


async def ids(databases: Databases, name: str) -> list[str]:
    page = await (await databases.open(name)).reader.runs(RunQuery())
    return sorted(one.id for one in page.runs)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@awaited
async def test_copies_are_read_as_they_are_while_the_original_goes_on(tmp_path: Path) -> None:
    without, both = tmp_path / "without", tmp_path / "both"
    without.mkdir()
    both.mkdir()
    live = tmp_path / "live.db"
    async with Engine(live, workflows=WORKFLOWS) as engine:
        await engine.run(notes(3), id="first")
        for side in ("", "-wal"):
            shutil.copy(f"{live}{side}", both / f"copy.db{side}")
    shutil.copy(live, without / "copy.db")  # the last engine has put its WAL away
    async with Engine(live, workflows=WORKFLOWS) as engine:
        before = contents(without), contents(both)
        targets = [str(live), str(without / "copy.db"), str(both / "copy.db")]
        async with Databases(targets) as databases:
            names = [one.name for one in await databases.entries()]
            assert names == ["live.db", *targets[1:]]
            assert await ids(databases, targets[1]) == ["first"]
            assert await ids(databases, targets[2]) == ["first"]
            assert await ids(databases, "live.db") == ["first"]
            await engine.run(notes(3), id="second")
            assert await ids(databases, "live.db") == ["first", "second"]
            assert contents(without) == before[0]
        after = contents(both)
        assert {name: after[name] for name in before[1]} == before[1]
        await engine.run(notes(3), id="third")


@awaited
async def test_a_file_that_gets_a_wal_or_is_replaced_is_opened_anew(tmp_path: Path) -> None:
    store = tmp_path / "a.db"
    async with Engine(store, workflows=WORKFLOWS) as engine:
        await engine.run(notes(1), id="one")
    async with Databases([str(store)]) as databases:
        assert await ids(databases, "a.db") == ["one"]
        async with Engine(store, workflows=WORKFLOWS) as engine:
            await engine.run(notes(1), id="two")
            assert await ids(databases, "a.db") == ["one", "two"]
        assert await ids(databases, "a.db") == ["one", "two"]
        async with Engine(tmp_path / "b.db", workflows=WORKFLOWS) as engine:
            await engine.run(notes(1), id="other")
        for side in ("-wal", "-shm"):  # kept open, and of the file that goes
            (tmp_path / f"a.db{side}").unlink(missing_ok=True)
        os.replace(tmp_path / "b.db", store)
        assert await ids(databases, "a.db") == ["other"]
        store.unlink()
        with pytest.raises(StoreNotFound):
            await databases.open("a.db")
        (entry,) = await databases.entries()
        assert "can't be read" in entry.problem


@contextmanager
def as_somebody_else(folder: Path) -> Iterator[None]:
    """Without the right to write in a folder, also where the tests are run by root."""
    folder.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65_534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield
    folder.chmod(0o755)


@awaited
async def test_a_wal_in_a_folder_that_can_not_be_written_is_read_from_a_copy() -> None:
    with tempfile.TemporaryDirectory() as name:  # everybody may look into it
        folder = Path(name)
        async with Engine(folder / "live.db", workflows=WORKFLOWS) as engine:
            await engine.run(notes(3), id="in-the-wal")
            place = folder / "place"
            place.mkdir()
            for side in ("", "-wal"):
                shutil.copy(f"{folder / 'live.db'}{side}", place / f"copy.db{side}")
        folder.chmod(0o755)
        with as_somebody_else(place):
            async with Databases([str(place / "copy.db")]) as databases:
                assert await ids(databases, "copy.db") == ["in-the-wal"]
        assert sorted(contents(place)) == ["copy.db", "copy.db-wal"]


@awaited
async def test_what_is_no_store_is_said_and_left_alone(tmp_path: Path) -> None:
    good = tmp_path / "good.db"
    async with Engine(good, workflows=WORKFLOWS) as engine:
        await engine.run(notes(3), id="one")
    data = good.read_bytes()
    newer = tmp_path / "newer.db"
    newer.write_bytes(data)
    with apsw.Connection(str(newer)) as db:
        db.pragma("user_version", 999)
    db.close()
    foreign = apsw.Connection(str(tmp_path / "foreign.db"))
    foreign.execute("CREATE TABLE theirs (a)")
    foreign.close()
    (tmp_path / "text.db").write_bytes(b"hello " * 100)
    (tmp_path / "cut.db").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.db").write_bytes(b"")
    damaged = bytearray(data)
    damaged[4096 : len(data)] = bytes(len(data) - 4096)
    (tmp_path / "damaged.db").write_bytes(damaged)
    (tmp_path / "folder.db").mkdir()
    os.mkfifo(tmp_path / "pipe.db")  # reading it would wait for ever
    wrong: dict[str, type[StoreError]] = {
        "newer.db": StoreTooNew,
        "foreign.db": StoreCorrupt,
        "text.db": StoreCorrupt,
        "cut.db": StoreCorrupt,
        "empty.db": StoreError,
        "damaged.db": StoreCorrupt,
        "folder.db": StoreError,
        "pipe.db": StoreError,
    }
    before = {name: (tmp_path / name).read_bytes() for name in wrong if (tmp_path / name).is_file()}
    async with Databases([str(tmp_path / name) for name in (*wrong, "good.db")]) as databases:
        rows = {one.name: listing.row(one, 0) for one in await databases.entries()}
        for name in wrong:
            assert rows[name].state == "unreadable" and name in rows[name].meaning
            assert not rows[name].counted
        assert rows["good.db"].counts == {"completed": 1}
        for name, kind in wrong.items():
            with pytest.raises(kind, match=name):
                await ids(databases, name)
        assert await ids(databases, "good.db") == ["one"]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    with pytest.raises(StoreNotFound):
        Databases([str(tmp_path / "nothing.db")])


@awaited
async def test_counts_of_a_damaged_file_are_not_listed(tmp_path: Path) -> None:
    """An index gives them that does not lie where the damage is."""
    path = damaged_runs(tmp_path / "damaged.db")
    async with Databases([str(path)]) as databases:
        (row,) = [listing.row(one, 0) for one in await databases.entries()]
    assert (row.state, row.counted, row.counts) == ("unreadable", False, {})
    assert "it is damaged" in row.meaning


@awaited
async def test_a_run_that_damage_hides_is_not_said_to_be_missing(tmp_path: Path) -> None:
    path = damaged_runs(tmp_path / "damaged.db")
    async with StoreReader(str(path)) as reader:
        with pytest.raises(StoreCorrupt, match="it is damaged"):
            await reader.find("gone")


def damaged_runs(path: Path) -> Path:
    """A store the table of whose runs is overwritten, and none of its indexes."""
    SqliteStore(str(path), limits=Limits()).close()
    db = apsw.Connection(str(path))
    try:
        ((page,),) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'run'")
        size = db.pragma("page_size")
    finally:
        db.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    return path


@pytest.mark.parametrize("target", ["ftp://host/agents", "https://bucket/agents"])
def test_an_address_of_no_known_kind_is_no_file(target: str) -> None:
    with pytest.raises(BadReplicaAddress, match="can't be used"):
        Databases([target])

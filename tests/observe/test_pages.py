"""Pages read from Litestream's files are those of a restore, at every moment, and nothing is
written."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from perdure.errors import BucketUnusable, ReplicaDamaged, ReplicaEmpty
from perdure.observe import ltx, vfs
from perdure.observe import pages as pages_module
from perdure.observe.databases import Databases
from perdure.reader.values import RunQuery
from perdure.replica import litestream_binary
from tests.observe.support import (
    all_pages,
    engine_at,
    notes,
    pages_at,
    replicate,
    restored,
    some_runs,
)
from tests.runtime.support import awaited, until


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    replicate(folder / "a.db", f"file://{folder}/replica")
    return folder / "replica"


def test_every_page_is_that_of_a_restore(replica: Path, tmp_path: Path) -> None:
    assert all_pages(pages_at(f"file://{replica}")) == restored(
        f"file://{replica}/000001", tmp_path / "r.db"
    )


def test_queries_see_a_whole_database_that_can_not_be_written(replica: Path) -> None:
    db = vfs.connect(pages_at(f"file://{replica}"))
    assert db.pragma("integrity_check") == "ok"
    assert dict(db.execute("SELECT status, count(*) FROM run GROUP BY 1")) == {
        "completed": 20,
        "failed": 1,
        "waiting": 1,
    }
    for statement in ("CREATE TABLE x (a)", "DELETE FROM run"):
        with pytest.raises(apsw.ReadOnlyError):
            db.execute(statement)
    db.close()


@awaited
async def test_a_reader_follows_what_is_written_and_keeps_its_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "FOLLOW_S", 0.0)
    monkeypatch.setattr("perdure.replica.replicate.WATCH_S", 0.05)
    address = f"file://{tmp_path}/replica"
    count = "SELECT count(*) FROM run"
    async with engine_at(tmp_path / "a.db", address, lease_ttl=3.0) as engine:
        await some_runs(engine, n=3)
        pages = pages_at(address)
        db, reading = vfs.connect(pages), vfs.connect(pages)
        await until(lambda: db.execute(count).fetchall() == [(5,)])
        before = db.pragma("data_version")
        reading.execute("BEGIN")
        assert reading.execute(count).fetchall() == [(5,)]
        for n in range(3):
            await engine.run(notes(30), id=f"later-{n}")
            await asyncio.to_thread(until_more, db, count, 6 + n)
        assert db.pragma("data_version") > before
        assert reading.execute(count).fetchall() == [(5,)]  # its own moment
        reading.execute("COMMIT")
        assert reading.execute(count).fetchall() == [(8,)]
        version = pages.current()
        assert len(version.layers) > 2  # followed, and not read anew
    assert all_pages(pages_at(address)) == restored(f"{address}/000001", tmp_path / "r.db")
    db.close()
    reading.close()


@awaited
async def test_a_new_epoch_on_another_machine_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "FOLLOW_S", 0.0)
    address = f"file://{tmp_path}/replica"
    async with engine_at(tmp_path / "a.db", address) as engine:
        await engine.run(notes(5), id="first")
    pages = pages_at(address)
    db = vfs.connect(pages)
    assert db.execute("SELECT id FROM run").fetchall() == [("first",)]
    async with engine_at(tmp_path / "b.db", address) as engine:  # it restores
        await engine.run(notes(5), id="second")
    assert pages.current().epoch == 2
    assert len(db.execute("SELECT id FROM run").fetchall()) == 2
    assert all_pages(pages) == restored(f"{address}/000002", tmp_path / "r.db")
    db.close()


@awaited
async def test_an_engine_that_writes_faster_than_files_are_merged_is_shown_a_little_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "FOLLOW_S", 0.0)
    address = f"file://{tmp_path}/replica"
    async with engine_at(tmp_path / "a.db", address, durability="replica") as engine:
        await engine.run(notes(2), id="first")
        for n in range(9):  # each is confirmed, and so a file
            await engine.run(notes(2), id=f"run-{n}")
    files = len(list((tmp_path / "replica/000001/ltx/0").iterdir()))
    whole = all_pages(pages_at(address))
    monkeypatch.setattr(pages_module, "LAYERS_MAX", 3)
    monkeypatch.setattr(pages_module, "ADDED_MAX", 2)
    pages = pages_at(address)
    db = vfs.connect(pages)
    assert db.pragma("integrity_check") == "ok"  # an older state, and a whole one
    assert pages.behind > 0 and files > 6
    monkeypatch.setattr(pages_module, "LAYERS_MAX", 400)
    while pages.behind:
        before = pages.behind
        assert db.pragma("integrity_check") == "ok"
        assert pages.behind < before
    assert all_pages(pages) == whole
    db.close()


def until_more(db: apsw.Connection, count: str, n: int) -> None:
    while db.execute(count).fetchall() < [(n,)]:
        pass


def test_files_that_were_merged_and_removed_are_found_again(tmp_path: Path) -> None:
    address = f"file://{tmp_path}/replica"
    replicate(tmp_path / "a.db", address)
    pages = pages_at(address)
    whole, version = all_pages(pages), pages.current()
    pages._blocks = pages_at(address)._blocks  # nothing is in the cache any more
    level_0 = tmp_path / "replica/000001/ltx/0"
    level_1 = level_0.parent / "1"
    level_1.mkdir(exist_ok=True)
    for path in level_0.glob(f"{version.txid:016x}-*"):  # merged with none
        path.rename(level_1 / path.name)
    again = b"".join(pages.page(version, n + 1) for n in range(version.newest.pages))
    assert again == whole


def test_a_file_that_is_missing_or_damaged_is_said_by_its_name(tmp_path: Path) -> None:
    address = f"file://{tmp_path}/replica"
    replicate(tmp_path / "a.db", address)
    files = sorted((tmp_path / "replica/000001/ltx").glob("*/*.ltx"))
    last = max(files, key=lambda path: path.name[17:])
    good = last.read_bytes()
    last.write_bytes(good[:-40])
    with pytest.raises(ReplicaDamaged, match=last.name):
        pages_at(address).current()
    last.write_bytes(good[:110] + bytes(30) + good[140:])
    with pytest.raises(ReplicaDamaged, match=last.name):
        all_pages(pages_at(address))
    for path in files:
        path.unlink(missing_ok=True)
    with pytest.raises(ReplicaDamaged, match="no whole copy"):
        pages_at(address).current()


def test_a_place_without_a_replica_is_said(tmp_path: Path) -> None:
    with pytest.raises(ReplicaEmpty):
        pages_at(f"file://{tmp_path}").current()
    with pytest.raises((BucketUnusable, ReplicaEmpty)):
        pages_at(f"file://{tmp_path}/nothing").current()


def test_the_official_file_layer_shows_the_same_rows(replica: Path) -> None:
    """Litestream's own VFS, in a process of its own: it stays in the process that loads it."""
    pytest.importorskip("litestream_vfs", reason="litestream-vfs is not installed")
    done = subprocess.run(
        [sys.executable, "-c", OFFICIAL],
        env={
            **litestream_binary.environment(),
            "LITESTREAM_REPLICA_URL": f"file://{replica}/000001",
            "LITESTREAM_LOG_LEVEL": "ERROR",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    db = vfs.connect(pages_at(f"file://{replica}"))
    rows = db.execute("SELECT key, kind, name, data FROM event ORDER BY key").fetchall()
    assert done.stdout.strip() == hashlib.sha256(repr(rows).encode()).hexdigest()
    db.close()


OFFICIAL = """
import apsw, hashlib, litestream_vfs
loader = apsw.Connection(":memory:")
loader.enable_load_extension(True)
loader.load_extension(litestream_vfs.loadable_path())
flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
db = apsw.Connection("file:replica?vfs=litestream", flags=flags)
rows = db.execute("SELECT key, kind, name, data FROM event ORDER BY key").fetchall()
print(hashlib.sha256(repr(rows).encode()).hexdigest(), flush=True)
import os
os._exit(0)
"""


@awaited
async def test_a_copy_is_restored_where_pages_are_of_an_unknown_format(
    replica: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ltx, "FLAG_SIZED", 2)  # as if these files were of a later version
    async with Databases([f"file://{replica}"]) as databases:
        opened = await databases.only()
        assert "restored copy" in opened.about
        page = await opened.reader.runs(RunQuery(status=("waiting",)))
        assert [one.id for one in page.runs] == ["run-waits"]

"""Pages read from Litestream's files are those of a restore, at every moment, and nothing is
written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest

from perdure.errors import BucketUnusable, ReplicaDamaged, ReplicaEmpty
from perdure.observe import pages as pages_module
from perdure.observe import vfs
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
    async with engine_at(tmp_path / "a.db", address, lease_ttl=1.0) as engine:
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

"""What a copy is worth: holes that SQLite does not see, what was confirmed, another file's rows,
and files that are set aside.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import apsw
import pytest

import perdure
from perdure import Engine
from perdure.errors import ReplicaDamaged
from perdure.replica import verify
from perdure.store.sqlite import checksum
from tests.store.support import count_up


def made(path: Path, runs: int = 3) -> Path:
    """A sealed store in one file."""

    async def main() -> None:
        async with Engine(path, workflows=[count_up]) as engine:
            engine._store.begin_epoch("an id", "file:///there", 1)
            for number in range(runs):
                await engine.run(count_up(40), id=f"r{number}")

    asyncio.run(main())
    db = apsw.Connection(str(path))
    db.pragma("schema_version")
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    db.close()
    return path


def changed(path: Path, sql: str) -> Path:
    db = apsw.Connection(str(path))
    db.execute(sql)
    db.close()
    return path


def test_a_whole_copy_is_trusted(tmp_path: Path) -> None:
    seal = verify.verified(made(tmp_path / "a.db"), "there", rows_min=3 * 82)
    assert (seal.store_id, seal.rows) == ("an id", 3 * 82)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM event WHERE key = (SELECT max(key) FROM event)",
        "DELETE FROM event WHERE key IN (SELECT key FROM event ORDER BY key LIMIT 5 OFFSET 9)",
        "UPDATE event SET data = '7' WHERE key = (SELECT min(key) + 4 FROM event)",
        "UPDATE event SET at_ms = at_ms + 1 WHERE key = (SELECT min(key) + 4 FROM event)",
    ],
)
def test_a_hole_that_sqlite_does_not_see_is_found(tmp_path: Path, sql: str) -> None:
    path = changed(made(tmp_path / "a.db"), sql)
    assert perdure.connect(path).pragma("integrity_check") == "ok"
    with pytest.raises(ReplicaDamaged, match="it has holes"):
        verify.verified(path, "there")


def test_a_copy_that_lacks_what_was_confirmed_is_not_trusted(tmp_path: Path) -> None:
    with pytest.raises(ReplicaDamaged, match="lacks 4 rows of history that were confirmed"):
        verify.verified(made(tmp_path / "a.db"), "there", rows_min=3 * 82 + 4)


def test_damage_and_other_files_are_not_trusted(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", 20)
    raw = bytearray(path.read_bytes())
    for page in range(5, len(raw) // 4096, 3):
        raw[page * 4096 : page * 4096 + 2_000] = b"\x5a" * 2_000
    path.write_bytes(raw)
    with pytest.raises(ReplicaDamaged, match=r"damaged|can't be read"):
        verify.verified(path, "there")
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(ReplicaDamaged, match="not an SQLite database"):
        verify.verified(tmp_path / "text", "there")
    plain = changed(made(tmp_path / "plain.db"), "DELETE FROM replica")
    with pytest.raises(ReplicaDamaged, match="not of a file that Perdure replicates"):
        verify.verified(plain, "there")


def test_a_local_file_is_the_same_newer_older_or_another_one(tmp_path: Path) -> None:
    copy = made(tmp_path / "copy.db")
    same = Path(shutil.copy(copy, tmp_path / "same.db"))
    assert verify.missing_rows(str(same), copy) == 0
    older = changed(
        Path(shutil.copy(copy, tmp_path / "older.db")),
        "DELETE FROM event WHERE key & 16777215 > 80",
    )
    assert verify.missing_rows(str(older), copy) == 3 * 2
    assert verify.missing_rows(str(copy), older) == 0
    other = changed(
        Path(shutil.copy(copy, tmp_path / "other.db")),
        "UPDATE event SET data = '7' WHERE key = (SELECT min(key) + 4 FROM event)",
    )
    assert verify.missing_rows(str(other), copy) == 1


def test_setting_aside_never_overwrites(tmp_path: Path) -> None:
    names = []
    for number in range(3):
        for side in verify.SIDES:
            (tmp_path / f"a.db{side}").write_text(f"{number}{side}")
        names.append(verify.set_aside(str(tmp_path / "a.db"), "aside"))
    assert names == [
        str(tmp_path / name) for name in ("a.db.aside", "a.db.aside-2", "a.db.aside-3")
    ]
    assert [Path(name + "-wal").read_text() for name in names] == ["0-wal", "1-wal", "2-wal"]
    assert not list(tmp_path.glob("a.db")) + list(tmp_path.glob("a.db-*"))


def test_an_make_plain_copy_is_a_store_like_others(tmp_path: Path) -> None:
    copy = made(tmp_path / "copy.db")
    verify.make_plain(copy)
    assert checksum.read(perdure.connect(copy)) is None

    async def main() -> None:
        async with Engine(copy, workflows=[count_up]) as engine:
            assert await (await engine.get("r1")).result() == 40

    asyncio.run(main())


def test_a_copy_is_put_in_place_with_what_its_wal_holds(tmp_path: Path) -> None:
    copy = made(tmp_path / "copy.db")
    writer = apsw.Connection(str(copy))
    writer.pragma("wal_autocheckpoint", 0)
    writer.execute("UPDATE run SET tags = '{}'")
    writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    writer.close()
    assert (tmp_path / "copy.db-wal").stat().st_size > 0
    verify.put_in_place(copy, str(tmp_path / "a.db"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db"]
    assert list(perdure.connect(tmp_path / "a.db").execute("SELECT DISTINCT tags FROM run")) == [
        ("{}",)
    ]

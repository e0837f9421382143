"""Damaged files: an error that names the file, or the truth; never a raw error, a hang, a wrong
answer, or a write.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
from pathlib import Path

import apsw
import pytest

import perdure
from campaigns import damage
from perdure import Engine, StoreCorrupt, StoreTooNew, receive, step, workflow
from perdure.store.sqlite.connection import SCHEMA_VERSION
from tests.runtime.support import awaited, reached

PAGE_BYTES = 4096


@step
async def long_text(n: int) -> str:
    return f"{n} " * 5_000


@workflow
async def talks(n: int) -> str:
    first = await long_text(n)
    return first + await receive("x", str)


@workflow
async def small(n: int) -> int:
    return n


# --- at random places -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", damage.KINDS)
def test_damage_at_random_places_is_told_or_does_no_harm(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "KINDS", {kind: damage.KINDS[kind]})
    found = list(damage.damage(range(4)))
    assert [(one.what, one.broken) for one in found if one.broken] == []
    assert len(found) == 4


def test_what_nobody_could_notice_is_what_the_campaign_would_find(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQLite keeps no checksums of its pages: a run that is renamed by a stray byte shows that the
    laws are looked at.
    """

    def rename(dice: random.Random, raw: bytes) -> bytes:
        return raw.replace(b"waits", b"waitz")

    monkeypatch.setattr(
        damage, "KINDS", {"name": ("", rename), "name in the WAL": ("-wal", rename)}
    )
    monkeypatch.setattr(damage, "_files", lambda folder: _checkpointed(folder))
    broken = [one.broken for one in damage.damage(range(1)) if one.broken]
    assert broken
    assert "runs are missing without an error" in broken[0]


async def _checkpointed(folder: Path) -> damage.Files:
    """The campaign's store with everything in the file itself."""
    path = folder / "perdure.db"
    async with Engine(path, workflows=[damage.texts, damage.asks]) as engine:
        for n in range(damage.RUNS):
            await engine.run(damage.texts(n), id=f"r{n}")
        await reached(await engine.start(damage.asks(), id=damage.WAITS), "waiting")
    return {"": path.read_bytes(), "-wal": b""}


# --- under a running engine -----------------------------------------------------------------------


@awaited
async def test_a_payload_that_was_changed_stops_the_engine_and_tells_everybody(db: str) -> None:
    async with Engine(db, workflows=[talks]) as engine:
        await reached(await engine.start(talks(1), id="sick"), "waiting")
    raw = Path(db).read_bytes()
    assert raw.count(b"1 1 1 1 ") > 10
    Path(db).write_bytes(
        raw.replace(b"1 1 1 1 ", b"1 1 7 1 ", 1)
    )  # valid JSON, and not what was recorded
    async with Engine(db, workflows=[talks, small], execute=False) as client:
        await client.send("sick", "go on", channel="x")
    async with Engine(db, workflows=[talks, small]) as engine:
        waits = asyncio.ensure_future((await engine.get("sick")).result())
        error = await engine.store_lost()
        assert isinstance(error, StoreCorrupt)
        with pytest.raises(
            StoreCorrupt,
            match=r"it is damaged .a text or a payload is not what was recorded.*Restore a copy",
        ):
            await waits
        before = {end: Path(db + end).read_bytes() for end in ("", "-wal")}
        for late in (
            engine.start(small(2), id="late"),
            engine.send("sick", 1, channel="x"),
            engine.info("sick"),
            engine.doctor(),
        ):
            with pytest.raises(StoreCorrupt):
                await late
    assert {
        end: Path(db + end).read_bytes() for end in ("", "-wal")
    } == before  # closing has left the evidence
    with contextlib.closing(perdure.connect(db)) as reader:
        assert reader.execute(
            "SELECT count(*) FROM perdure_runs WHERE status = 'blocked'"
        ).fetchone() == (0,)


@awaited
async def test_a_text_that_is_no_text_is_damage(db: str) -> None:
    async with Engine(db, workflows=[small]) as engine:
        await engine.run(small(1), id="somebody")
    raw = Path(db).read_bytes()
    Path(db).write_bytes(raw.replace(b"somebody", b"some\xff\xfe\xfdy"))
    async with Engine(db, workflows=[small]) as engine:
        with pytest.raises(
            StoreCorrupt, match=r"it is damaged .a text or a payload is not what was recorded"
        ):
            await engine.runs()


async def looked_at(engine: Engine) -> None:
    assert (await engine.doctor())["integrity"] != "ok"
    await engine.runs(limit=300)


@awaited
async def test_doctor_gives_no_error_of_sqlites(db: str) -> None:
    """Pages that only a pragma looks at."""
    async with Engine(db, workflows=[small]) as engine:
        for n in range(300):
            await engine.run(small(n), id=f"r{n}")
    async with Engine(db, workflows=[small]) as engine:
        raw = bytearray(Path(db).read_bytes())
        for at in range(8 * PAGE_BYTES, len(raw), PAGE_BYTES):
            raw[at : at + 64] = b"\xa5" * 64
        Path(db).write_bytes(
            raw
        )  # under the engine: the same file, and what it has not read yet is damaged
        with pytest.raises(StoreCorrupt, match="it is damaged"):
            await looked_at(engine)


# --- what is refused stays as it is ---------------------------------------------------------------


def _killed(db: str, folder: Path) -> str:
    """The files as a kill -9 leaves them: with a WAL."""
    folder.mkdir()
    for end in ("", "-wal"):
        shutil.copy(db + end, folder / f"perdure.db{end}")
    return str(folder / "perdure.db")


async def _refused(path: str, error: type[Exception], words: str) -> None:
    before = {
        name: (Path(path).parent / name).read_bytes()
        for name in sorted(os.listdir(Path(path).parent))
        if "-shm" not in name
    }
    with pytest.raises(error, match=words):
        async with Engine(path, workflows=[small]):
            pass
    with pytest.raises((error, perdure.StoreNotFound)):
        perdure.connect(path)
    after = {
        name: (Path(path).parent / name).read_bytes()
        for name in sorted(os.listdir(Path(path).parent))
        if "-shm" not in name
    }
    assert after == before


@awaited
async def test_a_newer_file_whose_engine_was_killed_keeps_its_wal(db: str, tmp_path: Path) -> None:
    async with Engine(db, workflows=[small]) as engine:
        await engine.run(small(1))
        newer = apsw.Connection(db)
        newer.pragma("user_version", SCHEMA_VERSION + 1)
        newer.close()
        path = _killed(db, tmp_path / "killed")
    await _refused(path, StoreTooNew, "Upgrade perdure")


@awaited
@pytest.mark.parametrize("left", ["nothing", "an empty file"])
async def test_a_wal_without_its_file_is_not_thrown_away(
    db: str, tmp_path: Path, left: str
) -> None:
    """SQLite deletes the WAL of an empty file: a worker that is started again would delete what was
    recorded last.
    """
    async with Engine(db, workflows=[small]) as engine:
        await engine.run(small(1), id="recorded")
        path = _killed(db, tmp_path / "killed")
    whole = Path(path).read_bytes()
    os.truncate(path, 0)
    if left == "nothing":
        os.unlink(path)
    await _refused(
        path,
        StoreCorrupt,
        (
            "it is missing or empty, but its '.*perdure.db-wal' is there and may hold what was "
            "recorded last"
        ),
    )
    Path(path).write_bytes(whole)  # put back, it goes on
    async with Engine(path, workflows=[small]) as engine:
        assert (await engine.info("recorded")).result == 1

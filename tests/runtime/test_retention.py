"""Retention of engines: what is deleted, what is archived first, and what a failure leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    ArchiveUnavailable,
    BadArchiveAddress,
    DefinitionError,
    Engine,
    PrunedElsewhere,
    PruneReport,
    Retention,
    RunNotFound,
    SyncEngine,
    Workflow,
    continue_as,
    emit,
    receive,
    step,
    workflow,
)
from perdure.process.clock import SystemClock
from perdure.runtime.retention import RetentionLoop
from perdure.store.retention_writes import HoldPruning
from perdure.store.sqlite import files
from tests.runtime.support import awaited

ALL = Retention(completed=0, failed=0, cancelled=0)


@step
async def double(n: int) -> int:
    return n * 2


@workflow
async def doubles(n: int) -> int:
    await emit("seen", n)
    return await double(n)


@workflow
async def parent(n: int) -> list[int]:
    return list(await asyncio.gather(*(doubles(one) for one in range(n))))


@workflow
async def loop(n: int) -> int:
    await emit("rounds", n)
    if n < 5:
        await continue_as(loop(n + 1))
    await receive("go", bool)
    return n


FLOWS: list[Workflow[..., Any]] = [doubles, parent, loop]


def archived(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def ids_of(path: str | Path) -> set[str]:
    async with Engine(path, execute=False, create=False) as engine:
        return {info.id for info in await engine.runs(limit=1_000)}


async def filled(path: str | Path, runs: int) -> None:
    async with Engine(path, workflows=FLOWS) as engine:
        for n in range(runs):
            await engine.run(doubles(n), id=f"r{n}")


# --- what goes ------------------------------------------------------------------------------------


@awaited
async def test_old_runs_go_and_the_others_stay(db: str) -> None:
    async with Engine(db, workflows=FLOWS) as engine:
        await engine.run(doubles(1), id="old")
        await engine.run(parent(3), id="family")
        waits = await engine.start(loop(5), id="waits")
        report = await engine.prune(ALL)
        assert report.by_status == {"completed": 2}
        assert report.runs == 5
        assert report.history_rows > 0
        assert [info.id for info in await engine.runs()] == ["waits"]
        with pytest.raises(RunNotFound):
            await engine.info("old")
        await engine.send("waits", True, channel="go")
        assert await waits.result() == 5
        assert await engine.run(doubles(4), id="old") == 8  # the id is free again


@awaited
async def test_a_run_that_goes_on_for_ever_is_cut_and_can_be_used(db: str) -> None:
    async with Engine(db, workflows=FLOWS) as engine:
        run = await engine.start(loop(0), id="loop")
        async for item in run.stream("rounds"):
            if item == 5:
                break
        await engine.prune(ALL)
        assert [info.id for info in await engine.runs()] == ["loop"]
        await engine.send("loop", True, channel="go")
        assert await run.result() == 5  # by a handle of a run that is gone
        assert [item async for item in run.stream("rounds")] == [5]


@awaited
async def test_a_dry_run_writes_nothing(db: str, tmp_path: Path) -> None:
    await filled(db, 3)
    given = Retention(completed=0, archive=f"file://{tmp_path}/archive")
    async with Engine(db, execute=False, retention=None) as engine:
        report = await engine.prune(given, dry_run=True)
        assert (report.dry_run, report.runs, report.by_status) == (True, 2, {"completed": 2})
        assert report.kept == [("r2", "it has the newest run, whose number stays taken")]
        (name,) = report.files
        assert name.startswith("perdure-20")
    assert not (tmp_path / "archive").exists()
    assert len(await ids_of(db)) == 3


@awaited
async def test_an_engine_prunes_by_itself(db: str) -> None:
    await filled(db, 3)
    async with Engine(db, workflows=FLOWS, retention=ALL) as engine:
        await until(lambda: gone(engine, "r0"))
        assert await engine.run(doubles(2), id="next") == 4
        await until(lambda: gone(engine, "r2"))
        facts = await engine.doctor()
        assert facts["retention"]["pruned_runs"] == 3


async def gone(engine: Engine, id: str) -> bool:
    return id not in {info.id for info in await engine.runs()}


async def until(what: Any) -> None:
    while not await what():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


@awaited
async def test_one_process_prunes_at_a_time(db: str) -> None:
    await filled(db, 3)
    async with Engine(db, execute=False) as engine:
        now_ms = engine._clock.now_ms()
        await engine._parts().writer.ask(HoldPruning("another", now_ms + 50_000, now_ms))
        with pytest.raises(PrunedElsewhere, match="try again"):
            await engine.prune(ALL)
        await engine._parts().writer.ask(HoldPruning("another", None, now_ms))
        assert (await engine.prune(ALL)).runs == 2


@awaited
async def test_a_store_in_memory_is_pruned(db: str) -> None:
    async with Engine(":memory:", workflows=FLOWS) as engine:
        for n in range(3):
            await engine.run(doubles(n))
        assert (await engine.prune(ALL)).runs == 2


@awaited
async def test_progress_is_reported(db: str) -> None:
    await filled(db, 4)
    seen: list[int] = []
    async with Engine(db, execute=False) as engine:
        await engine.prune(ALL, on_progress=lambda report: seen.append(report.runs))
    assert seen[-1] == 3
    assert seen == sorted(seen)


# --- the archive ----------------------------------------------------------------------------------


@awaited
async def test_the_archive_is_a_store_with_the_runs(db: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    given = Retention(completed=0, archive=f"file://{folder}")
    await filled(db, 3)
    async with Engine(db, workflows=FLOWS) as engine:
        await engine.run(parent(2), id="family")
        before = await engine.history("r1")
        first = await engine.prune(given)
        await engine.run(doubles(9), id="last")
        second = await engine.prune(given)
    (one,), (two,) = first.files, second.files
    assert (one.endswith(".2.db"), two.endswith(".2.db")) == (False, True)
    assert archived(folder) == sorted([one, two])
    assert await ids_of(folder / one) == {"r0", "r1", "r2"}
    async with Engine(folder / one, execute=False, create=False) as engine:
        assert await engine.history("r1") == before
        run = await engine.get("r1")
        assert await run.result() == 2
        assert [item async for item in run.stream("seen")] == [1]
    assert await ids_of(db) == {"last"}


@awaited
async def test_the_folders_of_a_new_archive_are_as_durable_as_its_files(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut that takes away the name of a folder takes what is in it."""
    synced: list[Path] = []
    await filled(db, 2)
    monkeypatch.setattr(files, "sync", synced.append)
    async with Engine(db, execute=False) as engine:
        await engine.prune(Retention(completed=0, archive=f"file://{tmp_path}/new/archive"))
    folders = [one for one in synced if Path(one).is_dir()]
    assert folders == [tmp_path, tmp_path / "new", tmp_path / "new" / "archive"]


@awaited
async def test_an_archive_that_cannot_be_written_keeps_the_runs(db: str, tmp_path: Path) -> None:
    await filled(db, 3)
    (tmp_path / "file").write_text("not a folder")
    given = Retention(completed=0, archive=f"file://{tmp_path}/file/archive")
    async with Engine(db, execute=False, retention=given) as engine:
        with pytest.raises(ArchiveUnavailable, match="can't be written: Not a directory"):
            await engine.prune()

        async def noted() -> bool:
            return "archive_error" in (await engine.doctor()).get("retention", {})

        await until(noted)
    assert len(await ids_of(db)) == 3


@awaited
async def test_runs_stay_where_the_disk_of_the_archive_is_full(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(db, 3)
    folder = tmp_path / "archive"
    given = Retention(completed=0, archive=f"file://{folder}")
    real = os.link

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    async with Engine(db, execute=False) as engine:
        monkeypatch.setattr(os, "link", full)
        with pytest.raises(ArchiveUnavailable, match="No space left"):
            await engine.prune(given)
        monkeypatch.setattr(os, "link", real)
        assert archived(folder) == []
        assert (await engine.prune(given)).runs == 2
    assert len(archived(folder)) == 1


KILLED = """
import asyncio, os, sys
from perdure import Engine, Retention
from perdure.runtime import {module} as module
from perdure.store.retention import Retention as InStore

def dies(*args, **kwargs):
    os.kill(os.getpid(), 9)

{fault}
async def main():
    async with Engine(sys.argv[1], execute=False) as engine:
        await engine.prune(Retention(completed=0, archive="file://" + sys.argv[2]))
asyncio.run(main())
"""
HALF = """
real = InStore._sweep_rest
InStore._sweep_rest = lambda *args: dies() if args[1] > 2 else real(*args)
"""
FAULTS = {
    "while it copies": (
        "archive",
        "import perdure.store.sqlite.export as export; export.SqliteExport.close = dies",
    ),
    "before it is named": ("archive", "module.FolderArchive.publish = dies"),
    "before it is deleted": ("archive", "InStore.prune = dies"),
    "half deleted": ("archive", HALF),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_kill_loses_no_run(db: str, tmp_path: Path, fault: str) -> None:
    """Every run is in the store or in the archive, and after the next prune in the archive."""
    folder = tmp_path / "archive"

    async def main() -> None:
        await filled(db, 5)
        module, patch = FAULTS[fault]
        script = KILLED.format(module=module, fault=patch)
        killed = subprocess.run(
            [sys.executable, "-c", script, db, str(folder)], check=False, timeout=120
        )
        assert killed.returncode == -signal.SIGKILL
        found = await everywhere(db, folder)
        assert found == {f"r{n}" for n in range(5)}
        async with Engine(db, execute=False) as engine:
            now_ms = engine._clock.now_ms() + 10**9
            state = engine._parts().writer.ask
            assert await state(HoldPruning("after the hold of the killed", now_ms, now_ms - 1))
            assert await state(HoldPruning("after the hold of the killed", None, now_ms))
            await engine.prune(Retention(completed=0, archive=f"file://{folder}"))
            assert await everywhere(db, folder) == {f"r{n}" for n in range(5)}
            assert engine._parts().store.pruning().left == 0
        assert await ids_of(db) == {"r4"}
        assert all(name.endswith(".db") for name in archived(folder))

    asyncio.run(main())


async def everywhere(db: str, folder: Path) -> set[str]:
    files = list(folder.glob("*.db")) if folder.exists() else []
    found: set[str] = set()
    for path in (Path(db), *files):
        found |= await ids_of(path)
    return found


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"completed": -1}, "Retention(completed=…): completed is a number of seconds"),
        ({"failed": "30d"}, "timedelta(days=30)"),
        ({"cancelled": True}, "cancelled"),
        ({"completed": timedelta(days=-1)}, "None keeps such runs for ever"),
        ({"completed": float("nan")}, "completed"),
        ({"archive": "/folder"}, "it is neither a folder nor a bucket"),
        ({"archive": 3}, "it is no text"),
    ],
)
def test_what_can_not_be_right_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Retention(**given)
    assert says in str(caught.value)


@pytest.mark.parametrize("address", ["s3://", "file://host/a", "s3://me:secret@b/c", "s3://b?x=1"])
def test_an_address_is_checked_before_anything_is_opened(tmp_path: Path, address: str) -> None:
    with pytest.raises(BadArchiveAddress) as caught:
        Engine(tmp_path / "no.db", retention=Retention(archive=address))
    assert "file:///folder" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_engine_refuses_what_is_no_retention(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="Retention"):
        Engine(tmp_path / "no.db", retention=timedelta(days=3))  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="in memory"):
        Engine(":memory:", retention=Retention(archive="file:///tmp/a"))


@awaited
async def test_prune_needs_a_retention(db: str) -> None:
    async with Engine(db) as engine:
        with pytest.raises(DefinitionError, match="what is old"):
            await engine.prune()
        assert isinstance(await engine.prune(ALL), PruneReport)


@awaited
async def test_an_engine_that_closes_ends_a_prune_and_the_next_continues(db: str) -> None:
    async with Engine(db, workflows=FLOWS) as engine:
        await asyncio.gather(*(engine.run(doubles(n), id=f"r{n}") for n in range(300)))
        under_way = asyncio.Event()
        task = asyncio.create_task(engine.prune(ALL, on_progress=lambda _: under_way.set()))
        await under_way.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        report = await engine.prune(ALL)  # nobody holds the mark any more
        assert engine._parts().store.pruning().runs == 299
        assert engine._parts().store.pruning().left == 0
        assert report.longest_hold_ms > 0


def test_a_synchronous_engine_prunes(db: str) -> None:
    with SyncEngine(db, workflows=[doubles]) as engine:
        for n in range(3):
            engine.run(doubles(n))
        report = engine.prune(ALL)
        assert report.runs == 2


class SetClock(SystemClock):
    """A clock that somebody sets."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@awaited
async def test_a_clock_that_was_set_wrong_deletes_nothing(
    db: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(db, 3)
    async with Engine(db, execute=False) as engine:
        parts, clock = engine._parts(), SetClock()
        reads, writer = parts.scheduler.reads, parts.writer
        loop = RetentionLoop(parts.store, reads, writer, clock, Retention())
        for _ in range(2):
            await loop._tick()
        clock.ahead_ms = 40 * 86_400_000
        for _ in range(2):
            await loop._tick()
        assert len(await engine.runs()) == 3
        assert caplog.text.count("the clock has jumped forward by 960 hours") == 1
        clock.ahead_ms = 0
        await loop._tick()
        clock.ahead_ms = 40 * 86_400_000
        await loop._tick()
        monkeypatch.setattr("perdure.runtime.retention.DAY_S", 0.0)  # the day has passed
        await loop._tick()
        assert len(await engine.runs()) == 1

"""A disk without power, or with errors: the file opens, what was acknowledged is in it, and the run
ends right.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from campaigns import corpus, power
from campaigns.corpus import Case
from campaigns.faulty_disk import SECTOR_BYTES, At, Disk, Fault, Kind
from perdure.errors import StoreFull, StoreUnavailable
from perdure.testing import CrashHarness
from perdure.testing.invariants import InvariantViolated
from perdure.testing.recording import recordings
from tests.testing import flows

BY_NAME = {case.name: case for case in corpus.CASES}
PAGE = b"n" * 4096


@pytest.fixture
def disk() -> Iterator[Disk]:
    with contextlib.closing(Disk()) as disk:
        yield disk


# --- the disk -------------------------------------------------------------------------------------


def opened(disk: Disk, path: Path, kind: int = apsw.SQLITE_OPEN_MAIN_DB) -> apsw.VFSFile:
    return apsw.VFSFile(
        disk.name, str(path), [kind | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, 0]
    )


def after_loss(folder: Path, seed: int) -> bytes:
    """A page of zeroes that is synced, a page that is not."""
    path = folder / f"file-{seed}"
    path.write_bytes(bytes(4096))
    with contextlib.closing(Disk()) as disk:
        file = opened(disk, path)
        file.xWrite(PAGE, 0)
        assert path.read_bytes() == PAGE, "a reader sees it at once"
        disk.power_loss()
        file.xClose()
        disk.restart(seed)
    return path.read_bytes()


def test_a_write_without_a_sync_is_there_or_gone_or_torn(tmp_path: Path) -> None:
    found = [after_loss(tmp_path, seed) for seed in range(60)]
    assert all(len(one) == 4096 and not one.strip(b"n\0") for one in found)
    assert PAGE in found
    assert bytes(4096) in found
    torn = [one for one in found if one not in (PAGE, bytes(4096))]
    assert any(_edge(one) % SECTOR_BYTES for one in torn), "in the middle of a sector"
    assert found == [after_loss(tmp_path, seed) for seed in range(60)], "a seed repeats it"


def _edge(page: bytes) -> int:
    return next(n for n in range(1, 4096) if page[n] != page[n - 1] and page[n - 1] != 0)


def test_what_is_synced_stays(tmp_path: Path) -> None:
    for seed in range(30):
        path = tmp_path / f"file-{seed}"
        path.touch()
        with contextlib.closing(Disk()) as disk:
            file = opened(disk, path)
            file.xWrite(PAGE, 0)
            file.xSync(apsw.SQLITE_SYNC_FULL)
            file.xTruncate(10)
            file.xWrite(b"later", 5000)
            file.xClose()
            disk.restart(seed)
        found = path.read_bytes()
        assert found[:10] == PAGE[:10], f"seed {seed}"
        assert found[10:4096] in (PAGE[10:], bytes(4086), b""), (
            f"seed {seed}: only the truncation may take it away"
        )


def test_a_failed_sync_is_not_made_good_by_the_next_one(tmp_path: Path) -> None:
    def found(seed: int) -> bytes:
        path = tmp_path / f"file-{seed}"
        path.write_bytes(bytes(4096))
        with contextlib.closing(Disk()) as disk:
            file = opened(disk, path)
            disk.syncs = seed  # the dice
            file.xWrite(PAGE, 0)
            disk.fault = Fault("ioerr", "sync", seed + 1)
            with pytest.raises(apsw.IOError):
                file.xSync(apsw.SQLITE_SYNC_FULL)
            assert file.xRead(4096, 0) == PAGE, "the system shows what it could not write"
            file.xWrite(b"later", 0)
            file.xSync(apsw.SQLITE_SYNC_FULL)
            file.xClose()
            disk.restart(0)
        return path.read_bytes()

    pages = [found(seed) for seed in range(20)]
    assert all(page.startswith(b"later") for page in pages)
    assert len({page.count(0) for page in pages}) > 3


def test_a_file_is_made_or_deleted_for_good_when_its_folder_is_synced(tmp_path: Path) -> None:
    def names(seed: int, *, synced: bool) -> list[str]:
        folder = tmp_path / f"{seed}-{synced}"
        folder.mkdir()
        (folder / "old").write_bytes(b"old")
        with contextlib.closing(Disk()) as disk:
            opened(disk, folder / "old").xClose()
            opened(disk, folder / "made").xClose()
            wal = opened(disk, folder / "made-wal", apsw.SQLITE_OPEN_WAL)
            disk.xDelete(str(folder / "old"), False)
            if synced:
                wal.xSync(apsw.SQLITE_SYNC_FULL)
            wal.xClose()
            disk.restart(seed)
        return sorted(path.name for path in folder.iterdir())

    found = [names(seed, synced=False) for seed in range(40)]
    assert {len(one) for one in found} == {0, 1, 2, 3}
    assert all(names(seed, synced=True) == ["made", "made-wal"] for seed in range(40))


def test_without_power_nothing_works_and_afterwards_everything(disk: Disk, tmp_path: Path) -> None:
    path = str(tmp_path / "one.db")
    db = apsw.Connection(path, vfs=disk.name)
    db.pragma("user_version", 3)
    disk.power_loss()
    with pytest.raises(apsw.IOError, match="power"):
        db.pragma("user_version", 4)
    with pytest.raises((apsw.IOError, apsw.CantOpenError)):
        apsw.Connection(path, vfs=disk.name).pragma("user_version")
    db.close()
    disk.restart(1)
    with contextlib.closing(apsw.Connection(path, vfs=disk.name)) as again:
        again.pragma("user_version", 5)
        assert again.pragma("user_version") == 5


# --- the engine on it -----------------------------------------------------------------------------

KINDS_OF_WORK = [
    *(
        BY_NAME[name]
        for name in (
            "sequential",
            "gathered",
            "raced",
            "listening",
            "parent",
            "going_on",
            "cleaned_up",
        )
    ),
    Case("transactional", flows.booking_places(3)),
    Case("chunks", flows.writing(["seven " * 2_000])),
    Case("patient", flows.patient(4)),
]
EVERY = 127  # no multiple of the kinds of faults at a place, so that all are met; the campaign: 20


@pytest.mark.parametrize("case", KINDS_OF_WORK, ids=lambda case: case.name)
def test_a_run_survives_power_cuts_and_disk_errors(case: Case) -> None:
    found = list(power.campaign(case, seed=1, every=EVERY))
    assert [f"{one.what}: {one.broken}" for one in found if one.broken] == []
    assert sum(one.crashes for one in found) > 1
    assert sum(one.checks for one in found) > 5


def test_what_the_disk_has_taken_is_known_row_by_row(disk: Disk, db: str) -> None:
    """Else the invariant about it would hold for nothing."""
    lives = CrashHarness(db, disk=disk)
    assert lives.run(flows.booking_places(3), id="one")
    [one] = recordings(db)
    assert sorted(lives.recorded) == [(one.key, row.seq) for row in one.rows]


def test_every_place_of_a_run_is_tried() -> None:
    trial = power.trial_of(BY_NAME["sequential"], 0)
    places = trial.places()
    assert trial.writes > 50
    assert trial.syncs > 10
    every = [
        place for seed in range(power.EVERY) for place in places[seed % power.EVERY :: power.EVERY]
    ]
    assert sorted(map(str, every)) == sorted(map(str, places))
    assert not trial.holds(Fault("power", "write", 10 * trial.writes)), (
        "what does not happen is not counted"
    )


@pytest.mark.parametrize("at", ["write", "sync"])
def test_a_power_cut_in_the_first_page_of_a_new_file_leaves_one_that_opens(at: At) -> None:
    """Torn, that page is no SQLite header; but the journal beside it says that there
    was nothing."""
    trial = power.trial_of(BY_NAME["sequential"], 0)
    trial.places()
    for trial.seed in range(24):
        assert trial.holds(Fault("power", at, 3)), f"seed {trial.seed}"


@pytest.mark.parametrize("busy", [False, True])
def test_an_engine_closes_also_when_its_disk_fails(
    *, busy: bool, disk: Disk, db: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it can't say to the store, others see: its process is gone, or its lease runs out."""
    lives = CrashHarness(db, disk=disk)

    async def main() -> int:
        async with lives.engine() as engine:
            result: int = await engine.run(flows.patient(4), id="one")
            if busy:
                await engine.start(flows.approval(), id="two")
            lives.dead.append(engine._scheduler.owner)
            disk.fault = Fault("full", "write", disk.writes + 1, 1000)
        return result

    assert lives.run(main()) == 11
    assert "is full" in " ".join(caplog.messages)
    lives.disk = None
    assert lives.run(flows.approval(), id="two") == "too late"


@pytest.mark.parametrize(
    ("synchronous", "name", "finding"),
    [
        ("off", "sequential", "Nothing is in the file"),
        ("normal", "sequential", "had begun, and that row was not on disk"),
        ("normal", "listening", "was acknowledged and is not in the file"),
        ("normal", "parent", "was recorded and is lost"),
    ],
)
def test_without_syncs_the_same_laws_find_what_is_lost(
    synchronous: str, name: str, finding: str
) -> None:
    """Else nobody would know that the harness can find anything."""
    trial = power.trial_of(BY_NAME[name], 1, synchronous=synchronous)
    cuts = [fault for fault in trial.places() if fault.kind == "power" and fault.at == "write"]
    said: list[str] = []
    for fault in cuts[-140::3]:  # the last ones belong to the closing, which says little
        try:
            trial.holds(fault)
        except (InvariantViolated, apsw.CorruptError) as error:
            said.append(str(error))
            if finding in said[-1]:
                return
    pytest.fail(f"{finding!r} is in none of {said}")


@pytest.mark.parametrize(
    ("kind", "error"),
    [("full", StoreFull), ("ioerr", StoreUnavailable), ("torn", StoreUnavailable)],
)
def test_the_engine_says_that_the_disk_fails_and_goes_on_by_itself(
    kind: Kind, error: type[Exception], disk: Disk, db: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "perdure")
    lives = CrashHarness(db, disk=disk)
    troubles: list[Any] = []

    async def main() -> int:
        async with lives.engine() as engine:
            run = await engine.start(flows.patient(4), id="one")
            disk.fault = Fault(kind, "write", disk.writes + 1, 3)
            with pytest.raises(error):
                await engine.start(flows.patient(5), id="two")
            troubles.append(type(engine._parts().writer.last_error))
            result: int = await run.result()
            troubles.append(engine._parts().writer.last_error)
            assert await engine.run(flows.doubles(2), id="two") == [0, 2]
            return result

    assert lives.run(main()) == 11
    assert troubles == [error, None]
    assert disk.failed == 3
    said = " ".join(caplog.messages)
    assert "does not take writes, trying again until it does" in said
    assert "the store takes writes again" in said

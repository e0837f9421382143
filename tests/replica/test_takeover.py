"""Several engines, one after another, on one machine and on others: what each finds, uses, sets
aside and leaves.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import apsw
import pytest

import perdure
from perdure import Engine
from perdure.errors import StoreReplaced, StoreUnavailable
from perdure.process import identity
from perdure.replica import litestream_binary, restore, verify
from perdure.replica.address import parse
from tests.replica.support import engine_of, gone, lookups, nothing_seen, two_effects
from tests.runtime.support import Victim, awaited, until

__all__ = ["nothing_seen"]  # a fixture

MACHINE = Path(__file__).with_name("machine.py")


def machine(store: Path, replica: str, durability: str = "replica") -> Victim:
    return Victim(store, replica, durability, script=MACHINE)


def ids(store: Path) -> set[str]:
    return {row[0] for row in perdure.connect(store).execute("SELECT id FROM perdure_runs")}


def set_aside(store: Path) -> list[str]:
    return [path.name for path in store.parent.iterdir() if "aside" in path.name]


def run_on(one: Victim, run_id: str) -> None:
    one.tell(f"run {run_id}")
    one.says(f"DONE run {run_id}")


def test_an_engine_that_waited_reads_the_file_again_after_its_wait(tmp_path: Path) -> None:
    """The first one dies with work that is on this disk only."""
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    with machine(store, address, "disk") as first:
        litestream = int(first.says("OPEN").split()[1])
        run_on(first, "copied")
        with machine(store, address, "disk") as second:
            second.says("WAITS")
            os.kill(litestream, signal.SIGSTOP)
            run_on(first, "on-this-disk")
            first.process.kill()
            second.says("OPEN")
            assert ids(store) == {"copied", "on-this-disk"}
            assert not set_aside(store)


def test_two_that_wait_on_a_machine_without_a_file_take_over_from_each_other(
    tmp_path: Path,
) -> None:
    address = f"file://{tmp_path}/bucket"
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    store = tmp_path / "2" / "a.db"
    with machine(tmp_path / "1" / "a.db", address) as before:
        before.says("OPEN")
        with machine(store, address) as one, machine(store, address) as other:
            one.says("WAITS")
            other.says("WAITS")
            other.process.send_signal(signal.SIGSTOP)
            before.tell("end")
            one.says("OPEN")
            run_on(one, "x")
            one.process.kill()
            other.process.send_signal(signal.SIGCONT)
            other.says("OPEN")
            assert ids(store) == {"x"}


@awaited
async def test_two_that_begin_on_a_new_file_at_one_moment_work_one_after_the_other(
    tmp_path: Path,
) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    engines = [engine_of(store, address) for _ in range(2)]
    opening = [asyncio.create_task(engine.__aenter__()) for engine in engines]
    await asyncio.wait(opening, return_when=asyncio.FIRST_COMPLETED)
    first = opening[0].done()
    async with asyncio.timeout(60):
        await engines[not first].run(two_effects("a"), id="a")
        await engines[not first].__aexit__(None, None, None)
        await asyncio.gather(*opening)
        await engines[first].run(two_effects("b"), id="b")
    await engines[first].__aexit__(None, None, None)
    assert ids(store) == {"a", "b"}
    assert not set_aside(store)


@awaited
async def test_a_deploy_leaves_the_file_to_a_client_that_has_it_open(tmp_path: Path) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    first, second = engine_of(store, address), engine_of(store, address)
    await first.__aenter__()
    await first.run(two_effects("a"), id="a")
    async with Engine(store, execute=False) as client:
        opening = asyncio.create_task(second.__aenter__())
        await first.run(two_effects("b"), id="b")
        await first.__aexit__(None, None, None)
        await opening
        assert await (await client.start(two_effects("c"), id="c")).result() == "c-1c-2"
        await second.__aexit__(None, None, None)
    assert not set_aside(store)


@awaited
async def test_a_client_whose_file_is_set_aside_gets_an_error(tmp_path: Path) -> None:
    store, other, address = (
        tmp_path / "1" / "a.db",
        tmp_path / "2" / "a.db",
        f"file://{tmp_path}/bucket",
    )
    store.parent.mkdir()
    other.parent.mkdir()
    async with engine_of(store, address) as engine:
        await engine.run(two_effects("a"), id="a")
    async with Engine(store, execute=False, lease_ttl=0.2) as client:
        async with engine_of(other, address) as engine:
            await engine.run(two_effects("elsewhere"), id="elsewhere")
        async with engine_of(store, address) as engine:
            assert {info.id for info in await engine.runs()} == {"a", "elsewhere"}
            assert isinstance(await client.store_lost(), StoreReplaced)
    assert set_aside(store)


@awaited
async def test_runs_of_a_machine_that_is_gone_wait_for_one_lease_only(tmp_path: Path) -> None:
    """Its row as a worker came with the copy, and says nothing that the replica's lease does not
    know better.
    """
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    async with (
        engine_of(store, address, workflows=[lookups]),
        Engine(store, execute=False) as client,
    ):
        await client.start(two_effects("a"), id="a")
    db = apsw.Connection(str(store))
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.execute("UPDATE worker SET ended_ms = NULL, host = 'elsewhere/boot/pid', ttl_ms = 3600000")
    db.execute("UPDATE run SET status = 'running', owner = (SELECT max(worker) FROM worker)")
    db.close()
    assert identity.host() != "elsewhere/boot/pid"
    async with engine_of(store, address) as engine:
        assert await (await engine.get("a")).result() == "a-1a-2"


# --- what is left beside the path of a restored file ----------------------------------------------


def left_wal(store: Path) -> bytes:
    """The file is deleted, and its WAL is not."""
    store.unlink()
    Path(f"{store}-shm").unlink(missing_ok=True)
    wal = Path(f"{store}-wal").read_bytes()
    assert wal
    return wal


@awaited
async def test_a_wal_of_a_deleted_file_is_not_taken_for_the_restored_one_s(tmp_path: Path) -> None:
    store, other, address = (
        tmp_path / "1" / "a.db",
        tmp_path / "2" / "a.db",
        f"file://{tmp_path}/bucket",
    )
    store.parent.mkdir()
    other.parent.mkdir()
    async with engine_of(store, address) as engine:
        await engine.run(two_effects("a"), id="a")
    async with engine_of(other, address) as engine:
        await engine.run(two_effects("b"), id="b")
    wal = left_wal(store)
    async with engine_of(store, address) as engine:
        assert {info.id for info in await engine.runs()} == {"a", "b"}
        await engine.replica.verify()  # type: ignore[union-attr]
    assert (store.parent / "a.db.aside-epoch-0-wal").read_bytes() == wal


@awaited
async def test_a_wal_of_another_file_is_not_taken_for_the_local_one_s(tmp_path: Path) -> None:
    """A person has put an old file where a newer WAL was left."""
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    async with engine_of(store, address) as engine:
        await engine.run(two_effects("a"), id="a")
        perdure.connect(store).execute("PRAGMA query_only = 0").execute(
            "VACUUM INTO ?", (str(tmp_path / "old.db"),)
        )
        for n in range(30):
            await engine.run(two_effects(f"b{n}"), id=f"b{n}")
    shutil.copy(tmp_path / "old.db", store)
    Path(f"{store}-shm").unlink(missing_ok=True)
    async with engine_of(store, address) as engine:
        assert len(await engine.runs(limit=100)) == 31
        await engine.replica.verify()  # type: ignore[union-attr]
    assert perdure.connect(store).pragma("integrity_check") == "ok"


@pytest.mark.parametrize("side", ["-wal", "-shm", "-journal"])
@awaited
async def test_nothing_is_restored_beside_what_was_left_of_another_file(
    tmp_path: Path, side: str
) -> None:
    address, store = f"file://{tmp_path}/bucket", tmp_path / "a.db"
    async with engine_of(store, address) as engine:
        await engine.run(two_effects("a"), id="a")
    (tmp_path / f"copy.db{side}").write_bytes(b"left")
    with pytest.raises(StoreUnavailable, match=f"copy.db{side}' is there"):
        await restore.restore(parse(address), tmp_path / "copy.db")
    assert sorted(path.name for path in tmp_path.glob("*copy.db*")) == [f"copy.db{side}"]


def test_a_file_that_has_come_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    apsw.Connection(str(copy)).execute("CREATE TABLE t (a)")
    verified = verify.identity(copy)
    (tmp_path / "a.db").write_bytes(b"a client's")
    with pytest.raises(StoreUnavailable, match="has come to where"):
        verify.put_in_place(copy, str(tmp_path / "a.db"), verified)
    assert (tmp_path / "a.db").read_bytes() == b"a client's"
    shutil.copy(copy, tmp_path / "another.db")
    os.replace(tmp_path / "another.db", copy)
    with pytest.raises(StoreUnavailable, match="was replaced after it had been verified"):
        verify.put_in_place(copy, str(tmp_path / "b.db"), verified)


# --- restores of engines that were killed ---------------------------------------------------------

SLOW = """#!/bin/sh
if [ "$1" = restore ] && [ ! -e {0}/go ]; then
    echo $$ > {0}/restoring.new && mv {0}/restoring.new {0}/restoring
    while [ ! -e {0}/go ]; do sleep 0.01; done
fi
exec {1} "$@"
"""


def test_a_restore_ends_with_its_engine_and_what_it_leaves_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, address = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    with machine(store, address) as first:
        first.says("OPEN")
        run_on(first, "a")
    gone(store)
    slow = tmp_path / "litestream"
    slow.write_text(SLOW.format(tmp_path, litestream_binary.find()))
    slow.chmod(0o755)
    monkeypatch.setenv("PERDURE_LITESTREAM", str(slow))
    restoring = tmp_path / "restoring"

    @awaited
    async def killed_in_a_restore() -> None:
        with machine(store, address) as second:
            await until(restoring.exists)
            second.process.kill()
            pid = int(restoring.read_text())
            await until(lambda: (identity._stat(pid) or ["X"])[0] in ("Z", "X"))

    killed_in_a_restore()
    (left,) = (tmp_path / "a.db-replica").glob("tmp-*")
    (tmp_path / "go").touch()
    with machine(store, address) as third:
        third.says("OPEN")
        assert ids(store) == {"a"}
        assert not left.exists()
        assert len(list(tmp_path.rglob("perdure-*"))) == 2  # its own two sockets
        third.tell("end")
        third.says("DONE end")
        third.process.wait(60)
    assert not [*tmp_path.rglob("perdure-*"), *tmp_path.rglob("tmp-*")]

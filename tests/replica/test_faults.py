"""What can be wrong with a replica: at the start it is said before anything is written, later work
waits and nothing is lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from campaigns.faulty_proxy import Proxy
from campaigns.forking import Forked
from campaigns.s3_servers import BucketServer, CarelessBucketServer
from perdure import PerdureError, ReplicaUnavailable
from perdure.errors import (
    BucketUnusable,
    LitestreamUnusable,
    ReplicaDamaged,
    ReplicaMismatch,
)
from tests.replica.support import (
    SHORT_LEASE_S,
    address,
    damage,
    effects,
    engine_of,
    gone,
    nothing_seen,
    proxy,
    two_effects,
)
from tests.runtime.support import PATIENCE_S, awaited, environment, until

__all__ = ["address", "nothing_seen", "proxy"]  # fixtures


async def refused(
    store: Path, replica: str, error: type[PerdureError], words: str, **options: Any
) -> None:
    """An engine does not start, says why, and leaves nothing behind where the store would be."""
    before = sorted(store.parent.rglob("*"))
    with pytest.raises(error, match=words):
        async with engine_of(store, replica, **options):
            pass
    assert sorted(store.parent.rglob("*")) == before


# --- at the start ---------------------------------------------------------------------------------


@awaited
async def test_a_missing_bucket(tmp_path: Path, address: str) -> None:
    await refused(
        tmp_path / "a.db",
        address.replace("//perdure/", "//missing/"),
        BucketUnusable,
        "Create it first",
    )


@awaited
async def test_a_wrong_key(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    await refused(
        tmp_path / "a.db",
        address,
        BucketUnusable,
        "does not let us .*credentials come from AWS_ACCESS_KEY_ID",
    )


@pytest.mark.parametrize("what", ["read", "write", "list", "delete"])
def test_a_missing_permission(tmp_path: Path, address: str, proxy: Proxy, what: str) -> None:
    @awaited
    async def main() -> None:
        proxy.set(deny=[what])
        await refused(
            tmp_path / "a.db",
            address,
            BucketUnusable,
            f"does not let us {what}: .*It needs to read, write, list and delete",
        )

    main()


@awaited
async def test_an_unreachable_bucket(tmp_path: Path, address: str, proxy: Proxy) -> None:
    proxy.set("refuse")
    await refused(tmp_path / "a.db", address, ReplicaUnavailable, "does not answer")


@awaited
async def test_a_server_that_is_broken(tmp_path: Path, address: str, proxy: Proxy) -> None:
    proxy.set("500")
    await refused(tmp_path / "a.db", address, ReplicaUnavailable, "does not answer")


@awaited
async def test_no_litestream(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_LITESTREAM", str(tmp_path / "none"))
    await refused(
        tmp_path / "a.db", address, LitestreamUnusable, r"pip install 'perdure\[replica\]'"
    )


@awaited
async def test_a_litestream_that_is_too_old(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "litestream"
    old.write_text("#!/bin/sh\necho v0.3.13\n")
    old.chmod(0o755)
    monkeypatch.setenv("PERDURE_LITESTREAM", str(old))
    await refused(
        tmp_path / "a.db",
        address,
        LitestreamUnusable,
        "is version .*0.3.13; 0.5.17 is the oldest usable",
    )


@pytest.fixture
def careless(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BucketServer]:
    with CarelessBucketServer(tmp_path_factory.mktemp("careless")) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


@awaited
async def test_a_bucket_that_ignores_conditions_is_refused_unless_it_is_wanted(
    tmp_path: Path, careless: BucketServer
) -> None:
    await refused(
        tmp_path / "a.db",
        careless.url("p"),
        BucketUnusable,
        "is ignored.*Two machines.*say fencing=False",
    )
    async with engine_of(tmp_path / "a.db", careless.url("p"), fencing=False) as engine:
        assert await engine.run(two_effects("a"), id="a") == "a-1a-2"
    gone(tmp_path / "a.db")
    async with engine_of(tmp_path / "a.db", careless.url("p"), fencing=False) as engine:
        assert await (await engine.get("a")).result() == "a-1a-2"


@awaited
async def test_two_databases_on_one_prefix(tmp_path: Path, address: str) -> None:
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    async with engine_of(tmp_path / "1" / "a.db", address):
        pass
    async with engine_of(tmp_path / "2" / "b.db", address.replace("?", "-other?")):
        pass
    with pytest.raises(ReplicaMismatch, match="Give each database a prefix of its own"):
        async with engine_of(tmp_path / "2" / "b.db", address):
            pass
    from perdure import Engine

    async with Engine(tmp_path / "plain.db", workflows=[two_effects]) as plain:
        await plain.run(two_effects("a"), id="mine")
    before = (tmp_path / "plain.db").read_bytes()
    with pytest.raises(ReplicaMismatch, match="was never replicated"):
        async with engine_of(tmp_path / "plain.db", address):
            pass
    assert (tmp_path / "plain.db").read_bytes() == before


@awaited
async def test_rubbish_where_the_lease_is(
    tmp_path: Path, address: str, bucket: BucketServer
) -> None:
    prefix = address.partition("//perdure/")[2].partition("?")[0]
    bucket.request("PUT", f"{prefix}/lease.json", b"no lease")
    await refused(tmp_path / "a.db", address, ReplicaDamaged, "delete that object")


# --- what is copied -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_copy_that_lacks_something_is_not_trusted(tmp_path: Path, how: str) -> None:
    """In a folder, where a test can get at the objects."""

    async def main() -> None:
        async with engine_of(tmp_path / "a.db", f"file://{tmp_path}/replica") as engine:
            for n in range(20):
                await engine.run(two_effects(f"r{n}"), id=f"r{n}")

    asyncio.run(main())
    objects = sorted((tmp_path / "replica" / "000001" / "ltx").rglob("*.ltx"))
    last = max(path.name.rpartition("-")[2] for path in objects)
    for path in objects:
        if path.name.endswith(last):  # several, where it has been merged with others by now
            # Litestream restores what is before it without a word
            damage([path]) if how == "damaged" else path.unlink()
    gone(tmp_path / "a.db")

    async def again() -> None:
        async with engine_of(tmp_path / "a.db", f"file://{tmp_path}/replica"):
            pass

    with pytest.raises((ReplicaDamaged, ReplicaUnavailable), match=r"lacks|checksum|damaged"):
        asyncio.run(again())
    assert not (tmp_path / "a.db").exists()


# --- later ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drop", "cut", "cut-answers", "refuse", "500", "503"])
def test_work_goes_on_by_itself_after_a_fault_of_the_wire(
    tmp_path: Path, address: str, proxy: Proxy, fault: Any
) -> None:
    @awaited
    async def main() -> None:
        async with engine_of(tmp_path / "a.db", address, lease_ttl=SHORT_LEASE_S) as engine:
            replica = engine.replica
            assert replica is not None
            await engine.run(two_effects("before"))
            proxy.set(fault)
            start = asyncio.create_task(engine.run(two_effects("during")))
            await until(lambda: not replica.lease.held())
            seen = list(effects)
            assert "during-2" not in seen
            proxy.set()
            assert await start == "during-1during-2"
            assert replica.status().epoch == 1
            assert await engine.run(two_effects("after")) == "after-1after-2"

    main()


@awaited
async def test_credentials_that_are_withdrawn_and_given_back(
    tmp_path: Path, address: str, bucket: BucketServer
) -> None:
    async with engine_of(tmp_path / "a.db", address) as engine:
        replica = engine.replica
        assert replica is not None
        secret, bucket.secret = bucket.secret, "another"
        bucket.kill()
        bucket.start()
        start = asyncio.create_task(engine.run(two_effects("a")))
        try:
            await until(lambda: replica.barrier.last_error)
            assert effects == []
        finally:
            bucket.secret = secret
            bucket.kill()
            bucket.start()
        assert await start == "a-1a-2"


@awaited
async def test_a_wall_clock_that_jumps_changes_nothing(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = time.time_ns
    async with engine_of(tmp_path / "a.db", address, lease_ttl=SHORT_LEASE_S) as engine:
        replica = engine.replica
        assert replica is not None
        for hours in (48, -48):
            monkeypatch.setattr(
                time, "time_ns", lambda hours=hours: now_ns() + hours * 3_600 * 10**9
            )
            monkeypatch.setattr(time, "time", lambda hours=hours: now_ns() / 1e9 + hours * 3_600)
            beats = replica.lease.row.beats + 1
            while replica.lease.row.beats <= beats:  # noqa: ASYNC110
                await asyncio.sleep(0.003)
            assert replica.lease.held()
            assert await engine.run(two_effects(f"a{hours}"))


def test_a_frozen_holder_wakes_up_without_a_lease(tmp_path: Path, address: str) -> None:
    """SIGSTOP for longer than the lease; meanwhile another machine takes over. The sleeper says
    that it has lost it, and ends.
    """
    log = tmp_path / "log"
    disks = [tmp_path / "1", tmp_path / "2"]
    lives = []
    for number, disk in enumerate(disks, 1):
        disk.mkdir()
        words = [str(log), "engine", str(disk / "a.db"), address, f"life{number}", "replica"]
        command = [sys.executable, "-m", "campaigns.chaos_worker", *words]
        lives.append(Forked(command, stdin=subprocess.PIPE, env=environment()))
        while f"result life{number}" not in (log.read_text() if log.exists() else ""):
            assert lives[-1].poll() is None
            time.sleep(0.01)
        if number == 1:
            lives[0].send_signal(signal.SIGSTOP)
    lives[0].send_signal(signal.SIGCONT)
    assert lives[0].wait(PATIENCE_S) == 3
    assert "lost life1 ReplicaLeaseLost" in log.read_text()
    for life in lives:
        life.stdin.close()  # type: ignore[union-attr]
    assert lives[1].wait(PATIENCE_S) == 0


@awaited
async def test_litestream_is_started_again_whatever_kills_it(tmp_path: Path, address: str) -> None:
    async with engine_of(tmp_path / "a.db", address) as engine:
        replica = engine.replica
        assert replica is not None
        for n in range(5):
            pid = replica.copier.process.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert await engine.run(two_effects(f"r{n}")) == f"r{n}-1r{n}-2"
            assert replica.copier.process.pid != pid
        assert replica.status().restarts >= 5  # one that is too slow is replaced as well

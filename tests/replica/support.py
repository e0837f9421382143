"""What the tests of replicas share: workflows, a place of one's own in a real bucket, and what an
engine is given for it.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from campaigns.faulty_proxy import Proxy
from campaigns.s3_servers import BucketServer
from perdure import Engine, Replica, step, workflow
from perdure.replica.replicate import Replication
from perdure.replica.supervisor import Litestream
from tests.runtime.support import PATIENCE_S, until

LEASE_S = 10.0
SHORT_LEASE_S = 3.0
"""Where a test waits for its end. A request has a third of a lease for its answer: not too short
for a slow disk."""

effects: list[str] = []
"""What the world outside has seen, in order."""


@step
async def effect(name: str) -> str:
    effects.append(name)
    return name


@step(readonly=True)
async def looked_up(name: str) -> str:
    effects.append(name)
    return name


@workflow
async def two_effects(name: str) -> str:
    return await effect(f"{name}-1") + await effect(f"{name}-2")


@workflow
async def lookups(name: str, n: int) -> int:
    for i in range(n):
        await looked_up(f"{name}-{i}")
    return n


@workflow
async def long_text(size: int) -> int:
    text = "x" * size
    return len(await effect(text)) + len(await effect(text + "y"))


WORKFLOWS: list[Any] = [two_effects, lookups, long_text]


def engine_of(store: Path, replica: str, **options: Any) -> Engine:
    """An engine with a replica; options of `Replica` are taken, too."""
    names = {
        "fencing",
        "standby",
        "drill_every",
        "summary",
        "on_wait",
        "on_progress",
    } & options.keys()
    place = Replica(replica, **{name: options.pop(name) for name in names})
    defaults: dict[str, Any] = {
        "workflows": WORKFLOWS,
        "durability": "replica",
        "replica_timeout": PATIENCE_S,
    }
    return Engine(store, **{**defaults, "replica": place, "lease_ttl": LEASE_S, **options})


@contextlib.contextmanager
def hasty(*engines: Engine, seconds: float = 0.2) -> Iterator[None]:
    """Within it verbs give up soon; before and after it a slow machine may take its time."""
    controls = [engine._control for engine in engines]
    patience_s = [control._answer_s for control in controls]
    for control in controls:
        control._answer_s = seconds
    try:
        yield
    finally:
        for control, before_s in zip(controls, patience_s, strict=True):
            control._answer_s = before_s


def replica_of(engine: Engine) -> Replication:
    assert engine.replica is not None
    return engine.replica


def litestream_of(engine: Engine) -> Litestream:
    process = replica_of(engine).copier.process
    assert isinstance(process, Litestream)
    return process


def gone(store: Path) -> None:
    """The machine vanishes with its disk."""
    for path in store.parent.glob(store.name + "*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


async def in_epoch(engine: Engine, epoch: int) -> None:
    """Wait until a restore begins from this epoch or a later one."""
    await until(lambda: (replica_of(engine).lease.row.base or 0) >= epoch)


async def all_there(store: Path, replica: str, ids: set[str]) -> None:
    """The machine is gone; another one has every run as it ended."""
    gone(store)
    async with engine_of(store, replica) as engine:
        assert {info.id for info in await engine.runs(limit=1_000)} >= ids
        for run_id in ids:
            await (await engine.get(run_id)).result()


def damage(objects: Iterable[Path]) -> None:
    """Damage Litestream's objects, each once; what is damaged is not readable again by a second
    call.
    """
    for path in objects:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2 :] = b"damaged"
        path.write_bytes(raw)


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine looks at its replica and at the disk all the time, not every second."""
    monkeypatch.setattr("perdure.replica.disk_space.SIZE_EVERY", 1)
    monkeypatch.setattr("perdure.replica.replicate.WATCH_S", 0.05)


@pytest.fixture
def proxy(bucket: BucketServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A wire to the bucket that can be broken."""
    for name, value in bucket.environment().items():
        monkeypatch.setenv(name, value)
    with Proxy(bucket.port) as wire:
        yield wire


@pytest.fixture
def address(bucket: BucketServer, proxy: Proxy, request: pytest.FixtureRequest) -> str:
    """A prefix of one's own, behind the proxy."""
    name = f"{request.path.stem}-{request.node.name}"
    return bucket.url(name.replace("[", "-").replace("]", ""), port=proxy.port)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    effects.clear()

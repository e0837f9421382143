"""What an observer is called with for a replica: its lease and its confirmed rounds."""

from __future__ import annotations

from pathlib import Path

import msgspec

from perdure.replica.buckets import open_bucket
from perdure.replica.lease import NAME
from perdure.runtime.observer import Observer
from tests.replica.support import engine_of, replica_of, two_effects
from tests.runtime.support import awaited


class Recorder(Observer):
    def __init__(self) -> None:
        self.changes: list[str] = []
        self.rounds_ms: list[float] = []

    def lease_changed(self, holder: str, change: str) -> None:
        if holder == "replica":
            self.changes.append(change)

    def confirmed(self, took_ms: float) -> None:
        self.rounds_ms.append(took_ms)


@awaited
async def test_rounds_and_the_lease_are_reported(tmp_path: Path) -> None:
    seen = Recorder()
    address = f"file://{tmp_path}/bucket"
    async with engine_of(tmp_path / "a.db", address, observer=seen) as engine:
        assert seen.changes == ["taken"]
        before = len(seen.rounds_ms)
        await engine.run(two_effects("a"), id="a")
        assert len(seen.rounds_ms) > before
        assert min(seen.rounds_ms) >= 0
    assert seen.changes == ["taken", "released"]


@awaited
async def test_a_lease_that_is_lost_is_reported_and_not_released(tmp_path: Path) -> None:
    seen = Recorder()
    address = f"file://{tmp_path}/bucket"
    async with engine_of(tmp_path / "a.db", address, observer=seen) as engine:
        replica = replica_of(engine)
        thief = msgspec.structs.replace(replica.lease.row, holder="another engine", epoch=2)
        await open_bucket(replica.address).put(NAME, msgspec.json.encode(thief))
        await engine.store_lost()
    assert seen.changes == ["taken", "lost"]

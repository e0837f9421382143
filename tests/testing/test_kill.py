"""The campaign `kill`, in small: real processes on one file, killed and frozen."""

from __future__ import annotations

from pathlib import Path

from perdure.testing import kill


def test_four_processes_that_are_killed_and_frozen_lose_nothing_and_record_nothing_twice() -> None:
    found = kill.campaign(seed=3, runs=4, rounds=2, shots=5)
    print(found)
    assert found.broken is None
    assert found.crashes >= 3


def test_the_campaign_sees_what_was_recorded_twice_and_what_nobody_gave(tmp_path: Path) -> None:
    """Its own check, on a file that was tampered with."""
    import asyncio
    import random

    import apsw

    from perdure import Engine

    store = str(tmp_path / "kill.db")

    async def undisturbed() -> None:
        async with Engine(store, workflows=[kill.mixed]) as engine:
            run = await engine.start(kill.mixed(str(tmp_path), "r0", 1), id="r0")
            await run.send(0, channel="go")
            assert await run.result() == [0, 0, 0]

    asyncio.run(undisturbed())
    ground = kill._Field(store, str(tmp_path), random.Random(0))
    assert list(kill._broken_laws(ground, ["r0"], 1)) == []
    tamper = apsw.Connection(store)
    first = "SELECT min(key) FROM event WHERE kind = 'completed' AND data LIKE '\"%'"
    tamper.execute(f"UPDATE event SET data = '\"nobody\"' WHERE key = ({first})")
    tamper.execute("INSERT INTO booking VALUES ('r0', 0)")
    tamper.close()
    invented, twice = kill._broken_laws(ground, ["r0"], 1)
    assert "which no attempt of it gave" in invented
    assert twice.startswith("booked:")

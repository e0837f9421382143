"""An engine in a process of its own: `machine.py STORE REPLICA [DURABILITY]`. Lines on its standard
input say what to do.

It says WAITS when another one holds the lease, OPEN when it works, and DONE for each line: `run ID`
runs a workflow, `end` ends it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from perdure import Engine, Replica, step, workflow


@step
async def effect(name: str) -> str:
    return name


@workflow
async def two_effects(name: str) -> str:
    return await effect(f"{name}-1") + await effect(f"{name}-2")


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def main(store: str, replica: str, durability: str = "replica") -> None:
    waits: list[bool] = []

    def on_wait(row: Any, seconds: float) -> None:
        if not waits:
            say("WAITS")
        waits.append(True)

    options: dict[str, Any] = {
        "replica": Replica(replica, on_wait=on_wait),
        "durability": durability,
        "lease_ttl": 3.0,
    }
    async with Engine(store, workflows=[two_effects], **options) as engine:
        assert engine.replica is not None
        say("OPEN", engine.replica.copier.process.pid)
        while (line := await asyncio.to_thread(sys.stdin.readline)) and line != "end\n":
            await engine.run(two_effects(line.split()[1]), id=line.split()[1])
            say("DONE", line.strip())
    say("DONE", "end")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

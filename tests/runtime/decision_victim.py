"""A process to be killed while it attempts steps that ask. `decision_victim.py STORE FOLDER NAME…`
starts a run with these steps; without names it executes what there is.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from perdure import Engine, step, workflow
from tests.runtime.victim import note, say


@step(on_crash="ask")
async def ask(folder: str, name: str) -> str:
    """Waits to be killed, unless there is a file of its name."""
    note(folder, name)
    if not (Path(folder) / name).exists():
        say("HANGING", name)
        await asyncio.Event().wait()
    return name


@workflow
async def asking(folder: str, *names: str) -> list[str]:
    return list(await asyncio.gather(*(ask(folder, name) for name in names)))


WORKFLOWS = [asking]


def let_pass(folder: Path, *names: str) -> None:
    """Let the steps of these names end at once."""
    for name in names:
        (folder / name).touch()


async def main(db: str, folder: str, *names: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        if names:
            await engine.start(asking(folder, *names), id="o")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

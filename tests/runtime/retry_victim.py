"""A process to be killed around an attempt that was asked for: `retry_victim.py STORE FOLDER`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from perdure import Engine, Retry, current_step, step, workflow
from tests.runtime.victim import effects, hear, note, say

FOR_AN_HOUR = Retry(attempts=5, delay=3_600, max_delay=3_600, jitter=False)


@step(retry=FOR_AN_HOUR)
async def charge(folder: str) -> int:
    """Fails until there is a file `up`; while there is a file `hang`, waits to be killed."""
    note(folder, f"try {len(effects(folder)) + 1}")
    if (Path(folder) / "hang").exists():
        say("HANGING")
        await asyncio.Event().wait()
    if not (Path(folder) / "up").exists():
        raise ConnectionError("503")
    return current_step().attempt


@workflow
async def order(folder: str, on_crash: str = "retry") -> int:
    return await charge.options(on_crash=on_crash)(folder)  # type: ignore[arg-type]


async def main(db: str, folder: str, on_crash: str) -> None:
    async with Engine(db, workflows=[order]) as engine:
        run = await engine.start(order(folder, on_crash), id="o")
        while await run.status() != "waiting":  # noqa: ASYNC110
            await asyncio.sleep(0.003)
        say("WAITING")
        await hear()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""Replicas for the tests of the observer: made by a real engine, with Litestream's real files."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from perdure import Engine, RunFailed, receive, step, workflow
from perdure.observe.blocks import Blocks
from perdure.observe.objects import open_objects
from perdure.observe.pages import Pages
from perdure.replica import litestream_binary
from perdure.replica.address import parse


@step(readonly=True)
async def note(text: str) -> str:
    return text


@workflow
async def notes(n: int) -> int:
    for i in range(n):
        await note(f"note {i}: {'abc' * (i % 50)}")
    return n


@workflow
async def approval() -> bool:
    return await receive("approval", bool)


@workflow
async def breaks() -> None:
    raise ValueError("the timeout of the bank")


WORKFLOWS: list[Any] = [notes, approval, breaks]


def engine_at(store: Path, address: str, **options: Any) -> Engine:
    return Engine(store, workflows=WORKFLOWS, replica=address, **options)


async def some_runs(engine: Engine, name: str = "run", n: int = 20) -> None:
    """Finished ones, one that failed and one that waits."""
    await asyncio.gather(*[engine.run(notes(10 + i), id=f"{name}-{i}") for i in range(n)])
    with contextlib.suppress(RunFailed):
        await engine.run(breaks(), id=f"{name}-bad")
    await engine.start(approval(), id=f"{name}-waits")


def replicate(
    store: Path, address: str, act: Callable[[Engine], Awaitable[Any]] = some_runs, **options: Any
) -> None:
    """Make a replica with runs in it, and end in order."""

    async def main() -> None:
        async with engine_at(store, address, **options) as engine:
            await act(engine)

    with ThreadPoolExecutor(1) as thread:  # a test in a browser has a loop in its own
        thread.submit(lambda: asyncio.run(main())).result()


def pages_at(address: str, folder: str = "") -> Pages:
    objects = open_objects(parse(address))
    return Pages(objects, folder, Blocks(objects))


def restored(address: str, to: Path) -> bytes:
    """The file as Litestream itself restores it; address is that of an epoch."""
    config = to.with_suffix(".yml")
    config.write_bytes(litestream_binary.restore_settings(to, parse(address)))
    options = ["-no-expand-env", "-config", str(config), "-o", str(to)]
    command = [litestream_binary.find(), "restore", *options, str(to)]
    env = litestream_binary.environment()
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return to.read_bytes()


def all_pages(pages: Pages) -> bytes:
    """The whole database, page by page."""
    version = pages.current()
    return b"".join(pages.page(version, n + 1) for n in range(version.newest.pages))

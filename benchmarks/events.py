"""Event streams: what many of them cost at rest, and what an open page costs a run that writes.

    python benchmarks/events.py --streams 200 --rounds 7

The server is a process of its own, with the engine in it or, as `perdure ui`, beside it. An open
page is two clients that do what browsers do: one follows the list, one the run, and each gets what
has changed at most twice a second.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx
import uvicorn

from perdure import Engine, step, workflow

AT_REST_S = 20.0
TOPICS = "topic=runs&topic=counts&topic=inbox&topic=run:writes%3Frows=no"
UPDATE = {"hx-request": "true"}


@step
async def write(n: int) -> int:
    return n


@workflow
async def writes(steps: int) -> int:
    for n in range(steps):
        await write(n)
    return steps


@asynccontextmanager
async def served(engine: Engine, at: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        engine.asgi(), log_level="error", access_log=False, lifespan="off", ws="none",
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([at]))
    yield
    server.should_exit = True
    await task


def serve(path: str, execute: bool, at: socket.socket, pipe: Connection) -> None:
    """A server until the pipe says "end". It answers "cpu" with its processor time in seconds, and
    a number of steps and the id of a run with the seconds that the run took.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Engine(path, workflows=[writes], execute=execute) as engine, served(engine, at):
            pipe.send("ready")
            while (asked := await loop.run_in_executor(None, pipe.recv)) != "end":
                if asked == "cpu":
                    pipe.send(time.process_time())
                    continue
                (steps, id), began_s = asked, time.perf_counter()
                run = await engine.start(writes(steps), id=id)
                await run.result()
                pipe.send(time.perf_counter() - began_s)

    asyncio.run(main())


@contextmanager
def process(path: str, *, execute: bool) -> Iterator[tuple[str, Any]]:
    """A server in a process of its own: its address, and a function that asks it."""
    at = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{at.getsockname()[1]}"
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=serve, args=(path, execute, at, theirs))
    child.start()
    ours.recv()

    def ask(what: Any) -> Any:
        ours.send(what)
        return ours.recv()

    yield address, ask
    ours.send("end")
    child.join()


async def stream(address: str, opened: asyncio.Semaphore) -> None:
    """An event stream that is read until it is cancelled."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = f"GET /api/v1/events?{TOPICS} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"event: ")
    opened.release()
    while await reader.read(65_536):
        pass


async def at_rest(address: str, ask: Any, streams: int) -> float:
    """Percent of a core that a server takes with so many open streams and nothing to report."""
    opened = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(stream(address, opened)) for _ in range(streams)]
    for _ in range(streams):
        await opened.acquire()
    await asyncio.sleep(3)
    before_s = ask("cpu")
    await asyncio.sleep(AT_REST_S)
    used_s = ask("cpu") - before_s
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return 100 * float(used_s) / AT_REST_S


async def page(address: str, run: str) -> None:
    """The list and a run, each in a tab that asks for what has changed, until it is cancelled."""
    async with httpx.AsyncClient(base_url=address, timeout=60, headers=UPDATE) as client:
        await asyncio.gather(
            follow(client, "topic=runs&topic=inbox", ["/"]),
            follow(
                client,
                f"topic=run:{run}%3Frows=no&topic=inbox",
                [f"/runs/{run}/head"],
                f"/runs/{run}",
            ),
        )


async def follow(
    client: httpx.AsyncClient, topics: str, parts: list[str], bars: str | None = None
) -> None:
    """A tab: its parts, and for a run the bars behind those that it has, at most twice a second."""
    shown_s, last = 0.0, 0
    async with client.stream("GET", f"/api/v1/events?{topics}") as events:
        async for line in events.aiter_lines():
            if not line.startswith("data:") or time.monotonic() - shown_s < 0.5:
                continue
            shown_s = time.monotonic()
            for part in parts:
                await client.get(part)
            if bars is not None:
                found = await client.get(f"{bars}/waterfall.json?after={last}")
                last = found.json().get("last", last) if found.status_code == 200 else last


async def writing(ask: Any, address: str, steps: int, watched: bool) -> tuple[float, float]:
    """Seconds of a run, and of the processor meanwhile, with a page open or without."""
    run = f"writes-{time.time_ns()}"
    task = asyncio.create_task(page(address, run)) if watched else None
    await asyncio.sleep(0.5)
    before_s = ask("cpu")
    took_s = await asyncio.to_thread(ask, (steps, run))
    used_s = ask("cpu") - before_s
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return float(took_s), float(used_s)


async def compared(ask: Any, address: str, steps: int, rounds: int) -> str:
    """Medians without and with an open page, in turn."""
    await writing(ask, address, steps, False)
    alone, watched = [], []
    for _ in range(rounds):
        alone.append(await writing(ask, address, steps, False))
        watched.append(await writing(ask, address, steps, True))
    took_s, used_s = (statistics.median(one[at] for one in alone) for at in (0, 1))
    seen_s, cost_s = (statistics.median(one[at] for one in watched) for at in (0, 1))
    return (
        f"{steps:,} steps: {took_s:.2f} s, {seen_s:.2f} s with an open page, ratio "
        f"{seen_s / took_s:.2f}; its process used {used_s:.2f} s and {cost_s:.2f} s of a core"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--steps", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/perdure.db"
        with process(path, execute=True) as (address, ask):
            ask((100, "first"))
            for streams in (0, asked.streams):
                percent = asyncio.run(at_rest(address, ask, streams))
                print(f"{streams:4} streams at rest: {percent:5.2f} % of a core")
            print("in one process,", asyncio.run(compared(ask, address, asked.steps, asked.rounds)))
            with process(path, execute=False) as (beside, _):
                print("beside it,", asyncio.run(compared(ask, beside, asked.steps, asked.rounds)))


if __name__ == "__main__":
    main()

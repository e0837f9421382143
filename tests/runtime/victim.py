"""A process to be killed: executes the workflows below on a store. `victim.py STORE VERB …`; see
`main`.

Rules: what a step does to the world is a line in a file, written in one call, so that kill -9
leaves it whole.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from perdure import Engine, Retry, current_step, receive, step, workflow

AT_ONCE = Retry(attempts=3, delay=0)


def note(folder: str, text: str) -> None:
    """One line in the log of effects, on disk before it returns."""
    with open(Path(folder) / "effects.log", "ab", buffering=0) as file:
        file.write(f"{text}\n".encode())


def effects(folder: str | Path) -> list[str]:
    path = Path(folder) / "effects.log"
    return path.read_text().splitlines() if path.exists() else []


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def hear() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


# --- one step that the process does not survive ---------------------------------------------------


@step(retry=AT_ONCE)
async def hang_once(folder: str, name: str) -> str:
    """The first time it waits to be killed."""
    me = current_step()
    note(folder, f"{name} {me.attempt} {me.idempotency_key}")
    if len([line for line in effects(folder) if line.startswith(name)]) == 1:
        say("HANGING", name)
        await asyncio.Event().wait()
    return f"{name} done"


@workflow
async def careful(folder: str) -> list[str]:
    first = await hang_once(folder, "first")
    return [first, await hang_once(folder, "second")]


@workflow
async def asking(folder: str) -> str:
    return await hang_once.options(on_crash="ask")(folder, "asked")


@workflow
async def failing(folder: str) -> str:
    return await hang_once.options(on_crash="fail")(folder, "lost")


@step(on_crash="retry")
def suicide(folder: str, lives: int) -> str:
    """Kills its own process until that has happened `lives` times."""
    note(folder, "life")
    if len(effects(folder)) <= lives:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"survived {lives}"


@workflow
async def deadly(folder: str, lives: int) -> str:
    return await suicide(folder, lives)


# --- transactional steps --------------------------------------------------------------------------


@step(transactional=True)
def insert(db: Any, n: int, die: bool) -> int:
    db.execute("CREATE TABLE IF NOT EXISTS account (n INTEGER NOT NULL)")
    db.execute("INSERT INTO account VALUES (?)", (n,))
    if die and sys.argv[-1] != "spared":
        os.kill(os.getpid(), signal.SIGKILL)
    return n


@workflow
async def ledger(rows: int, die_at: int) -> int:
    for n in range(rows):
        await insert(n, n == die_at)
    return rows


# --- many steps, for random kills -----------------------------------------------------------------


@step(retry=AT_ONCE)
async def effect(folder: str, run: str, n: int) -> int:
    note(folder, f"{run} {n} {current_step().seq}")
    await asyncio.sleep(0)
    return n * n


@step(readonly=True)
async def look(n: int) -> int:
    return n + 1


@step
def in_thread(folder: str, run: str, n: int) -> int:
    note(folder, f"{run} {n} {current_step().seq}")
    return -n


@workflow
async def part(folder: str, run: str, n: int) -> int:
    return await effect(folder, run, n) + 1


@workflow
async def busy(folder: str, run: str, rounds: int) -> list[int]:
    """Everything at once: steps in a row and side by side, threads, timers, children, tables."""
    found: list[int] = []
    for i in range(rounds):
        found.append(await effect(folder, run, 100 * i))
        found += await asyncio.gather(*(effect(folder, run, 100 * i + k) for k in (1, 2, 3)))
        found.append(await in_thread(folder, run, 100 * i + 4))
        found.append(await look(i))
        await asyncio.sleep(0.001)
        found.append(await insert(1000 * int(run[1:]) + i, False))
        found.append(await part(folder, run, 100 * i + 5))
    return found


def expected(run: str, rounds: int) -> list[int]:
    """What `busy` returns."""
    found: list[int] = []
    for i in range(rounds):
        squares = [(100 * i + k) ** 2 for k in (0, 1, 2, 3)]
        found += [*squares, -(100 * i + 4), i + 1, 1000 * int(run[1:]) + i, (100 * i + 5) ** 2 + 1]
    return found


# --- a step that a test lets go on, process by process --------------------------------------------


@step
def held(folder: str, name: str) -> int:
    """Ends when there is a file for this process; in a thread, so that no cancel reaches it."""
    pid = os.getpid()
    note(folder, f"begin {name} {pid}")
    while not (Path(folder) / f"go-{pid}").exists():
        time.sleep(0.003)
    note(folder, f"end {name} {pid}")
    return pid


@workflow
async def handed_over(folder: str) -> list[int]:
    return [await held(folder, "one"), await held(folder, "two")]


# --- waiting --------------------------------------------------------------------------------------


@workflow
async def waiting(times: int) -> list[int]:
    return [await receive("numbers", int) for _ in range(times)]


WORKFLOWS: list[Any] = [careful, asking, failing, deadly, ledger, busy, waiting, part, handed_over]


async def execute(store: str, lease_ttl: float = 10.0) -> None:
    """Execute whatever is due until told to stop."""
    async with Engine(store, workflows=WORKFLOWS, lease_ttl=lease_ttl) as engine:
        say("OPEN", engine.path)
        await hear()


async def do(store: str, call: Any, run_id: str) -> None:
    async with Engine(store, workflows=WORKFLOWS) as engine:
        run = await engine.start(call, id=run_id)
        say("STARTED", run_id)
        say("RESULT", await run.result())


async def all_busy(store: str, folder: str, runs: int, rounds: int) -> None:
    """Start, or go on with, several runs at once, and say when each is done."""
    async with Engine(store, workflows=WORKFLOWS) as engine:
        started = [
            await engine.start(busy(folder, f"r{i}", rounds), id=f"r{i}") for i in range(runs)
        ]
        say("STARTED")
        for run in asyncio.as_completed([run.result() for run in started]):
            await run
            say("DONE")
    say("END")


def main(store: str, verb: str, *words: str) -> None:
    match verb:
        case "execute":
            asyncio.run(execute(store, *map(float, words)))
        case "busy":
            asyncio.run(all_busy(store, words[0], int(words[1]), int(words[2])))
        case "ledger":
            asyncio.run(do(store, ledger(int(words[0]), int(words[1])), "ledger"))
        case "deadly":
            asyncio.run(do(store, deadly(words[0], int(words[1])), "deadly"))
        case _:
            named: dict[str, Any] = {"careful": careful, "asking": asking, "failing": failing}
            call = named[verb](words[0])
            asyncio.run(do(store, call, verb))


if __name__ == "__main__":
    main(*sys.argv[1:])

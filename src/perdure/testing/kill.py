"""Four processes on one file, and somebody who kills and freezes them: the campaign `kill`.

Rules: the processes are real, the file is real, the signals are SIGKILL and SIGSTOP; when and whom the seed decides, by the
progress that the work itself makes; a frozen process is woken only after others have buried it. The engine of the campaign
executes nothing: it starts runs, sends messages twice under one key, and waits for results that others work out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from perdure import Engine, Retry, RunBlocked, connect, current_step, receive, step, workflow
from perdure.store import queries
from perdure.testing.campaign import Count

PROCESSES = 4
LEASE_S = 0.8
RUNS, ROUNDS, SHOTS = 8, 4, 10
PATIENCE_S = 120.0
LOCKED_MS = 1_000
Q = queries.load("kill.sql", "perdure.testing")
_ONCE_MORE = Retry(attempts=3, delay=0)


def _note(folder: str, *words: object) -> None:
    """One line, in one write, so that a kill leaves it whole."""
    with open(Path(folder) / "effects.log", "ab", buffering=0) as log:
        log.write((" ".join(map(str, words)) + "\n").encode())


def _lines(folder: str) -> list[list[str]]:
    path = Path(folder) / "effects.log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


# --- what they work on ----------------------------------------------------------------------------


@step(retry=_ONCE_MORE)
async def effect(folder: str, n: int) -> str:
    """Gives a token that tells afterwards which of its attempts was recorded."""
    token, me = uuid.uuid4().hex, current_step()
    _note(folder, "begin", me.run_id, me.seq, token)
    await asyncio.sleep(0.002)
    _note(folder, "end", me.run_id, me.seq, token)
    return token


@step(retry=_ONCE_MORE)
def in_a_thread(folder: str, n: int) -> str:
    token, me = uuid.uuid4().hex, current_step()
    _note(folder, "begin", me.run_id, me.seq, token)
    _note(folder, "end", me.run_id, me.seq, token)
    return token


@step(transactional=True)
def book(db: Any, name: str, n: int) -> int:
    db.execute(Q["make_table"])
    db.execute(Q["book"], (name, n))
    return n


@workflow
async def part(folder: str, n: int) -> int:
    await effect(folder, n)
    return n


@workflow
async def mixed(folder: str, name: str, rounds: int) -> list[int]:
    """Steps in a row, side by side and in threads, a timer, a message, a table and a child, over and over."""
    found: list[int] = []
    for n in range(rounds):
        await effect(folder, n)
        await asyncio.gather(effect(folder, n), in_a_thread(folder, n), effect(folder, n))
        await asyncio.sleep(0.005)
        found += [await book(name, n), await receive("go", int), await part(folder, n)]
    return found


async def _work(store: str) -> None:
    async with Engine(store, workflows=[mixed, part], lease_ttl=LEASE_S):
        await asyncio.Event().wait()


# --- who disturbs them ----------------------------------------------------------------------------


@dataclass
class _Field:
    """The processes on one file."""

    store: str
    folder: str
    dice: random.Random
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    kills: int = 0
    freezes: int = 0
    retries: int = 0

    def add(self) -> None:
        command = [sys.executable, "-m", "perdure.testing.kill", self.store]
        source = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
        self.processes.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL))

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.processes.remove(process)

    async def shoot(self) -> None:
        """Kill one of them and put another in its place, or freeze one until the others take it for dead."""
        victim = self.dice.choice(self.processes)
        if self.dice.random() < 0.7:
            self.kill(victim)
            self.add()
            self.kills += 1
        elif self._worker_of(victim.pid) is not None:
            victim.send_signal(signal.SIGSTOP)
            while self._worker_of(victim.pid) is not None and not self._locked():  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.02)
            self.freezes += self._worker_of(victim.pid) is None  # else it was in the middle of a transaction, and nobody can write
            victim.send_signal(signal.SIGCONT)

    def _locked(self) -> bool:
        """Whether somebody has kept the file's write lock for a whole second."""
        with contextlib.closing(apsw.Connection(self.store, flags=apsw.SQLITE_OPEN_READWRITE)) as db:
            db.set_busy_timeout(LOCKED_MS)
            try:
                db.execute("BEGIN IMMEDIATE")
                db.execute("ROLLBACK")
            except apsw.BusyError:
                return True
        return False

    def _worker_of(self, pid: int) -> int | None:
        with contextlib.closing(connect(self.store)) as reader:
            row = reader.execute(Q["living"], (pid,)).fetchone()
        return None if row is None else int(row[0])


async def _disturbed(ground: _Field, runs: int, rounds: int, shots: int) -> list[str]:
    """What went wrong."""
    for _ in range(PROCESSES):
        ground.add()
    names = [f"r{n}" for n in range(runs)]
    async with Engine(ground.store, execute=False) as client:
        for name in names:
            await client.start(mixed(ground.folder, name, rounds), id=name)
            for n in range(rounds):
                for _ in range(2):
                    await client.send(name, n, channel="go", key=f"go-{n}")
        lines = runs * rounds * 10
        results = asyncio.gather(*(_result(client, name, ground) for name in names))
        for point in sorted(ground.dice.sample(range(lines), shots)):
            while len(_lines(ground.folder)) < point and not results.done():  # noqa: ASYNC110  # what happens is in other processes
                await asyncio.sleep(0.005)
            if not results.done():
                await ground.shoot()
        async with asyncio.timeout(PATIENCE_S):
            found = await results
        facts = await client.doctor()
    expected = [value for n in range(rounds) for value in (n, n, n)]
    wrong = [f"{name} gave {result}" for name, result in zip(names, found, strict=True) if result != expected]
    wrong += [f"doctor: {complaint}" for complaint in facts["stuck"]] + ([] if facts["integrity"] == "ok" else ["the file is damaged"])
    return wrong + list(_broken_laws(ground, names, rounds))


async def _result(client: Engine, name: str, ground: _Field) -> Any:
    while True:
        try:
            return await (await client.get(name)).result()
        except RunBlocked:  # three deaths in a row without getting on: a person looks at it and lets it go on
            ground.retries += 1
            await client.retry(name)


def _broken_laws(ground: _Field, names: list[str], rounds: int) -> Iterator[str]:
    ended = {(run, int(seq), token) for word, run, seq, token in _lines(ground.folder) if word == "end"}
    with contextlib.closing(connect(ground.store)) as reader:
        yield from (f"{run} has two outcomes of row {ref}" for run, ref in reader.execute(Q["recorded_twice"]))
        for run, seq, token in reader.execute(Q["tokens"]):
            if (run, seq, token) not in ended:
                yield f"{run} row {seq}: recorded is {token}, which no attempt of it gave"
        booked = reader.execute(Q["booked"]).fetchall()
    if booked != sorted((name, n) for name in names for n in range(rounds)):
        yield f"booked: {booked}"


def kill(seeds: range) -> Iterator[Count]:
    """Four processes on one file under SIGKILL and SIGSTOP, at moments that the seed chooses."""
    for seed in seeds:
        yield campaign(seed)


def campaign(seed: int, runs: int = RUNS, rounds: int = ROUNDS, shots: int = SHOTS) -> Count:
    """One file, until all its runs have ended."""
    with tempfile.TemporaryDirectory(prefix="perdure-kill-") as folder:
        ground = _Field(str(Path(folder) / "kill.db"), folder, random.Random(seed))
        found = Count(f"kill, seed {seed}")
        try:
            wrong = asyncio.run(_disturbed(ground, runs, rounds, shots))
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        finally:
            for process in list(ground.processes):
                ground.kill(process)
        found.what += f": {ground.kills} kills, {ground.freezes} freezes, {ground.retries} retries"
        found.checks, found.crashes = len(_lines(folder)), ground.kills + ground.freezes
        found.broken = f"{found.what}: {'; '.join(wrong)}" if wrong else None
        return found


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1]))

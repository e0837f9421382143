"""The campaign of requests: askers and workers of one file are killed while one asks the other.

Rules: an asker writes down each reply that it gets, in one write, and asks again for what it has no
reply to; keys are asked by several askers, also after they have a reply. A killed process is
replaced at once. Afterwards `judge` compares what askers were told with the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from campaigns import environment
from campaigns.forking import Forked
from campaigns.main import Count
from perdure import (
    Engine,
    PerdureError,
    RequestRefused,
    RequestTimeout,
    RunBlocked,
    continue_as,
    expose,
    receive_request,
    step,
    workflow,
)
from perdure.core import events as ev
from perdure.store.sqlite.connection import connect
from perdure.testing import invariants
from perdure.testing.recording import Recording, recordings

LEASE_S = 1.0
ASK_S = 3.0
CALM_S_MAX = 90.0
KILLS_MIN = 2  # also where a slow machine takes seconds for each
SECONDS = 6.0
RUNS, KEYS, WORKERS, ASKERS = 3, 180, 2, 3
IN_A_GENERATION = 8


# --- what the processes do ------------------------------------------------------------------------


@step
async def stamped(number: int) -> int:
    """A step before a reply, so that workers die in the middle of one."""
    await asyncio.sleep(random.random() / 50)
    return number


@workflow
async def teller(count: int) -> None:
    """Numbers the requests that it replies to, from 1; every seventh value is refused."""
    for _ in range(IN_A_GENERATION):
        request = await receive_request("number", int)
        if request.value % 7 == 0:
            request.refuse(f"{request.value} after {count}")
            continue
        count += 1
        expose(count=count)
        request.reply([request.value, await stamped(count)])
    continue_as(teller(count))


async def work(db: str) -> None:
    """A worker, until it is killed or told to end."""
    async with Engine(db, workflows=[teller], lease_ttl=LEASE_S):
        await asyncio.to_thread(sys.stdin.readline)


async def ask_all(db: str, log: str, seed: int) -> None:
    """An asker: in an order of its own, until it has a reply to every key, and then once more."""
    dice, file = random.Random(seed), os.open(log, os.O_WRONLY | os.O_APPEND)
    async with Engine(db, execute=False, name=f"asker {seed}") as engine:
        for keys in ([*range(KEYS)], dice.sample(range(KEYS), KEYS // 4)):
            left = set(keys)
            while left:
                some = dice.sample(sorted(left), min(8, len(left)))
                told = await asyncio.gather(*(_ask(engine, number) for number in some))
                for number, reply in zip(some, told, strict=True):
                    if reply is not None:
                        os.write(file, msgspec.json.encode([number, reply]) + b"\n")
                        left.discard(number)


async def _ask(engine: Engine, number: int) -> Any:
    """The reply to a request; None where there is none yet."""
    run_id = f"teller-{number % RUNS}"
    try:
        return await engine.ask(
            run_id, number, channel="number", key=f"k{number}", timeout=ASK_S, start=teller(0)
        )
    except RequestRefused as error:
        return error.reason
    except RequestTimeout:
        return None
    except RunBlocked:  # three kills without progress: a person would do the same
        with contextlib.suppress(PerdureError):
            await engine.retry(run_id)
        return None


# --- the judge ------------------------------------------------------------------------------------

Told = list[tuple[int, Any]]
"""What askers were told: number of the request, and its reply or the reason of its refusal."""


def judge(told: Told, runs: Sequence[Recording], requests: Iterable[tuple[str, str]]) -> list[str]:
    """What is wrong; `requests` are keys and states of all requests in the file."""
    broken = []
    replies: dict[int, set[bytes]] = defaultdict(set)
    for number, reply in told:
        replies[number].add(msgspec.json.encode(reply))
    broken += [f"k{n} got {len(r)} replies: {sorted(r)}" for n, r in replies.items() if len(r) > 1]
    broken += [f"k{number} got no reply" for number in range(KEYS) if number not in replies]
    states = Counter(requests)
    broken += [f"{key} is {state} in the file" for key, state in states if state == "open"]
    broken += [f"{one} is {times} requests" for one, times in states.items() if times > 1]
    for run in runs:
        try:
            invariants.in_order(run.rows)
            invariants.recorded_once(run.rows)
            invariants.replied_once(run.rows)
        except invariants.InvariantViolated as error:
            broken.append(f"{run.id}: {error}")
    recorded = _recorded(runs)
    broken += [
        f"k{number} was told {told_!r} and the file has {recorded.get(number)}"
        for number, all_told in replies.items()
        for told_ in all_told
        if recorded.get(number) != [told_]
    ]
    return broken + _numbers(told)


def _recorded(runs: Sequence[Recording]) -> dict[int, list[bytes]]:
    """The replies in the histories, by the value of their request."""
    found: dict[int, list[bytes]] = defaultdict(list)
    for run in runs:
        asked = {
            row.seq: msgspec.json.decode(_data(row))["value"]
            for row in run.rows
            if row.kind == ev.REQUEST
        }
        for row in run.rows:
            if row.kind in ev.REPLIES and row.ref is not None:
                found[asked[row.ref]].append(msgspec.json.encode(msgspec.json.decode(_data(row))))
    return found


def _data(row: ev.Event) -> bytes:
    return row.data if isinstance(row.data, bytes) else b"null"


def _numbers(told: Told) -> list[str]:
    """Each teller has numbered its replies from 1 without gaps: no request was taken twice."""
    numbers: dict[int, dict[int, int]] = defaultdict(dict)
    for number, reply in told:
        if isinstance(reply, list):
            numbers[number % RUNS][number] = reply[1]
    return [
        f"teller-{run} gave the numbers {sorted(given.values())}"
        for run, given in numbers.items()
        if sorted(given.values()) != [*range(1, len(given) + 1)]
    ]


# --- the campaign ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Asked:
    """What one campaign did and found."""

    seed: int
    kills: int = 0
    told: int = 0
    rows: int = 0
    broken: list[str] = field(default_factory=list)


class _Crew:
    """The processes of one seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.db, self.log = str(folder / "asks.db"), str(folder / "asks.log")
        Path(self.log).touch()
        self._seed, self._spawned = seed, 0
        self._said = (folder / "said.txt").open("ab")
        self.workers = [self.worker() for _ in range(WORKERS)]
        self.askers = [self.asker() for _ in range(ASKERS)]

    def worker(self) -> subprocess.Popen[bytes]:
        return self._spawn("work", self.db)

    def asker(self) -> subprocess.Popen[bytes]:
        self._spawned += 1
        return self._spawn("ask", self.db, self.log, str(self._seed * 1_000 + self._spawned))

    def _spawn(self, *words: str) -> subprocess.Popen[bytes]:
        return Forked(
            [sys.executable, "-m", "campaigns.asks", *words],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said, env=environment(),
        )  # fmt: skip

    def kill_one(self, dice: random.Random) -> None:
        """Kill one process and put another one in its place; an asker that is done stays away."""
        of = dice.choice([self.workers, self.askers])
        place = dice.randrange(len(of))
        if of is self.askers and of[place].poll() == 0:
            return
        _end(of[place])
        of[place] = self.worker() if of is self.workers else self.asker()

    def end(self) -> None:
        for process in [*self.workers, *self.askers]:
            _end(process)
        self._said.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def ask_campaign(seed: int, seconds: float = SECONDS, folder: Path | None = None) -> Asked:
    """One seed: kills for so many seconds, then calm until every asker has its replies."""
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perdure-")))
        dice, done, crew = random.Random(seed), Asked(seed), _Crew(folder, seed)
        try:
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s or done.kills < KILLS_MIN:
                time.sleep(dice.choice([0.1, 0.3, 0.6]))
                crew.kill_one(dice)
                done.kills += 1
            _calm(crew, done)
        finally:
            crew.end()
        _judged(crew, done)
        return done


def _calm(crew: _Crew, done: Asked) -> None:
    for asker in crew.askers:
        try:
            code = asker.wait(CALM_S_MAX)
        except subprocess.TimeoutExpired:
            done.broken.append("an asker waits for ever")
        else:
            done.broken += [f"an asker ended with {code}"] if code else []


def _judged(crew: _Crew, done: Asked) -> None:
    lines = Path(crew.log).read_bytes().splitlines()
    told = [(number, reply) for number, reply in map(msgspec.json.decode, lines)]
    runs = recordings(crew.db)
    with contextlib.closing(connect(crew.db)) as db:
        requests = [*db.execute("SELECT key, state FROM perdure_requests")]
    done.told, done.rows = len(told), sum(len(run.rows) for run in runs)
    done.broken += judge(told, runs, [(str(key), str(state)) for key, state in requests])


def asks(seeds: range) -> Iterator[Count]:
    """Askers and workers are killed by SIGKILL: each key has one reply, whoever asks, how often."""
    for seed in seeds:
        done = ask_campaign(seed)
        yield Count(
            f"asks, seed {seed}", done.told + done.rows, done.kills, "; ".join(done.broken) or None
        )


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    asyncio.run(work(*given) if what == "work" else ask_all(given[0], given[1], int(given[2])))

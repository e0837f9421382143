"""A worker of the campaign of queues: `python -m campaigns.queue_worker STORE LOG LEASE_S SETUP`.

Rules: a step notes in the outside log whose place it has: its own, or that of its run. A result is
a number that is known beforehand. SIGUSR2 moves this process's clock, where the setup says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import random
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from campaigns import queue_log
from campaigns.kill_worker import Job
from campaigns.queue_judge import NO_KEY, Bounds
from perdure import (
    Call,
    Engine,
    Queue,
    Rate,
    Retry,
    RetryAfter,
    continue_as,
    current_step,
    step,
    workflow,
)
from perdure.api import verbs
from perdure.process.clock import SystemClock

AGAIN = Retry(attempts=5, delay=0.01, jitter=False)
HELD_BACK_S = 0.15
WEIGHT_MAX = 3
"""What `spend` charges is never less than the weight, so that it gives no tokens back."""
SKEW_MS_MAX = 3000
log_file: int = -1


class Given(msgspec.Struct, frozen=True):
    """A queue of the campaign. `runs`: whole runs are in it, else steps. `ordered`: the order of
    its admissions is judged.
    """

    name: str
    concurrency: int | None = None
    per_worker: int | None = None
    key_concurrency: int | None = None
    rate: tuple[int, float, int] | None = None
    key_rate: tuple[int, float, int] | None = None
    runs: bool = False
    ordered: bool = False

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.concurrency, self.per_worker, self.key_concurrency)

    @property
    def burst(self) -> int:
        """The greatest weight that it can admit."""
        return min((rate[2] for rate in (self.rate, self.key_rate) if rate), default=WEIGHT_MAX)

    def limits(self) -> dict[str, Any]:
        """As `Queue` and `Engine.queue` take them."""
        return {
            "concurrency": self.concurrency,
            "per_worker": self.per_worker,
            "key_concurrency": self.key_concurrency,
            "rate": Rate(*self.rate) if self.rate else None,
            "key_rate": Rate(*self.key_rate) if self.key_rate else None,
        }


class Setup(msgspec.Struct, frozen=True):
    """What all processes of a seed agree on."""

    queues: list[Given]
    skewed: bool = False


@contextlib.contextmanager
def noted(queue: str, key: str, *, run: bool) -> Iterator[None]:
    """Note that this attempt begins, and that it ends or fails."""
    me: Any = verbs._attempt.get()
    info = current_step()
    holder = f"{info.run_id}" if run else f"{info.run_id}.{info.seq}"
    facts = (me._host.owner, queue, key or NO_KEY, holder, f"{info.run_id}.{info.seq}")
    queue_log.note(log_file, queue_log.BEGUN, *facts)
    try:
        yield
    except BaseException:
        queue_log.note(log_file, queue_log.FAILED, *facts)
        raise
    queue_log.note(log_file, queue_log.ENDED, *facts)


@step(retry=AGAIN)
async def call(queue: str, key: str, ms: int, how: str) -> int:
    """A step that has a place of its own."""
    with noted(queue, key, run=False):
        await asyncio.sleep(ms / 1000)
        if how == "flaky" and current_step().attempt == 1:
            raise ValueError("not at the first attempt")
        if how == "held back" and current_step().attempt == 1:
            raise RetryAfter(HELD_BACK_S)
        if how == "spends":
            await current_step().spend(queue, WEIGHT_MAX)
    return 1


@step(retry=AGAIN)
def call_in_thread(queue: str, key: str, ms: int) -> int:
    """The same in a thread, which goes on to its end when it is cancelled."""
    with noted(queue, key, run=False):
        time.sleep(ms / 1000)
    return 1


@step(retry=AGAIN)
async def within(queue: str, key: str, ms: int) -> int:
    """A step without a place of its own, in a run that has one."""
    with noted(queue, key, run=True):
        await asyncio.sleep(ms / 1000)
    return 1


def made(queue: str, key: str, ms: int, how: str, weight: int) -> Call[int]:
    """A call of a step with a place."""
    options: dict[str, Any] = {"queue": queue, "key": key or None, "weight": weight}
    if how == "thread":
        return call_in_thread.options(**options)(queue, key, ms)
    return call.options(**options)(queue, key, ms, how)


@workflow
async def row(queue: str, key: str, ms: int, hows: list[str], weight: int) -> int:
    """Steps with places, one after the other."""
    return sum([await made(queue, key, ms, how, weight) for how in hows])


@workflow
async def fan(queue: str, keys: list[str], ms: int, how: str, weight: int) -> int:
    """Steps with places, all at once."""
    return sum(await asyncio.gather(*(made(queue, key, ms, how, weight) for key in keys)))


@workflow
async def resident(queue: str, key: str, ms: int, steps: int, nap_s: float) -> int:
    """A run with a place, which it also has while it is parked."""
    total = 0
    for number in range(steps):
        if number and nap_s:
            await asyncio.sleep(nap_s)
        total += await within(queue, key, ms)
    return total


@workflow
async def relay(queue: str, key: str, left: int, total: int) -> int:
    """A run with a place, which its successors take over."""
    total += await within(queue, key, 2)
    if left:
        await continue_as(relay(queue, key, left - 1, total))
    return total


@workflow
async def parent(queue: str, key: str, children: int, ms: int) -> int:
    """Children that are runs with places; their parent has none."""
    child = resident.options(queue=queue, key=key or None)
    return sum(await asyncio.gather(*(child(queue, key, ms, 2, 0.0) for _ in range(children))))


@workflow
async def endless(queue: str, key: str, how: str) -> None:
    """Is cancelled at some time, and cleans up with a step that has a place."""
    try:
        while True:
            await made(queue, key, 20, how, 1)
    finally:
        await made(queue, key, 1, "", 1)


@workflow
async def endless_resident(queue: str, key: str) -> None:
    """The same, where the run has the place."""
    try:
        while True:
            await within(queue, key, 10)
    finally:
        await within(queue, key, 1)


WORKFLOWS: list[Any] = [row, fan, resident, relay, parent, endless, endless_resident]


def setup(rng: random.Random) -> Setup:
    """The queues of a seed: always some with a limit of 1, and some of each kind of limit."""
    pick = rng.choice
    every = [
        Given("one", concurrency=1),
        Given("one-runs", concurrency=1, runs=True),
        Given("ordered", concurrency=pick([1, 2]), ordered=True),
        Given("ordered-runs", concurrency=pick([1, 3]), runs=True, ordered=True),
        Given("few", concurrency=pick([2, 3, 5]), per_worker=pick([1, 2])),
        Given("few-runs", concurrency=pick([2, 4]), per_worker=pick([1, 2]), runs=True),
        Given("keyed", concurrency=pick([None, 4]), key_concurrency=pick([1, 2])),
        Given("keyed-runs", concurrency=3, key_concurrency=1, runs=True),
        Given("rated", rate=(pick([20, 50]), 1.0, pick([3, 8])), concurrency=pick([None, 4])),
        Given("rated-runs", rate=(pick([20, 30]), 1.0, 4), runs=True),
        Given("key-rated", key_rate=(pick([10, 20]), 1.0, pick([3, 4]))),
    ]
    kept = rng.sample(every[4:], rng.randint(2, 4))
    return Setup([*every[:4], *kept], skewed=rng.random() < 0.3)


def job(rng: random.Random, number: int, queues: list[Given]) -> Job:
    """One run of a random kind, in or at a random queue, for a random key, of a random priority
    and weight.
    """
    given = rng.choice(queues)
    name, key = given.name, rng.choice(["", "a", "a", "b", "c"])
    ms, steps, run = rng.choice([0, 1, 5, 20, 60]), rng.randint(1, 4), f"j{number}"
    weight, priority = rng.randint(1, min(WEIGHT_MAX, given.burst)), rng.choice([0, 0, 1, 5, -3])
    options: dict[str, Any] = {"priority": priority}
    if given.runs:
        at_parent = rng.random() < 0.15
        options |= {} if at_parent else {"queue": name, "key": key or None, "weight": weight}
        if at_parent:
            return Job(run, parent(name, key, steps, ms), 2 * steps, options=options)
        match rng.randrange(5):
            case 0:
                return Job(run, relay(name, key, steps, 0), steps + 1, options=options)
            case 1:
                return Job(run, endless_resident(name, key), None, options=options)
        nap_s = rng.choice([0.0, 0.05])
        return Job(run, resident(name, key, ms, steps, nap_s), steps, options=options)
    hows = ["", "", "", "flaky", "thread", "spends", *(["held back"] * (not given.ordered))]
    if rng.random() < 0.12:
        return Job(run, endless(name, key, rng.choice(["", "thread"])), None, options=options)
    if rng.random() < 0.4:
        keys = [rng.choice(["", "a", "b", "c"]) for _ in range(2 * steps)]
        return Job(run, fan(name, keys, ms, rng.choice(hows), weight), len(keys), options=options)
    chosen = [rng.choice(hows) for _ in range(steps)]
    return Job(run, row(name, key, ms, chosen, weight), steps, options=options)


def skew(rng: random.Random) -> None:
    """Move this process's clock at once, forward or back."""
    by_ms = rng.randint(-SKEW_MS_MAX, SKEW_MS_MAX)

    def now_ms(self: SystemClock) -> int:
        return time.time_ns() // 1_000_000 + by_ms

    SystemClock.now_ms = now_ms  # type: ignore[method-assign]


async def work(store: str, lease_s: float, given: Setup) -> None:
    """Execute whatever is due until standard input ends."""
    queues = [Queue(one.name, **one.limits()) for one in given.queues]
    async with Engine(store, workflows=WORKFLOWS, queues=queues, lease_ttl=lease_s):
        await asyncio.to_thread(sys.stdin.read)


def main(store: str, log: str, lease_s: str, given: str) -> None:
    global log_file
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # what a process hangs on, for those who look into it
    rng = random.Random()
    signal.signal(signal.SIGUSR2, lambda *_: skew(rng))
    log_file = queue_log.open_log(log)
    asyncio.run(work(store, float(lease_s), msgspec.json.decode(given, type=Setup)))


if __name__ == "__main__":
    main(*sys.argv[1:])

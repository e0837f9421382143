"""The campaign of queues: processes on one file, killed and frozen while runs and steps wait in
queues with limits.

Rules: as in the kill campaign the seed chooses what happens to which process, and the progress of
the log chooses when. Runs arrive while others are claimed, with random queues, keys, priorities
and weights; runs and queues are paused and resumed, runs cancelled, clocks of workers moved. Two
logs are judged when everybody is gone: one from outside, which survives a kill, and one that
triggers of the file write from inside (`queue_checks`). While it runs, nobody may wait where there
is room.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import apsw
import msgspec

from campaigns import queue_checks, queue_log, queue_worker
from campaigns.kill import FROZEN_S_MAX, LEASE_S, Campaign, Killed, Worker
from campaigns.kill_worker import Job
from campaigns.main import Count
from perdure.store.sqlite.connection import connect

SECONDS = 8.0
STUCK_S = FROZEN_S_MAX + 10.0
"""For how long a place may wait with room for it and a worker that was not hit: leases have expired
by then, and the machine may have a load.
"""
LOOK_S = 0.2


@dataclass(slots=True)
class Queued(Killed):
    """What one campaign did and found."""

    pauses: int = 0
    holds: int = 0
    admissions: int = 0
    in_flight: int = 0
    cut: int = 0
    waited_most_s: float = 0.0


class QueueCampaign(Campaign):
    """One seed's campaign on a file in a folder."""

    line_bytes = 80

    def __init__(self, seed: int, seconds: float, processes: int, folder: Path) -> None:
        super().__init__(seed, seconds, processes, folder)
        self.done: Queued = Queued(seed)
        self.setup = queue_worker.setup(self.rng)
        self._loose: set[str] = set()
        self._paused: set[str] = set()
        self._paused_queues: set[str] = set()

    async def _prepare(self) -> None:
        own = apsw.Connection(self.db)
        own.set_busy_timeout(10_000)
        for name, text in queue_checks.Q.items():
            if name.startswith(("make_", "see_")):
                own.execute(text)
        own.close()
        for given in self.setup.queues:
            await self._clients[0].queue(given.name, **given.limits())
        self._watching = asyncio.create_task(self._watch())

    def _spawn(self) -> Worker:
        setup = msgspec.json.encode(self.setup).decode()
        return self._worker("campaigns.queue_worker", self.db, self.log, str(LEASE_S), setup)

    def _acts(self) -> dict[Callable[[], Awaitable[None]], int]:
        return {
            self._start: 60,
            self._cancel: 8,
            self._kill: 6,
            self._freeze: 4,
            self._retry: 2,
            self._pause: 4,
            self._resume: 5,
            self._pause_queue: 2,
            self._resume_queue: 4,
            self._skew: 3 if self.setup.skewed else 0,
        }

    def _mark(self, mark: str, worker: Worker) -> None:
        queue_log.note(self._marks, mark, pid=worker.pid)

    def _new_jobs(self) -> list[Job]:
        return [queue_worker.job(self.rng, self._number, self.setup.queues)]

    # --- what people do to runs and queues --------------------------------------------------------

    def _given_back(self, run: str) -> None:
        self._loose.add(run)

    async def _pause(self) -> None:
        if self._open:
            run = self.rng.choice(sorted(self._open))
            self._given_back(run)
            self._paused.add(run)
            self.done.pauses += 1
            await self._insist(lambda engine: engine.pause(run))

    async def _resume(self) -> None:
        if self._paused:
            run = self.rng.choice(sorted(self._paused))
            await self._insist(lambda engine: engine.resume(run))
            self._paused.discard(run)

    async def _pause_queue(self) -> None:
        await self._set_paused(self.rng.choice(self.setup.queues).name, True)

    async def _resume_queue(self) -> None:
        if self._paused_queues:
            await self._set_paused(self.rng.choice(sorted(self._paused_queues)), False)

    async def _set_paused(self, queue: str, paused: bool) -> None:
        (self._paused_queues.add if paused else self._paused_queues.discard)(queue)
        self.done.pauses += paused
        await self._insist(lambda engine: engine.queue(queue, paused=paused))

    # --- waiting where there is room --------------------------------------------------------------

    async def _watch(self) -> None:
        """Never stuck below the limit: a place that could be admitted each time that we look, for
        longer than any lease takes to expire, has been forgotten. Times without a worker that could
        take it do not count.
        """
        reader, since_s, lives_s = connect(self.db), dict[int, float](), dict[int, float]()
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                now_s = time.monotonic()
                found = {
                    place: facts
                    for place, *facts in reader.execute(
                        queue_checks.Q["could_be_admitted"], (time.time_ns() // 1_000_000,)
                    )
                }
                since_s = {place: since_s.get(place, now_s) for place in found}
                joined = {pid for (pid,) in reader.execute(queue_checks.Q["joined"])}
                here = {one.pid for one in self._crew if not one.frozen and not one.ended} & joined
                lives_s = {pid: lives_s.get(pid, now_s) for pid in here}
                for place, begin_s in since_s.items():
                    first_s = max(begin_s, min(lives_s.values(), default=now_s))
                    self.done.waited_most_s = max(self.done.waited_most_s, now_s - first_s)
                    if now_s - first_s > STUCK_S:
                        self.done.broken.append(f"stuck below the limit: {found[place]}")
                        return
        finally:
            reader.close()

    async def _calm(self) -> None:
        """Everything goes on again, and every run has to come to its end."""
        for queue in sorted(self._paused_queues):
            await self._set_paused(queue, False)
        while self._paused:
            await self._resume()
        await super()._calm()
        if not self._watching.done():
            self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching

    def check(self) -> Queued:
        """The invariants, when everybody is gone."""
        seen, lines = queue_checks.Seen(), queue_log.read_log(self.log)
        reader = connect(self.db)
        log = queue_checks.rows(reader)
        reader.close()
        ended_ns = queue_checks.ends_ns(log, lines)
        log, let_go = queue_checks.parted(log)
        queue_checks.outside(lines, ended_ns, self.setup.queues, self._loose | let_go, seen)
        queue_checks.inside(log, self.setup.queues, seen, skewed=self.setup.skewed)
        self.done.holds, self.done.admissions = seen.holds, seen.admissions
        self.done.in_flight, self.done.late, self.done.cut = seen.in_flight, seen.late, seen.cut
        self.done.begun = sum(line.mark == queue_log.BEGUN for line in lines)
        self.done.broken += seen.broken
        return self.done


def queue_campaign(
    seed: int, seconds: float = SECONDS, *, processes: int = 4, folder: Path | None = None
) -> Queued:
    """Processes on one file with queues, killed and frozen for so many seconds; then everything has
    to end, and both logs are judged.

    With a `folder` its file, log and what the processes said are left there.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="perdure-queues-") as made:
            return queue_campaign(seed, seconds, processes=processes, folder=Path(made))
    campaign, began = QueueCampaign(seed, seconds, processes, folder), time.monotonic()
    asyncio.run(campaign.conduct())
    done = campaign.check()
    done.took_s = round(time.monotonic() - began, 1)
    return done


def queues(seeds: range) -> Iterator[Count]:
    """Four processes, killed and frozen while runs and steps wait in queues with limits: no
    overlap, nobody stuck below a limit.
    """
    for seed in seeds:
        done = queue_campaign(seed)
        found = Count(
            f"queues, seed {seed}",
            checks=done.holds + done.admissions,
            crashes=done.kills + done.freezes,
        )
        found.broken = "; ".join(done.broken[:20]) or None
        yield found
        yield Count(f"queues, seed {seed}", trials=0, note=_note(done))


def _note(done: Queued) -> str:
    return (
        f"seed {done.seed}: {done.jobs} runs, {done.holds} places held, {done.admissions} "
        f"admissions, {done.kills} kills, {done.freezes} freezes, {done.pauses} pauses, "
        f"{done.skews} clocks moved; effects of frozen workers in flight: {done.in_flight}, begun "
        f"late: {done.late}; longest wait with room: {done.waited_most_s:.1f} s"
    )

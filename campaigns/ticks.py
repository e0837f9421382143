"""The campaign of schedules: exactly one run for each tick, while processes are killed and frozen
and their clocks jump.

Rules: a tick is its nominal instant, which the id of its run has. Between the first and the last
tick of a schedule none is missing and none is there twice, where ticks may overlap or wait; where
they are skipped or cut short, those without a run are counted. Every run ends.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from campaigns import queue_log, tick_worker
from campaigns.kill import LEASE_S, Campaign, Killed, Worker
from campaigns.main import Count
from perdure.runtime.engine import Engine
from perdure.store.sqlite.connection import connect

SECONDS = 8.0
GO_ON_S_MAX = 60.0
"""How long it may take after the last kill until each schedule has started a run again."""


@dataclass(slots=True)
class Ticked(Killed):
    """What one campaign did and found."""

    ticks: int = 0
    left_out: int = 0


def judged(
    name: str, ids: Iterable[str], each_ms: int, left_out: int, *, exact: bool = True
) -> Iterator[str]:
    """One run for each tick of one schedule, from its first to its last one. `left_out` are those
    that its schedule has counted as skipped, missed or waiting.

    Those may lie before its first run or behind its last one, except where it is `exact`.
    """
    instants = Counter(nominal_ms(one) for one in ids)
    if not instants:
        yield f"schedule {name} has started nothing"
        return
    yield from (f"tick {at} of {name} has {n} runs" for at, n in instants.items() if n > 1)
    first, last = min(instants), max(instants)
    yield from (
        f"{name} has run at {at}, which is no tick"
        for at in instants
        if at % each_ms != first % each_ms
    )
    ticks = (last - first) // each_ms + 1
    lost = ticks - len(instants)
    if lost > left_out or (exact and lost != left_out):
        gaps = [at for at in range(first, last, each_ms) if at not in instants]
        yield (
            f"schedule {name}: of {ticks} ticks {len(instants)} ran and {left_out} were left out, "
            f"first {first}, without a run {gaps[:5]}"
        )


def nominal_ms(run: str) -> int:
    """The instant that the id of a tick's run names."""
    return round(datetime.fromisoformat(run.rpartition("@")[2]).timestamp() * 1000)


class TickCampaign(Campaign):
    """One seed's campaign on a file in a folder."""

    line_bytes = 70

    def __init__(self, seed: int, seconds: float, processes: int, folder: Path) -> None:
        super().__init__(seed, seconds, processes, folder)
        self.done: Ticked = Ticked(seed)
        self.skewed = self.rng.random() < 0.4

    def _spawn(self) -> Worker:
        return self._worker("campaigns.tick_worker", self.db, self.log, str(LEASE_S))

    def _acts(self) -> dict[Callable[[], Awaitable[None]], int]:
        return {
            self._nothing: 60,
            self._kill: 5,
            self._freeze: 4,
            self._retry: 2,
            self._skew: 4 if self.skewed else 0,
        }

    async def _nothing(self) -> None:
        await self._progress(3)

    def _mark(self, mark: str, worker: Worker) -> None:
        queue_log.note(self._marks, mark, pid=worker.pid)

    async def _calm(self) -> None:
        """Each schedule goes on; then there are no more ticks, and every run ends."""
        await self._go_on()
        for schedule in tick_worker.schedules():
            await self._insist(partial(_stop, schedule.name))
        await super()._calm()
        self._found = {one.name: one for one in await self._clients[0].schedules()}

    async def _go_on(self) -> None:
        """Until each schedule has started another run than it had."""
        until_s, since = time.monotonic() + GO_ON_S_MAX, self._last_runs()
        while len(self._last_runs() - since) < len(tick_worker.schedules()):
            if time.monotonic() > until_s:
                self.done.broken.append(f"schedules start nothing any more: {since}")
                return
            await self._retry()  # a run that is blocked is one that has not ended
            self._crew = [self._succeed(worker) for worker in self._crew]
            await asyncio.sleep(0.1)

    def _last_runs(self) -> set[str]:
        """The last run of each schedule that has one."""
        reader = connect(self.db)
        try:
            last = {run.partition("@")[0]: run for (run,) in reader.execute(tick_worker.Q["runs"])}
            return set(last.values())
        finally:
            reader.close()

    def check(self) -> Ticked:
        """The invariants, when everybody is gone."""
        reader = connect(self.db)
        ids = [run for (run,) in reader.execute(tick_worker.Q["runs"])]
        reader.close()
        for name, info in self._found.items():
            mine = [one for one in ids if one.startswith(f"{name}@")]
            left_out = info.missed + info.skipped + info.waiting
            self.done.ticks += len(mine)
            self.done.left_out += left_out
            self.done.broken += judged(
                name,
                mine,
                tick_worker.EACH_MS,
                left_out,
                exact=name.endswith("-allow") and not self.skewed,
            )
        self.done.begun = sum(line.mark == queue_log.BEGUN for line in queue_log.read_log(self.log))
        return self.done


async def _stop(name: str, engine: Engine) -> None:
    await (await engine.get_schedule(name)).pause()


def tick_campaign(
    seed: int, seconds: float = SECONDS, *, processes: int = 4, folder: Path | None = None
) -> Ticked:
    """Processes on one file with schedules, killed and frozen for so many seconds; then every run
    has to end, and ticks are counted.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="perdure-ticks-") as made:
            return tick_campaign(seed, seconds, processes=processes, folder=Path(made))
    campaign, began = TickCampaign(seed, seconds, processes, folder), time.monotonic()
    asyncio.run(campaign.conduct())
    done = campaign.check()
    done.took_s = round(time.monotonic() - began, 1)
    return done


def ticks(seeds: range) -> Iterator[Count]:
    """Four processes with the same schedules, killed and frozen: exactly one run for each tick."""
    for seed in seeds:
        done = tick_campaign(seed)
        found = Count(f"ticks, seed {seed}", checks=done.ticks, crashes=done.kills + done.freezes)
        found.broken = "; ".join(done.broken[:20]) or None
        yield found

"""A queue with a limit of 1 in several processes: how many runs overlap, counted from outside.

Rules: every process enqueues runs of random priorities with random gaps and executes what it gets;
nothing is killed. A run notes its beginning and its end in one log, and the judge of
`campaigns/queue_judge.py` counts the pairs that overlap. DBOS on Postgres is the negative control:
the judge has to be able to find something.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from driving import Driver, Failed, Kind, driven, peers
from queue_kinds import OURS, dbos, queueing
from queueing import EXECUTES, LIMIT, QUEUE

from campaigns import queue_log
from campaigns.queue_judge import Hold, overlapping_pairs

ENDED_S_MAX = 300.0
"""How long the last run may take after the last one was enqueued."""


@dataclass(frozen=True)
class Work:
    """What each process is asked for."""

    runs: int
    gap_ms: int
    hold_ms: int
    seed: int


def overlapping(kind: Kind, folder: Path, log: Path, processes: int, work: Work) -> list[Hold]:
    """The places that were held, as the log has them, of a queue with a limit of 1."""
    kind = replace(kind, settings={**kind.settings, LIMIT: "1", EXECUTES: "1"})
    with ExitStack() as stack, ThreadPoolExecutor(processes) as pool:
        drivers = [stack.enter_context(driven(kind, folder)) for _ in range(processes)]
        list(pool.map(lambda n: offer(drivers[n], n, work), range(processes)))
        until_s = time.monotonic() + ENDED_S_MAX
        while len(found := holds(log)) < processes * work.runs:
            if time.monotonic() > until_s:
                raise Failed(f"{len(found)} of {processes * work.runs} runs have ended")
            time.sleep(0.2)
    return found


def offer(driver: Driver, number: int, work: Work) -> None:
    """One process enqueues its share."""
    driver.ask("offer", f"p{number}", work.runs, work.seed + number, work.gap_ms, work.hold_ms)


def holds(log: Path) -> list[Hold]:
    """From beginning to end; what has not ended yet is left out."""
    begun: dict[str, queue_log.Line] = {}
    found: list[Hold] = []
    for line in queue_log.read_log(log) if log.exists() else ():
        if line.mark == queue_log.BEGUN:
            begun[line.holder] = line
        else:
            begin = begun[line.holder]
            found.append(Hold(QUEUE, "-", line.pid, begin.at_ns, line.at_ns, line.holder))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=500, help="in all (default 500)")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--gap", type=int, default=100, metavar="MS", help="between two, in a mean")
    parser.add_argument("--hold", type=int, default=20, metavar="MS", help="that each run takes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--poll", type=float, default=0.02, metavar="S", help="DBOS's polling interval (its own: 1)"
    )
    parser.add_argument("--only", choices=["dbos", "perdure"])
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    work = Work(options.runs // options.processes, options.gap, options.hold, options.seed)
    print("system, round: runs, overlapping pairs, seconds")
    for number in range(options.rounds):
        for name in ("dbos", "perdure"):
            if options.only not in (None, name):
                continue
            with tempfile.TemporaryDirectory(prefix="overlaps-") as made:
                folder, log = Path(made), Path(made) / "queue.log"
                with (
                    nullcontext(queueing(OURS, log))
                    if name == "perdure"
                    else dbos(peers(["dbos"])[0], options.poll, log)
                ) as kind:
                    begin = time.monotonic()
                    share = replace(work, seed=work.seed + 100 * number)
                    found = overlapping(kind, folder, log, options.processes, share)
                    took_s = time.monotonic() - begin
                pairs = overlapping_pairs(found)
                print(f"{kind.name}, {number}: {len(found)}, {pairs}, {took_s:.1f}", flush=True)


if __name__ == "__main__":
    main()

"""A queue with a limit of 1 in several processes: how many runs overlap, counted from outside.

Rules: every process enqueues runs of random priorities with random gaps and executes what it gets;
nothing is killed. A run notes its beginning and its end in one log, and the judge of
`campaigns/queue_judge.py` counts the pairs that overlap. DBOS on Postgres is the negative control:
the judge has to be able to find something.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from driving import HERE, PERDURE, Driver, Failed, Kind, driven, peers

ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from postgres import postgres  # noqa: E402
from queueing import EXECUTES, LIMIT, LOG, POLL_S, QUEUE, URL  # noqa: E402

from campaigns import queue_log  # noqa: E402
from campaigns.queue_judge import Hold, overlapping_pairs  # noqa: E402

ENDED_S_MAX = 300.0
"""How long the last run may take after the last one was enqueued."""


@dataclass(frozen=True)
class Work:
    """What each process is asked for."""

    runs: int
    gap_ms: int
    hold_ms: int
    seed: int


@contextmanager
def ours(log: Path) -> Iterator[Kind]:
    """Perdure on a file."""
    yield queueing(replace(PERDURE, program="perdure_queue.py"), log)


@contextmanager
def dbos(log: Path, poll_s: float) -> Iterator[Kind]:
    """DBOS on a Postgres that is started for it."""
    kind = replace(
        peers(["dbos"])[0], name=f"DBOS on Postgres, poll {poll_s:g} s", program="dbos_queue.py"
    )
    if kind.why_not:
        raise Failed(kind.why_not)
    with postgres(kind.python) as url:
        yield queueing(kind, log, **{URL: url, POLL_S: str(poll_s)})


def queueing(kind: Kind, log: Path, **settings: str) -> Kind:
    """A system whose processes have the queue and write to this log."""
    places = [str(HERE), str(ROOT)]
    if not kind.peer:
        places += [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, places))
    return replace(kind, settings={"PYTHONPATH": path, LOG: str(log), EXECUTES: "1", **settings})


def overlapping(kind: Kind, folder: Path, log: Path, processes: int, work: Work) -> list[Hold]:
    """The places that were held, as the log has them, of a queue with a limit of 1."""
    kind = replace(kind, settings={**kind.settings, LIMIT: "1"})
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
                system = ours(log) if name == "perdure" else dbos(log, options.poll)
                with system as kind:
                    begin = time.monotonic()
                    share = replace(work, seed=work.seed + 100 * number)
                    found = overlapping(kind, folder, log, options.processes, share)
                    took_s = time.monotonic() - begin
                pairs = overlapping_pairs(found)
                print(f"{kind.name}, {number}: {len(found)}, {pairs}, {took_s:.1f}", flush=True)


if __name__ == "__main__":
    main()

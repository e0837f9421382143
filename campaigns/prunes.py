"""The campaign of prunes: processes that start runs, archive and delete them are killed at random.

Rules: a run whose start was acknowledged is in the store or in the archive, whole, whatever was
killed; nothing is left of a run that is gone, and no half-made file; a seed gives the same kills,
though not the same moments.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from campaigns.forking import Forked
from campaigns.main import Count
from campaigns.prune_worker import FLOWS, all_of
from perdure import Engine, PrunedElsewhere, connect
from perdure.store import sql

Q = sql.load("prunes.sql", "campaigns")
ROLES = ("starts", "starts", "prunes")
SECONDS = 20.0
TRIES = 900
KILLS_MIN = 3  # also where a slow machine takes seconds for each


def prunes(seeds: range) -> Iterator[Count]:
    """Kill processes that prune, and look for every run."""
    for seed in seeds:
        with TemporaryDirectory() as folder:
            yield trial(seed, Path(folder), SECONDS)


def trial(seed: int, folder: Path, seconds: float) -> Count:
    """One store, and the processes on it, for so many seconds."""
    found = Count(f"prunes, seed {seed}")
    found.crashes = killed(random.Random(seed), folder, seconds)
    try:
        asyncio.run(finish(folder))
        found.checks = judge(folder)
    except Exception as error:
        found.broken = f"seed {seed}: {type(error).__name__}: {error}"
    return found


def killed(chance: random.Random, folder: Path, seconds: float) -> int:
    """Let the processes work, and kill them at random. Returns how many were killed."""
    processes = [begun(role, folder) for role in ROLES]
    kills, end_s = 0, time.monotonic() + seconds
    try:
        while time.monotonic() < end_s or kills < KILLS_MIN:
            time.sleep(chance.uniform(0.2, 1.2))
            n = chance.randrange(len(ROLES))
            processes[n].kill()
            processes[n].wait()
            kills += 1
            processes[n] = begun(ROLES[n], folder)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return kills


def begun(role: str, folder: Path) -> subprocess.Popen[bytes]:
    """A process of the campaign."""
    where = (str(folder / "a.db"), str(folder / "log.txt"), f"file://{folder}/archive")
    command = [sys.executable, "-m", "campaigns.prune_worker", role, *where]
    root = Path(__file__).parent.parent
    return Forked(command, cwd=root, stderr=subprocess.DEVNULL)


async def finish(folder: Path) -> None:
    """Let every run end, and prune once more. Raises where a run does not end."""
    async with Engine(folder / "a.db", workflows=FLOWS, lease_ttl=1) as engine:
        for _ in range(TRIES):
            if set(await engine.counts()) <= {"completed"}:
                break
            for info in await engine.summaries(status="waiting", workflow=FLOWS[3].name):
                await engine.send(info.id, 1, channel="go")  # its starter died before it sent
            await asyncio.sleep(0.1)
        else:
            raise AssertionError(f"runs do not end: {await engine.counts()}")
        for _ in range(TRIES):
            try:
                await engine.prune(all_of(f"file://{folder}/archive", 0))
                return
            except PrunedElsewhere:
                await asyncio.sleep(0.1)
        raise AssertionError("the hold of a killed process does not end")


def judge(folder: Path) -> int:
    """Look for every run that was started. Returns how many there are; raises what is wrong."""
    log = folder / "log.txt"  # there is none where each process was killed at its start
    started = set(log.read_text().split()) if log.exists() else set[str]()
    files = [folder / "a.db", *sorted((folder / "archive").glob("*.db"))]
    found: Counter[str] = Counter()
    for path in files:
        db = connect(path)
        try:
            assert db.pragma("quick_check") == "ok", f"{path.name} is damaged"
            found.update(run_id for (run_id,) in db.execute(Q["runs"]))
            ((bare,),) = db.execute(Q["without_history"])
            assert bare == 0, f"{path.name} has {bare} runs without history"
            if path.name == "a.db":
                ((left,),) = db.execute(Q["left_over"])
                assert left == 0, f"{left} rows are left of runs that are gone"
        finally:
            db.close()
    assert started <= found.keys(), f"lost: {sorted(started - found.keys())[:5]}"
    drafts = [path.name for path in (folder / "archive").glob(".*")]
    assert drafts == [], f"half-made files are left: {drafts}"
    return len(started)

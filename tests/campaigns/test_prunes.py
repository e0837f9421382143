"""The campaign of prunes: a short trial, and that its judge finds what it is to find."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import apsw
import pytest

from campaigns import prunes
from campaigns.prune_worker import FLOWS, all_of, child
from perdure import Engine


def test_kills_lose_no_run(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    found = prunes.trial(seed, tmp_path, 4.0)
    assert found.broken is None
    assert found.crashes > 2


def test_the_judge_finds_what_is_lost_and_what_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "a.db", workflows=FLOWS) as engine:
            for n in range(3):
                await engine.run(child(n), id=f"r{n}")
            await engine.prune(all_of(f"file://{tmp_path}/archive", 0))

    asyncio.run(main())
    (tmp_path / "log.txt").write_text("r0\nr1\nr2\n")
    assert prunes.judge(tmp_path) == 3
    (tmp_path / "log.txt").write_text("r0\nr9\n")
    with pytest.raises(AssertionError, match="lost: \\['r9'\\]"):
        prunes.judge(tmp_path)
    (tmp_path / "archive" / ".perdure-archive-x").mkdir()
    (tmp_path / "log.txt").write_text("r0\n")
    with pytest.raises(AssertionError, match="half-made"):
        prunes.judge(tmp_path)
    db = apsw.Connection(str(tmp_path / "a.db"))
    db.execute("INSERT INTO heartbeat VALUES (77, 1, 1, NULL, 0)")
    db.close()
    with pytest.raises(AssertionError, match="1 rows are left"):
        prunes.judge(tmp_path)

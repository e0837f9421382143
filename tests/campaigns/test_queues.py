"""The campaign of queues: a short one with real processes. Its judge has tests of its own."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from campaigns.main import CAMPAIGNS, load
from campaigns.queues import queue_campaign


@pytest.mark.parametrize("seed", [3, None], ids=["seed 3", "any seed"])
def test_queues_keep_their_limits_while_processes_are_killed_and_frozen(
    seed: int | None, tmp_path: Path
) -> None:
    seed = random.randrange(10**6) if seed is None else seed
    print(f"queue_campaign({seed}, 3, processes=3)")
    done = queue_campaign(seed, 3, processes=3, folder=tmp_path)
    print(done)
    assert done.broken == []
    assert done.kills >= 3
    assert min(done.jobs, done.holds, done.admissions) > 0


def test_the_command_knows_the_campaign() -> None:
    assert CAMPAIGNS["queues"] == "campaigns.queues:queues"
    assert "killed" in (load("queues").__doc__ or "")

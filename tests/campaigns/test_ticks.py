"""The campaign of schedules: a short one with real processes, and its judge."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from campaigns.main import CAMPAIGNS
from campaigns.ticks import judged, nominal_ms, tick_campaign


def ids(*seconds: int) -> list[str]:
    return [f"s@2026-11-29T03:00:{second:02}+01:00" for second in seconds]


def told(*seconds: int, left_out: int = 0, exact: bool = True) -> list[str]:
    return list(judged("s", ids(*seconds), 1000, left_out, exact=exact))


def test_every_tick_once_is_right() -> None:
    assert told(1, 2, 3, 4) == []
    assert told(4, 2, 3, 1) == []
    assert told(1, 2, 4, left_out=1) == []


def test_a_tick_twice_or_lost_is_told() -> None:
    assert "has 2 runs" in told(1, 2, 2, 3)[0]
    assert "of 4 ticks 3 ran and 0 were left out" in told(1, 2, 4)[0]
    assert "3 were left out" in told(1, 2, 4, left_out=3)[0]
    assert "has started nothing" in told()[0]
    off = [*ids(1, 2), "s@2026-11-29T03:00:02.500000+01:00"]
    assert any("is no tick" in text for text in judged("s", off, 1000, 0))


def test_where_clocks_jump_ticks_outside_may_be_left_out() -> None:
    assert told(1, 2, 3, left_out=2, exact=False) == []
    assert told(1, 2, 4, exact=False)


def test_the_instant_is_in_the_id() -> None:
    assert nominal_ms("a@b@2026-11-29T03:00:00+01:00") == 1_795_917_600_000


@pytest.mark.parametrize("seed", [1, None], ids=["seed 1", "any seed"])
def test_each_tick_has_one_run_while_processes_are_killed_and_frozen(
    seed: int | None, tmp_path: Path
) -> None:
    seed = random.randrange(10**6) if seed is None else seed
    print(f"tick_campaign({seed}, 3, processes=3)")
    done = tick_campaign(seed, 3, processes=3, folder=tmp_path)
    print(done)
    assert done.broken == []
    assert done.kills >= 3
    assert done.ticks > 0


def test_the_command_knows_the_campaign() -> None:
    assert CAMPAIGNS["ticks"] == "campaigns.ticks:ticks"

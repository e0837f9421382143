"""The command: it counts, it finds, it says how to repeat."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import campaigns.main
from campaigns.corpus import CASES, Case
from campaigns.kernel_sim import INVARIANTS
from campaigns.main import Count, Summary, main

SOURCE = Path(__file__).resolve().parents[2] / "src"


def test_the_command_counts_and_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1", "--only", "kernel", "--only", "programs"]) == 0
    head, kernel, programs = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "campaign"
    assert kernel.split()[:3] == ["kernel", "1", str(len(CASES) * len(INVARIANTS))]
    assert programs.split()[:3] == ["programs", "1", "5"]
    assert main(["--seeds", "2", "--only", "programs"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["programs", "2", "10"]


def test_json_is_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1", "--only", "programs", "--json", "--first-seed", "40"]) == 0
    [found] = msgspec.json.decode(capsys.readouterr().out, type=list[Summary])
    assert (found.campaign, found.seeds, found.trials, found.broken) == ("programs", 1, 5, [])
    assert found.checks > found.crashes > 0


def breaks(seeds: range) -> Iterator[Count]:
    """A campaign of somebody else's that finds something."""
    for seed in seeds:
        yield Count(
            f"kill, seed {seed}", checks=10, crashes=3, broken="it was lost" if seed == 3 else None
        )


def test_another_campaign_is_one_line_and_a_broken_law_is_told_with_its_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(campaigns.main.CAMPAIGNS, "kill", f"{__name__}:breaks")
    assert main(["--seeds", "5", "--only", "kill"]) == 1
    said = capsys.readouterr()
    assert "BROKEN  kill, seed 3: it was lost" in said.err
    assert said.out.splitlines()[1].split()[:6] == ["kill", "5", "5", "50", "15", "1"]


def test_a_law_that_does_not_hold_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.testing import flows

    wrong = Case("wrong", flows.counts_in_a_global())
    monkeypatch.setattr(campaigns.main, "CASES", [wrong])
    assert main(["--seeds", "1", "--only", "kernel", "--only", "engine"]) == 1
    broken = [line for line in capsys.readouterr().err.splitlines() if line.startswith("BROKEN")]
    assert len(broken) == 6
    assert all("seed 0" in line for line in broken)


def test_it_is_a_command_with_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "campaigns", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env=campaigns.environment(),
    )
    assert done.returncode == 0, done.stderr
    assert all(
        name in done.stdout
        for name in ("--seeds", "--only", "--json", "kernel", "programs", "engine", "power")
    )

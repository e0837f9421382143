"""The benchmark command goes on working. What it measures is not looked at here: no test depends on
a clock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = Path(__file__).resolve().parent.parent / "benchmarks" / "run.py"


def run(folder: Path, *options: str, **environment: str) -> tuple[str, list[dict[str, Any]]]:
    """What the command prints, and its tables."""
    figures = folder / "figures.json"
    command = [
        sys.executable,
        str(COMMAND),
        "--quick",
        "--folder",
        str(folder),
        "--json",
        str(figures),
        *options,
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(figures.read_text())


def test_every_scenario_gives_figures_and_leaves_nothing_behind(tmp_path: Path) -> None:
    printed, tables = run(tmp_path, "--without-peers", "--plot", str(tmp_path / "plot.svg"))

    scenarios = {table["scenario"].partition(" ")[0] for table in tables}
    assert scenarios == {
        "sequential",
        "crowd",
        "latency",
        "recovery",
        "replay",
        "parked",
        "syncs",
        "imports",
        "polls",
        "starts",
        "admissions",
        "store-admissions",
        "queued",
        "schedules",
    }
    rows = [(table["scenario"], row) for table in tables for row in table["rows"]]
    assert [
        (scenario, row["system"], row["failed"]) for scenario, row in rows if row["failed"]
    ] == []
    assert [(scenario, row["system"]) for scenario, row in rows if not row["values"]] == []
    assert "fdatasync" in printed
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json", "plot.svg"]


def test_a_peer_that_can_not_be_installed_is_a_line_in_the_table(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    _, [table] = run(
        tmp_path,
        "--only",
        "latency",
        "--peer",
        "restate",
        XDG_CACHE_HOME=str(cache),
        PATH=str(tmp_path),
    )

    ours, peer = table["rows"]
    assert ours["values"]
    assert ours["failed"] == ""
    assert peer["system"] == "Restate"
    assert "can't be installed" in peer["failed"]

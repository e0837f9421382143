"""`prune` as people type it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import apsw
import pytest

from perdure import Engine, PruneReport
from perdure.cli.prune import _kinds
from tests.cli import flows
from tests.cli.conftest import Terminal
from tests.store.support import make_older


@pytest.fixture
def ended(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal whose store has four runs that have ended."""
    monkeypatch.chdir(terminal.folder)  # the flows write notes where they run

    async def main() -> None:
        async with Engine(terminal.folder / "perdure.db", workflows=[flows.asks]) as engine:
            for n in range(4):
                await engine.start(flows.asks("why"), id=f"r{n}")
                await engine.cancel(f"r{n}")
                with contextlib.suppress(Exception):
                    await (await engine.get(f"r{n}")).result()

    asyncio.run(main())
    return terminal


def test_a_dry_run_says_what_would_go(ended: Terminal) -> None:
    said = ended(
        "prune", "--cancelled", "0s", "--dry-run", "--archive", f"file://{ended.folder}/a/b"
    )
    assert said.code == 0
    assert said.out.startswith("Would delete 3 runs (3 cancelled).\n")
    assert "Would write 1 file: perdure-20" in said.out
    assert "Stays: r3: it has the newest run" in said.out
    assert len(ended("ls", "--json").json) == 4


def test_what_goes_is_in_the_archive_and_is_shown_from_there(ended: Terminal) -> None:
    folder = ended.folder / "archive"
    said = ended("prune", "--cancelled", "0s", "--archive", f"file://{folder}", "--json")
    assert said.json["runs"] == 3
    (name,) = said.json["files"]
    assert [run["id"] for run in ended("ls", "--json").json] == ["r3"]
    shown = ended("show", "r1", "--store", str(folder / name))
    assert shown.code == 0
    assert "r1  cancelled" in shown.out
    doctor = ended("doctor", "--json").json["retention"]
    assert (doctor["pruned_runs"], doctor["archive"]) == (3, f"file://{folder}")


def test_children_are_counted_apart() -> None:
    report = PruneReport(runs=60, by_status={"completed": 30, "failed": 1})
    assert _kinds(report) == "30 completed, 1 failed, 29 children and earlier runs of these"
    assert _kinds(PruneReport(runs=2, by_status={"failed": 2})) == "2 failed"
    assert _kinds(PruneReport(runs=2)) == "what was left"


def test_nothing_is_old_enough(ended: Terminal) -> None:
    said = ended("prune")
    assert (said.code, said.out.splitlines()[0]) == (0, "Nothing is old enough.")


def test_an_archive_that_can_not_be_written(ended: Terminal) -> None:
    said = ended("prune", "--cancelled", "0s", "--archive", "file:///proc/nowhere")
    assert said.code == 4
    assert "The archive file:///proc/nowhere can't be written" in said.err
    dry = ended("prune", "--dry-run", "--archive", f"file://{__file__}/below")
    assert dry.code == 4  # also where nothing is old enough
    assert "can't be written: Not a directory" in dry.err
    assert "archive error" in ended("doctor").out.replace("_", " ")
    assert len(ended("ls", "--json").json) == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--completed", "30"], "'30' is no duration. Write 90s"),
        (["--completed", "-1d"], "is no duration"),
        (["--failed", "9999w"], "more than ten years"),
        (["--archive", "ftp://x"], "neither a folder nor a bucket"),
        (["--archive", "s3://u:p@b/c"], "holds credentials"),
    ],
)
def test_what_can_not_be_meant(ended: Terminal, words: list[str], says: str) -> None:
    said = ended("prune", *words)
    assert said.code == 2
    assert says in " ".join(said.err.split())
    assert "u:p@" not in said.err


def free_and_mode(path: Path) -> tuple[int, int]:
    with contextlib.closing(apsw.Connection(str(path))) as db:
        return int(db.pragma("freelist_count")), int(db.pragma("auto_vacuum"))


def test_vacuum_gives_all_space_back(ended: Terminal) -> None:
    store = ended.folder / "perdure.db"
    assert ended("prune", "--cancelled", "0s", "--vacuum").code == 0
    assert free_and_mode(store) == (0, 2)


def test_vacuum_makes_an_old_file_one_that_can_give_space_back(ended: Terminal) -> None:
    store = ended.folder / "perdure.db"
    make_older(str(store), 6)
    assert free_and_mode(store)[1] == 0
    assert ended("prune", "--cancelled", "0s").code == 0
    assert free_and_mode(store)[1] == 0
    said = ended("prune", "--cancelled", "0s", "--vacuum", "--json")
    assert said.json["space_free"] == 0
    assert free_and_mode(store) == (0, 2)
    assert [run["id"] for run in ended("ls", "--json").json] == ["r3"]


def test_an_old_file_is_not_written_anew_while_a_worker_uses_it(ended: Terminal) -> None:
    make_older(str(ended.folder / "perdure.db"), 6)
    ended.start("worker", "flows.py")
    ended.until(lambda: bool(ended("doctor", "--json").json["workers"]))
    said = ended("prune", "--vacuum")
    assert said.code == 4
    assert "a worker uses it; stop it first" in said.err

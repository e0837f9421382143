"""The examples, run as their first lines say."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from campaigns import forking

EXAMPLES = Path(__file__).parents[1] / "examples"


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PERDURE_STORE"}
    return forking.run([sys.executable, *words], cwd=folder, env=environment, timeout=180)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def facts(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    (folder / name).write_bytes(content)
    found: dict[str, Any] = msgspec.to_builtins(load("survey").parse.fn(str(folder), name))
    return found


# --- the agent ------------------------------------------------------------------------------------


def test_the_agent_runs_by_itself(tmp_path: Path) -> None:
    done = python(tmp_path, str(EXAMPLES / "agent.py"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("Done: write the report, from 3 sources")
    assert list(tmp_path.iterdir()) == []


def test_the_agent_asks_a_person(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perdure.cli"]
    run = forking.Forked(
        [*command, "run", str(EXAMPLES / "agent.py"), "write the report"],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stderr is not None
    hint = next(line for line in run.stderr if "perdure send" in line)
    send = hint.partition("perdure ")[2].split()
    assert (send[0], send[2:]) == ("send", ["approval", "true"])
    assert forking.run([*command, *send[:3], "false"], cwd=tmp_path, timeout=180).returncode == 0
    out, _ = run.communicate(timeout=180)
    assert (run.returncode, out) == (0, "rejected\n")


# --- the survey -----------------------------------------------------------------------------------


def test_the_survey_counts_what_is_there(tmp_path: Path) -> None:
    source = (
        b"import os, sys.path\nfrom . import x\nfrom json import loads\n\n\nclass A:\n    "
        b"async def f(self):\n        def g(): ...\n"
    )
    assert facts(tmp_path, "a.py", source) == {
        "path": "a.py",
        "lines": 8,
        "functions": 2,
        "classes": 1,
        "imports": {".": 1, "json": 1, "os": 1, "sys": 1},
        "problem": None,
    }


def test_the_survey_finds_statements_however_deep(tmp_path: Path) -> None:
    source = (
        b"try:\n  import a\nexcept E:\n  def f(): ...\nelse:\n  class B: ...\nfinally:\n  "
        b"import c\n"
        b"match x:\n  case 1:\n    def g(): ...\nwhile 1:\n  pass\nelse:\n  def h(): ...\n"
        b"with x:\n  if y:\n    pass\n  elif z:\n    import d\n"
    )
    found = facts(tmp_path, "deep.py", source)
    assert (found["functions"], found["classes"], found["imports"]) == (
        3,
        1,
        {"a": 1, "c": 1, "d": 1},
    )


@pytest.mark.parametrize(
    "content",
    [b"def (:\n", b"# \xff\nx = '\xe9'\n", b"x = 1\0\n", b"# coding: no-such\n", b"(" * 500],
)
def test_what_does_not_parse_is_a_fact(tmp_path: Path, content: bytes) -> None:
    found = facts(tmp_path, "bad.py", content)
    assert found["problem"]
    assert found["lines"] == len(content.splitlines())


def test_a_file_that_went_away_is_a_fact(tmp_path: Path) -> None:
    assert load("survey").parse.fn(str(tmp_path), "gone.py").problem == "No such file or directory"


def test_the_survey_skips_what_is_not_ours(tmp_path: Path) -> None:
    for name in (
        "a.py",
        "b/c.py",
        "b/notes.txt",
        "site-packages/d.py",
        "b/__pycache__/e.py",
        ".hidden/f.py",
        "b/.g.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert load("survey").list_files.fn(str(tmp_path)).files == ["a.py", "b/.g.py", "b/c.py"]


def test_the_standard_library_is_the_default() -> None:
    listing = load("survey").list_files.fn(None)
    assert "ast.py" in listing.files
    assert len(listing.files) > 400
    assert not any("site-packages" in path for path in listing.files)


def test_a_folder_that_is_not_there_fails_the_survey(tmp_path: Path) -> None:
    done = python(
        tmp_path, "-m", "perdure.cli", "run", str(EXAMPLES / "survey.py"), "nowhere", "--quiet"
    )
    assert done.returncode == 1
    assert "nowhere is not a folder" in done.stderr


def test_the_report_holds_everything_and_no_times(tmp_path: Path) -> None:
    survey = load("survey")
    found = [
        survey.Facts("a/b.py", 10, 2, 1, {"os": 2, ".": 1}),
        survey.Facts("c.py", 5, 1, 0, {"os": 1}),
        survey.Facts("d|e.py", 1, problem="no | good"),
    ]
    text = survey.render("/somewhere", survey.add_up(found), found)
    assert "| 3 | 16 | 3 | 1 | 4 | 1 |" in text
    assert "| a | 1 | 10 | 2 | 1 | 3 | 0 |" in text
    assert "| os | 3 |" in text
    assert "| d\\|e.py | no \\| good |" in text
    assert text == survey.render("/somewhere", survey.add_up(found), found)


# --- the drill ------------------------------------------------------------------------------------


def test_the_drill_loses_a_machine_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = python(tmp_path, str(EXAMPLES / "drill.py"))
    assert done.returncode == 0, done.stderr
    assert "Machine A is gone, with its disk." in done.stdout
    assert "10 receipts, the last one is 'receipt for bill 10'" in done.stdout
    assert "The bank has seen every bill: True." in done.stdout


# --- the trips ------------------------------------------------------------------------------------


def test_trips_that_are_not_paid_are_undone_also_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = python(tmp_path, str(EXAMPLES / "trips.py"))
    assert done.returncode == 0, done.stderr
    assert "10 declined, 20 receipts" in done.stdout
    assert "Booked is what was paid, and nothing else: True." in done.stdout

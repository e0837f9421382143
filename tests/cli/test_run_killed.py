"""The survey, killed with -9 at random moments; the same command again and again brings it to its
end.
"""

from __future__ import annotations

import contextlib
import random
import signal
from collections import Counter
from pathlib import Path

import apsw
import pytest

import perdure
from tests.cli.conftest import Terminal

EXAMPLE = Path(__file__).parents[2] / "examples" / "survey.py"
FILES = 120


@pytest.fixture
def tree(tmp_path: Path) -> str:
    """Sources to survey: good ones, one that does not parse, one with a bad encoding."""
    folder = tmp_path / "tree"
    for number in range(FILES):
        body = "".join(
            f"def f{i}():\n    import m{number % 7}\n    return {i}\n" for i in range(number * 3)
        )
        (folder / f"package{number % 5}").mkdir(parents=True, exist_ok=True)
        (folder / f"package{number % 5}" / f"module{number}.py").write_text(body)
    (folder / "bad_syntax.py").write_text("def (:\n")
    (folder / "bad_encoding.py").write_bytes(b"# \xff\xfe\nx = '\xe9'\n")
    return str(folder)


def recorded(terminal: Terminal) -> Counter[str]:
    """How often the outcome of each file is recorded."""
    path = terminal.folder / "perdure.db"
    if not path.exists():
        return Counter()
    with contextlib.closing(perdure.connect(str(path))) as connection:
        if not connection.pragma("user_version"):
            return Counter()  # it is being made
        rows = connection.execute(
            "SELECT json_extract(data, '$.path') FROM perdure_events WHERE kind = 'completed'"
        ).fetchall()
    return Counter(str(path) for (path,) in rows if path is not None)


def kill_now_and_then(terminal: Terminal, tree: str, dice: random.Random) -> int:
    """Give the command until it ends, killing it soon after it has got on by some files; gives the
    number of kills.
    """
    for kills in range(20):
        goal = len(recorded(terminal)) + dice.randrange(1, 40)
        process = terminal.start("run", str(EXAMPLE), tree)
        terminal.until(lambda: process.poll() is not None or len(recorded(terminal)) >= goal)  # noqa: B023
        if process.poll() is not None or goal > FILES:
            assert process.wait(60) == 0
            return kills
        terminal.stop(process, signal.SIGKILL)
    raise AssertionError("it never ended")


def test_killed_anywhere_it_gives_the_same_report_and_parses_nothing_again(
    terminal: Terminal, tree: str, tmp_path: Path
) -> None:
    report = tmp_path / "survey-report.md"
    calm = terminal("run", str(EXAMPLE), tree, "--store", "calm.db", "--quiet")
    expected = report.read_bytes()
    report.unlink()
    kills = kill_now_and_then(terminal, tree, random.Random(7))
    assert kills >= 3
    assert report.read_bytes() == expected
    assert set(recorded(terminal).values()) == {1}
    assert len(recorded(terminal)) == FILES + 2
    again = terminal("run", str(EXAMPLE), tree, "--quiet")
    assert (again.code, again.out) == (0, calm.out)
    assert again.json["totals"]["not_parsed"] == 2


def waits(store: str) -> bool:
    """Whether the run is in its pause, read here: a command would take as long as the pause."""
    if not Path(store).exists():
        return False
    try:
        with contextlib.closing(perdure.connect(store)) as reader:
            return reader.execute("SELECT status FROM perdure_runs").fetchall() == [("waiting",)]
    except (perdure.PerdureError, apsw.SQLError):
        return False  # it is being made


def test_a_kill_in_the_durable_pause(terminal: Terminal, tree: str) -> None:
    process = terminal.start("run", str(EXAMPLE), tree)
    terminal.until(lambda: waits(str(terminal.folder / "perdure.db")))
    terminal.stop(process, signal.SIGKILL)
    said = terminal("run", str(EXAMPLE), tree)
    assert said.code == 0
    assert f"resumed: {FILES + 3} of {FILES + 3} steps were recorded" in said.err
    assert set(recorded(terminal).values()) == {1}


def test_kills_before_anything_is_recorded(terminal: Terminal, tree: str) -> None:
    for _ in range(2):
        process = terminal.start("run", str(EXAMPLE), tree)
        terminal.until(lambda: (terminal.folder / "perdure.db").exists())
        terminal.stop(process, signal.SIGKILL)
    said = terminal("run", str(EXAMPLE), tree, "--quiet")
    assert said.code == 0
    assert said.json["totals"]["files"] == FILES + 2

"""A person's word to a run: `send`, `pause`, `resume`, `cancel`, `retry`, `resolve`, `fork`,
`tail`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Said, Terminal

Typed = Callable[..., Said]


@pytest.fixture
def waiting(terminal: Terminal) -> Terminal:
    """A terminal in which a worker runs, and a run `w` that waits for an answer."""
    terminal.start("worker", "flows.py")
    terminal.start("run", "flows.py:asks", "why", "--id", "w", "--quiet")
    terminal.until(lambda: terminal.status("w") == "waiting")
    return terminal


def history(here: Typed, run_id: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = here("show", run_id, "--json").json["history"]
    return rows


def status(here: Typed, run_id: str) -> str:
    return str(here("show", run_id, "--json").json["run"]["status"])


def notes() -> list[str]:
    return Path("notes.txt").read_text().splitlines()


def test_tail_follows_live_in_another_process(waiting: Terminal) -> None:
    tail, stream = waiting.start("tail", "w"), waiting.start("tail", "w", "--stream", "words")
    said = waiting("send", "w", "answer", "so", "--key", "k1")
    assert (said.code, said.out, said.err) == (0, "", 'Sent to w, channel answer: "so"\n')
    out, _ = tail.communicate(timeout=120)
    assert tail.returncode == 0
    assert '← message on answer: "so"' in out
    assert out.rstrip().endswith('completed → "why: so"')
    words, _ = stream.communicate(timeout=120)
    assert words == "so\n"


def test_a_message_that_does_not_fit_is_refused_by_the_run_and_shown(waiting: Terminal) -> None:
    waiting("send", "w", "answer", '{"no": "text"}')
    waiting("send", "w", "answer", "so")
    waiting.until(lambda: waiting.status("w") == "completed")
    assert "refused the message on answer" in waiting("show", "w").out


def test_what_changes_nothing_is_said_to(typed: Typed) -> None:
    why = "nothing has ended or blocked it, and no step of it waits for its next attempt"
    told = f"asks-1 is waiting: {why}, so nothing was changed.\n"
    assert typed("retry", "asks-1").err == told
    assert typed("resume", "asks-1").err == "asks-1 is waiting, not paused: nothing was changed.\n"


def test_a_step_that_waits_for_an_attempt_begins_it_now(terminal: Terminal) -> None:
    terminal.start("worker", "flows.py")
    terminal.start("run", "flows.py:patient", "--id", "p", "--quiet")
    terminal.until(lambda: terminal.status("p") == "waiting")
    assert "To begin it now: perdure retry p\n" in terminal("show", "p").out
    wrong = terminal("retry", "p", "--seq", "1")
    assert wrong.code != 0
    assert "row 1 of run 'p' does not wait for its next attempt: that row is no step" in wrong.err
    (terminal.folder / "mended.txt").touch()
    said = terminal("retry", "p", "--seq", "2")
    assert (said.code, said.out) == (0, "")
    assert said.err.startswith("p: the next attempt of the step in row 2 begins now, or as soon as")
    terminal.until(lambda: terminal.status("p") == "completed")
    assert "attempt 2 began early, as asked for" in terminal("show", "p").out
    told = (terminal.folder / "notes.txt").read_text().splitlines()
    assert told == ["charging with mended.txt"] * 2


def test_pause_and_resume(waiting: Terminal) -> None:
    assert waiting("pause", "w").err == "Paused w. It goes on with: perdure resume w\n"
    waiting("send", "w", "answer", "so")
    assert waiting.status("w") == "paused"
    assert waiting("resume", "w").code == 0
    waiting.until(lambda: waiting.status("w") == "completed")


def test_cancel(waiting: Terminal) -> None:
    assert waiting("cancel", "w").code == 0
    waiting.until(lambda: waiting.status("w") == "cancelled")
    said = waiting("send", "w", "answer", "so")
    assert said.code == 1
    assert "it has ended (cancelled)" in said.err


def test_verbs_say_nothing_but_what_they_did(waiting: Terminal) -> None:
    for words in (["send", "w", "other", "1"], ["pause", "w"], ["resume", "w"], ["cancel", "w"]):
        assert waiting(*words).err.count("\n") == 1


# --- mending --------------------------------------------------------------------------------------


def test_a_fork_with_an_edited_result(here: Typed) -> None:
    here("run", "flows.py:fragile", "--id", "f", "-q")
    seq = next(str(row["seq"]) for row in history(here, "f") if row["name"] == "break_unless")
    said = here("fork", "f", "--at", seq, "--result", '"given"', "--id", "g")
    assert (said.code, said.out) == (0, "g\n")
    assert here("run", "flows.py:fragile", "--id", "g").out == "given\n"
    assert status(here, "f") == "failed"
    assert notes() == ["before"]


def test_a_fork_with_edited_arguments(here: Typed) -> None:
    here("run", "flows.py:fragile", "--id", "f", "-q")
    seq = next(str(row["seq"]) for row in history(here, "f") if row["name"] == "break_unless")
    assert here("fork", "f", "--at", seq, "--args", '{"path": "flows.py"}', "--id", "g").code == 0
    assert here("run", "flows.py:fragile", "--id", "g").out == "mended\n"


def test_a_fork_gets_an_id_if_it_is_given_none(here: Typed) -> None:
    here("run", "flows.py:hello", "Ada", "--id", "h", "-q")
    new = here("fork", "h", "--at", "2").out.strip()
    assert new.startswith("h-fork-")
    assert here("run", "flows.py:hello", "--id", new).out == "hello Ada\n"
    assert notes() == ["Ada 0", "Ada 0"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["fork", "h", "--at", "2", "--result", "{nope"], "is not JSON"),
        (["fork", "h", "--at", "2", "--args", "[1]"], "--args is an object by name"),
        (["fork", "h", "--at", "2", "--args", "{}", "--result", "1"], "--result or --args"),
        (["fork", "h", "--at", "99"], "has no row 99"),
        (["fork", "h"], "Missing option '--at'"),
        (["resolve", "h"], "Give one of --result, --error and --retry"),
        (["resolve", "h", "--retry", "--error", "x"], "Give one of --result, --error and --retry"),
        (["resolve", "h", "--result", "text"], "A string needs its quotes"),
        (["resolve", "h", "--retry"], "does not ask what became of a step"),
    ],
)
def test_mending_what_can_not_be_mended(here: Typed, words: list[str], complaint: str) -> None:
    here("run", "flows.py:hello", "Ada", "--id", "h", "-q")
    said = here(*words)
    assert said.code == 2
    assert complaint in said.err
    assert "Traceback" not in said.err
    assert status(here, "h") == "completed"


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (["--error", "the fuse was wet"], "the fuse was wet"),
        (["--retry"], "launched"),
        (["--result", '"up"'], "up"),
    ],
)
def test_resolve(terminal: Terminal, words: list[str], outcome: str) -> None:
    terminal("run", "flows.py:rocket", "--id", "r")
    assert terminal("run", "flows.py:rocket", "--id", "r").code == 1
    assert "blocked" in terminal("doctor").out
    assert terminal("resolve", "r", *words).code == 0
    said = terminal("run", "flows.py:rocket", "--id", "r")
    assert outcome in said.out + said.err

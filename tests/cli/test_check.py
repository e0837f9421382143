"""`perdure check`: what a person reads before a deploy, and what a script goes by."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import apsw
import msgspec
import pytest

from perdure import Engine
from perdure.cli import check as cli_check
from perdure.process.interpreter import PYTHON
from tests.cli import flows
from tests.cli.conftest import Said, Terminal

Typed = Callable[..., Said]

APP = Path(flows.__file__).read_text()
CHANGED = APP.replace(
    "    await note(question)\n", '    await note("really?")\n    await note(question)\n'
)
assert CHANGED != APP


@pytest.fixture
def waiting(here: Typed) -> Typed:
    """A store with three runs that wait, in a folder with flows.py."""
    asyncio.run(_start(["why", "what", "how"]))
    return here


async def _start(questions: list[str]) -> None:
    async with Engine("perdure.db", workflows=[flows.asks]) as engine:
        for question in questions:
            run = await engine.start(flows.asks(question), id=f"asks-{question}")
            while await run.status() != "waiting":  # a status has no event  # noqa: ASYNC110
                await asyncio.sleep(0.005)


def lines_of(said: Said) -> list[dict[str, object]]:
    return [msgspec.json.decode(line) for line in said.out.splitlines()]


# --- verdicts -------------------------------------------------------------------------------------


def test_what_fits_is_summed_up(waiting: Typed) -> None:
    said = waiting("check", "--app", "flows.py")
    assert (said.code, said.err) == (0, "")
    assert said.out == "1 file read, nothing found.\n3 runs replayed, none would block.\n"
    said = waiting("check", "perdure.db", "--app", "flows.py", "-v")
    assert "asks-why  asks  waiting  4 rows  fits\n" in said.out


def test_what_would_block_is_shown_once_with_both_sides(waiting: Typed) -> None:
    Path("flows.py").write_text(CHANGED)
    notes, before = (
        Path("notes.txt").read_text(),
        hashlib.sha256(Path("perdure.db").read_bytes()).digest(),
    )
    said = waiting("check", "--app", "flows.py")
    assert said.code == 1
    assert said.out.startswith("3 runs of asks would block: asks-how, asks-what, asks-why\n")
    assert '    history, row 3: step note {"text":"how"}\n' in said.out.replace("  " * 3, "  " * 2)
    assert 'code now asks for: step note {"text":"really?"}' in said.out
    assert "patched()" in said.out
    assert said.out.endswith("1 file read, nothing found.\n3 runs replayed, 3 would block.\n")
    assert Path("notes.txt").read_text() == notes
    assert hashlib.sha256(Path("perdure.db").read_bytes()).digest() == before


def test_json_has_a_line_for_each_run_and_the_summary_last(waiting: Typed) -> None:
    Path("flows.py").write_text(
        CHANGED + "\n\n@workflow\nasync def loud() -> None:\n    print(time.time())\n"
    )
    said = waiting("check", "--app", "flows.py", "--json")
    *findings, one, _, three, summary = lines_of(said)
    assert said.code == 1
    assert [(finding["kind"], finding["rule"], finding["level"]) for finding in findings] == [
        ("finding", "print", "note"),
        ("finding", "wall-clock", "error"),
    ]
    assert (one["kind"], one["id"], one["verdict"], one["rows"]) == (
        "run",
        "asks-how",
        "would_block",
        4,
    )
    assert three["id"] == "asks-why"
    assert summary == {
        "kind": "summary",
        "files": 1,
        "errors": 1,
        "notes": 1,
        "runs": 3,
        "ok": 0,
        "would_block": 3,
        "would_fail": 0,
        "does_not_fit": 0,
        "unknown_workflow": 0,
        "stays_blocked": 0,
        "python": PYTHON,
        "other_python": 0,
    }


def test_runs_of_another_python_are_counted(waiting: Typed) -> None:
    db = apsw.Connection("perdure.db")
    db.execute("UPDATE run SET python = '3.99' WHERE id <> 'asks-how'")
    db.close()
    said = waiting("check", "--app", "flows.py")
    told = f"This is Python {PYTHON}. Runs that another one has executed: 2 by 3.99; "
    assert said.code == 0
    assert said.out.endswith(
        f"3 runs replayed, none would block.\n{told}all of them would go on.\n"
    )
    assert f"executed by Python 3.99, this is {PYTHON}" in waiting("show", "asks-what").out
    Path("flows.py").write_text(CHANGED)
    said = waiting("check", "--app", "flows.py")
    assert said.out.endswith(f"{told}2 of them would not go on.\n")
    assert "executed by Python 3.99" in said.out


def test_a_workflow_that_is_gone(waiting: Typed) -> None:
    Path("flows.py").write_text(APP.replace("async def asks", "async def asks_people"))
    said = waiting("check", "--app", "flows.py")
    assert said.code == 1
    assert "3 runs of asks have an unknown workflow: asks-how, asks-what, asks-why\n" in said.out
    assert "keep the old name with @workflow(name=...)" in said.out
    assert said.out.endswith("3 runs replayed, 3 have an unknown workflow.\n")
    said = waiting("check", "--app", "flows.py", "--workflow", "helo")
    assert (said.code, said.out.count("replayed")) == (2, 0)
    assert (
        "No workflow is called 'helo' in this code, and no run of one is open. The code has: "
        in said.err
    )
    said = waiting("check", "--app", "flows.py", "--workflow", "hello")
    assert (said.code, said.out.splitlines()[-1]) == (0, "0 runs replayed, none would block.")


def test_types_that_no_longer_fit(waiting: Typed) -> None:
    Path("flows.py").write_text(APP.replace("asks(question: str)", "asks(question: int)"))
    said = waiting("check", "--app", "flows.py", "--limit", "1")
    assert said.code == 1
    assert (
        "asks-how (asks, 4 rows) has values that no longer fit:\n  argument 'question' of "
        "workflow asks does not fit"
    ) in said.out
    assert "1 run replayed, 1 has values that no longer fit.\n" in said.out


def test_a_run_that_is_blocked_already_does_not_hold_up_a_deploy(waiting: Typed) -> None:
    Path("flows.py").write_text(CHANGED)
    waiting("send", "asks-why", "answer", "because")
    assert waiting("run", "flows.py", "--id", "asks-why", "-q").code == 1
    said = waiting("check", "--app", "flows.py", "--json")
    assert [line.get("verdict") for line in lines_of(said)] == [
        "would_block",
        "would_block",
        "stays_blocked",
        None,
    ]
    Path("flows.py").write_text(APP)
    said = waiting("check", "--app", "flows.py")
    assert (said.code, said.err) == (0, "1 run that is blocked now would go on with this code.\n")
    Path("flows.py").write_text(CHANGED)
    for other in ("asks-what", "asks-how"):
        waiting("send", other, "answer", "because")
        assert waiting("run", "flows.py", "--id", other, "-q").code == 1
    said = waiting("check", "--app", "flows.py")
    assert (said.code, said.out.splitlines()[-1]) == (0, "3 runs replayed, 3 stay blocked.")
    assert "It is blocked already, so this does not count as an error." in said.out


def test_many_differences_are_told_up_to_a_limit(
    waiting: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_check, "GROUPS_MAX", 1)
    parting = '    if question == "what":\n        await tag(a=1)\n    raise ValueError(question)\n'
    Path("flows.py").write_text(APP.replace("    await note(question)\n", parting))
    said = waiting("check", "--app", "flows.py")
    assert (said.code, said.err) == (1, "1 run more with other problems; --json lists them all.\n")
    assert said.out.startswith("2 runs of asks would block: asks-how, asks-why\n")
    assert said.out.splitlines()[-1] == "3 runs replayed, 3 would block."


# --- what workflow code may do to a check ---------------------------------------------------------


def test_what_is_printed_is_no_result(waiting: Typed) -> None:
    noisy = APP.replace(
        "    await tag(question=question)\n",
        '    print("noise")\n    await tag(question=question)\n',
    )
    Path("flows.py").write_text('print("imported")\n' + noisy)
    said = waiting("check", "--app", "flows.py", "--json")
    assert [line["kind"] for line in lines_of(said)] == ["finding", "run", "run", "run", "summary"]
    assert said.err == "imported\n"
    assert said.code == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer of the system")
def test_a_loop_that_never_ends_is_one_runs_trouble(
    waiting: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_check, "REPLAY_SECONDS_MAX", 1.0)
    endless = (
        '    if question == "what":\n        while True:\n            pass\n    await '
        "note(question)\n"
    )
    Path("flows.py").write_text(APP.replace("    await note(question)\n", endless))
    said = waiting("check", "--app", "flows.py")
    assert said.code == 1
    assert (
        "asks-what (asks, 4 rows) would block:\n  the replay did not come to an end within 1 s"
        in said.out
    )
    assert said.out.endswith("3 runs replayed, 1 would block.\n")
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


@pytest.mark.skipif(os.name == "nt", reason="sends a signal of Unix")
def test_ctrl_c_ends_a_check_without_a_word(terminal: Terminal) -> None:
    running = terminal.start("run", "flows.py:asks", "why", "--id", "asks-1", "-q")
    terminal.until(lambda: terminal.status("asks-1") == "waiting")
    terminal.stop(running)
    sign = "import pathlib\npathlib.Path('imported.txt').touch()\n"
    (terminal.folder / "flows.py").write_text(
        APP.replace("    await note(question)\n", "    while True:\n        pass\n") + sign
    )
    check = terminal.start("check", "--app", "flows.py")
    terminal.until((terminal.folder / "imported.txt").exists)
    said = terminal.stop(check)
    assert (said.code, said.err) == (130, "")


def test_a_worker_may_be_at_work(terminal: Terminal) -> None:
    worker = terminal.start("worker", "flows.py")
    running = terminal.start("run", "flows.py:asks", "why", "--id", "asks-1", "-q")
    terminal.until(lambda: terminal.status("asks-1") == "waiting")
    said = terminal("check", "--app", "flows.py")
    assert (said.code, said.out.splitlines()[-1]) == (0, "1 run replayed, none would block.")
    assert terminal("send", "asks-1", "answer", "because").code == 0
    out, _ = running.communicate(timeout=120)
    assert out == "why: because\n"
    assert terminal.notes == ["why"]
    assert terminal.stop(worker).code == 0


# --- the lint -------------------------------------------------------------------------------------


def test_lint_only_reads_and_imports_nothing(here: Typed) -> None:
    Path("bad.py").write_text(
        "import missing_module, time\nfrom perdure import workflow\n\n@workflow\nasync def "
        "flow():\n    return time.time()\n"
    )
    said = here("check", "--lint-only", "--app", "bad.py")
    assert said.code == 1
    assert said.out.startswith("bad.py:6:12: wall-clock: time.time() in workflow flow")
    assert said.out.endswith("1 file read, 1 error.\n")
    assert here("check", "--lint-only", "--app", ".").out.endswith("2 files read, 1 error.\n")
    assert lines_of(here("check", "--lint-only", "--app", ".", "--json"))[-1] == {
        "kind": "summary",
        "files": 2,
        "errors": 1,
        "notes": 0,
    }


def test_notes_are_no_errors(here: Typed) -> None:
    Path("loud.py").write_text(
        "from perdure import workflow\n\n@workflow\nasync def flow():\n    print('a')\n"
    )
    said = here("check", "--lint-only", "--app", "loud.py")
    assert (said.code, said.out.splitlines()[-1]) == (0, "1 file read, 1 note.")


def test_an_error_in_the_code_fails_a_check_whose_runs_fit(waiting: Typed) -> None:
    Path("flows.py").write_text(
        APP + "\n\n@workflow\nasync def loud() -> None:\n    time.sleep(1)\n"
    )
    said = waiting("check", "--app", "flows.py")
    assert (said.code, said.out.splitlines()[-1]) == (1, "3 runs replayed, none would block.")


def test_files_that_the_workflows_come_from_are_read_too(waiting: Typed) -> None:
    Path("mine.py").write_text(
        "from perdure import workflow\n\ndef durable(fn):\n    return workflow(fn)\n"
    )
    Path("part.py").write_text(
        "from mine import durable\n\n@durable\nasync def part() -> None:\n    open('a')\n"
    )
    Path("parent.py").write_text(
        "from mine import durable\nfrom part import part\n\n@durable\nasync def parent() -> "
        "None:\n    await part()\n"
    )
    Path("site-packages").mkdir()
    Path("site-packages/bought.py").write_text(
        "from mine import durable\n\n@durable\nasync def bought() -> None:\n    open('a')\n"
    )
    Path("whole.py").write_text(
        "import sys\nfrom flows import asks\nfrom parent import "
        "parent\nsys.path.append('site-packages')\nfrom bought import bought\n"
    )
    said = waiting("check", "--app", "whole.py")
    assert said.code == 1
    assert said.out.startswith("part.py:5:5: io: open() in workflow part")
    assert "4 files read, 1 error.\n" in said.out


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "Say which code to check: perdure check --app app.py"),
        (["perdure.db"], 2, "perdure check perdure.db --app app.py"),
        (
            ["flows.py"],
            2,
            "flows.py is code, not a store. Code is named with --app: perdure check --app flows.py",
        ),
        (["flows.py", "--app", "flows.py"], 2, "flows.py is code, not a store"),
        (["--app", "flows.py"], 4, "There is no store at 'perdure.db'"),
        (["nowhere.db", "--app", "flows.py"], 4, "There is no store at 'nowhere.db'"),
        (
            ["a.db", "--store", "b.db", "--app", "flows.py"],
            2,
            "Two stores are named, a.db and b.db. Name one.",
        ),
        (["notes.md", "--app", "flows.py"], 4, "it is not an SQLite database"),
        (["--app", "none.py"], 2, "There is no file none.py"),
        (["--app", "."], 2, ". is a folder"),
        (["--app", "broken.py"], 2, "broken.py can't be imported"),
        (["--app", "empty.py"], 2, "empty.py has no workflow"),
        (["--app", "flows.py", "--limit", "0"], 2, "0 is not in the range"),
        (["--lint-only", "a.db", "--app", "flows.py"], 2, "--lint-only reads no store"),
        (["--lint-only", "--app", "none"], 2, "There is no file or folder none."),
        (["--lint-only", "--app", "bare"], 2, "There is no Python file in bare."),
    ],
)
def test_bad_input_gets_a_sentence(here: Typed, words: list[str], code: int, says: str) -> None:
    Path("notes.md").write_text("# Notes\n" * 50)
    Path("broken.py").write_text("import nothing_of_this_name\n")
    Path("empty.py").touch()
    Path("bare").mkdir()
    before = sorted(os.listdir())
    said = here("check", *words)
    assert (said.code, "Traceback" in said.err) == (code, False)
    assert says in said.err
    assert sorted(set(os.listdir()) - {"__pycache__"}) == before


def test_a_store_named_by_the_environment_and_by_the_argument(waiting: Typed) -> None:
    Path("perdure.db").rename("mine.db")
    assert waiting("check", "--app", "flows.py", PERDURE_STORE="mine.db").out.endswith(
        "3 runs replayed, none would block.\n"
    )
    assert waiting("check", "mine.db", "--app", "flows.py", PERDURE_STORE="other.db").code == 0
    assert waiting("check", "--store", "mine.db", "--app", "flows.py").code == 0
    assert waiting("check", "--app", "flows.py").code == 4

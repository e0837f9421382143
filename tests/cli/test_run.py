"""`perdure run` and `perdure worker`, as people use them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from perdure import Call, Engine, Limits
from perdure.cli import run
from perdure.cli.progress import Snapshot
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import Claim, EndWorker, JoinWorker
from tests.cli import flows
from tests.cli.conftest import COMMAND, Said, Terminal

Typed = Callable[..., Said]


def notes() -> list[str]:
    """How often a step left a line behind in the current folder."""
    return Path("notes.txt").read_text().splitlines()


def test_the_result_is_on_stdout_and_the_rest_on_stderr(terminal: Terminal) -> None:
    said = terminal("run", "flows.py:hello", "Ada")
    assert (said.code, said.out) == (0, "hello Ada\n")
    assert "started" in said.err
    assert "completed in" in said.err


def test_other_results_are_json(here: Typed) -> None:
    said = here("run", "flows.py:shapes", "2026-11-23", '[{"x": 1, "y": 2}]', "scale=2")
    assert said.json == ["23 Nov 2026", "1", "None", "2.0"]


def test_quiet_says_nothing(here: Typed) -> None:
    assert here("run", "flows.py:hello", "Ada", "--quiet").err == ""


def test_the_same_command_again_gives_the_recorded_result(here: Typed) -> None:
    first, again = here("run", "flows.py:hello", "Ada"), here("run", "flows.py:hello", "Ada")
    assert again.out == first.out
    assert again.code == 0
    assert "recorded result" in again.err
    assert notes() == ["Ada 0"]


def test_again_starts_another_run_each_time(here: Typed) -> None:
    for _ in range(3):
        here("run", "flows.py:hello", "Ada", "--again", "-q")
    ids = [run["id"] for run in here("ls", "--json").json]
    assert ids == [f"{ids[-1]}-3", f"{ids[-1]}-2", ids[-1]]
    assert notes() == ["Ada 0"] * 3


def test_json_has_all_of_it(here: Typed) -> None:
    said = here("run", "flows.py:hello", "Ada", "--id", "one", "--json", "--quiet")
    assert said.json == {
        "id": "one",
        "status": "completed",
        "result": "hello Ada",
        "error": None,
        "recorded": False,
    }
    again = here("run", "flows.py:hello", "Ada", "--id", "one", "--json", "--quiet")
    assert again.json["recorded"] is True


def test_a_failed_run_says_why_and_what_next(here: Typed) -> None:
    said = here("run", "flows.py:fragile")
    assert said.code == 1
    assert said.out == ""
    assert "Step break_unless failed after 1 attempt: ValueError: mended.txt is missing" in said.err
    assert 'in break_unless\n    raise ValueError(f"{path} is missing")' in said.err
    assert "perdure retry fragile-" in said.err
    assert "Traceback" not in said.err


def test_after_a_retry_the_same_command_goes_on_behind_what_was_recorded(here: Typed) -> None:
    here("run", "flows.py:fragile", "--id", "f")
    Path("mended.txt").touch()
    assert here("retry", "f").code == 0
    said = here("run", "flows.py:fragile", "--id", "f")
    assert (said.code, said.out) == (0, "mended\n")
    assert notes() == ["before"]


def test_ctrl_c_loses_nothing_and_says_how_to_go_on(terminal: Terminal) -> None:
    process = terminal.start("run", "flows.py:naps", "40", "0.05", "--store", "other.db")
    terminal.until(lambda: len(terminal.notes) > 3)
    said = terminal.stop(process)
    assert said.code == 130
    assert "Nothing is lost" in said.err
    assert "perdure run --store other.db flows.py:naps 40 0.05" in said.err
    assert "Traceback" not in said.err
    end = terminal("run", "--store", "other.db", "flows.py:naps", "40", "0.05")
    assert (end.code, end.out) == (0, "40\n")
    assert "resumed: " in end.err
    assert sorted(set(terminal.notes), key=int) == [str(number) for number in range(40)]


@pytest.mark.parametrize("flow", ["dozes", "dozes_elsewhere"])
def test_a_step_that_keeps_its_thread_does_not_keep_the_process(
    terminal: Terminal, flow: str
) -> None:
    process = terminal.start("run", f"flows.py:{flow}", "60")
    terminal.until((terminal.folder / "dozing.txt").exists)
    assert terminal.stop(process).code == 130


def test_a_second_ctrl_c_stops_at_once(terminal: Terminal) -> None:
    run = terminal.start("run", "flows.py:dozes", "60", "--quiet")
    terminal.until((terminal.folder / "dozing.txt").exists)
    terminal.stop(run, signal.SIGKILL)
    (terminal.folder / "dozing.txt").unlink()
    worker = terminal.start("worker", "flows.py", "--grace", "60")
    terminal.until((terminal.folder / "dozing.txt").exists)
    worker.send_signal(signal.SIGTERM)
    assert worker.stderr is not None
    assert any("Stopping" in line for line in worker.stderr)
    said = terminal.stop(worker)
    assert said.code == 130
    assert "Traceback" not in said.err


def test_workflow_code_that_never_ends_does_not_keep_the_process(terminal: Terminal) -> None:
    process = terminal.start("run", "flows.py:spins")
    terminal.until((terminal.folder / "dozing.txt").exists)

    def interrupted() -> bool:  # of two signals that are sent at once, one may be heard
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    terminal.until(interrupted)
    assert process.wait() == 130


def test_a_run_that_waits_says_for_what_and_how_to_send_it(terminal: Terminal) -> None:
    process = terminal.start("run", "flows.py:asks", "why", "--id", "a 1")
    assert process.stderr is not None
    said = ""
    while "perdure send" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    assert terminal("send", "a 1", "answer", "because").code == 0
    out, _ = process.communicate(timeout=120)
    assert out == "why: because\n"
    assert "waits for a message on answer (str)" in said
    assert "perdure send 'a 1' answer TEXT" in said


def test_a_run_without_steps_goes_on_without_a_count_of_them(terminal: Terminal) -> None:
    process = terminal.start("run", "flows.py:listens", "--id", "a")
    terminal.until(lambda: terminal.status("a") == "waiting")
    terminal.stop(process, signal.SIGKILL)
    terminal("send", "a", "answer", "because")
    assert "a: resumed\n" in terminal("run", "flows.py", "--id", "a").err


def test_an_id_is_enough_to_go_on(terminal: Terminal) -> None:
    process = terminal.start("run", "flows.py:naps", "20", "0.05", "--id", "n")
    terminal.until(lambda: len(terminal.notes) > 2)
    terminal.stop(process, signal.SIGKILL)
    assert terminal("run", "flows.py:hello", "--id", "n").out == "20\n"


def test_a_run_of_a_workflow_that_the_file_has_not(here: Typed) -> None:
    here("run", "flows.py:hello", "Ada", "--id", "h")
    Path("other_flow.py").write_text(
        "from perdure import workflow\n\n@workflow\nasync def other() -> None: ...\n"
    )
    said = here("run", "other_flow.py", "--id", "h")
    assert said.code == 2
    assert "is one of workflow 'hello', which other_flow.py does not have" in said.err


def test_an_id_that_has_other_arguments(here: Typed) -> None:
    here("run", "flows.py:hello", "Ada", "--id", "h")
    said = here("run", "flows.py:hello", "Bob", "--id", "h")
    assert said.code == 2
    assert "Run 'h' exists already" in said.err


def test_a_step_whose_outcome_is_unknown_asks(terminal: Terminal) -> None:
    assert terminal("run", "flows.py:rocket").code == -signal.SIGKILL
    said = terminal("run", "flows.py:rocket")
    assert said.code == 1
    assert said.err.count("it is not known whether its effect happened") == 1
    assert "perdure resolve" in said.err
    assert terminal("resolve", "rocket", "--result", '"seen"').code == 0
    assert terminal("run", "flows.py:rocket").out == "seen\n"


# --- worker ---------------------------------------------------------------------------------------


def test_a_worker_executes_until_it_is_told_to_stop(terminal: Terminal) -> None:
    worker = terminal.start("worker", "flows.py")
    terminal.until(
        lambda: (
            (terminal.folder / "perdure.db").exists()
            and terminal("doctor", "--json").json["workers"]
        )
    )
    terminal("run", "flows.py:fragile", "--id", "f")
    (terminal.folder / "mended.txt").touch()
    terminal("retry", "f")
    terminal.until(lambda: terminal.status("f") == "completed")
    said = terminal.stop(worker, signal.SIGTERM)
    assert said.code == 0
    assert "Executing alone, asks, desk, dozes" in said.err
    assert "Stopped." in said.err


def test_a_worker_lets_running_steps_end(terminal: Terminal) -> None:
    dozing = terminal.folder / "dozing.txt"
    process = terminal.start("run", "flows.py:dozes", "1", "--id", "n")
    terminal.until(dozing.exists)
    terminal.stop(process, signal.SIGKILL)
    dozing.unlink()
    worker = terminal.start("worker", "flows.py")
    terminal.until(dozing.exists)  # the step is under way, not only in the history
    assert terminal.stop(worker, signal.SIGTERM).code == 0
    events = msgspec.json.decode(terminal("show", "n", "--json").out)["history"]
    (doze,) = (event["seq"] for event in events if event["name"] == "doze")
    assert [event["ref"] for event in events if event["kind"] == "completed"] == [doze]


def test_two_files_with_the_same_workflow(here: Typed) -> None:
    Path("second.py").write_text(Path("flows.py").read_text())
    said = here("worker", "flows.py", "second.py")
    assert said.code == 2
    assert "second.py has a workflow" in said.err


# --- this run, and others in the file -------------------------------------------------------------


def leave(*calls: tuple[Call[Any], str]) -> None:
    """Runs that are due and that no engine executes."""

    async def start() -> None:
        async with Engine("perdure.db", execute=False) as client:
            for call, run_id in calls:
                await client.start(call, id=run_id)

    asyncio.run(start())


def die(workflow: str, deaths: int) -> None:
    """Workers die over the due runs of a workflow."""
    store = SqliteStore("perdure.db", limits=Limits())
    for number in range(deaths):
        (worker,) = store.write([JoinWorker("w", "here", 1, "", 0, 1)], True)
        assert isinstance(worker, int)
        store.write([Claim(worker, (workflow,), 10, 2**60), EndWorker(worker, number, True)], True)
    store.close()


def test_run_executes_its_own_run_and_says_who_executes_the_others(here: Typed) -> None:
    leave((flows.hello("Bob"), "bob"), (flows.hello("Cy"), "cy"))
    said = here("run", "flows.py:hello", "Ada", "--id", "ada")
    assert said.code == 0
    assert (
        "2 other runs are due in this file. To execute them:\n  perdure worker flows.py\n"
        in said.err
    )
    assert notes() == ["Ada 0"]
    assert (
        "1 other run is due in this file. To execute it:"
        in here("run", "flows.py", "--id", "bob").err
    )
    assert here("run", "flows.py:hello", "Di", "--quiet").err == ""
    here("run", "flows.py", "--id", "cy")
    assert "due in this file" not in here("run", "flows.py:hello", "Eve").err


def test_the_command_after_a_crash_loop_says_which_command_goes_on(here: Typed) -> None:
    leave((flows.hello("Ada"), "ada lovelace"))
    die("hello", 3)
    said = here("run", "flows.py:hello", "Ada", "--id", "ada lovelace")
    assert said.code == 1
    assert "the process died 3 times" in said.err
    (command,) = (
        line.strip().partition("   ")[0] for line in said.err.splitlines() if " && " in line
    )
    assert (
        command
        == "perdure retry 'ada lovelace' && perdure run --id 'ada lovelace' flows.py:hello Ada"
    )
    for one in command.split(" && "):
        last = here(*shlex.split(one)[1:])
    assert (last.code, last.out) == (0, "hello Ada\n")


def test_a_person_at_a_terminal_who_gives_the_command_again_lets_the_run_go_on(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(terminal.folder)
    leave((flows.hello("Ada"), "a"))
    die("hello", 3)
    mine, theirs = os.openpty()
    command = [*COMMAND, "run", "flows.py", "--id", "a"]
    with subprocess.Popen(
        command,
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TERM": "dumb"},
    ) as process:
        os.close(theirs)
        out, shown = process.communicate(timeout=120)[0], ""
        with contextlib.suppress(OSError), open(mine) as screen:
            for line in screen:
                shown += line
    assert (process.returncode, out) == (0, "hello Ada\n")
    assert (
        "a was blocked and goes on, because you gave the command again: the process died 3 times"
        in " ".join(shown.split())
    )


def test_progress_tells_of_a_child_that_needs_a_person(here: Typed) -> None:
    """The run itself only waits for it."""
    leave((flows.hello("Ada"), "parent"), (flows.hello("Bob"), "child"))
    die("hello", 3)
    with apsw.Connection("perdure.db") as by_hand:
        parent = by_hand.execute("SELECT run FROM run WHERE id = 'parent'").get
        by_hand.execute("UPDATE run SET root = ? WHERE id = 'child'", (parent,))
        waiting = '[{"child": "hello", "seq": 2}]'
        by_hand.execute(
            (
                "UPDATE run SET status = 'waiting', waiting = ?, blocked_by = NULL, reason = "
                "NULL WHERE run = ?"
            ),
            (waiting, parent),
        )

    async def look() -> Snapshot:
        async with Engine("perdure.db", execute=False) as engine:
            request = run.Request(
                "flows.py", (), "parent", "other.db", again=False, as_json=False, quiet=False
            )
            return await run._snapshot(engine, await engine.get("parent"), request)

    found = asyncio.run(look())
    assert found.waiting is not None
    assert found.waiting.startswith("child is blocked: the process died 3 times")
    assert found.hint == "perdure retry child --store other.db"


def test_a_run_takes_its_place_in_a_queue(here: Callable[..., Said]) -> None:
    said = here("run", "flows.py:hello", "Ada", "--queue", "nope")
    assert (said.code, said.out) == (3, "")
    assert "no queue 'nope'" in said.err
    assert here("queue", "set", "q", "--concurrency", "1").code == 0
    words = ["--queue", "q", "--key", "acme", "--priority", "2", "--weight", "3"]
    assert here("run", "flows.py:hello", "Ada", "--id", "h", *words).out == "hello Ada\n"
    run = here("show", "h", "--json").json["run"]
    assert [run[name] for name in ("queue", "key", "priority", "weight")] == ["q", "acme", 2, 3]


def test_run_declares_the_queues_of_its_file(here: Callable[..., Said]) -> None:
    with Path("flows.py").open("a") as file:
        file.write("\nfrom perdure import Queue\n\nlines = [Queue('nightly', concurrency=3)]\n")
    assert here("run", "flows.py:hello", "Ada", "--queue", "nightly").code == 0
    assert [one["concurrency"] for one in here("queue", "ls", "--json").json] == [3]

"""Whatever is typed, the answer is a sentence that helps, the exit code of the contract, and
nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from perdure import RunFailed
from tests.cli.conftest import Said

Typed = Callable[..., Said]

READERS = (["ls"], ["show", "x"], ["tail", "x"], ["doctor"])
STEERERS = (
    ["send", "x", "c", "1"],
    ["pause", "x"],
    ["resume", "x"],
    ["cancel", "x"],
    ["retry", "x"],
    ["resolve", "x", "--retry"],
)
FORK = ["fork", "x", "--at", "1"]


def check(said: Said, code: int, words: str) -> None:
    assert words in said.err
    assert said.code == code
    assert said.out == ""
    assert "Traceback" not in said.err


# --- stores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [*READERS, *STEERERS, FORK], ids=lambda words: words[0])
def test_there_is_no_store(here: Typed, words: list[str]) -> None:
    check(here(*words), 4, "There is no store at 'perdure.db'")
    assert not Path("perdure.db").exists()


def test_a_store_named_by_the_environment(here: Typed) -> None:
    check(here("ls", PERDURE_STORE="elsewhere.db"), 4, "There is no store at 'elsewhere.db'")
    here("run", "flows.py:hello", "Ada", "-q", PERDURE_STORE="mine.db")
    assert here("ls", "--json", "--store", "mine.db").json[0]["workflow"] == "hello"


@pytest.mark.parametrize(
    "words",
    [["ls"], ["run", "flows.py:hello", "Ada"], ["worker", "flows.py"]],
    ids=lambda words: words[0],
)
def test_a_file_that_is_no_store(here: Typed, words: list[str]) -> None:
    path = Path("perdure.db")
    path.write_text("dear diary, " * 200)
    check(here(*words), 4, "can't be used")
    assert path.read_text() == "dear diary, " * 200


def test_a_damaged_store(here: Typed) -> None:
    here("run", "flows.py:wide", "200", "-q")
    path = Path("perdure.db")
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    said = here("ls")
    assert said.code == 4
    assert "Traceback" not in said.err
    assert here("doctor").code == 4


def test_a_store_of_the_future(here: Typed) -> None:
    here("run", "flows.py:hello", "Ada", "-q")
    connection = apsw.Connection("perdure.db")
    connection.pragma("user_version", 99)
    connection.close()
    check(here("ls"), 4, "has schema version 99")
    check(here("run", "flows.py:hello", "Ada"), 4, "Upgrade perdure")


def test_a_folder_that_is_not_there(here: Typed) -> None:
    said = here("run", "flows.py:hello", "Ada", "--store", "no/such/folder/x.db")
    check(said, 4, "The store 'no/such/folder/x.db' could not be opened: its folder")
    assert "doctor" not in said.err


@pytest.mark.parametrize(
    "words", [["ls"], ["run", "flows.py:hello", "Ada"], ["doctor"]], ids=lambda words: words[0]
)
def test_a_folder_as_a_store(here: Typed, words: list[str]) -> None:
    Path("perdure.db").mkdir()
    check(
        here(*words),
        4,
        "The store 'perdure.db' could not be opened: it is a folder; name a file in it.\n",
    )


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [*READERS[1:3], *STEERERS, FORK, ["ls", "--after", "x"]], ids=lambda words: words[0]
)
def test_there_is_no_such_run(here: Typed, words: list[str]) -> None:
    here("run", "flows.py:hello", "Ada", "-q")
    check(here(*words), 3, "There is no run 'x' in this store. `perdure ls` lists the runs.")


def test_a_beginning_that_several_runs_have(here: Typed) -> None:
    for run_id in ("ab-1", "ab-2"):
        here("run", "flows.py:hello", "Ada", "--id", run_id, "-q")
    check(
        here("show", "ab"),
        3,
        "'ab' is the beginning of several run ids: ab-1, ab-2. Give more of it.",
    )


def test_commands_to_copy_are_quoted_for_the_shell(here: Typed) -> None:
    said = here("run", "flows.py:fragile", "--id", "a b;c", "-q")
    assert "perdure show 'a b;c'" in said.err
    assert "perdure retry 'a b;c'" in said.err
    assert (
        "`perdure tail 'a b;c' --store ./perdure.db`"
        in here("retry", "a b;c").err + here("cancel", "a b", "--store", "./perdure.db").err
    )
    assert "`perdure retry 'a b;c'`" in str(RunFailed("a b;c", "ValueError"))


def test_an_empty_id_is_no_run(here: Typed) -> None:
    here("run", "flows.py:hello", "Ada", "-q")
    check(here("cancel", ""), 3, "There is no run ''")


@pytest.mark.parametrize("verb", ["send", "cancel", "pause", "resume"])
def test_a_run_that_has_ended(here: Typed, verb: str) -> None:
    here("run", "flows.py:hello", "Ada", "--id", "h", "-q")
    check(
        here(verb, "h", *(["answer", "1"] if verb == "send" else [])), 1, "it has ended (completed)"
    )


# --- files and arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["run"], "Missing argument 'FILE[:WORKFLOW]'"),
        (["run", "nope.py"], "There is no file nope.py"),
        (["run", "."], "is a folder"),
        (["run", "flows.py"], "has several workflows. Say which:"),
        (["run", "flows.py:nope"], "flows.py has no workflow 'nope'"),
        (
            ["run", "flows.py:hello"],
            "hello(name: str, times: int = 1): missing a required argument: 'name'.",
        ),
        (
            ["run", "flows.py:hello", "Ada", "often"],
            "'often' is no value for times: Expected `int`, got `str`",
        ),
        (["run", "flows.py:hello", "Ada", "--id", ""], "This can't be a run id"),
        (
            ["run", "flows.py:hello", "--id", "new"],
            "There is no run 'new' to go on with, and a new one needs arguments. hello(name: str",
        ),
        (
            ["run", "flows.py:hello", "Ada", "--durability", "replica"],
            "name it with --replica ADDRESS, or PERDURE_REPLICA",
        ),
        (["worker", "flows.py", "--grace", "-1"], "--grace"),
        (["run", "flows.py:hello", "Ada", "1", "2"], "too many positional arguments"),
        (["run", "flows.py:hello", "Ada", "--id", "a~b"], "no '~'"),
        (["run", "flows.py:hello", "Ada", "--id", ".."], "neither '.' nor '..'"),
        (["run", "empty.py"], "has no workflow"),
        (["run", "broken.py"], "NameError: name 'nope' is not defined"),
        (["worker"], "Missing argument 'FILE...'"),
        (["worker", "nope.py"], "There is no file nope.py"),
        (["ls", "--status", "tired"], "'tired' is not one of"),
        (["ls", "--tag", "red"], "NAME=VALUE"),
        (["ls", "--limit", "0"], "--limit"),
        (["lss"], "No such command 'lss'"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_wrong_usage(here: Typed, words: list[str], complaint: str) -> None:
    Path("empty.py").write_text("x = 1\n")
    Path("broken.py").write_text("def f():\n    nope\nf()\n")
    said = here(*words)
    assert said.code == 2
    assert complaint in said.err
    assert said.out == ""
    assert 'File "<frozen' not in said.err

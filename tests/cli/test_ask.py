"""`ask`: the reply is the result; what is no reply is an error with its exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cli.conftest import Said, Terminal

Typed = Callable[..., Said]
ASK = ("ask", "d", "--channel", "question")


@pytest.fixture(scope="module")
def open_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal in which a worker runs, and a run `desk` that takes requests."""
    terminal = Terminal(tmp_path_factory.mktemp("desk")).below("here")
    terminal.start("worker", "flows.py")
    terminal.start("run", "flows.py:desk", "x", "--id", "desk", "--quiet")
    terminal.until(lambda: terminal.status("desk") == "waiting")
    yield terminal
    for process in terminal.children:
        process.kill()
        process.communicate()


def test_a_reply_is_the_result(open_desk: Terminal) -> None:
    said = open_desk(*ASK, "how much?", "--sender", "ada", "--key", "k1")
    assert (said.code, said.err) == (0, "")
    assert said.json == {"to": "ada", "said": "how much?"}
    again = open_desk(*ASK, "how much?", "--key", "k1", "--json").json
    assert again == {
        "run": "desk", "channel": "question", "key": "k1",
        "reply": {"to": "ada", "said": "how much?"},
    }  # fmt: skip
    given = open_desk(*ASK, "who?", "--json").json
    assert given["reply"]["to"] == "perdure ask"
    assert given["key"].startswith("ask-")


def test_a_refusal_and_a_key_of_another_request_are_errors(open_desk: Terminal) -> None:
    refused = open_desk(*ASK, "5")
    assert (refused.code, refused.out) == (1, "")
    assert "'desk' refused the request" in refused.err
    assert "Expected `str`" in refused.err
    open_desk(*ASK, "one", "--key", "used")
    assert open_desk(*ASK, "two", "--key", "used").code == 2


def test_a_time_that_is_over_says_how_to_go_on(open_desk: Terminal) -> None:
    said = open_desk(*ASK, "nothing", "--key", "silent", "--timeout", "0.2")
    assert (said.code, said.out) == (1, "")
    assert "within 0.2 s" in said.err
    assert "key='silent'" in said.err
    shown = open_desk("show", "desk")
    assert '← request on question from perdure ask: "nothing"' in shown.out
    assert "silent" in open_desk("show", "desk", "--json").out


def test_show_has_what_a_run_exposes(open_desk: Terminal) -> None:
    shown = open_desk("show", "desk", "--json").json
    assert shown["exposed"]["stage"] == "open"


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["ask", "nobody", "x", "--channel", "c"], 3, "There is no run 'nobody'"),
        (["ask", "desk", "x"], 2, "Missing option '--channel'"),
        (["ask", "desk", "x", "--channel", "c", "--timeout", "soon"], 2, "not a valid float"),
        (["ask", "desk", "x", "--channel", "c", "--timeout", "-1"], 2, "not in the range"),
        (["ask", "desk"], 2, "Missing argument 'VALUE'"),
        (["ask", "desk", "-5", "--channel", "c"], 2, "begins with a dash comes after --"),
    ],
)
def test_what_is_typed_wrong(
    open_desk: Terminal, words: list[str], code: int, complaint: str
) -> None:
    said = open_desk(*words)
    assert said.code == code
    assert complaint in said.err

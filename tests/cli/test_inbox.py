"""The inbox on the command line: a list, answers with a name, links."""

from __future__ import annotations

import os

import pytest

from tests.cli.conftest import Terminal


@pytest.fixture
def waiting(terminal: Terminal) -> Terminal:
    """A terminal in which a worker runs, and a run `w` that waits for an answer."""
    terminal.start("worker", "flows.py")
    terminal.start("run", "flows.py:asks", "why", "--id", "w", "--quiet")
    terminal.until(lambda: terminal.status("w") == "waiting")
    return terminal


def test_what_waits_is_listed_and_answered_once_with_a_name(waiting: Terminal) -> None:
    listed = waiting("inbox")
    assert listed.out.splitlines()[1].split()[0] == "w"
    assert "perdure inbox answer w VALUE" in listed.err
    (item,) = waiting("inbox", "--json", "ls").json
    assert waiting("inbox", "--store", "none.db", "ls").code == 4
    assert (item["run"], item["channel"], item["kind"]) == ("w", "answer", "message")
    wrong = waiting("inbox", "answer", "w", "5")
    assert (wrong.code, wrong.out) == (2, "")
    assert "a text" in wrong.err
    said = waiting("inbox", "answer", "w", "so", "--sender", "ada", "--seq", str(item["seq"]))
    assert (said.code, said.err) == (0, 'Answered w: "so", as ada\n')
    late = waiting("inbox", "answer", "w", "no")
    assert late.code == 1
    assert "does not wait for an answer now" in late.err or "already" in late.err
    waiting.until(lambda: waiting.status("w") == "completed")
    assert waiting("inbox").err == "Nothing waits for a person.\n"


def test_a_link_is_printed_once_with_the_address_of_the_pages(waiting: Terminal) -> None:
    made = waiting("inbox", "link", "w", "--url", "https://a.example/x/", "--to", "ada", "--json")
    assert made.json["url"].startswith("https://a.example/x/answer/")
    assert (made.json["run"], made.json["recipient"]) == ("w", "ada")
    bare = waiting("inbox", "link", "w", "--expires", "2h")
    assert bare.out.startswith("/answer/")
    assert "--url" in bare.err
    again = waiting("inbox", "link", "w", PERDURE_URL="http://h:1")
    assert again.out.startswith("http://h:1/answer/")
    assert waiting("inbox", "link", "w", "--expires", "soon").code == 2
    assert waiting("inbox", "link", "nothing").code == 3


def test_the_user_of_the_process_is_who_answers(waiting: Terminal) -> None:
    said = waiting("inbox", "answer", "w", "so", "--json", LOGNAME="bob", USER="bob")
    assert said.json == {"run": "w", "sender": "bob"}
    assert os.environ.get("LOGNAME") != "bob"

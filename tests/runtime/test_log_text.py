"""Records as JSON: whatever they hold, with a bound, and without secrets."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from perdure import Secret
from perdure.runtime import log_text


def line(message: Any, *args: Any, bytes_max: int = 1_000, **more: Any) -> dict[str, Any]:
    record = logging.LogRecord("app.db", logging.INFO, "f.py", 1, message, args, None)
    vars(record).update(more)
    found: dict[str, Any] = json.loads(log_text.line(record, bytes_max))
    return found


class Raises:
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def test_a_line_has_level_logger_and_message() -> None:
    assert line("page %d of %s", 3, "all") == {
        "level": "INFO",
        "logger": "app.db",
        "message": "page 3 of all",
    }


@pytest.mark.parametrize(
    ("message", "args", "wanted"),
    [
        ("%d", ("x",), "'%d' % ('x',) (TypeError: %d format: a real number is required, not str)"),
        ("%s", (Raises(),), "(a message that can't be shown: ValueError)"),
        (Raises(), (), "(a message that can't be shown: ValueError)"),
        (None, (), "None"),
        ("a\udc80b", (), "a\\udc80b"),
        ("a\0b\x1b[31m\r\n", (), "a\0b\x1b[31m\r\n"),
        ("<script>alert(1)</script>", (), "<script>alert(1)</script>"),
    ],
    ids=["format", "argument", "message", "none", "surrogate", "control", "html"],
)
def test_any_record_has_a_line(message: Any, args: Any, wanted: str) -> None:
    assert line(message, *args)["message"] == wanted


def test_a_long_message_loses_its_end() -> None:
    found = line("x" * 5_000, bytes_max=100)
    assert found == {
        "level": "INFO", "logger": "app.db", "message": "x" * 100, "left_out": 4_900,
    }  # fmt: skip
    found = line("\u20ac" * 100, bytes_max=100)
    assert (found["message"], found["left_out"]) == ("\u20ac" * 33, 67)


def test_a_long_traceback_loses_its_beginning() -> None:
    try:
        raise ValueError("y" * 5_000 + "the end")
    except ValueError:
        found = line("bad", bytes_max=100, exc_info=sys.exc_info())
    assert found["traceback"].endswith("ythe end")
    assert len(found["traceback"]) + len("bad") == 100
    assert found["left_out"] > 4_900


def test_an_error_that_has_no_text_has_a_line() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    try:
        raise Odd
    except Odd:
        found = line("bad", exc_info=sys.exc_info(), stack_info="Stack:\n  here")
    assert "Odd: <exception str() failed>" in found["traceback"]
    assert found["traceback"].endswith("Stack:\n  here")


def test_secrets_have_the_mask() -> None:
    secret = Secret("sk-123")
    assert line("token %s", secret)["message"] == "token •••"
    marked = secret.marked()
    for shown in (repr(marked), json.dumps(marked), json.dumps(marked, ensure_ascii=False)):
        assert line(f"{{'key': {shown}, 'n': 1}}")["message"][9:12] == "•••"
        assert "123" not in line(shown)["message"]
    assert line(f"as text {marked} ")["message"] == "as text ••• "


def test_names_have_a_bound() -> None:
    found = line("x", levelname="L" * 1_000, name=7)
    assert (found["level"], found["logger"]) == ("L" * 200, "7")


def test_what_was_dropped_is_a_line_of_its_own() -> None:
    assert json.loads(log_text.dropped(7)) == {"dropped": 7}

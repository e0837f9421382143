"""What `run` and `worker` show of the log: what happens on the way, each line with its run, step
and attempt.
"""

from __future__ import annotations

import contextvars
import logging
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.api import verbs
from perdure.cli import log_lines
from tests.cli.conftest import Said

Typed = Callable[..., Said]


def record(name: str, level: int, text: str, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "", 0, text, None, None)
    made.__dict__ |= fields
    return made


def test_run_shows_what_happens_on_the_way_and_reports_the_end_once(here: Typed) -> None:
    said = here("run", "flows.py:fragile", "--id", "f")
    lines = said.err.splitlines()
    (on_the_way,) = [line for line in lines if "attempt 1 of step break_unless" in line]
    assert on_the_way.startswith("run f: attempt 1 of step break_unless (row ")
    assert re.search(
        r"ValueError: mended.txt is missing \(flows.py:[0-9]+ in break_unless\)$", on_the_way
    )
    assert (
        len([line for line in lines if "failed: " in line and line.startswith(("f ", "run f ("))])
        == 1
    )


def test_quiet_shows_the_end_only(here: Typed) -> None:
    assert (
        "attempt"
        not in here("run", "flows.py:fragile", "--quiet")
        .err.splitlines()[0]
        .partition("after 1 attempt")[0]
    )


def test_no_handler_is_left_behind(here: Typed) -> None:
    here("run", "flows.py:fragile")
    assert [
        handler
        for name in ("run", "step")
        for handler in logging.getLogger(f"perdure.{name}").handlers
    ] == []


def test_the_end_of_other_runs_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with log_lines.while_running(quiet=False) as shown:
        shown.run_id = "mine"
        for run_id in ("mine", "other"):
            logging.getLogger("perdure.run").error(
                "run %s failed", run_id, extra={"run_id": run_id}
            )
            logging.getLogger("perdure.step").warning(
                "run %s: again\x1b[2J", run_id, extra={"run_id": run_id}
            )
    assert capsys.readouterr().err.splitlines() == [
        "run mine: again\\u001b[2J",
        "run other failed",
        "run other: again\\u001b[2J",
    ]


def in_attempt(attempt: int, act: Callable[[], Any]) -> Any:
    def inside() -> Any:
        verbs._attempt.set(
            SimpleNamespace(run_id="r", workflow="w", step="charge", seq=2, attempt=attempt)
        )
        return act()

    return contextvars.Context().run(inside)


@pytest.mark.parametrize(
    ("made", "attempt", "where"),
    [
        (record("app", logging.INFO, "x"), 1, " [r charge]"),
        (record("app", logging.INFO, "x"), 2, " [r charge#2]"),
        (record("app", logging.INFO, "x"), 0, ""),
        (record("perdure.step", logging.WARNING, "x", run_id="r", step="charge"), 0, ""),
        (record("perdured", logging.WARNING, "x", run_id="r"), 0, " [r]"),
    ],
)
def test_a_workers_lines_of_user_code_say_where_they_come_from(
    made: logging.LogRecord, attempt: int, where: str
) -> None:
    where_of = log_lines._Where(default=None)
    assert in_attempt(attempt, lambda: where_of.filter(made)) if attempt else where_of.filter(made)
    assert made.where == where  # type: ignore[attr-defined]

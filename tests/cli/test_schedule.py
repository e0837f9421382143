"""`schedule`: what is listed, set and steered, and what is refused with which message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from perdure import SyncEngine, connect
from perdure.cli import main
from tests.cli.conftest import Terminal

Typed = Callable[..., Result]


@pytest.fixture
def typed(tmp_path: Path) -> Typed:
    """Types a command for a store of the test."""
    store = str(tmp_path / "perdure.db")
    with SyncEngine(store):
        pass
    runner = CliRunner(env={"COLUMNS": "150"})
    return lambda *words: runner.invoke(main, ["schedule", *words, "--store", store])


def said(result: Result, code: int = 0) -> str:
    assert result.exit_code == code, result.output
    return result.output


def test_a_schedule_from_its_first_day_to_its_last(typed: Typed) -> None:
    assert "No schedule" in said(typed("ls"))
    words = ("nightly", "0 3 * * *", "report", '{"day": "today"}', "--tz", "Europe/Berlin")
    assert "is set. It starts next at 2" in said(typed("add", *words))
    listed = said(typed("ls"))
    assert listed.splitlines()[0].split() == [
        "SCHEDULE", "WHEN", "ZONE", "STATUS", "NEXT", "LAST", "RUN", "MISSED", "SKIPPED",
    ]  # fmt: skip
    assert "nightly   0 3 * * *  Europe/Berlin  no worker" in listed
    (info,) = msgspec.json.decode(said(typed("ls", "--json")))
    assert (info["args"], info["overlap"], info["status"]) == (
        {"day": "today"},
        "skip",
        "no worker",
    )
    assert "perdure schedule resume nightly" in said(typed("pause", "nightly"))
    assert "  paused  -  " in said(typed("ls"))
    assert "It starts next at 2" in said(typed("resume", "nightly"))
    run_id = said(typed("trigger", "nightly")).splitlines()[0]
    assert run_id.startswith("nightly@") and run_id.endswith("-trigger")
    assert run_id in said(typed("ls"))
    triggered = msgspec.json.decode(said(typed("trigger", "nightly", "--json")))
    assert triggered["run"].endswith("-trigger") and triggered["schedule"] == "nightly"
    ids = said(typed("backfill", "nightly", "2026-03-28", "2026-03-31")).splitlines()
    assert ids == [
        "nightly@2026-03-28T03:00:00+01:00",
        "nightly@2026-03-29T03:00:00+02:00",
        "nightly@2026-03-30T03:00:00+02:00",
    ]
    again = said(typed("backfill", "nightly", "2026-03-28", "2026-03-31", "--json"))
    assert msgspec.json.decode(again) == ids
    nothing = said(typed("backfill", "nightly", "2026-03-28T04:00", "2026-03-28T05:00+01:00"))
    assert "no tick" in nothing
    assert "runs stay" in said(typed("rm", "nightly"))
    assert "No schedule" in said(typed("ls"))


def test_what_changes_a_schedule_prints_json(typed: Typed) -> None:
    def printed(*words: str) -> Any:
        return msgspec.json.decode(said(typed(*words, "--json")))

    assert printed("add", "n", "@daily", "report")["name"] == "n"
    assert printed("pause", "n")["status"] == "paused"
    assert printed("resume", "n")["next_at"] is not None
    assert printed("trigger", "n")["run"].endswith("-trigger")
    assert printed("rm", "n") == {"name": "n", "removed": True}


def test_what_is_so_already_is_said(typed: Typed) -> None:
    said(typed("add", "n", "@daily", "report"))
    assert "is not paused: nothing was changed" in said(typed("resume", "n"))
    said(typed("pause", "n"))
    assert "is paused already: nothing was changed" in said(typed("pause", "n"))


def test_a_narrow_terminal_gets_two_lines_each(typed: Typed, monkeypatch: Any) -> None:
    said(typed("add", "n", "0 3 * * *", "report"))
    monkeypatch.setattr("perdure.cli.schedule.room", lambda: 50)
    first, second = said(typed("ls")).splitlines()
    assert (
        first.startswith("n  no worker  2") and second == "  0 3 * * *  UTC  -  missed 0, skipped 0"
    )


def test_the_next_ticks_say_what_the_clock_does(typed: Typed) -> None:
    said(typed("add", "n", "30 2 * * *", "report", "--tz", "Europe/Berlin"))
    lines = said(typed("next", "n", "-n", "370")).splitlines()
    assert len(lines) == 370
    assert sum("does not exist" in line for line in lines) == 1
    assert sum("comes twice" in line for line in lines) == 1
    (first,) = msgspec.json.decode(said(typed("next", "n", "-n", "1", "--json")))
    assert first["at"][11:19] == "02:30:00"


@pytest.mark.parametrize(
    ("words", "code", "wrong"),
    [
        (("add", "n", "0 3 * *", "w"), 2, "when: '0 3 * *' has 4 fields"),
        (("add", "n", "0 24 * * *", "w"), 2, "hour: '24' can't be read. It takes 0-23"),
        (("add", "n", "0 0 30 2 *", "w"), 2, "day-of-month: no date"),
        (("add", "n", "@every 0s", "w"), 2, "when: an interval is at least a second"),
        (("add", "n", "@daily", "w", "--tz", "Europe/Berln"), 2, "Did you mean Europe/Berlin"),
        (("add", "n~", "@daily", "w"), 2, "name: it has 1 to 150"),
        (("add", "n", "@daily", "w", "[1]"), 2, "ARGUMENTS is a JSON object"),
        (("add", "n", "@daily", "w", "{"), 2, "is not JSON"),
        (("add", "n", "@daily", "w", "--catch-up", "soon"), 2, "is no duration"),
        (("add", "n", "@daily", "w", "--catch-up-max", "0"), 2, "catch_up_max: it is a whole"),
        (("add", "n", "@daily", "w", "--overlap", "queue"), 2, "'skip', 'wait', 'cancel'"),
        (("next", "x"), 3, "There is no schedule 'x' in this store. There are: there."),
        (("rm", "x"), 3, "There is no schedule 'x'"),
        (("trigger", "x"), 3, "There is no schedule 'x'"),
        (("pause", "x"), 3, "There is no schedule 'x'"),
        (("backfill", "there", "yesterday", "2026-03-01"), 2, "'yesterday' is no time"),
        (("backfill", "there", "2026-03-01"), 2, "Missing argument 'END'"),
        (("backfill", "there", "2026-03-02", "2026-03-01"), 2, "end: it has to be after the start"),
        (("backfill", "there", "2026-03-02", "9000-01-01"), 2, "end: it is in the future"),
        (("next", "there", "-n", "0"), 2, "count is a whole number from 1 to 1,000"),
    ],
)
def test_what_is_refused_says_why(
    typed: Typed, words: tuple[str, ...], code: int, wrong: str
) -> None:
    said(typed("add", "there", "@daily", "w"))
    before = said(typed("ls", "--json"))
    assert wrong in said(typed(*words), code)
    assert said(typed("ls", "--json")) == before


def test_a_worker_declares_the_schedules_of_its_file(terminal: Terminal) -> None:
    (terminal.folder / "app.py").write_text(
        "from perdure import Every, Queue, Schedule, workflow\n"
        "@workflow\n"
        "async def beat(n: int) -> int:\n"
        "    return n\n"
        "one = Queue('one', concurrency=1)\n"
        "others = [Schedule('fast', Every(1), beat(1), queue='one')]\n"
        "nightly = Schedule('nightly', '@daily', beat(2), paused=True)\n"
    )
    worker = terminal.start("worker", "app.py")

    def rows(query: str) -> list[Any]:
        if not (terminal.folder / "perdure.db").exists():
            return []
        db = connect(terminal.folder / "perdure.db")
        try:
            return db.execute(query).fetchall()
        except Exception:  # the file is being made
            return []
        finally:
            db.close()

    terminal.until(lambda: rows("SELECT 1 FROM perdure_runs WHERE status = 'completed'"))
    listed = terminal("schedule", "ls").out
    assert "@every 1s" in listed and "paused" in listed
    terminal.stop(worker)
    assert rows("SELECT schedule, status FROM perdure_schedules ORDER BY 1") == [
        ("fast", "no worker"), ("nightly", "paused"),
    ]  # fmt: skip
    ids = [run_id for (run_id,) in rows("SELECT id FROM perdure_runs")]
    assert len(ids) == len(set(ids))
    assert all(run_id.startswith("fast@") for run_id in ids)

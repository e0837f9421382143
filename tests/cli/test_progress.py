"""What is shown of a run while it runs."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from perdure import Engine
from perdure.cli import progress, run
from perdure.cli.progress import Activity, Lines, Screen, Silence, Snapshot
from perdure.views import format
from perdure.views.waiting import send_hint, waiting_text
from tests.cli.flows import asks
from tests.runtime.support import awaited
from tests.store.support import queries_of


def test_quiet_is_silence() -> None:
    assert progress.display_for(quiet=True) is Silence
    assert Silence("r").poll_seconds is None


def test_without_a_terminal_it_is_lines() -> None:
    assert progress.display_for(quiet=False) is Lines


def test_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("r")
    for done in range(100):
        lines.show(Snapshot("running", done, 100, ["a"]))
    assert capsys.readouterr().err == ""


def test_lines_tell_at_once_what_a_person_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("r")
    for _ in range(3):
        lines.show(
            Snapshot("waiting", 2, 2, [], "waits for a message on c", "perdure send r c true")
        )
    assert (
        capsys.readouterr().err
        == "r: 2 of 2 steps, waits for a message on c\nr: go on with: perdure send r c true\n"
    )


def test_lines_come_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    Lines("r").show(Snapshot("running", 1_812, 2_000))
    assert capsys.readouterr().err == "r: 1,812 of 2,000 steps, running\n"


def test_lines_come_ever_more_seldom_while_nothing_happens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("perdure.cli.progress.time.monotonic", lambda: now_s)
    lines = Lines("r")
    for _ in range(3_600):
        now_s += 1
        lines.show(
            Snapshot("waiting", 2, 2, [], "waits for a message on c", "perdure send r c true")
        )
    assert 3 <= capsys.readouterr().err.count("waits for") <= 15
    for done in (3, 4):
        now_s += progress.LINE_EVERY_SECONDS_MAX
        lines.show(Snapshot("running", done, 4))
    assert capsys.readouterr().err == "r: 3 of 4 steps, running\nr: 4 of 4 steps, running\n"


def test_an_engine_reports_what_is_under_way() -> None:
    activity = Activity()
    activity.attempt_started("r", 2, "parse", 1)
    activity.attempt_started("r", 3, "write", 3)
    assert activity.changed.is_set()
    assert activity.running == ["parse", "write (attempt 3)"]
    activity.changed.clear()
    activity.attempt_ended("r", 2, "parse", 1, 12, None, None)
    assert activity.changed.is_set()
    assert activity.running == ["write (attempt 3)"]


class Shown(Lines):
    """Counts what it is given to show."""

    def __init__(self, times: int) -> None:
        super().__init__("r")
        self.snapshots: list[Snapshot] = []
        self.full, self.times = asyncio.Event(), times

    def show(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        if len(self.snapshots) >= self.times:
            self.full.set()


@awaited
async def test_an_idle_run_is_drawn_without_being_read(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOOK_EVERY_S", 1_000.0)
    monkeypatch.setattr(run, "DRAW_EVERY_S", 0.0)
    async with Engine(db, execute=False) as engine:
        asked = await engine.start(asks("why"), id="a")
        request = run.Request("flows.py", (), "a", db, again=False, as_json=False, quiet=False)

        async def shows(times: int, activity: Activity) -> list[str]:
            shown = Shown(times)
            showing = asyncio.ensure_future(run._show(engine, asked, request, shown, 0.0, activity))
            queries = await queries_of(engine._store, shown.full.wait())
            showing.cancel()
            return queries

        once = await shows(1, Activity())
        assert once != []
        assert await shows(20, Activity()) == once


def drawn(snapshot: Snapshot) -> str:
    screen = Screen("run-1")
    screen.close()
    out = io.StringIO()
    Console(file=out, width=100, no_color=True).print(screen._block(snapshot))
    return out.getvalue()


def test_the_screen_shows_how_far_it_is() -> None:
    text = drawn(Snapshot("running", 5, 10, ["parse", "parse", "write"]))
    for part in ("run-1", "5 of 10 steps", "0:00:00", "running", "parse × 2, write"):
        assert part in text


def test_the_screen_shows_what_to_type() -> None:
    text = drawn(
        Snapshot(
            "waiting", 5, 5, [], "waits for a message on c (bool)", "perdure send run-1 c true"
        )
    )
    assert "waits for a message on c (bool)" in text
    assert "in another terminal: perdure send run-1 c true" in text


def test_what_is_drawn_does_nothing_to_the_terminal() -> None:
    text = drawn(Snapshot("running", 1, 2, ["call\x1b[2J\x9b31m\u202e"]))
    text += drawn(
        Snapshot(
            "waiting", 1, 2, [], "waits for a message on \x1b]0;x\x07", "perdure send r '\x1b[2J' 1"
        )
    )
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
    assert "call\\u001b[2J\\u009b31m\\u202e" in text


def test_a_bar_without_steps_is_drawn() -> None:
    assert "0 of 0 steps" in drawn(Snapshot("pending"))


def test_hints_fit_the_type() -> None:
    assert send_hint("r", [{"message": "go", "type": "bool"}], "") == "perdure send r go true"
    assert (
        send_hint("r", [{"timer": 1}, {"message": "go", "type": "Order"}], " --store x.db")
        == "perdure send r go JSON --store x.db"
    )
    asked = send_hint("r", [{"request": "a b", "type": "int"}], "")
    assert asked == "perdure ask r 1 --channel 'a b'"
    assert send_hint("r", [{"timer": 1}], "") is None


def test_many_waits_are_counted() -> None:
    assert waiting_text([{"message": f"c{n}"} for n in range(8)]).endswith(
        "a message on c4 and 3 more"
    )
    again = {"step": "call", "seq": 2, "attempt": 3, "attempts": 5, "again_ms": 0}
    assert (
        waiting_text([again])
        == f"waits for attempt 3 of 5 of call at {format.clock(datetime.fromtimestamp(0, UTC))}"
    )

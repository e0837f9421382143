"""The pace of the hub, on a clock that is turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from perdure.http.events.hub import REST_S_MAX, SHARE, Beat
from perdure.reader.cost import Cost


class Clock:
    """What a beat needs of an event loop."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.due: tuple[float, Callable[[], None]] | None = None

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, act: Callable[[], None]) -> Any:
        self.due = when_s, act
        return object()

    def run(self) -> float:
        """Go on until nothing is due. Returns the time."""
        while self.due is not None:
            (when_s, act), self.due = self.due, None
            self.now_s = max(self.now_s, when_s)
            act()
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: made)
    return made


def test_the_first_change_is_told_at_once_and_a_burst_by_its_pace(clock: Clock) -> None:
    beat, began_s = Beat(0.5, Cost()), clock.now_s
    beat.changed()
    assert (clock.run(), beat.number) == (began_s, 1)
    for _ in range(3):
        beat.changed()
    assert (clock.run(), beat.number) == (began_s + 0.5, 2)


def test_what_an_update_has_cost_is_rested_for_many_times(clock: Clock) -> None:
    cost = Cost()
    beat, began_s = Beat(0.5, cost), clock.now_s
    beat.changed()
    clock.run()
    beat.changed()  # due in half a second; meanwhile pages ask for what has changed
    cost.spent_s += 0.1
    assert clock.run() == pytest.approx(began_s + SHARE * 0.1)
    cost.spent_s += 60
    beat.changed()
    assert clock.run() == pytest.approx(began_s + SHARE * 0.1 + REST_S_MAX)
    beat.changed()
    assert clock.run() == pytest.approx(began_s + SHARE * 0.1 + REST_S_MAX + 0.5), "paid once"
    assert beat.number == 4


def test_one_more_commit_means_nothing_while_a_beat_is_due(clock: Clock) -> None:
    beat = Beat(0.5)
    assert beat.heedless, "nothing follows it"
    beat.followers.add(asyncio.Event())
    assert not beat.heedless
    beat.changed()
    assert beat.heedless
    clock.run()
    assert not beat.heedless

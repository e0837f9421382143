"""The campaign over two Pythons: what it finds in a history that another one has made, and what it
says without another one.
"""

from __future__ import annotations

import sys

import pytest

from campaigns import pythons
from campaigns.main import main
from perdure.core.events import Event

SEED = 14
"""Asks for something at once, and gets more than one answer."""


def events(seed: int) -> list[Event]:
    return pythons.events_of(pythons.record(range(seed, seed + 1))[seed])


def test_the_same_python_goes_on_in_the_same_way() -> None:
    for seed in range(10):
        assert pythons.gone_on_with(seed, events(seed))[1] is None


def test_another_order_and_another_way_are_found() -> None:
    seed, rows = next(
        (seed, found)
        for seed in range(SEED, SEED + 100)
        if (found := events(seed))[1].kind == "step" and found[-1].name == "completed"
    )
    changed = [rows[0], Event(rows[1].seq, "step", rows[1].at_ms, None, "another"), *rows[2:]]
    assert "it blocks: the code does not fit" in str(pythons.gone_on_with(seed, changed)[1])
    last = rows[-1]
    changed = [
        *rows[:-1],
        Event(last.seq, last.kind, last.at_ms, last.ref, last.name, b'"another"'),
    ]
    assert "goes another way" in str(pythons.gone_on_with(seed, changed)[1])


def test_a_campaign_with_the_recordings_of_this_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pythons, "_others", lambda: {"3.99": sys.executable})
    assert main(["--seeds", "3", "--only", "pythons"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["pythons", "3", "3"]


def test_without_another_python_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(pythons.VARIABLE, sys.executable)
    assert main(["--seeds", "1", "--only", "pythons"]) == 0
    assert "left out. It needs another Python" in capsys.readouterr().err


def test_a_python_without_perdure_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("no-such-python", "false"):
        monkeypatch.setenv(pythons.VARIABLE, command)
        assert main(["--seeds", "1", "--only", "pythons"]) == 2
        assert f"{command}, which PERDURE_PYTHONS names" in capsys.readouterr().err

"""The campaign of requests: a short one with real processes, and a judge that finds faults."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from campaigns.asks import KEYS, RUNS, Told, ask_campaign, judge
from campaigns.main import CAMPAIGNS, load
from perdure.core import events as ev
from perdure.core.events import Event
from perdure.testing.recording import Recording


def test_askers_and_workers_are_killed_and_each_key_has_one_reply(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"ask_campaign({seed}, 2.0)")
    done = ask_campaign(seed, 2.0, tmp_path)
    print(done, (tmp_path / "said.txt").read_text()[-3_000:])
    assert done.broken == []
    assert done.kills >= 2
    assert done.told >= KEYS


def test_the_command_knows_the_campaign() -> None:
    assert CAMPAIGNS["asks"] == "campaigns.asks:asks"
    assert "SIGKILL" in (load("asks").__doc__ or "")


def good() -> tuple[Told, list[Recording], list[tuple[str, str]]]:
    """What askers and the file say where nothing is wrong."""
    told: Told = []
    runs = []
    for run in range(RUNS):
        rows: list[Event] = []
        for number in range(run, KEYS, RUNS):
            reply = [number, len(rows) // 2 + 1]
            told.append((number, reply))
            asked = msgspec.json.encode({"key": f"k{number}", "sender": "", "value": number})
            rows.append(Event(len(rows) + 1, ev.REQUEST, 0, data=asked))
            data = msgspec.json.encode(reply)
            rows.append(Event(len(rows) + 1, ev.REPLY, 0, len(rows), data=data))
        runs.append(Recording(run, f"teller-{run}", "teller", "waiting", b"", 0, None, rows))
    return told, runs, [(f"k{number}", "replied") for number in range(KEYS)]


def test_what_is_right_is_not_complained_about() -> None:
    assert judge(*good()) == []


def change(what: str, told: Told, runs: list[Recording], requests: list[Any]) -> None:
    match what:
        case "two replies":
            told.append((3, [3, 40]))
        case "no reply":
            told.pop()
        case "still open":
            requests[2] = ("k2", "open")
        case "asked twice":
            requests.append(("k2", "replied"))
        case "not in the file":
            del runs[0].rows[-1]
        case "taken twice":
            told[1] = (told[1][0], [told[1][0], 1])


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("two replies", "k3 got 2 replies"),
        ("no reply", "got no reply"),
        ("still open", "k2 is open"),
        ("asked twice", "is 2 requests"),
        ("not in the file", "the file has"),
        ("taken twice", "gave the numbers"),
    ],
)
def test_what_is_wrong_is_found(what: str, complaint: str) -> None:
    given = good()
    change(what, *given)
    assert any(complaint in one for one in judge(*given)), judge(*given)

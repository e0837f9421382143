"""Lists, counts, the inbox and activity of a store with runs of every kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure import DefinitionError, Engine, RunNotFound
from perdure.reader import StoreReader
from perdure.reader.values import Bounded, RunQuery
from perdure.runtime.workers import NO_WORKER
from tests.reader.conftest import Read, asks
from tests.runtime.support import awaited, reached


def ids(read: Read, **asked: Any) -> list[str]:
    page = read("runs", RunQuery(**asked))
    assert (page.next, page.searched) == (None, None)
    return [run.id for run in page.runs]


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"status": ("failed",)}, ["breaks"]),
        ({"status": ("retrying",)}, ["pays"]),
        ({"status": ("failed", "retrying")}, ["breaks", "pays"]),
        ({"status": ("paused", "failed")}, ["stopped", "breaks"]),
        ({"status": ("completed",), "workflow": "family"}, ["family"]),
        ({"status": ("blocked",)}, []),
        ({"workflow": "asks"}, ["in-2", "in-1", "asks"]),
        ({"workflow": "asks", "queue": "slow"}, ["in-2", "in-1"]),
        ({"workflow": "nothing"}, []),
        ({"tags": {"team": "red"}}, ["asks"]),
        ({"tags": {"team": "red", "parity": "odd"}}, []),
        ({"text": "out of paper"}, ["breaks"]),
        ({"text": "OUT OF PAPER", "in_": ("error",)}, ["breaks"]),
        ({"text": "out of paper", "in_": ("id", "tags")}, []),
        ({"text": "plain-3"}, ["plain-3"]),
        ({"text": "lain-3"}, ["plain-3"]),
        ({"text": '"amount":5', "in_": ("payload",)}, ["pays"]),
        ({"text": 'needle "a" 50%'}, ["fork", "plain-3", "plain-2", "plain-1", "plain-0"]),
        ({"text": "needle", "status": ("failed",)}, []),
        ({"text": "n_edle"}, []),
        ({"text": "red", "in_": ("tags",)}, ["asks"]),
        ({"text": "no money for 5"}, ["pays"]),
        ({"until": datetime.now(UTC) - 2 * HOUR}, []),
        ({"since": datetime.now(UTC) + 2 * HOUR}, []),
    ],
)
def test_a_query_finds(read: Read, asked: dict[str, Any], found: list[str]) -> None:
    assert ids(read, **asked) == found


def test_all_filters_together(read: Read) -> None:
    children = ids(read, parent="family")
    assert len(children) == 3
    asked: dict[str, Any] = {
        "status": ("completed",), "workflow": "plain", "tags": {"parity": "even"},
        "since": datetime.now(UTC) - HOUR, "until": datetime.now(UTC) + HOUR, "text": "family",
    }  # fmt: skip
    assert ids(read, **asked) == [children[0], children[2]]
    asked |= {"parent": "family", "tags": {"parity": "odd"}}
    assert ids(read, **asked) == [children[1]]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"since": datetime(2020, 1, 1, tzinfo=UTC)},
        {"workflow": "plain"},
        {"status": ("waiting", "failed")},
        {"text": "a"},
        {"text": "plain-"},
        {"until": datetime(2090, 1, 1, tzinfo=UTC), "text": "plain"},
    ],
)
def test_pages_follow_one_another(read: Read, asked: dict[str, Any]) -> None:
    whole = ids(read, limit=100, **asked)
    assert len(whole) == len(set(whole)) > 2
    seen: list[str] = []
    after = None
    while True:
        query = RunQuery(limit=2, after=after, **asked)
        page = read("runs", query)
        seen += [run.id for run in page.runs]
        if (after := page.next) is None:
            break
    assert seen == whole


@pytest.mark.parametrize(
    "asked",
    [
        {"status": ("asleep",)},
        {"after": "nonsense"},
        {"after": "t12"},
        {"after": "t1.2"},
        {"after": "p12"},
        {"text": "\ud800"},
        {"tags": {"a": object()}},
        {"limit": 0},
        {"limit": 1_000_000},
        {"since": datetime(2026, 1, 1)},
        {"text": "x" * 1_001},
        {"in_": ("attic",), "text": "x"},
    ],
)
def test_what_no_run_can_have_is_refused(read: Read, asked: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        ids(read, **asked)


def test_an_unknown_parent_is_said(read: Read) -> None:
    with pytest.raises(RunNotFound):
        ids(read, parent="nobody")


def numbers(counts: dict[str, Bounded]) -> dict[str, int]:
    assert not any(one.more for one in counts.values())
    return {status: one.number for status, one in counts.items() if one.number}


def test_counts_are_those_of_the_list(read: Read) -> None:
    everything = numbers(read("counts"))
    assert everything == {"completed": 9, "waiting": 5, "failed": 1, "paused": 1, "retrying": 1}
    for asked in ({"workflow": "plain"}, {"text": "plain"}, {"status": ("failed",)}):
        query = RunQuery(limit=100, **asked)
        counts = numbers(read("counts", query))
        found = ids(read, limit=100, **{**asked, "status": ()})
        assert sum(counts.values()) - counts.get("retrying", 0) == len(found)


def test_everything_that_waits_for_a_person_is_in_the_inbox(read: Read) -> None:
    page = read("inbox")
    found = {item.run: item for item in page.items}
    assert [item.run for item in page.items] == ["in-1", "answers", "asks"]
    assert (found["asks"].kind, found["asks"].channel, found["asks"].type) == (
        "message",
        "approval",
        "bool",
    )
    assert (found["asks"].prompt, found["asks"].tags) == ("Go?", {"team": "red"})
    assert found["asks"].schema == {"type": "boolean"}
    assert page.next is None
    assert read("inbox_count") == Bounded(3)
    first = read("inbox", limit=1)
    rest = read("inbox", first.next, 10)
    assert [item.run for item in [*first.items, *rest.items]] == ["in-1", "answers", "asks"]


def test_activity_counts_starts_and_ends(read: Read) -> None:
    found = read("activity", 3, 86_400_000)
    assert sum(bucket.started for bucket in found.buckets) == 13  # without children, as the ends
    assert sum(bucket.completed for bucket in found.buckets) == 6
    assert sum(bucket.failed for bucket in found.buckets) == 1
    assert not found.partial


def test_names_of_workflows(read: Read) -> None:
    names = ["answers", "asks", "breaks", "family", "pays", "plain"]
    assert read("workflows") == names


@awaited
async def test_what_was_answered_is_asked_no_more_though_no_worker_runs(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    async with Engine(path, workflows=[asks]) as engine:
        for id in ("a", "b"):
            await reached(await engine.start(asks("Go?"), id=id), "waiting")
    async with Engine(path, execute=False) as engine, StoreReader(path) as reader:
        await engine.answer("a", True, channel="approval", sender="ada")
        assert [item.run for item in (await reader.inbox()).items] == ["b"]
        assert (await reader.inbox_of("a"), await reader.inbox_count()) == ([], Bounded(1))
        why = await reader.why("a") or ""
        assert why.startswith("Answered on approval by ada at ")
        assert why.endswith(NO_WORKER)


@awaited
async def test_a_run_that_was_asked_to_end_says_so_and_is_asked_no_more(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    async with Engine(path, workflows=[asks]) as engine:
        await reached(await engine.start(asks("Go?"), id="a"), "waiting")
    async with Engine(path, execute=False) as engine, StoreReader(path) as reader:
        await engine.cancel("a")
        assert ((await reader.inbox()).items, await reader.inbox_count()) == ([], Bounded(0))
        why = await reader.why("a") or ""
        assert why.startswith("Asked to end at ")
        assert why.endswith(NO_WORKER)

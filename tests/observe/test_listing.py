"""What a list says of each database, and which of them it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.observe import listing
from perdure.observe.catalogue import SILENT_S, Catalogue, Entry
from perdure.observe.listing import Query
from perdure.observe.objects import FolderObjects
from perdure.replica.lease_rules import LeaseRow
from perdure.replica.summary import Summary

NOW_MS = 1_800_000_000_000
LATE_MS = NOW_MS - int(SILENT_S * 1000) - 1


def entry(name: str, seen_ms: int = NOW_MS, **of_summary: Any) -> Entry:
    facts: dict[str, Any] = {"state": "replicating", **of_summary}
    return Entry(name, name, seen_ms, Summary(name, seen_ms, "vm", 7, 1, 9, 99, 4096, **facts))


@pytest.mark.parametrize(
    ("given", "state", "says"),
    [
        (entry("a"), "replicating", "An engine holds it and replicates it."),
        (entry("a", LATE_MS), "silent", "Not heard of for 2 min 30 s"),
        (entry("a", LATE_MS, ended=True), "ended", "ended in order"),
        (entry("a", state="failing", reason="no room"), "failing", "can't replicate it: no room"),
        (Entry("a", "a", NOW_MS), "unknown", "open it to look"),
        (Entry("a", "a", NOW_MS, lease=LeaseRow()), "ended", "ended in order"),
        (Entry("a", "a", LATE_MS, lease=LeaseRow(holder="x")), "silent", "Not heard of"),
        (
            Entry("a", "a", NOW_MS, lease=LeaseRow(holder="x", notes={"state": "behind"})),
            "behind",
            "It has no summary",
        ),
        (Entry("a", "/a", NOW_MS, is_file=True), "file", "not counted"),
        (Entry("a", "/a", NOW_MS, is_file=True, problem="cut off"), "unreadable", "cut off"),
        (Entry("a", "a", NOW_MS, problem="it is rubbish"), "unknown", "it is rubbish"),
    ],
)
def test_a_state_has_a_sentence(given: Entry, state: str, says: str) -> None:
    row = listing.row(given, NOW_MS)
    assert row.state == state and says in row.meaning


def test_rows_are_chosen_sorted_and_paged() -> None:
    entries = [entry(f"t{n:03}", counts={"failed": n} if n % 2 else {}) for n in range(450)]
    entries.append(entry("late", LATE_MS, counts={"blocked": 1}))
    first = listing.page(entries, Query(), NOW_MS)
    assert (first.total, first.matching, first.next) == (451, 451, 200)
    assert first.choices["failed"] == 225 and first.choices["silent"] == 1
    last = listing.page(entries, Query(after=400), NOW_MS)
    assert len(last.rows) == 51 and last.next is None
    failed = listing.page(entries, Query(only=("failed",), sort="failed"), NOW_MS)
    assert [one.name for one in failed.rows[:2]] == ["t449", "t447"]
    assert [one.name for one in listing.page(entries, Query("LAT"), NOW_MS).rows] == ["late"]
    assert listing.page([], Query(after=7), NOW_MS).rows == []


def test_what_is_not_counted_is_hidden_by_no_status() -> None:
    entries = [
        entry("bad", counts={"failed": 2}),
        entry("good", counts={"completed": 2}),
        Entry("unknown.db", "/unknown.db", NOW_MS, is_file=True),
    ]
    found = listing.page(entries, Query(only=("failed",)), NOW_MS)
    assert [one.name for one in found.rows] == ["bad", "unknown.db"]
    assert found.choices["failed"] == found.uncounted == 1
    silent = listing.page(entries, Query(only=("silent",)), NOW_MS)
    assert silent.rows == []


def test_what_one_folder_says_hides_no_other(tmp_path: Path) -> None:
    deep = b'{"notes":{"a":' + b"[" * 100_000
    for name, lease in (("bad", deep), ("good", msgspec.json.encode(LeaseRow()))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lease.json").write_bytes(lease)
    bad, good = Catalogue(FolderObjects(str(tmp_path)), "all").refresh()
    assert "can't be read" in bad.problem and good.lease == LeaseRow()

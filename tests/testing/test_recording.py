"""Recorded runs: exported, read again, replayed against the same code and against changed code."""

from __future__ import annotations

import contextlib
import importlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from campaigns.corpus import CASES
from perdure import (
    RunFailed,
    RunNotFound,
    StoreCorrupt,
    StoreNotFound,
    UnknownWorkflow,
    step,
    workflow,
)
from perdure.testing import (
    CrashHarness,
    InvariantViolated,
    assert_survives_every_crash,
    export_run,
    replay_file,
    replay_recorded,
)
from perdure.testing.recording import from_json, recordings, to_json
from tests.testing import flows


def a_run(path: object, call: Any = None, **options: Any) -> bytes:
    harness = CrashHarness(str(path), seed=2)
    with contextlib.suppress(RunFailed):  # such a run is recorded as well
        harness.run(call or flows.patient(4), id="one", **options)
    return export_run(harness.path, "one")


@step
async def double(n: str) -> str:
    return n * 2


@workflow(name="patient")
async def impatient(n: int) -> int:
    return await flows.double_in_a_thread(n) + await flows.fails_twice()


@workflow(name="doubles")
async def doubles_of_text(n: int) -> list[str]:
    return [await double(str(i)) for i in range(n)]


def test_a_recorded_run_replays_against_the_same_code(db: str, tmp_path: Path) -> None:
    data = a_run(db)
    replay_recorded(data, [flows.patient])
    replay_recorded(data, [flows.patient], every_prefix=True)
    (tmp_path / "one.json").write_bytes(data)
    replay_recorded(tmp_path / "one.json", [flows.patient])
    assert replay_file(db, [flows.patient]) == ["one"]


@pytest.mark.parametrize(
    "changed", [impatient, doubles_of_text], ids=["a step less", "other arguments"]
)
def test_changed_code_is_told_with_both_sides(changed: Any, db: str) -> None:
    data = a_run(db, flows.patient(4) if changed is impatient else flows.doubles(2))
    with pytest.raises(InvariantViolated, match=r"history, row \d+: [^\n]+\n +code now asks for: "):
        replay_recorded(data, [changed])


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if not (case.messages or case.requests or case.cancelled)],
    ids=lambda case: case.name,
)
def test_every_kind_of_row_comes_back_from_json_as_it_was(case: Any, db: str) -> None:
    a_run(db, case.call)
    for one in recordings(db):
        assert from_json(to_json(one)) == one
    replay_file(db, [case.call.definition], every_prefix=True)


def test_a_failed_a_continued_and_an_unfinished_run(db: str) -> None:
    replay_recorded(a_run(db + "1", flows.failing("because")), [flows.failing])
    a_run(db + "2", flows.counting(2))
    assert replay_file(db + "2", [flows.counting]) == ["one~1", "one~2", "one"]
    harness = CrashHarness(db + "3")
    with harness.crash_after(2):
        harness.run(flows.approval(), id="one")
    data = export_run(harness.path, "one")
    assert from_json(data).status in ("running", "waiting")
    replay_recorded(data, [flows.approval])


def test_large_payloads_are_whole_in_a_recording(db: str) -> None:
    @step
    async def grows(text: list[str]) -> list[str]:
        return [*text, "x" * 2000]

    @workflow
    async def growing() -> int:
        text: list[str] = []
        for _ in range(5):
            text = await grows(text)
        return len(text)

    data = a_run(db, growing())
    assert data.count(b"x" * 2000) > 10
    replay_recorded(data, [growing], every_prefix=True)


def test_a_formatter_may_touch_the_file(db: str) -> None:
    data = a_run(db, flows.approval())
    for indent in (None, 4):
        replay_recorded(json.dumps(json.loads(data), indent=indent).encode(), [flows.approval])


def test_an_edited_file_is_told(db: str) -> None:
    found = json.loads(a_run(db, flows.doubles(2)))
    found["rows"][1]["data"]["n"] = 77
    with pytest.raises(InvariantViolated, match=r'\{"n":77\}'):
        replay_recorded(json.dumps(found).encode(), [flows.doubles])


def test_looking_changes_nothing(db: str) -> None:
    harness = CrashHarness(db)
    with harness.crash_after(3):
        harness.run(flows.doubles(2), id="one")
    before = {path.name: path.read_bytes() for path in Path(db).parent.iterdir()}
    assert "perdure.db-wal" in before
    recordings(db)
    assert {path.name: path.read_bytes() for path in Path(db).parent.iterdir()} == before


def test_bad_input_has_a_clear_error(db: str, tmp_path: Path) -> None:
    a_run(db)
    with pytest.raises(RunNotFound):
        export_run(db, "two")
    with pytest.raises(StoreNotFound):
        replay_file(tmp_path / "nothing.db", [])
    (tmp_path / "text.db").write_text("hello " * 100)
    with pytest.raises(StoreCorrupt):
        recordings(tmp_path / "text.db")
    with pytest.raises(UnknownWorkflow, match="patient"):
        replay_recorded(export_run(db, "one"), [flows.doubles])
    with pytest.raises(msgspec.ValidationError):
        replay_recorded(b'{"perdure_recording": 1}', [])
    with pytest.raises(msgspec.DecodeError):
        replay_recorded(b"not JSON", [])


def test_an_import_that_fails_in_the_other_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process can't import is an error there, not silence."""
    (tmp_path / "once_only.py").write_text(
        "import os\nif 'ONCE_ONLY' not in os.environ:\n    raise OSError('not here')\n" + ONCE_ONLY
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ONCE_ONLY", "1")
    call = importlib.import_module("once_only").nothing()
    assert_survives_every_crash(call, only=("after", 1))
    monkeypatch.delenv("ONCE_ONLY")
    with pytest.raises(
        InvariantViolated,
        match=(
            r"could not be loaded there; hash_seeds=\(\) leaves this part "
            r"out.\n(.*\n)*OSError: not here"
        ),
    ):
        assert_survives_every_crash(call, only=("after", 1))


ONCE_ONLY = """
from perdure import workflow

@workflow
async def nothing() -> int:
    return 1
"""

"""CPython's tests of asyncio as workflows: a quick part of them, and that the campaign finds what
goes wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from campaigns import asyncio_suite
from campaigns.asyncio_suite import conform, names_of
from campaigns.asyncio_table import TABLE, Kind, Row
from campaigns.main import main
from perdure.core.loop import Future

if not asyncio_suite.has_tests():
    pytest.skip(
        "this Python came without its own tests (Debian: libpython3-testsuite)",
        allow_module_level=True,
    )


@pytest.mark.parametrize(
    "module", ["test_locks", "test_queues", "test_taskgroups", "test_waitfor", "test_pep492"]
)
def test_a_module_of_cpython_passes(module: str) -> None:
    report = conform(module)
    assert {
        name: why for name, (kind, why) in report.found.items() if kind is Kind.UNEXPECTED
    } == {}
    assert report.count(Kind.PASSED) >= 0.75 * len(report.found) > 5


def test_tasks_of_the_runs_own_class_are_tried_too() -> None:
    assert any("OurTask_OurFuture_Tests" in name for name in names_of("test_tasks"))
    assert any("OurFutureTests" in name for name in names_of("test_futures"))


def test_the_campaign_counts_by_module_and_says_what_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        asyncio_suite, "MODULES", ("test_timeouts", "test_threads", "test_none_of_this_name")
    )
    monkeypatch.setattr(
        asyncio_suite,
        "TABLE",
        (Row(Kind.DIFFERS, "old", "test_timeouts.test_timeout_basic"), *TABLE),
    )
    assert main(["--seeds", "1", "--only", "asyncio"]) == 0
    *_, timeouts, threads, everything, outdated = capsys.readouterr().out.splitlines()
    assert timeouts.split()[0] == "test_timeouts"
    assert timeouts.split()[2:] == ["2", "1", "0", "0"]
    assert threads.split() == ["test_threads", "0", "6", "0", "0", "0"]
    assert everything.split()[0] == "all"
    assert outdated == "passes by now, and is in the table: test_timeouts.test_timeout_basic"


def test_what_the_table_does_not_name_fails_the_campaign(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(asyncio_suite, "MODULES", ("test_timeouts",))
    monkeypatch.setattr(
        asyncio_suite,
        "TABLE",
        (Row(Kind.REFUSED, "it is not", "test_timeouts.test_nested_timeouts"),),
    )
    assert main(["--seeds", "1", "--only", "asyncio"]) == 1
    broken = [line for line in capsys.readouterr().err.splitlines() if line.startswith("BROKEN")]
    assert [line.partition(":")[0].rpartition(".")[2] for line in broken] == [
        "test_nested_timeouts", "test_nested_timeouts_concurrent", "test_nested_timeouts_loop_busy",
    ]  # fmt: skip


def test_a_loop_that_is_not_like_that_of_asyncio_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wakes_instead(self: Future, msg: Any = None) -> bool:
        if self.done():
            return False
        self.set_result(None)
        return True

    monkeypatch.setattr(Future, "cancel", wakes_instead)
    assert conform("test_locks").count(Kind.UNEXPECTED) > 0


def test_a_python_without_its_tests_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(asyncio_suite, "PACKAGE", "test.test_nothing_of_this_name")
    assert main(["--seeds", "1", "--only", "asyncio"]) == 2
    assert "libpython3-testsuite" in capsys.readouterr().err


def test_the_page_gives_every_reason() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "explain" / "asyncio.md").read_text()
    assert [row.reason for row in TABLE if f"- {row.reason}\n" not in page] == []

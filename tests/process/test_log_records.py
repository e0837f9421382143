"""Records of `logging` are shown while there are watchers, and the configuration stays as it is."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import pytest

from perdure.process.log_records import LogRecords

log = logging.getLogger("tests.log_records")


@contextmanager
def watching(records: LogRecords) -> Iterator[None]:
    records.watch()
    try:
        yield
    finally:
        records.unwatch()


@pytest.fixture
def shown() -> list[str]:
    return []


@pytest.fixture
def records(shown: list[str]) -> LogRecords:
    return LogRecords(lambda record: shown.append(record.getMessage()))


@pytest.fixture(autouse=True)
def factory() -> Iterator[Any]:
    """The factory before and after each test."""
    before = logging.getLogRecordFactory()
    yield before
    logging.setLogRecordFactory(before)


def test_records_are_shown_while_there_is_a_watcher(
    records: LogRecords, shown: list[str], factory: Any
) -> None:
    with watching(records):
        log.warning("one")
        with watching(records):
            log.warning("two")
        log.warning("three")
        log.debug("below the level of its logger")
    log.warning("four")
    assert shown == ["one", "two", "three"]
    assert logging.getLogRecordFactory() is factory


def test_a_factory_of_the_application_goes_on(records: LogRecords, shown: list[str]) -> None:
    made: list[str] = []

    def around(before: Any, name: str) -> Any:
        def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
            made.append(name)
            record: logging.LogRecord = before(*args, **kwargs)
            return record

        return factory

    logging.setLogRecordFactory(around(logging.getLogRecordFactory(), "before"))
    with watching(records):
        later = around(logging.getLogRecordFactory(), "later")
        logging.setLogRecordFactory(later)
        log.warning("one")
        with watching(records):  # ours is around that one now, and shows each record once
            log.warning("two")
        log.warning("three")
    log.warning("four")
    assert shown == ["one", "two", "three"]
    assert made == ["later", "before"] * 4


def test_a_replaced_factory_is_left_alone(records: LogRecords, shown: list[str]) -> None:
    with watching(records):
        logging.setLogRecordFactory(logging.LogRecord)
        log.warning("not seen")
    assert logging.getLogRecordFactory() is logging.LogRecord
    assert shown == []


def test_warnings_of_an_application_without_handlers_are_printed(
    records: LogRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    with watching(records), redirect_stderr(io.StringIO()) as printed:
        log.warning("the last resort")
        logging.basicConfig(format="configured: %(message)s", stream=printed)
        log.warning("later")
    assert printed.getvalue() == "the last resort\nconfigured: later\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_shows_nothing(records: LogRecords, shown: list[str], factory: Any) -> None:
    with watching(records):
        pid = os.fork()
        if pid == 0:
            log.warning("in the child")
            os._exit(0 if not shown and logging.getLogRecordFactory() is factory else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        log.warning("in the parent")
    assert shown == ["in the parent"]

"""Workflow code that reaches outside is stopped at the guilty line; its logging is silent on
replay.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import mimetypes
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import step, workflow
from perdure.core import events as ev
from perdure.core import guard
from tests.core.support import Hand

log = logging.getLogger("tests.guarded")


@step
async def one() -> int:
    return 1


def _thread() -> None:
    threading.Thread(target=print).start()


def _connect() -> None:
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", 9))


BLOCKING: list[tuple[str, Callable[[], Any], str]] = [
    ("open", lambda: open(__file__), "Opening a file"),  # noqa: SIM115
    ("read_text", lambda: Path(__file__).read_text(), "Opening a file"),
    ("listdir", lambda: os.listdir("."), "Reading a folder"),
    ("subprocess", lambda: subprocess.run(["true"], check=False), "Starting a subprocess"),
    ("thread", _thread, "Starting a thread"),
    ("socket", _connect, "Network I/O"),
    ("sleep", lambda: time.sleep(0.001), "Blocking with time.sleep"),
]


@pytest.mark.parametrize(("name", "act", "what"), BLOCKING, ids=[name for name, _, _ in BLOCKING])
def test_blocking_calls_raise_where_they_stand(
    name: str, act: Callable[[], Any], what: str
) -> None:
    @workflow
    async def guilty() -> None:
        act()

    error = Hand(guilty()).error
    assert f'"message":"{what}' in error
    assert "Wrap this in a @step" in error
    assert __file__ in error


ASYNC: list[tuple[str, Callable[[], Any], str]] = [
    ("to_thread", lambda: asyncio.to_thread(print), "Running a function in a thread"),
    ("subprocess", lambda: asyncio.create_subprocess_exec("true"), "Starting a subprocess"),
    ("connection", lambda: asyncio.open_connection("127.0.0.1", 9), "Network I/O"),
    ("server", lambda: asyncio.start_server(print, "127.0.0.1", 0), "Network I/O"),
]


@pytest.mark.parametrize(("name", "act", "what"), ASYNC, ids=[name for name, _, _ in ASYNC])
def test_asyncio_calls_that_reach_outside_raise(
    name: str, act: Callable[[], Any], what: str
) -> None:
    @workflow
    async def guilty() -> None:
        await act()

    assert what in Hand(guilty()).error


def test_outside_of_workflows_and_in_the_machinery_nothing_is_refused(tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "late.log", delay=True)
    log.addHandler(handler)

    @workflow
    async def innocent() -> int:
        import wave  # a late import reads files

        log.error("written by a handler that opens its file now: %s", wave.__name__)
        try:
            raise ValueError("shown")
        except ValueError:
            traceback.format_exc()
        return 1

    try:
        hand = Hand(innocent())
    finally:
        log.removeHandler(handler)
        handler.close()
    assert isinstance(hand.kernel.outcome, ev.Completed)
    assert "written by" in (tmp_path / "late.log").read_text()


def _reads_a_package() -> object:
    return Path(pytest.__file__).read_text(), os.listdir(Path(pytest.__file__).parent)


def _zones() -> object:
    return zoneinfo.available_timezones()


def _types_of_files() -> object:
    mimetypes.inited, mimetypes._db = False, None  # type: ignore[attr-defined]
    return mimetypes.guess_type("a.png")


def _finalizer_that_fails() -> object:
    class Bad:
        def __del__(self) -> None:
            raise ValueError("of a finalizer")

    return Bad().__class__


@pytest.mark.parametrize(
    "act",
    [_reads_a_package, _zones, _types_of_files, _finalizer_that_fails],
    ids=lambda act: act.__name__,
)
def test_what_belongs_to_the_machine_may_be_read(
    act: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "unraisablehook", functools.partial(guard._show, sys.__unraisablehook__)
    )

    @workflow
    async def innocent() -> bool:
        act()
        return await one() == 1

    hand = Hand(innocent())
    hand.answer()
    assert isinstance(hand.kernel.outcome, ev.Completed)


def test_what_belongs_to_the_machine_may_not_be_written(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()

    @workflow
    async def guilty() -> None:
        (installed / "new.py").write_text("")

    assert "Opening a file" in Hand(guilty()).error


def test_logging_is_silent_on_replay_and_other_threads_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @workflow
    async def talks() -> None:
        log.warning("before")
        await one()
        log.warning("after")

    first = Hand(talks())
    assert caplog.messages == ["before"]

    ready, go = threading.Event(), threading.Event()

    def elsewhere() -> None:
        ready.set()
        go.wait()
        log.warning("elsewhere")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    ready.wait()
    second = Hand(talks(), first.rows)
    go.set()
    thread.join()
    assert caplog.messages == ["before", "elsewhere"]
    second.answer()
    assert caplog.messages == ["before", "elsewhere", "after"]

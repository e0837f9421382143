"""What is refused is refused at the line that asks for it, in workflow code only, and nothing stays switched on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import shutil
import socket
import sqlite3
import tempfile
import threading
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.core.support import Hand

from perdure import NotDeterministic, step, workflow
from perdure.core import events as ev


@step
async def reads() -> str:
    return Path(__file__).read_text()[:3]


ACTS: list[tuple[str, Callable[[], Any], str]] = [
    ("walk", lambda: list(os.walk(".")), "Reading a folder"),
    ("copy", lambda: shutil.copy(__file__, "nowhere"), "Opening a file"),
    ("mkstemp", lambda: tempfile.mkstemp(), "Opening a file"),
    ("mkdir", lambda: Path("nowhere").mkdir(), "Changing the file system"),
    ("unlink", lambda: Path("nowhere").unlink(), "Changing the file system"),
    ("name lookup", lambda: socket.getaddrinfo("localhost", 80), "Network I/O"),
    ("urlopen", lambda: urllib.request.urlopen("http://127.0.0.1:9/"), "Network I/O"),
    ("sqlite3", lambda: sqlite3.connect(":memory:"), "Opening a database"),
    ("new pool", lambda: concurrent.futures.ThreadPoolExecutor(1).submit(int), "Starting a thread"),
    ("os.system", lambda: os.system("true"), "Starting a subprocess"),  # noqa: S605
    ("fork", lambda: os.fork() or os._exit(0), "Starting a subprocess"),
    ("run_in_executor", lambda: asyncio.get_running_loop().run_in_executor(None, int), "Running a function in a thread"),
    ("threadsafe", lambda: asyncio.get_running_loop().call_soon_threadsafe(int), "Running a function in a thread"),
    ("create_connection", lambda: asyncio.get_running_loop().create_connection(asyncio.Protocol, "h", 1), "Network I/O"),
    ("signal", lambda: asyncio.get_running_loop().add_signal_handler(10, print), "Handling a signal"),
    ("stop", lambda: asyncio.get_running_loop().stop(), "Running or stopping the event loop"),
]


@pytest.mark.parametrize(("act", "what"), [(act, what) for _, act, what in ACTS], ids=[name for name, _, _ in ACTS])
def test_the_guilty_line_is_in_the_traceback(act: Callable[[], Any], what: str) -> None:
    caught: list[NotDeterministic] = []

    @workflow
    async def guilty() -> None:
        try:
            act()
        except NotDeterministic as error:
            caught.append(error)

    Hand(guilty())
    (error,) = caught
    assert error.what == what
    assert "@step" in str(error)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == __file__]
    assert act.__code__.co_firstlineno in lines


def test_the_recorded_error_of_a_run_shows_the_line() -> None:
    @workflow
    async def guilty() -> None:
        os.listdir(".")  # the guilty line

    assert "# the guilty line" in Hand(guilty()).error


def test_after_a_refusal_nothing_outside_is_refused(tmp_path: Path) -> None:
    @workflow
    async def guilty() -> None:
        os.listdir(".")

    Hand(guilty())
    (tmp_path / "file").write_text("x")
    assert os.listdir(tmp_path) == ["file"]


def test_between_turns_nothing_is_refused_and_the_next_turn_is_guarded_again() -> None:
    @workflow
    async def guilty_later() -> None:
        await reads()
        os.listdir(".")

    hand = Hand(guilty_later())
    assert os.listdir(".")
    hand.answer(b'"abc"')
    assert "Reading a folder" in hand.error


def test_a_step_outside_of_workflows_may_do_what_it_likes() -> None:
    assert asyncio.run(reads()) == '"""'


def test_other_threads_are_not_refused_while_a_workflow_runs() -> None:
    go, done = threading.Event(), threading.Event()
    found: list[Any] = []

    def elsewhere() -> None:
        go.wait()
        try:
            found.append(os.listdir("."))
        finally:
            done.set()

    @workflow
    async def waits() -> int:
        go.set()
        done.wait(10)
        return 1

    thread = threading.Thread(target=elsewhere)
    thread.start()
    hand = Hand(waits())
    thread.join()
    assert isinstance(hand.kernel.outcome, ev.Completed)
    assert len(found) == 1

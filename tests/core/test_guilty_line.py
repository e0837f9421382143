"""What is refused is refused at the line that asks for it, in workflow code only, and nothing stays
switched on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import shutil
import socket
import sqlite3
import tempfile
import threading
import traceback
import types
import urllib.request
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import NotDeterministic, TouchedFromOutside, now, step, workflow
from perdure.core import events as ev
from tests.core.support import Hand


@step
async def reads() -> str:
    return Path(__file__).read_text()[:3]


POOL = "Running a function in a pool of threads or processes"
WARM = concurrent.futures.ThreadPoolExecutor(1)
DONE = WARM.submit(int)
DONE.result()
UDP = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
UDP.close()

ACTS: list[tuple[str, Callable[[], Any], str]] = [
    ("walk", lambda: list(os.walk(".")), "Reading a folder"),
    ("copy", lambda: shutil.copy(__file__, "nowhere"), "Changing the file system"),
    ("mkstemp", lambda: tempfile.mkstemp(), "Opening a file"),
    ("mkdir", lambda: Path("nowhere").mkdir(), "Changing the file system"),
    ("unlink", lambda: Path("nowhere").unlink(), "Changing the file system"),
    ("name lookup", lambda: socket.getaddrinfo("localhost", 80), "Network I/O"),
    ("urlopen", lambda: urllib.request.urlopen("http://127.0.0.1:9/"), "Network I/O"),
    ("sqlite3", lambda: sqlite3.connect(":memory:"), "Opening a database"),
    ("new pool", lambda: concurrent.futures.ThreadPoolExecutor(1).submit(int), POOL),
    ("warm pool", lambda: WARM.submit(int), POOL),
    ("future of a pool", lambda: asyncio.wrap_future(DONE), POOL),
    ("UDP", lambda: UDP.sendto(b"", ("127.0.0.1", 9)), "Network I/O"),
    ("old name lookup", lambda: socket.gethostbyname("localhost"), "Network I/O"),
    ("hard link", lambda: os.link(__file__, "nowhere"), "Changing the file system"),
    ("symbolic link", lambda: os.symlink(__file__, "nowhere"), "Changing the file system"),
    ("chmod", lambda: os.chmod("nowhere", 0o600), "Changing the file system"),
    ("truncate", lambda: os.truncate("nowhere", 0), "Changing the file system"),
    ("chdir", lambda: os.chdir("nowhere"), "Changing the process"),
    ("environment", lambda: os.environ.update(PERDURE_TEST="1"), "Changing the process"),
    ("kill", lambda: os.kill(os.getpid(), 0), "Sending a signal"),
    ("input", lambda: input(), "Asking at the terminal"),
    ("os.system", lambda: os.system("true"), "Starting a subprocess"),  # noqa: S605
    ("fork", lambda: os.fork() or os._exit(0), "Starting a subprocess"),
    (
        "run_in_executor",
        lambda: asyncio.get_running_loop().run_in_executor(None, int),
        "Running a function in a thread",
    ),
    (
        "threadsafe",
        lambda: asyncio.get_running_loop().call_soon_threadsafe(int),
        "Running a function in a thread",
    ),
    (
        "create_connection",
        lambda: asyncio.get_running_loop().create_connection(asyncio.Protocol, "h", 1),
        "Network I/O",
    ),
    (
        "signal",
        lambda: asyncio.get_running_loop().add_signal_handler(10, print),
        "Handling a signal",
    ),
    ("stop", lambda: asyncio.get_running_loop().stop(), "Running or stopping the event loop"),
]


@pytest.mark.parametrize(
    ("act", "what"), [(act, what) for _, act, what in ACTS], ids=[name for name, _, _ in ACTS]
)
def test_the_guilty_line_is_in_the_traceback(act: Callable[[], Any], what: str) -> None:
    caught: list[NotDeterministic] = []

    @workflow
    async def guilty() -> None:
        try:
            act()
        except NotDeterministic as error:
            caught.append(error)
            raise

    assert '"NotDeterministic"' in Hand(guilty()).error
    (error,) = caught
    assert error.what == what
    assert "@step" in str(error)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == __file__
    ]
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
        done.wait(60)
        return 1

    thread = threading.Thread(target=elsewhere)
    thread.start()
    hand = Hand(waits())
    thread.join()
    assert isinstance(hand.kernel.outcome, ev.Completed)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("pdb", True),
        ("_pydevd_bundle.pydevd_comm", True),
        ("linecache", True),
        ("loguru._handler", True),
        ("opentelemetry.sdk.trace.export", True),
        ("loguru._logger", False),
        ("opentelemetry.instrumentation.httpx", False),
        ("pdbs", False),
    ],
)
def test_debuggers_and_what_takes_logs_away_may_do_what_they_have_to(
    name: str, allowed: bool
) -> None:
    def read(path: str) -> str:
        with open(path) as file:
            return file.read(3)

    look = types.FunctionType(read.__code__, {"__name__": name, "open": open})

    @workflow
    async def looked_at() -> int:
        return len(look(__file__))

    assert (Hand(looked_at()).kernel.outcome == ev.Completed(b"3")) is allowed


def test_the_rules_of_a_time_zone_may_be_read() -> None:
    @workflow
    async def tells() -> str:
        return str(now().astimezone(zoneinfo.ZoneInfo.no_cache("Europe/Berlin")).utcoffset())

    assert Hand(tells()).kernel.outcome == ev.Completed(b'"1:00:00"')


def test_futures_that_no_pool_has_made_are_nobodys_business() -> None:
    """Libraries such as tenacity keep an outcome in one."""

    class Outcome(concurrent.futures.Future[int]):
        pass

    @workflow
    async def keeps() -> int:
        outcome = Outcome()
        outcome.set_result(3)
        return outcome.result()

    assert Hand(keeps()).kernel.outcome == ev.Completed(b"3")


def test_the_collector_runs_no_finalizers_of_the_application_within_a_turn(tmp_path: Path) -> None:
    class Application:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            (tmp_path / "finalized").mkdir()

    @workflow
    async def allocates() -> bool:
        gc.set_threshold(10, 1, 1)
        kept = [[] for _ in range(1_000)]  # type: ignore[var-annotated]
        return len(kept) > 0

    thresholds = gc.get_threshold()
    Application()
    try:
        assert Hand(allocates()).kernel.outcome == ev.Completed(b"true")
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert (tmp_path / "finalized").exists()


shared: dict[str, Any] = {}


@pytest.mark.parametrize("how", ["event", "future", "queue", "task", "loop"])
def test_what_comes_from_outside_of_the_run_is_refused_where_it_stands(how: str) -> None:
    @workflow
    async def waits() -> None:
        event, queue = asyncio.Event(), asyncio.Queue[int]()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        loop, task = asyncio.get_running_loop(), asyncio.create_task(queue.get())
        shared.update(
            event=event.set,
            future=lambda: future.set_result(1),
            queue=lambda: queue.put_nowait(1),
            task=task.cancel,
            loop=lambda: loop.call_soon(print),
        )
        await asyncio.gather(event.wait(), future)

    hand = Hand(waits())
    with pytest.raises(TouchedFromOutside, match=r"run 'r' was used outside.*engine.send.*receive"):
        shared[how]()
    shared.clear()
    hand.kernel.discard()

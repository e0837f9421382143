"""Helpers of the runtime's tests: coroutines as tests with a deadline, real processes, SQL from
outside.

Rules: nothing is mocked; a process is told what to do by words on its standard input and tells what
it did by lines on its standard output, so that nobody has to sleep.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import apsw

import campaigns
from campaigns.forking import Forked
from perdure import Engine, Retry, Run

PATIENCE_S = 120  # far more than anything takes: only what hangs is to fail
TEST_S = 240  # for a whole test: some kill and begin again many processes, on a slow disk
AT_ONCE = Retry(attempts=3, delay=0)
VICTIM = Path(__file__).with_name("victim.py")
SOURCE = Path(__file__).resolve().parents[2] / "src"


def awaited(test: Callable[..., Any]) -> Callable[..., None]:
    """An async test, with a deadline: what would hang fails."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        async def main() -> None:
            async with asyncio.timeout(TEST_S) as patience:
                await test(**fixtures)
            assert not patience.expired(), (
                "it hung, and what ended the wait swallowed the cancellation"
            )

        asyncio.run(main())

    return run


async def reached(run: Run[Any], *statuses: str) -> str:
    """Wait until a run has one of these statuses; nothing public announces them all, so it is asked
    for.
    """
    while (status := await run.status()) not in statuses:  # noqa: ASYNC110
        await asyncio.sleep(0.003)
    return status


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until something outside the engine has become true."""
    while not (found := condition()):  # noqa: ASYNC110
        await asyncio.sleep(0.003)
    return found


def kinds(history: Iterable[Any]) -> list[str]:
    return [event.kind for event in history]


async def executed_again(db: str, workflows: list[Any], run_id: str, **options: Any) -> Any:
    """The result of a run as the next engine gives it."""
    async with Engine(db, workflows=workflows, **options) as engine:
        return await (await engine.get(run_id)).result()


def environment() -> dict[str, str]:
    return campaigns.environment(PYTHONUNBUFFERED="1")


class Victim:
    """A process that executes `victim.py`, or another script; `kill` is kill -9."""

    def __init__(self, *words: object, script: Path = VICTIM) -> None:
        self.process = Forked(
            [sys.executable, str(script), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        self._text = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def says(self, word: str) -> str:
        """Wait for a line that begins with a word, and give it back."""
        while True:
            line = self._line()
            if line.startswith(word):
                return line

    def _line(self) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._text:
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not more:
                self.kill()
                assert self.process.stderr is not None
                raise AssertionError(
                    f"the process said nothing more: {self.process.stderr.read().decode()[-3000:]}"
                )
            self._text += more
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def ended(self) -> int:
        """Wait for the process to end by itself."""
        code = self.process.wait(PATIENCE_S)
        self.kill()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        if self.process.stderr is not None:
            self.process.stderr.close()


def freeze(pid: int, db: str) -> None:
    """SIGSTOP for one of our own processes, but not inside a transaction: it would keep the write
    lock, and all others would wait.
    """
    ours = apsw.Connection(db)
    try:
        while True:
            os.kill(pid, signal.SIGSTOP)
            _stopped(pid)
            try:
                ours.execute("BEGIN IMMEDIATE; ROLLBACK")
                return
            except apsw.BusyError:
                os.kill(pid, signal.SIGCONT)
    finally:
        ours.close()


def _stopped(pid: int) -> None:
    """Wait until a process has stopped. It may be a child of the one that forks for the tests."""
    try:
        os.waitpid(pid, os.WUNTRACED)
    except ChildProcessError:
        while Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2][0] != "T":
            time.sleep(0.001)


_SQL = """
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in db.execute(sys.argv[2])]))
db.close()
"""


def outside(db: str, sql: str) -> list[dict[str, Any]]:
    """Rows as the standard library's `sqlite3` sees them, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _SQL, db, sql], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows

"""The command as people run it: in a process of its own, in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from click.testing import CliRunner

from campaigns.forking import Forked
from perdure import Engine, RunCancelled, RunFailed, StoreNotFound, Workflow, connect
from perdure.cli import main
from tests.cli import flows

COMMAND = (sys.executable, "-m", "perdure.cli")
PATIENCE_SECONDS = 120  # far more than anything takes: only what hangs is to fail


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


@dataclass
class Terminal:
    """A folder in which commands are typed."""

    folder: Path
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(self, *words: str, **env: str) -> Said:
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return Said(process.returncode, out, err)

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """A command that goes on while the test does something else."""
        process = Forked(
            [*COMMAND, *words],
            cwd=self.folder,
            env=_clean_environment() | env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.children.append(process)
        return process

    def below(self, name: str) -> Terminal:
        """Another one, in a folder below with workflows of its own; its commands end with ours."""
        folder = self.folder / name
        folder.mkdir()
        shutil.copy(Path(__file__).with_name("flows.py"), folder)
        return Terminal(folder, self.children)

    def stop(self, process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> Said:
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return Said(process.returncode, out, err)

    def until(self, condition: Callable[[], object]) -> None:
        """Poll until something outside this process has come true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.02)

    def status(self, run_id: str) -> str:
        """Read from the store, as a process for each look would take longer than what is waited
        for.
        """
        with (
            contextlib.suppress(StoreNotFound, apsw.SQLError),
            contextlib.closing(connect(self.folder / "perdure.db")) as db,
        ):
            return str(
                db.execute("SELECT status FROM perdure_runs WHERE id = ?", (run_id,)).get or "none"
            )
        return "none"  # it is being made

    @property
    def notes(self) -> list[str]:
        path = self.folder / "notes.txt"
        return path.read_text().splitlines() if path.exists() else []


def _clean_environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PERDURE_STORE", "FORCE_COLOR")
    }
    return kept | {"NO_COLOR": "1", "TERM": "dumb"}


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal in an empty folder with the test workflows in flows.py; each command is a process
    of its own.
    """
    shutil.copy(Path(__file__).with_name("flows.py"), tmp_path)
    terminal = Terminal(tmp_path)
    yield terminal
    for child in terminal.children:
        child.kill()
        child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with a run of every kind of end, and the folder of it as the current one."""
    folder = tmp_path_factory.mktemp("seeded")
    before = Path.cwd()
    os.chdir(folder)
    try:
        asyncio.run(_seed())
        yield folder / "perdure.db"
    finally:
        os.chdir(before)


async def _seed() -> None:
    workflows: list[Workflow[..., Any]] = [flows.hello, flows.fragile, flows.asks, flows.wide]
    async with Engine("perdure.db", workflows=workflows) as engine:
        await engine.run(flows.hello("Ada"), id="hello-1", tags={"team": "red"})
        await engine.run(flows.hello("Bob", times=2), id="hello-2", tags={"team": "blue"})
        await engine.run(flows.wide(40), id="wide")
        with contextlib.suppress(RunFailed):
            await engine.run(flows.fragile(), id="fragile-1")
        await engine.start(flows.asks("why"), id="asks-1")
        gone = await engine.start(flows.asks("what"), id="asks-2")
        await gone.cancel()
        with contextlib.suppress(RunCancelled):
            await gone.result()
        while await (await engine.get("asks-1")).status() != "waiting":  # a status has no event  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def typed(seeded: Path) -> Callable[..., Said]:
    """A command typed in the seeded folder, in this process."""
    return type_here


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """A command typed in an empty folder with flows.py, in this process: for what needs no process
    of its own.
    """
    shutil.copy(Path(__file__).with_name("flows.py"), tmp_path)
    monkeypatch.chdir(tmp_path)
    return type_here


def type_here(*words: str, **env: str) -> Said:
    modules, paths = set(sys.modules), list(sys.path)
    try:
        result = CliRunner().invoke(
            main, list(words), env={"NO_COLOR": "1", "PERDURE_STORE": None, "COLUMNS": None} | env
        )
    finally:
        sys.path[:] = paths
        for name in set(sys.modules) - modules:
            file = str(getattr(sys.modules[name], "__file__", ""))
            if file.startswith(str(Path.cwd())) or file == flows.__file__:
                del sys.modules[name]  # the next test has another file of this name
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(result.exit_code, result.stdout, result.stderr)

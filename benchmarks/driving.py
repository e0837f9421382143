"""The side of the command: starts a system in a process of its own, asks it for scenarios, kills
it.

Rules: every system lives in its own process group, which is what is killed, so that nothing is left
behind; a peer that can't be installed or fails is a line in the table, never the end of the
command.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from answering import GATE_FILE, GATE_OPEN, HOLDS, SLOW_SYNC_US

HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """A system could not do what it was asked; the message goes into the table."""


@dataclass(frozen=True)
class Kind:
    """A system as it can be started: the interpreter, the program, its settings."""

    name: str
    program: str
    python: str = sys.executable
    settings: dict[str, str] = field(default_factory=dict)
    peer: bool = True
    static: bool = False  # its disk access can't be slowed with LD_PRELOAD; it does that itself
    why_not: str = ""  # it could not be installed


RAW = Kind("raw apsw commit", "raw.py", peer=False)
PERDURE = Kind("Perdure", "perdure_.py", peer=False)


class Driver:
    """One process of a system on one folder."""

    def __init__(
        self,
        kind: Kind,
        folder: Path,
        *,
        slow_us: int = 0,
        setting: str = "",
        trace: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.kind, self.folder = kind, folder
        self.begin = time.perf_counter()
        command = [kind.python, str(HERE / "systems" / kind.program), str(folder)]
        self._log = folder / "log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                traced(command, trace),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                cwd=folder,
                env=self._environment(slow_us, setting),
            )

    def _environment(self, slow_us: int, setting: str) -> dict[str, str]:
        inherited = (
            []
            if self.kind.peer
            else [
                os.path.abspath(path)
                for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
                if path
            ]
        )
        own = {
            "PYTHONPATH": os.pathsep.join([str(HERE), *inherited]),
            GATE_FILE: str(self.folder / "gate"),
        }
        environment = {**os.environ, **own, **self.kind.settings}
        if setting in (GATE_OPEN, HOLDS):
            environment[setting] = "1"
        if slow_us:
            environment[SLOW_SYNC_US] = str(slow_us)
            if not self.kind.static:
                environment["LD_PRELOAD"] = str(slow_sync_library())
        return environment

    def ask(self, verb: str, *args: Any, seconds_max: float = 300.0) -> dict[str, Any]:
        """Have one verb of `answering` done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([verb, *args]).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._last_words()) from None
        if not select.select([self._process.stdout], [], [], seconds_max)[0]:
            raise Failed(f"{verb} took more than {seconds_max:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise Failed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"the process ended: {lines[-1] if lines else 'it said nothing'}"[:200]

    def kill(self) -> None:
        """As -9 does it: the process and everything that it started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # nothing is left of it
            pass
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def driven(kind: Kind, folder: Path, **options: Any) -> Iterator[Driver]:
    """An opened system, which is killed at the end."""
    if kind.why_not:
        raise Failed(kind.why_not)
    driver = Driver(kind, folder, **options)
    try:
        driver.ask("open", seconds_max=60)
        yield driver
    finally:
        driver.kill()


def traced(command: list[str], trace: Path | None) -> list[str]:
    """The command under strace, which writes down every write and sync with the file's name."""
    if trace is None:
        return command
    calls = "trace=fsync,fdatasync,write,pwrite64,writev,pwritev,pwritev2,openat"
    return [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-y",
        "-s",
        "0",
        "-o",
        str(trace),
        "-e",
        calls,
        *command,
    ]


def slow_sync_library() -> Path:
    """The shim that makes every sync wait, built where the packages of the peers are kept."""
    library = cache() / "slow_sync.so"
    source = HERE / "slow_sync.c"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        library.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True
        )
    return library


def can_slow() -> str:
    """Why no disk can be made slow here, or nothing."""
    if not sys.platform.startswith("linux"):
        return "LD_PRELOAD is Linux's"
    return "" if shutil.which("gcc") else "no gcc to build slow_sync.c with"


# Peers --------------------------------------------------------------------------------------------


def cache() -> Path:
    """Where peers are installed: outside the repository, used again by the next run."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perdure-benchmarks"


def peers(prefixes: list[str]) -> list[Kind]:
    """Those whose name begins so, or all; installed on demand; those that can't be say why."""
    wal = {"BENCH_DBOS_WAL": "1"}
    every: dict[str, Callable[[], list[Kind]]] = {
        "dbos": lambda: _peer("dbos.txt", {"DBOS": {}, "DBOS, file in WAL": wal}, "dbos_.py"),
        "restate": _restate,
    }
    return [
        kind
        for name, install in every.items()
        if name.startswith(tuple(prefixes or [""]))
        for kind in install()
    ]


def _restate() -> list[Kind]:
    folder = cache() / "restate-server"
    names = sorted(folder.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not names:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / "peers" / "package.json", folder)
            _quietly(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)
        except Failed as error:
            return [Kind("Restate", "restate_.py", why_not=str(error))]
        names = sorted(folder.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    settings = {"BENCH_RESTATE_SERVER": str(names[0]) if names else ""}
    return _peer("restate.txt", {"Restate": settings}, "restate_.py", static=True)


def _peer(
    requirements: str, variants: dict[str, dict[str, str]], program: str, *, static: bool = False
) -> list[Kind]:
    home = cache() / Path(requirements).stem
    python = home / "bin" / "python"
    wanted, installed = HERE / "peers" / requirements, home / requirements
    why_not = ""
    if not installed.exists() or installed.read_text() != wanted.read_text():
        try:
            venv.create(home, with_pip=True)
            _quietly(
                [str(python), "-m", "pip", "install", "--quiet", "--upgrade", "-r", str(wanted)]
            )
            shutil.copy(wanted, installed)
        except Failed as error:
            why_not = str(error)
    return [
        Kind(name, program, str(python), settings, static=static, why_not=why_not)
        for name, settings in variants.items()
    ]


def _quietly(command: list[str], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"can't be installed: {error}") from None
    if done.returncode:
        raise Failed(f"can't be installed: {' '.join(done.stderr.split())[-160:]}")

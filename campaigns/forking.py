"""Processes of Python that begin with Perdure imported: each is forked from a server, for a tenth
of the time that an interpreter and its imports take.

Rules: such a process is a real one, with an id, files, signals and an exit code of its own; how it
has come to its imports is all that differs. What depends on that, on arguments of the interpreter,
or on variables that it reads when it starts takes `subprocess.Popen`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

_NUMBER = struct.Struct("i")
_MESSAGE_BYTES_MAX = 200_000
_PRELOADED = ("perdure", "perdure.cli", "perdure.replica", "perdure.runtime", "perdure.testing")


class Forked(subprocess.Popen[Any]):
    """As `Popen`, of `[sys.executable, …]` with `-m MODULE`, `-c CODE` or a script."""

    def _execute_child(self, args: list[Any], *given: Any) -> None:
        cwd, env, pipes, new_session = given[4], given[5], given[9:15], given[20]
        theirs, ours = (pipes[0], pipes[3], pipes[5]), (pipes[1], pipes[2], pipes[4])
        request = [
            list(map(str, args[1:])),
            str(cwd or Path.cwd()),
            dict(os.environ if env is None else env),
            bool(new_session),
        ]
        standard = [number if pipe == -1 else pipe for number, pipe in enumerate(theirs)]
        self._reply, its = socket.socketpair()
        with its:
            socket.send_fds(_server(), [json.dumps(request).encode()], [*standard, its.fileno()])
        self.pid = self._number()
        self._child_created = True
        for pipe in {pipe for pipe, other in zip(theirs, ours, strict=True) if other != -1}:
            os.close(pipe)

    def _number(self, flags: int = 0) -> int:
        return int(_NUMBER.unpack(self._reply.recv(_NUMBER.size, flags))[0])

    def _internal_poll(self, _deadstate: int | None = None, *_: Any) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):
                self._ended(self._number(socket.MSG_DONTWAIT))
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            if not select.select([self._reply], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._ended(self._number())
        return self.returncode

    def _ended(self, code: int) -> None:
        self.returncode = code
        self._reply.close()


def run(command: list[str], *, timeout: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` of a process that is forked, with its output as text."""
    pipe = subprocess.PIPE
    with Forked(command, text=True, stdout=pipe, stderr=pipe, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@functools.cache
def _server() -> socket.socket:
    """That of this process: it ends, with nothing to fork for, when this one does."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", "campaigns.forking", str(its.fileno())],
            cwd=Path(__file__).resolve().parent.parent,
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# --- the server ----------------------------------------------------------------------------------


def _serve(asked: socket.socket) -> list[str]:
    """Returns in each process that is forked, with its arguments."""
    replies: dict[int, int] = {}
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([asked.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 1_000)
            for pid, code in _ended():
                _tell(replies[pid], code)
                os.close(replies.pop(pid))
        if asked.fileno() in ready:
            request, given, _, _ = socket.recv_fds(asked, _MESSAGE_BYTES_MAX, 4)
            if not request:
                os._exit(0)
            if not (pid := os.fork()):
                asked.detach()
                return _become(request, given)
            replies[pid] = given.pop()
            _tell(replies[pid], pid)
            for descriptor in given:
                os.close(descriptor)


def _ended() -> Iterator[tuple[int, int]]:
    """Processes that have ended, with their exit codes."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found[0], os.waitstatus_to_exitcode(found[1])


def _tell(reply: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.write(reply, _NUMBER.pack(number))


def _become(request: bytes, given: list[int]) -> list[str]:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for standard, descriptor in enumerate(given[:3]):
        os.dup2(descriptor, standard)
    os.closerange(3, 1_024)
    words, cwd, env, new_session = json.loads(request)
    if new_session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.stdout.reconfigure(write_through=bool(env.get("PYTHONUNBUFFERED")))  # type: ignore[union-attr]
    random.seed()
    gc.enable()
    return list(words)


def _preload() -> None:
    """Import what the processes will, and keep the garbage collector from looking at it."""
    gc.disable()
    for name in _PRELOADED:
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__, f"{name}."):
            if module.name.rpartition(".")[2] not in ("__main__", "plugin"):
                with contextlib.suppress(ImportError):
                    importlib.import_module(module.name)
    gc.freeze()


def _main(words: list[str]) -> None:
    """What the interpreter does with its arguments."""
    kind, *rest = words
    places = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:1] = ["" if kind == "-c" else os.getcwd(), *places]
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        code, *more = rest
        sys.argv = ["-c", *more]
        sys.modules["__main__"] = module = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), module.__dict__)  # noqa: S102
    else:
        sys.argv = words
        sys.path[0] = str(Path(kind).resolve().parent)
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    _preload()
    _main(_serve(socket.socket(fileno=int(sys.argv[1]))))

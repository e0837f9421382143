"""The guard: refuses I/O in workflow code, at that line, and mutes its logging on replay.

Rules: one audit hook for the process, installed with the first turn, which looks at one
thread-local and returns; imports, tracebacks, debuggers, reading installed files, and what takes
logs away stay allowed. `print` and reading the clock raise no audit event.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from perdure.core.refused import is_installed, remember
from perdure.errors import NotDeterministic

_EVENTS = {
    "Opening a file": "open mmap.__new__",
    "Reading a folder": "os.listdir os.scandir os.walk os.fwalk",
    "Changing the file system": """
        os.mkdir os.remove os.rename os.rmdir os.link os.symlink os.truncate os.chmod os.chown
        os.chflags os.utime os.setxattr os.removexattr os.lockf shutil.rmtree shutil.move
        shutil.copyfile shutil.copytree""",
    "Changing the process": "os.chdir os.putenv os.unsetenv resource.setrlimit syslog.syslog",
    "Sending a signal": "os.kill os.killpg signal.pthread_kill",
    "Network I/O": """
        socket.connect socket.bind socket.sendto socket.sendmsg socket.getaddrinfo
        socket.gethostbyname socket.gethostbyaddr socket.getnameinfo imaplib.open urllib.Request
        http.client.connect http.client.send smtplib.connect ftplib.connect poplib.connect
        webbrowser.open""",
    "Starting a subprocess": """
        subprocess.Popen os.system os.fork os.forkpty os.exec os.posix_spawn os.spawn""",
    "Running a function in a pool of threads or processes": "perdure.pool",
    "Starting a thread": "_thread.start_new_thread _thread.start_joinable_thread",
    "Blocking with time.sleep": "time.sleep",
    "Asking at the terminal": "builtins.input pty.spawn",
    "Opening a database": "sqlite3.connect",
}
_REFUSED = {event: what for what, events in _EVENTS.items() for event in events.split()}

# Of loguru, OpenTelemetry and Sentry only what sends logs and traces, not what wraps functions.
_ALLOWED = """
    importlib _frozen_importlib linecache tokenize traceback logging warnings inspect zipimport
    coverage bdb pdb pydevd debugpy _pydev_bundle _pydevd_bundle _pydevd_frame_eval mimetypes
    platform loguru._handler opentelemetry.sdk sentry_sdk.transport sentry_sdk.worker
"""
_ALLOWED_CALLERS = tuple(f"{module}." for module in _ALLOWED.split())


class _Inside(threading.local):
    loop: Any = None
    muted = False
    asyncgen_hook: Any = None


inside = _Inside()
"""Of each thread: its workflow loop, whether logging is muted, the outer loop's asyncgen hook."""


def _hook(event: str, args: Any) -> None:
    if event not in _REFUSED or inside.loop is None:
        return
    if not _called_by_machinery() and not _reads_installed_data(event, args):
        raise refused(inside.loop, _REFUSED[event])


def refused(loop: Any, what: str) -> NotDeterministic:
    """The error to raise for what workflow code was about to do; its loop remembers it."""
    error = NotDeterministic(what)
    remember(loop, what, error)
    return error


def _called_by_machinery() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if f"{module}.".startswith(_ALLOWED_CALLERS) or frame.f_code is _show.__code__:
            return True
        if module == "perdure.core.loop":
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _reads_installed_data(event: str, args: Any) -> bool:
    """Whether it reads data of an installed package, or the rules of a time zone."""
    reads = event in ("os.listdir", "os.scandir", "os.walk")
    reads = reads or (event == "open" and not args[2] & 3)  # else it writes
    path, zones = str(args[0]) if reads else "", sys.modules.get("zoneinfo")
    return is_installed(path) or (zones is not None and path.startswith(zones.TZPATH))


def _show(hook: Callable[..., Any], args: Any) -> None:
    """Print the error of a finalizer: C code does that, and opens the file of the line."""
    hook(args)


def _checked(function: Callable[..., Any], event: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        _hook(event, args)
        return function(*args, **kwargs)

    return checked


@functools.cache
def install() -> None:
    """Install the hooks in this process, once."""
    sys.addaudithook(_hook)
    sys.unraisablehook = functools.partial(_show, sys.unraisablehook)
    if sys.version_info < (3, 13):  # these raise no audit event there
        time.sleep = _checked(time.sleep, "time.sleep")
    if sys.version_info < (3, 12):
        threading.Thread.start = _checked(threading.Thread.start, "_thread.start_new_thread")  # type: ignore[method-assign]
    # What a pool returns for its work, and what brings that into an event loop.
    made = concurrent.futures.Future.__init__

    def make(self: Any) -> None:
        if type(self) is concurrent.futures.Future:  # libraries derive their own, without a pool
            _hook("perdure.pool", ())
        made(self)

    concurrent.futures.Future.__init__ = make  # type: ignore[method-assign]
    asyncio.futures.wrap_future = asyncio.wrap_future = _checked(
        asyncio.wrap_future, "perdure.pool"
    )
    handle = logging.Logger.handle

    def handle_unless_muted(self: logging.Logger, record: logging.LogRecord) -> None:
        if inside.loop is None or not inside.muted:
            handle(self, record)

    logging.Logger.handle = handle_unless_muted  # type: ignore[method-assign]

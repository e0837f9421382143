"""States of this process's threads, read without giving up the interpreter's lock.

Rules: Linux has them under `/proc`; elsewhere no thread is said to run. Python's own calls give up
the lock while they read a file, and what was read would be over by then; ctypes can do without.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading

_STAT_BYTES = 512


class ThreadStates:
    """Looks at the states of threads. Make it before the lock is to be kept."""

    def __init__(self) -> None:
        self._libc = ctypes.PyDLL(None) if sys.platform == "linux" else None
        self._buffer = ctypes.create_string_buffer(_STAT_BYTES)

    def others_run(self) -> bool:
        """Whether a thread of Python's other than the caller's runs, or is ready to."""
        own = threading.get_native_id()
        return any(
            self._state(thread.native_id) == b"R"
            for thread in threading.enumerate()
            if thread.native_id != own
        )

    def _state(self, thread: int | None) -> bytes:
        """The letter that Linux has for its state; nothing for a thread that does not exist."""
        if self._libc is None or thread is None:
            return b""
        descriptor = self._libc.open(
            b"/proc/self/task/%d/stat" % thread, os.O_RDONLY | os.O_CLOEXEC
        )
        if descriptor < 0:
            return b""
        read = self._libc.read(descriptor, self._buffer, _STAT_BYTES)
        self._libc.close(descriptor)
        # Before the state stands the thread's name in brackets, which may hold a bracket.
        return self._buffer.raw[: max(read, 0)].rpartition(b") ")[2][:1]

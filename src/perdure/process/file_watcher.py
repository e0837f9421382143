"""File watcher: one thread that notices writes to the files of all engines of the process.

Rules: on Linux the kernel reports them (inotify); elsewhere, and where it can't, every file counts
as written each 20 ms; a file that two engines have open is watched once and reported to both; a
report is a plain callback on the event loop of the engine, in an empty context; SQLite writes to a
file before its commit can be seen, so a report is followed by looks at growing distances; writes
to a file that is written all the time are not reported for a second, in which its engines look
each 20 ms by themselves, because a report costs an engine at work more than a look; the thread
ends with the last watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any

from perdure.store.sqlite import forked

log = logging.getLogger("perdure")

LOOK_S = 0.02
"""The shortest time between two looks of one watch."""
AFTER_S = 0.002
"""How long after a report the second look comes: most commits can be seen by then."""
LOOKS_END_S = 15.0
"""The longest time from one look to the next one after a write. Then they end."""

BUSY_REPORTS = 6
"""So many reports in a row, 20 ms apart, and a file is written all the time: one run that was
started, executed and ended is less.
"""
BUSY_S = 1.0
"""How long a file that is written all the time goes without reports of writes."""

_MODIFY, _ATTRIB, _DELETE_SELF, _MOVE_SELF = 0x2, 0x4, 0x400, 0x800
_OVERFLOW = 0x4000
_NAME_MASK = _ATTRIB | _DELETE_SELF | _MOVE_SELF
_MASK = _MODIFY | _NAME_MASK
_EVENT = struct.Struct("iIII")
_EVENTS_BYTES = 64 * 1024


class Watch:
    """What one engine has asked for: `look` is called after a write to one of its files.

    `moved` is called when the name of a file was deleted, moved, or has got another file.
    """

    def __init__(
        self, watcher: FileWatcher, look: Callable[[], None], moved: Callable[[], None]
    ) -> None:
        self._watcher, self._act, self._moved = watcher, look, moved
        self.loop = asyncio.get_running_loop()
        self._looked_s, self._wait_s = self.loop.time() - LOOK_S, LOOK_S
        self._busy_until_s = self._looked_s
        self._timer: asyncio.TimerHandle | None = None
        self.ended = False

    def busy(self) -> None:
        """A file is written all the time. Look each 20 ms until it is reported on again."""
        self._busy_until_s = self.loop.time() + BUSY_S
        self.written()

    def written(self) -> None:
        """A file was written to. Look now, or 20 ms after the last look."""
        if self.ended:
            return
        self._wait_s = AFTER_S if self.loop.time() >= self._busy_until_s else LOOK_S
        due_s = max(self.loop.time(), self._looked_s + LOOK_S)
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(due_s, self._look, context=Context())

    def renamed(self) -> None:
        """The name of a file was taken away or given to another one."""
        if not self.ended:
            self._moved()

    def _look(self) -> None:
        self._looked_s, self._timer = self.loop.time(), None
        if self._wait_s <= LOOKS_END_S:
            self._timer = self.loop.call_later(self._wait_s, self._look, context=Context())
            if self._looked_s >= self._busy_until_s:
                self._wait_s *= 2
        self._act()

    def again(self, wait_s: float) -> None:
        """Look again after this time at the latest, as after an error."""
        if not self.ended and self._timer is None:
            self._timer = self.loop.call_later(wait_s, self._look, context=Context())

    def cancel(self) -> None:
        """End it. Nothing is called afterwards."""
        if not self.ended:
            self.ended = True
            if self._timer is not None:
                self._timer.cancel()
            self._watcher.remove(self)

    def report(self, act: Callable[[], None]) -> None:
        """From the watcher's thread: call `act` on the loop."""
        try:
            self.loop.call_soon_threadsafe(act, context=Context())
        except RuntimeError:  # the loop was closed, and its engine was not
            self.ended = True
            self._watcher.remove(self)


class _File:
    """A file that is watched. `reports` came in a row, the last one at `reported_s`; until
    `muted_until_s` only its name is reported on.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.watches: list[Watch] = []
        self.reported_s, self.reports = 0.0, 0
        self.muted_until_s: float | None = None

    def is_busy(self, now_s: float) -> bool:
        """Count a report: whether it was one of many, each as shortly after as can be."""
        self.reports = self.reports + 1 if now_s - self.reported_s < 3 * LOOK_S else 0
        self.reported_s = now_s
        return self.reports >= BUSY_REPORTS


class FileWatcher:
    """The watches of one process. `kernel` False does without reports of the kernel."""

    def __init__(self, *, kernel: bool = True) -> None:
        self._lock = threading.Lock()
        self._kernel = kernel and sys.platform == "linux"
        self._inotify: _Inotify | None = None
        self._files: dict[int, _File] = {}
        """By the number that the kernel has given them."""
        self._watches: dict[Watch, list[int]] = {}
        self._ticked: set[Watch] = set()
        self._thread: threading.Thread | None = None

    def watch(
        self, paths: Iterable[str], look: Callable[[], None], moved: Callable[[], None]
    ) -> Watch:
        """Call back on the running event loop after writes to these files, which exist."""
        watch = Watch(self, look, moved)
        with self._lock:
            self._watches[watch] = numbers = []
            try:
                for path in paths:
                    number = self._opened().add(path)
                    file = self._files.setdefault(number, _File(path))
                    file.path, file.muted_until_s = path, None
                    file.watches.append(watch)
                    numbers.append(number)
            except OSError as error:
                log.debug("writes are looked for each %g s: %s", LOOK_S, error)
                self._ticked.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="perdure-watcher", daemon=True
                )
                forked.watch(self)
                Context().run(self._thread.start)
        return watch

    def _opened(self) -> _Inotify:
        if self._inotify is None:
            if not self._kernel:
                raise OSError("the kernel is not asked")
            self._inotify = _Inotify()
        return self._inotify

    def remove(self, watch: Watch) -> None:
        """See `Watch.cancel`."""
        with self._lock:
            self._ticked.discard(watch)
            for number in self._watches.pop(watch, ()):
                file = self._files[number]
                file.watches.remove(watch)
                if not file.watches:
                    del self._files[number]
                    if self._inotify is not None:
                        self._inotify.remove(number)  # which the thread hears of, and may end

    def in_child(self) -> None:
        """See `store.sqlite.forked`: the thread and the kernel's reports are the parent's."""
        if self._inotify is not None:
            forked.take_away([self._inotify.descriptor])
        self.__init__(kernel=self._kernel)  # type: ignore[misc]

    # --- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._watches:
                    self._thread = None
                    forked.unwatch(self)
                    if self._inotify is not None:
                        self._inotify.close()
                        self._inotify = None
                    return
                inotify, ticked = self._inotify, tuple(self._ticked)
                until_s = min(self._muted().values(), default=None)
            if inotify is not None:
                wait_s = None if until_s is None else max(0.0, until_s - time.monotonic())
                try:
                    self._report(inotify.read(LOOK_S if ticked else wait_s))
                except Exception:  # as when a program has closed descriptors that are not its own
                    log.exception("the kernel's reports are lost; files are looked at by time")
                    self._do_without_kernel()
            for watch in ticked:
                watch.report(watch.written)
            time.sleep(LOOK_S)  # what comes meanwhile is reported at once

    def _do_without_kernel(self) -> None:
        """From here on every file counts as written each 20 ms: no engine must miss a commit."""
        with self._lock:
            self._kernel, self._inotify = False, None  # not closed: it may be another's by now
            self._files.clear()
            for numbers in self._watches.values():
                numbers.clear()
            self._ticked.update(self._watches)

    def _report(self, events: list[tuple[int, int]]) -> None:
        written: dict[Watch, None] = {}
        renamed: dict[Watch, None] = {}
        busy: dict[Watch, None] = {}
        now_s = time.monotonic()
        with self._lock:
            for number in [one for one, end_s in self._muted().items() if end_s <= now_s]:
                self._mute(number, None)
                written.update(dict.fromkeys(self._files[number].watches))
            for number in {number for number, mask in events if mask & _MODIFY}:
                file = self._files.get(number)
                if file is not None and file.is_busy(now_s):
                    self._mute(number, now_s + BUSY_S)
                    busy.update(dict.fromkeys(file.watches))
            for number, mask in events:
                of = self._files.get(number)
                found = self._watches if mask & _OVERFLOW else () if of is None else of.watches
                written.update(dict.fromkeys(found))
                if mask & _NAME_MASK:
                    renamed.update(dict.fromkeys(found))
        for watch in renamed:
            watch.report(watch.renamed)
        for watch in written | busy:
            watch.report(watch.busy if watch in busy else watch.written)

    def _muted(self) -> dict[int, float]:
        """Files whose writes are not reported on, and until when."""
        return {
            number: file.muted_until_s
            for number, file in self._files.items()
            if file.muted_until_s is not None
        }

    def _mute(self, number: int, until_s: float | None) -> None:
        """Ask only for reports of its name until then; None: of its writes too, from now on."""
        file = self._files[number]
        file.reports, file.muted_until_s = 0, until_s
        if self._inotify is not None:
            with contextlib.suppress(OSError):  # its name is gone, which has been reported
                self._inotify.add(file.path, _MASK if until_s is None else _NAME_MASK)


class _Inotify:
    """The kernel's reports about files. Raises `OSError` where it has none to give."""

    def __init__(self) -> None:
        import ctypes  # here only: it takes 2 ms to load
        import select

        self._c: Any = ctypes.CDLL(None, use_errno=True)
        self._errno = ctypes.get_errno
        self.descriptor = self._checked(self._c.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._poll = select.poll()
        self._poll.register(self.descriptor, select.POLLIN)

    def add(self, path: str, mask: int = _MASK) -> int:
        """The number of a file, the same each time."""
        return self._checked(self._c.inotify_add_watch(self.descriptor, os.fsencode(path), mask))

    def remove(self, number: int) -> None:
        self._c.inotify_rm_watch(self.descriptor, number)  # fails where the file is gone

    def read(self, wait_s: float | None) -> list[tuple[int, int]]:
        """Numbers of files, and what has happened to each."""
        if not self._poll.poll(None if wait_s is None else wait_s * 1000):
            return []
        try:
            data = os.read(self.descriptor, _EVENTS_BYTES)
        except BlockingIOError:
            return []
        if not data:
            raise OSError("the descriptor is another file's")
        events, place = [], 0
        while place < len(data):
            number, mask, _, name_bytes = _EVENT.unpack_from(data, place)
            events.append((number, mask))
            place += _EVENT.size + name_bytes
        return events

    def close(self) -> None:
        os.close(self.descriptor)

    def _checked(self, answer: int) -> int:
        if answer < 0:
            number = self._errno()
            raise OSError(number, os.strerror(number))
        return answer

"""Records of `logging` in this process, shown to a function in the moment in which they are made.

Rules: the user's configuration of `logging` stays as it is. So this is no handler: with one on the
root logger `basicConfig` does nothing, warnings of a program without a configuration are printed no
more, and a configuration that is set later takes the handler away. It is a factory of records
around the one that is there. A record that the level of its logger leaves out is never made, and
costs nothing. No lock is taken while one is made: that may be in `__del__`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

Show = Callable[[logging.LogRecord], None]
"""Is called in the thread that logs, and raises nothing."""


class LogRecords:
    """Shows records to `show` while there are watchers."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self.watchers, self._lock = 0, threading.Lock()
        self._before: Any = None
        self._factory: Any = None  # ours, while it is in use
        os.register_at_fork(after_in_child=self._leave)

    def watch(self) -> None:
        """One more watcher. Ours is put around again where another factory is in its place."""
        with self._lock:
            self.watchers += 1
            now = logging.getLogRecordFactory()
            if self._factory is None or now is not self._factory:
                self._before, self._factory = now, self._around(now)
                logging.setLogRecordFactory(self._factory)

    def unwatch(self) -> None:
        """One watcher less. The last one puts back what was there, if ours was not replaced."""
        with self._lock:
            self.watchers -= 1
            if not self.watchers:
                if logging.getLogRecordFactory() is self._factory:
                    logging.setLogRecordFactory(self._before)
                self._before = self._factory = None

    def _around(self, before: Any) -> Any:
        """A factory that shows what `before` makes, as long as no newer one of ours is in use."""

        def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record: logging.LogRecord = before(*args, **kwargs)
            if self._factory is factory:
                self._show(record)
            return record

        return factory

    def _leave(self) -> None:
        """In a child: its steps are those of its parent."""
        self.watchers, self._lock = 0, threading.Lock()
        if logging.getLogRecordFactory() is self._factory:
            logging.setLogRecordFactory(self._before)
        self._before = self._factory = None

"""Lease renewal: a thread renews a worker's lease, so that it does not depend on a free event loop.

Rules: a beat that fails is tried again sooner; nothing is renewed for an event loop that has stood
still for too long; the thread alone uses its connection, and closes it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic

from perdure.errors import StoreCorrupt, StoreError, StoreLocked, StoreReplaced
from perdure.process.threads import Liveness
from perdure.store.base import LeaseConnection

log = logging.getLogger("perdure")


class LeaseRenewal:
    """Renews the lease of `worker` every `beat_s` seconds from the start until `stop`. `now_ms`
    reads the clock.
    """

    def __init__(
        self,
        connection: LeaseConnection,
        worker: int,
        lease_ms: int,
        beat_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        self._connection, self._lease_ms, self._beat_s, self._now_ms = (
            connection,
            lease_ms,
            beat_s,
            now_ms,
        )
        self.worker = worker
        self.last_error: StoreError | None = None
        """Why no beat has succeeded for a whole lease, until one does."""
        self._beaten_s = monotonic()
        self._liveness = Liveness(lease_ms / 1000)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="perdure-beats", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Renew it no more; the thread ends by itself after a beat that is under way."""
        self._stopped.set()
        self._liveness.stop()

    def join(self) -> None:
        """Wait until the connection is closed."""
        self._thread.join()

    def _run(self) -> None:
        try:
            wait_s = self._beat_s  # to join was the first beat
            while not self._stopped.wait(wait_s):
                wait_s = self._beat()
        except Exception:
            log.exception(
                "the thread that renews the lease of worker %s has ended; another one is started",
                self.worker,
            )
        finally:
            self._connection.close()

    def _beat(self) -> float:
        """Seconds until the next one."""
        if self._liveness.stalled:
            log.error(
                "the event loop stands still for more than %g s; its runs are left to others",
                self._liveness.stall_s_max,
            )
            return self._beat_s
        try:
            self._connection.renew(self.worker, self._now_ms() + self._lease_ms)
        except StoreError as error:
            if (
                isinstance(error, StoreCorrupt | StoreReplaced)
                or monotonic() - self._beaten_s > self._lease_ms / 1000
            ):
                self.last_error = error
            # After a long transaction others want the lock to end our lease: we ask for it all the
            # time, they do a few times a second.
            return 0.0 if isinstance(error, StoreLocked) else self._beat_s / 4
        self.last_error, self._beaten_s = None, monotonic()
        return self._beat_s

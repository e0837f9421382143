"""Lease renewal: keeps the lease of a worker that owns runs, whether its event loop is free or not.

Rules: it is done in the thread that the engines of a process share; a renewal that fails is tried
again sooner; nothing is renewed for an event loop that has hung for too long; that thread
alone uses its connection, and closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextvars import Context
from time import monotonic

from perdure.errors import StoreCorrupt, StoreError, StoreLocked, StoreReplaced
from perdure.process import host
from perdure.process.threads import Liveness
from perdure.store.base import LeaseConnection, Store

log = logging.getLogger("perdure")

LOCKED_S = 0.002
"""After a long transaction others want the lock as well, to end our lease: they ask for it a few
times a second, we ask for it all the time."""


class LeaseRenewal:
    """Renews the lease of `worker` every `renew_s` seconds until `stop`. `now_ms` reads the clock.

    Made on the event loop for which the lease is kept.
    """

    def __init__(
        self, store: Store, worker: int, lease_ms: int, renew_s: float, now_ms: Callable[[], int]
    ) -> None:
        self._store, self._lease_ms, self._renew_s, self._now_ms = store, lease_ms, renew_s, now_ms
        self.worker, self.alive = worker, True
        self.last_error: StoreError | None = None
        """Why no renewal has succeeded for a whole lease, until one does."""
        self._connection: LeaseConnection | None = None
        self._renewed_s = monotonic()
        self._liveness = Liveness(lease_ms / 1000)
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._stopped = False
        host.leases.add(self, renew_s)  # what made it necessary was the first renewal

    def stop(self) -> None:
        """Renew it no more. A renewal that is under way comes to its end."""
        if not self._stopped:
            self._stopped = True
            self._liveness.stop()
            host.leases.soon(self)

    async def stopped(self) -> None:
        """Stop, and come back when the connection is closed."""
        self.stop()
        await asyncio.shield(self._closed)

    # --- in the thread of the renewals ------------------------------------------------------------

    def renew(self) -> float | None:
        """See `process.renewals.Renewal`."""
        if self._stopped:
            return None
        if self._liveness.stalled:
            log.error(
                "the event loop stands still for more than %g s; its runs are left to others",
                self._liveness.stall_s_max,
            )
            return self._renew_s
        try:
            self._connected().renew(self.worker, self._now_ms() + self._lease_ms)
        except StoreError as error:
            if (
                isinstance(error, StoreCorrupt | StoreReplaced)
                or monotonic() - self._renewed_s > self._lease_ms / 1000
            ):
                self.last_error = error
            return LOCKED_S if isinstance(error, StoreLocked) else self._renew_s / 4
        self.last_error, self._renewed_s = None, monotonic()
        return self._renew_s

    def _connected(self) -> LeaseConnection:
        if self._connection is None:
            self._connection = self._store.lease_connection(0)
            assert self._connection is not None
        return self._connection

    def ended(self) -> None:
        """See `process.renewals.Renewal`."""
        self.alive = False
        if self._connection is not None:
            self._connection.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._tell, context=Context())

    def _tell(self) -> None:
        if not self._closed.done():
            self._closed.set_result(None)

"""The status of a replica, as data: what `engine.replica.status()` returns."""

from __future__ import annotations

from typing import Any

import msgspec


class Status(msgspec.Struct):
    """The state of a replica.

    `state` is starting, replicating, behind, failing or stopped, and `reason` says why. `lag_s` is
    what a loss of the machine would cost now, in seconds; `lag_transactions` and `lag_bytes` are
    not in the replica yet. `lease_left_ms` is how long the lease is surely held. `local_bytes` is
    the disk space beside the store. `restarts` counts Litestream's. `rows` of history and
    transactions up to `txid` are confirmed. `drill` is the result of the last test restore.
    """

    address: str
    state: str
    reason: str
    epoch: int
    lag_s: float
    lag_transactions: int
    lag_bytes: int
    lease_left_ms: int
    local_bytes: int
    restarts: int
    rows: int
    txid: int
    drill: dict[str, Any] | None = None

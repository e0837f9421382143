"""How a replica stands, as data: what `engine.replica.status()` gives, and what the disk has to say to it.

Rules: nothing here waits, and nothing fails where a file is gone meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec


class Status(msgspec.Struct):
    """How a replica stands. `lag_s` is what a loss of the machine would cost now, in seconds; sizes are bytes."""

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


def sizes(wal: str, folder: Path, replicated: int) -> tuple[int, int]:
    """Bytes of the WAL and of all that Litestream keeps here, and of that part which is newer than a transaction."""
    total = newer = 0
    with contextlib.suppress(OSError):
        total += os.path.getsize(wal)
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError, ValueError):  # gone by now, or not a transaction's
                size = os.path.getsize(os.path.join(root, name))
                total += size
                last = name.removesuffix(".ltx").rpartition("-")[2]
                newer += size if name.endswith(".ltx") and int(last, 16) > replicated else 0
    return total, newer

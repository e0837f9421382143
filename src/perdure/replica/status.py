"""How a replica stands, as data: what `engine.replica.status()` gives, and what the disk has to say
to it.

Rules: nothing here waits, and nothing fails where a file is gone meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec

from perdure.replica.transaction_files import spans_of


class Status(msgspec.Struct):
    """How a replica stands. `lag_s` is what a loss of the machine would cost now, in seconds; sizes
    are bytes.
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


class Sizes(msgspec.Struct, frozen=True):
    """Bytes beside a store: its WAL, transactions that are not in the replica yet, and those that
    are.
    """

    wal: int = 0
    waiting: int = 0
    copied: int = 0


def sizes(wal: str, folder: Path, replicated: int) -> Sizes:
    """Measure the WAL and what Litestream keeps in its folder; `replicated` is the last transaction
    in the replica.
    """
    wal_bytes = 0
    with contextlib.suppress(OSError):
        wal_bytes = os.path.getsize(wal)
    waiting = copied = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # gone by now
                size = os.path.getsize(os.path.join(root, name))
                newer = any(last > replicated for _, last in spans_of([name]))
                waiting, copied = (waiting + size, copied) if newer else (waiting, copied + size)
    return Sizes(wal_bytes, waiting, copied)


def drop_copied(folder: Path, replicated: int) -> None:
    """Delete Litestream's own copies of what is in the replica; it reads the last one again, and
    the others from the replica if at all.
    """
    level = folder / "ltx" / "0"
    with contextlib.suppress(OSError):
        found = sorted(
            (last, path) for path in level.iterdir() for _, last in spans_of([path.name])
        )
        for last, path in found[:-1]:
            if last <= replicated:
                path.unlink(missing_ok=True)

"""Restores from a replica, and a look at it from outside: its holder, its epochs, any moment of it.

Rules: nothing here takes the lease or writes below the address; a copy is verified before it is
handed out.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from perdure.errors import ReplicaEmpty, StoreReadOnly, StoreUnavailable
from perdure.process.threads import in_thread
from perdure.replica import litestream_binary, verify
from perdure.replica.address import Address
from perdure.replica.bucket import Bucket
from perdure.replica.buckets import open_bucket
from perdure.replica.epochs import epochs_in, folder_of
from perdure.replica.lease import NAME, Lease
from perdure.replica.lease_rules import LeaseRow
from perdure.replica.temporary_folders import TempFolder, sweep
from perdure.replica.transaction_files import spans_of
from perdure.store.sqlite.checksum import HistoryChecksum


class Seen(msgspec.Struct):
    """A replica from outside.

    `renewed_s` is how long ago the lease was written, by the bucket's clock and ours.
    """

    lease: LeaseRow
    renewed_s: float
    epochs: list[int]

    @property
    def held(self) -> bool:
        """Whether an engine holds the lease, as far as two clocks that differ can show."""
        return self.lease.holder is not None and self.renewed_s * 1000 < self.lease.ttl_ms + 2_000


async def look(address: Address) -> Seen:
    """Look at a replica. Raises `ReplicaEmpty` where nothing was ever replicated."""
    bucket = open_bucket(address)
    row = await Lease(bucket, str(address), ttl_ms=1_000).look()
    if row is None:
        raise ReplicaEmpty(str(address))
    written = [found.modified_ms for found in await bucket.names("") if found.name == NAME]
    written_ms = max(written, default=0)
    epochs = await epochs_in(bucket)
    return Seen(row, max(0.0, time.time() - written_ms / 1000), epochs)


async def newest_txid(bucket: Bucket, epoch: int) -> int:
    """The last transaction of which an object lies in the bucket; its name says so."""
    found = await bucket.names(folder_of(epoch))
    return max((last for _, last in spans_of(one.name for one in found)), default=0)


async def restore(
    address: Address,
    to: Path,
    *,
    at: dt.datetime | None = None,
    txid: int | None = None,
    epoch: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> HistoryChecksum:
    """Restore the newest copy, or that of a moment or a transaction, as a plain store.

    `to` is a path where nothing is. The copy is verified first. `on_bytes` is called every second
    with the bytes so far. Raises `StoreUnavailable` where the path or a `-wal` beside it is taken
    or its folder is missing, `StoreReadOnly`, `ReplicaEmpty`, `ReplicaDamaged`,
    `ReplicaUnavailable`; then nothing is left at the path.
    """
    if there := verify.standing_at(to):
        part = "SQLite would take it for a part of what is restored"
        raise StoreUnavailable(str(to), f"{there[0]!r} is there, and {part}; move it away")
    folder_of_it = to.absolute().parent
    if not folder_of_it.is_dir():
        missing = f"its folder {str(folder_of_it)!r} does not exist; create it first"
        raise StoreUnavailable(str(to), missing)
    if not os.access(folder_of_it, os.W_OK):
        raise StoreReadOnly(str(to))
    sweep(folder_of_it, mark := f".{to.name}.restore-")
    with TempFolder(folder_of_it, mark) as folder:  # on the same disk: it is moved to its name
        draft = folder.path / "copy.db"
        checksum = await fetch(address, draft, at=at, txid=txid, epoch=epoch, on_bytes=on_bytes)
        verified = verify.identity(draft)
        verify.make_plain(draft)  # before it has its name: no process may take it for the replica's
        verify.put_in_place(draft, str(to), verified)
    return checksum


async def fetch(
    address: Address,
    draft: Path,
    *,
    at: dt.datetime | None = None,
    txid: int | None = None,
    epoch: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> HistoryChecksum:
    """Restore a copy to a new file in a `TempFolder`, and verify it.

    Raises `ReplicaEmpty`, `ReplicaDamaged`, `ReplicaUnavailable`.
    """
    binary = litestream_binary.find()
    await litestream_binary.check(binary)
    bucket = open_bucket(address)
    row = await Lease(bucket, str(address), ttl_ms=1_000).look()
    newest = epoch is None and at is None and txid is None
    if epoch is None:
        epoch = row.base if at is None and row is not None else await _epoch_at(bucket, at, row)
    if row is None or epoch is None:
        raise ReplicaEmpty(str(address))
    place = address.child(folder_of(epoch))
    moment = None if at is None else at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    found = await litestream_binary.restore(
        binary, place, draft, txid=txid, at=moment, on_bytes=on_bytes
    )
    checksum = await in_thread(verify.verified, draft, str(place), row.rows if newest else 0)
    if newest and found < row.txid:
        raise verify.lacks(place, row.txid - found)
    return checksum


async def _epoch_at(bucket: Bucket, at: dt.datetime | None, row: LeaseRow | None) -> int | None:
    """The newest epoch that a restore would have begun from at that moment.

    What the lease no longer knows of, because the object had been deleted, has begun with its
    oldest object, as far as that is left.
    """
    base = row.base if row is not None else None
    if row is None or base is None or at is None:
        return base
    at_ms, known_from = int(at.timestamp() * 1000), min(row.begun_ms, default=base + 1)
    for epoch in reversed(await epochs_in(bucket)):
        begun_ms = row.begun_ms.get(epoch)
        if begun_ms is None and epoch < known_from:
            found = await bucket.names(folder_of(epoch))
            begun_ms = min((one.modified_ms for one in found), default=None)
        if begun_ms is not None and begun_ms <= at_ms:
            return epoch
    return None

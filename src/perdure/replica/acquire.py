"""The first phase of a replica: takes the lease, and brings the store's file up to the replica.

Rules: nothing is written before the lease is held; a local file is used only if it has everything
that the replica has, else it is set aside; a failure releases the lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perdure.errors import PerdureError, ReplicaLeaseLost
from perdure.replica import handover, litestream_binary, sockets, temporary_folders, verify
from perdure.replica.address import Address
from perdure.replica.bucket import Bucket
from perdure.replica.buckets import open_bucket, probe
from perdure.replica.handover import Copied, Handover
from perdure.replica.lease import Lease
from perdure.replica.lease_rules import LeaseRow
from perdure.replica.local_file import LocalFile
from perdure.replica.options import Replica
from perdure.replica.standby import Standby

log = logging.getLogger("perdure")


@dataclass
class Acquired:
    """The lease, held and renewed until `release`, and a file that has all that the replica has.

    `folder` lies beside the store. `left` is what the last engine on this disk has left, if its
    copy may be continued. `began` says what was done with the file, for logs and terminals.
    `copied` is set at the end of a replication whose copy has everything. `on_change` is
    called with what becomes of the lease.
    """

    path: str
    options: Replica
    address: Address
    folder: Path
    binary: str
    bucket: Bucket
    lease: Lease
    store_id: str
    left: Handover | None
    began: tuple[str, ...]
    on_change: Callable[[str], None]
    copied: Copied | None = None

    def __post_init__(self) -> None:
        self.on_change("taken")
        self.lease.lost.add_done_callback(self._lost)

    def _lost(self, lost: asyncio.Future[ReplicaLeaseLost]) -> None:
        if not lost.cancelled():
            self.on_change("lost")

    @property
    def on_progress(self) -> Callable[[str], None]:
        return self.options.on_progress or _ignore

    async def release(self) -> None:
        """Release the lease at once; call it when the store is closed.

        Where the copy has everything, the next engine on this disk may continue it.
        """
        token = None
        if self.copied is not None and self.copied.file == verify.identity(self.path):
            token = handover.leave(self.folder, self.path, self.copied)
        try:
            await self.lease.release(token)
        except PerdureError as error:
            log.warning("the lease could not be released and will expire: %s", error)
        else:
            if not self.lease.lost.done():
                self.on_change("released")


async def acquire(
    path: str, options: Replica, *, lease_ms: int, on_change: Callable[[str], None] | None = None
) -> Acquired:
    """Wait for the lease, take it, and make the file at `path` have everything that is copied.

    `on_change` is called with "taken", and later with "lost" or "released". Raises
    `ReplicaRefused` for what a person has to fix, `ReplicaUnavailable` for a bucket that does not
    answer, `ReplicaLeaseLost` where the lease is lost during a restore.
    """
    path, address, fencing = os.path.abspath(path), options.place, bool(options.fencing)
    binary = litestream_binary.find()
    await litestream_binary.check(binary)
    bucket = open_bucket(address)
    await probe(bucket, str(address), fencing=fencing)
    folder, began = Path(path + "-replica"), list[str]()
    file = LocalFile(path, address, folder, began.append)
    lease = Lease(bucket, str(address), ttl_ms=lease_ms, fencing=fencing)
    row, local = await lease.look(), file.checksum()
    file.check_same(row, local)
    _sweep(folder)
    known_id = local.store_id if local else row.store_id if row else None
    standby = Standby(address, binary, bucket, folder) if options.standby else None
    try:
        async with standby or contextlib.nullcontext():
            row = await lease.take(store_id=known_id, on_wait=_on_wait(standby, options))
            lease.start()  # a restore may take longer than the lease
            store_id, left = await _bring(file, row, lease, options, binary, standby)
    except BaseException:
        await lease.release()
        raise
    store_id = store_id or uuid.uuid4().hex
    return Acquired(
        path,
        options,
        address,
        folder,
        binary,
        bucket,
        lease,
        store_id,
        left,
        tuple(began),
        on_change or _ignore,
    )


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left beside the store."""
    folder.mkdir(mode=0o700, exist_ok=True)
    temporary_folders.sweep(folder, verify.TEMPORARY)
    sockets.sweep_left(folder)


def _on_wait(standby: Standby | None, options: Replica) -> Callable[[LeaseRow, float], None]:
    def on_wait(row: LeaseRow, seconds: float) -> None:
        if standby is not None:
            standby.set_row(row)
        if options.on_wait is not None:
            options.on_wait(row, seconds)

    return on_wait


async def _bring(
    file: LocalFile,
    row: LeaseRow,
    lease: Lease,
    options: Replica,
    binary: str,
    standby: Standby | None,
) -> tuple[str | None, Handover | None]:
    """The store's id, if it has one yet, and what the last engine has left, if that counts."""
    local = file.checksum()  # another engine may have worked on this file while we waited
    file.check_same(row, local)
    store_id = row.store_id or (local.store_id if local else None)
    left = file.handed_over(local, row, lease.handed if options.fencing else None)
    if left is None and row.base is not None:
        store_id = await file.bring(row, binary, standby, options.on_progress or _ignore)
    if lease.lost.done():
        raise lease.lost.result()
    return store_id, left


def _ignore(text: str) -> None: ...

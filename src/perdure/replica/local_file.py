"""The store's file on this disk before an engine works on it: kept, restored, or set aside.

Rules: nothing is written before the lease is held; a local file is used only if it has all that the
replica has, else it is set aside; a copy is restored to a temporary folder of its own, verified,
and only then given the store's name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from perdure.errors import PerdureError, ReplicaMismatch, StoreCorrupt
from perdure.process.threads import in_thread
from perdure.replica import handover, litestream_binary, verify
from perdure.replica.address import Address
from perdure.replica.epochs import folder_of
from perdure.replica.handover import Handover
from perdure.replica.lease_rules import LeaseRow
from perdure.replica.standby import Standby
from perdure.replica.temporary_folders import TempFolder
from perdure.store.sqlite import checksum as checksums
from perdure.store.sqlite import connection

log = logging.getLogger("perdure")


class LocalFile:
    """The file at `path`, with what lies beside it in `side`; `report` is called with its fate."""

    def __init__(
        self, path: str, address: Address, side: Path, report: Callable[[str], None]
    ) -> None:
        self._path, self._address, self._side, self._on_report = path, address, side, report

    def _report(self, text: str) -> None:
        log.info("%s", text)
        self._on_report(text)

    def checksum(self) -> checksums.HistoryChecksum | None:
        """Its checksum as of now; None for a file that can't be read, which is set aside later."""
        if not self._exists():
            return None
        try:
            db = connection.open_reader(self._path)
        except StoreCorrupt:
            return None
        try:
            return checksums.read(db)
        finally:
            db.close()

    def _exists(self) -> bool:
        return os.path.exists(self._path) and os.path.getsize(self._path) > 0

    def check_same(self, row: LeaseRow | None, local: checksums.HistoryChecksum | None) -> None:
        """Raise `ReplicaMismatch` where another database is replicated to the address."""
        if row is None or row.base is None:
            return
        where = str(self._address)
        if local is None and self._exists() and self._is_readable():
            another = "never replicated, and a replica of another file is there already"
            raise ReplicaMismatch(where, f"{self._path!r} was {another}")
        if local is not None and row.store_id not in (None, local.store_id):
            ours = f"{self._path!r} is store {local.store_id}"
            raise ReplicaMismatch(where, f"it is of store {row.store_id}, and {ours}")

    def _is_readable(self) -> bool:
        with contextlib.suppress(PerdureError):
            connection.open_reader(self._path).close()
            return True
        return False

    def handed_over(
        self, local: checksums.HistoryChecksum | None, row: LeaseRow, token: str | None
    ) -> Handover | None:
        """What the last engine has left here, if the file has all that the replica has."""
        left = handover.found(self._side, self._path, local, token)
        if left is None or left.folder != row.base:
            return None
        self._report(f"the last engine ended in order on this disk; continuing with {self._path}")
        return left

    async def bring(
        self, row: LeaseRow, binary: str, standby: Standby | None,
        on_progress: Callable[[str], None],
    ) -> str:  # fmt: skip
        """Compare the file with the newest copy, and use the one that has everything.

        The copy is a standby's, or restored by Litestream's program `binary`. Returns the store's
        id. Raises `ReplicaDamaged`, `ReplicaUnavailable`, `ReplicaMismatch`.
        """
        assert row.base is not None
        began_s, place = time.monotonic(), self._address.child(folder_of(row.base))
        with TempFolder(self._side, verify.TEMPORARY) as folder:
            copy = folder.path / "copy.db"
            txid = await standby.caught_up(row.base) if standby is not None else None
            if standby is not None and txid is not None:
                copy = standby.copy
            else:
                text = f"Restoring {self._path} from {place}"
                txid = await litestream_binary.restore(
                    binary,
                    place,
                    copy,
                    on_bytes=lambda size: on_progress(f"{text}: {size:,} bytes"),
                )
            checksum = await in_thread(verify.verified, copy, str(place), row.rows)
            verified = verify.identity(copy)
            if txid < row.txid:
                raise verify.lacks(place, row.txid - txid)
            self._check_store_id(row, checksum, place)
            local, why = self.checksum(), "it is older than the replica"
            if local and local.epoch >= row.base and local.commits >= checksum.commits:
                why = await in_thread(verify.lacks_of, self._path, copy)
            if not why:
                whole = "has all that the replica has; continuing with it"
                self._report(f"the local file {self._path} {whole}")
                return checksum.store_id
            self._set_aside(local, why)
            verify.put_in_place(copy, self._path, verified)
        took_s = time.monotonic() - began_s
        rows = f"{checksum.rows:,} rows of history"
        self._report(f"restored {self._path} from {place} in {took_s:.1f} s: {rows}")
        return checksum.store_id

    def _check_store_id(
        self, row: LeaseRow, checksum: checksums.HistoryChecksum, place: Address
    ) -> None:
        local = self.checksum()
        # The lease knows no id where it had been deleted.
        known = row.store_id or (local.store_id if local else None)
        if known not in (None, checksum.store_id):
            of = f"the copy in {place} is of store {checksum.store_id}"
            raise ReplicaMismatch(str(self._address), f"{of}, and the lease is of {known}")

    def _set_aside(self, local: checksums.HistoryChecksum | None, why: str) -> None:
        """Rename what is at our path: SQLite would read a `-wal` there as the restored file's."""
        there = verify.standing_at(self._path)
        if not there:
            return
        aside = verify.set_aside(self._path, f"aside-epoch-{local.epoch if local else 0}")
        if self._path in there:
            why = why if local else "it is damaged"
            self._report(f"the local file was set aside, because {why}; it is kept as {aside}")
        else:
            left = f"{there[0]}, which was left of a file that is gone, was set aside"
            self._report(f"{left}; it is kept as {aside}")

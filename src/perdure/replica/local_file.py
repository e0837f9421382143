"""The store's file on this disk before an engine works on it: whose it is, and whether it or the
replica's copy is used.

Rules: nothing is written before the lease is held; a local file is used only if it has all that the
replica has, else it is set aside; a copy is restored to a temporary folder of its own, verified,
and only then given the store's name.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from perdure.errors import PerdureError, ReplicaOfAnother, StoreCorrupt
from perdure.process.threads import in_thread
from perdure.replica import litestream_binary, temporary_folders, verify
from perdure.replica.address import Address
from perdure.replica.lease import LeaseRow, folder_of
from perdure.replica.standby import Standby
from perdure.store.sqlite import checksum, connection


class LocalFile:
    """The file at `path`, with what lies beside it in `side`; `tell` hears what was
    done with it.
    """

    def __init__(
        self, path: str, address: Address, side: Path, tell: Callable[[str], None]
    ) -> None:
        self._path, self._address, self._side, self._tell = path, address, side, tell

    def seal(self) -> checksum.HistoryChecksum | None:
        """Its seal as of now; a file that can't be read is as none, and is set aside later."""
        if not self._exists():
            return None
        try:
            db = connection.open_reader(self._path)
        except StoreCorrupt:
            return None
        try:
            return checksum.read(db)
        finally:
            db.close()

    def _exists(self) -> bool:
        return os.path.exists(self._path) and os.path.getsize(self._path) > 0

    def check_same(self, row: LeaseRow | None, local: checksum.HistoryChecksum | None) -> None:
        """Two databases must not meet below one address: raises `ReplicaOfAnother`."""
        if row is None or row.base is None:
            return
        if local is None and self._exists() and self._is_readable():
            detail = (
                f"{self._path!r} was never replicated, and a replica of another file is there "
                f"already"
            )
            raise ReplicaOfAnother(str(self._address), detail)
        if local is not None and row.store_id not in (None, local.store_id):
            raise ReplicaOfAnother(
                str(self._address),
                f"it is of store {row.store_id}, and {self._path!r} is store {local.store_id}",
            )

    def _is_readable(self) -> bool:
        with contextlib.suppress(PerdureError):
            connection.open_reader(self._path).close()
            return True
        return False

    async def bring(
        self, row: LeaseRow, name: str, standby: Standby | None, on_progress: Callable[[str], None]
    ) -> str:
        """Compare the file with the newest copy, which Litestream's program `name` restores or a
        standby has; use what has everything.
        Returns the store's id.
        """
        assert row.base is not None
        began_s, place = time.monotonic(), self._address.child(folder_of(row.base))
        with temporary_folders.TempFolder(self._side, verify.TEMPORARY) as folder:
            copy = folder.path / "copy.db"
            txid = await standby.caught_up(row.base) if standby is not None else None
            if standby is not None and txid is not None:
                copy = standby.copy
            else:
                text = f"Restoring {self._path} from {place}"
                txid = await litestream_binary.restore(
                    name, place, copy, on_bytes=lambda size: on_progress(f"{text}: {size:,} bytes")
                )
            seal, verified = (
                await in_thread(verify.verified, copy, str(place), row.rows),
                verify.identity(copy),
            )
            if txid < row.txid:
                raise verify.lacks(place, row.txid - txid)
            self._check_store_id(row, seal, place)
            local = self.seal()
            why = "it is older than the replica"
            if local is not None and local.epoch >= row.base and local.commits >= seal.commits:
                why = await in_thread(verify.lacks_of, self._path, copy)
            if not why:
                self._tell(
                    f"the local file {self._path} has all that the replica has; going on with it"
                )
                return seal.store_id
            self._set_aside(local, why)
            verify.put_in_place(copy, self._path, verified)
        self._tell(
            f"restored {self._path} from {place} in {time.monotonic() - began_s:.1f} s: "
            f"{seal.rows:,} rows of history"
        )
        return seal.store_id

    def _check_store_id(
        self, row: LeaseRow, seal: checksum.HistoryChecksum, place: Address
    ) -> None:
        local = self.seal()
        known = row.store_id or (
            local.store_id if local else None
        )  # neither where the lease had been deleted
        if known not in (None, seal.store_id):
            detail = f"the copy in {place} is of store {seal.store_id}, and the lease is of {known}"
            raise ReplicaOfAnother(str(self._address), detail)

    def _set_aside(self, local: checksum.HistoryChecksum | None, why: str) -> None:
        """Give other names to what stands at our path: SQLite would take a `-wal` that is left
        there for the restored file's.
        """
        there = verify.standing_at(self._path)
        if not there:
            return
        aside = verify.set_aside(self._path, f"aside-epoch-{local.epoch if local else 0}")
        if self._path in there:
            self._tell(
                f"the local file was set aside, because "
                f"{why if local else 'it is damaged'}; it is kept as {aside}"
            )
        else:
            self._tell(
                f"{there[0]}, which was left of a file that is gone, was set aside; it is "
                f"kept as {aside}"
            )

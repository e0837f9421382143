"""A standby: follows a replica, so that this machine can take over at once when the holder is gone.

Rules: it writes nothing but its own copy, in a temporary folder of its own; the copy is used only
when it has all that is in the bucket at the moment at which the lease is ours, and after the same
checks as every restore.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import Self

from perdure.errors import PerdureError
from perdure.process.periodic import Loop
from perdure.replica import litestream_binary, verify
from perdure.replica.address import Address
from perdure.replica.bucket import Bucket
from perdure.replica.epochs import folder_of
from perdure.replica.lease_rules import LeaseRow
from perdure.replica.restore import newest_txid
from perdure.replica.temporary_folders import TempFolder

log = logging.getLogger("perdure")

LOOK_S, CATCH_UP_S_MAX = 1.0, 5.0


class Standby:
    """Follows the epoch that the lease names, while it is entered.

    Its copy lies in a temporary folder below `side`; `binary` is Litestream's program.
    """

    def __init__(self, address: Address, binary: str, bucket: Bucket, side: Path) -> None:
        self._address, self._binary, self._bucket = address, binary, bucket
        self._folder = TempFolder(side, verify.TEMPORARY)
        self.copy = self._folder.path / "copy.db"
        self._row, self._epoch = LeaseRow(), 0  # no epoch is followed yet
        self._process: asyncio.subprocess.Process | None = None
        self._loop = Loop("standby", self._tick)

    async def __aenter__(self) -> Self:
        self._loop.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        """End, and remove what is left of the copy."""
        try:
            await self._loop.stop()
            await self._end()
        finally:
            self._folder.remove()

    def set_row(self, row: LeaseRow) -> None:
        """What the lease says now."""
        self._row = row

    async def _tick(self) -> float:
        base = self._row.base
        if base is not None and not (self._runs and base == self._epoch):
            if base == self._epoch:
                log.warning("standby: following has ended and begins again; %s says why", self._log)
            await self._follow(base)
        return LOOK_S

    async def _follow(self, epoch: int) -> None:
        await self._end()
        verify.discard(self.copy)
        self._txid_file.unlink(missing_ok=True)
        self._epoch = epoch
        config = self.copy.with_name("copy.db.litestream.yml")
        place = self._address.child(folder_of(epoch))
        config.write_bytes(litestream_binary.restore_settings(self.copy, place))
        options = ["-no-expand-env", "-f", "-follow-interval", "500ms"]
        files = ["-config", str(config), "-o", str(self.copy), str(self.copy)]
        output = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *litestream_binary.tied(self._binary, "restore", *options, *files),
                env=litestream_binary.environment(),
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        finally:
            os.close(output)
        log.info("standby: following epoch %s of %s", epoch, self._address)

    @property
    def _runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def _log(self) -> Path:
        return self.copy.with_name("copy.log")

    @property
    def _txid_file(self) -> Path:
        return self.copy.with_name(self.copy.name + "-txid")

    def txid(self) -> int:
        """The last transaction that the copy has."""
        try:
            return int(self._txid_file.read_text(), 16)
        except (OSError, ValueError):
            return 0

    async def caught_up(self, epoch: int) -> int | None:
        """Wait until the copy has all of this epoch, and end following.

        Returns its last transaction, or None where it did not get there in time.
        """
        await self._loop.stop()
        found = None
        with contextlib.suppress(TimeoutError, PerdureError):
            async with asyncio.timeout(CATCH_UP_S_MAX):
                newest = await newest_txid(self._bucket, epoch)
                while self._epoch == epoch and self._runs and self.txid() < newest:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                found = self.txid() if self._epoch == epoch and self.txid() >= newest else None
        await self._end()
        return found

    async def _end(self) -> None:
        """By SIGTERM, after which it leaves the copy whole."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(CATCH_UP_S_MAX):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

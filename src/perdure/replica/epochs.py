"""Epochs: numbered folders below a replica's address, one for each holding of the lease.

Rules: an epoch's number is claimed, by an object that must be new, before the lease names it; a
claim stays, also where its lease object is deleted before any engine has seen it.
"""

from __future__ import annotations

from perdure.replica.bucket import Bucket

CLAIMS = "taken"


def folder_of(epoch: int) -> str:
    """Where an epoch lies below the address.

    >>> folder_of(7)
    '000007'
    """
    return f"{epoch:06}"


async def epochs_in(bucket: Bucket) -> list[int]:
    """Those that have a folder, in order."""
    return sorted(int(name) for name in await bucket.folders() if name.isdigit())


class Epochs:
    """The epochs of one bucket as one holder sees them: `holder` is what its claims contain."""

    def __init__(self, bucket: Bucket, holder: str, *, fencing: bool) -> None:
        self._bucket, self._mark, self._fencing = bucket, holder.encode(), fencing

    async def newest(self) -> int:
        """The last one that was claimed, with a copy or without; 0 for none."""
        found = await self._bucket.names(CLAIMS)
        claims = [one.name.rpartition("/")[2].partition(".")[0] for one in found]
        numbers = [int(number) for number in claims if number.isdigit()]
        return max([0, *numbers, *await epochs_in(self._bucket)])

    async def newest_filled(self) -> int | None:
        """The last one that holds anything to restore."""
        for epoch in reversed(await epochs_in(self._bucket)):
            found = await self._bucket.names(folder_of(epoch))
            if any(one.name.endswith(".ltx") for one in found):
                return epoch
        return None

    async def claim_after(self, epoch: int) -> int:
        """Claim the next epoch that no engine has claimed."""
        while not await self.claim(epoch := epoch + 1):
            pass
        return epoch

    async def claim(self, epoch: int) -> bool:
        """Claim an epoch; whether it is ours."""
        if not self._fencing:
            return bool(await self._bucket.put(_claim_of(epoch), self._mark))
        written = await self._bucket.put_new(_claim_of(epoch), self._mark)
        return written is not None or await self.is_ours(epoch)

    async def is_ours(self, epoch: int) -> bool:
        found = await self._bucket.get(_claim_of(epoch))
        return found is not None and found.data == self._mark

    async def sweep(self, oldest_kept: int, older_than_ms: int) -> list[int]:
        """Delete epochs before `oldest_kept` whose newest object was written before that time.

        Returns those that are gone.
        """
        gone = []
        for epoch in await epochs_in(self._bucket):
            if epoch >= oldest_kept:
                break
            found = await self._bucket.names(folder_of(epoch))
            if found and max(one.modified_ms for one in found) < older_than_ms:
                await self._bucket.delete([one.name for one in found])
                gone.append(epoch)
        found = await self._bucket.names(CLAIMS)
        if claims := [one.name for one in found if one.name < _claim_of(oldest_kept)]:
            await self._bucket.delete(claims)
        return gone


def _claim_of(epoch: int) -> str:
    return f"{CLAIMS}/{folder_of(epoch)}.json"

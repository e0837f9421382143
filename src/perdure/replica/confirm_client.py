"""The confirm client: holds back the answers of an engine that executes nothing.

Rules: an answer waits until the engine that copies the store confirms it (see `confirm_server`);
where no engine answers, it passes only what the last one had advertised as confirmed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from perdure.errors import NoReplicaEngine, ReplicaFull, ReplicaUnavailable
from perdure.replica import advertisement
from perdure.replica.advertisement import Advertisement, Answer, Question
from perdure.store.sqlite.checksum import HistoryChecksum
from perdure.store.sqlite.forked import Identity

log = logging.getLogger("perdure")

ASK_EVERY_S = 0.1
LOG_AFTER_S = 1.0
FROZEN_S = 5.0  # beyond the time that it was given, an engine without an answer counts as frozen


class ConfirmClient:
    """The gate of a client that has the store at `path` open, as `file`.

    `checksum` reads the store's checksum. `durability` "replica" waits in any case; with "disk" the
    level of the engine that copies decides.
    """

    def __init__(
        self,
        path: str,
        durability: str,
        checksum: Callable[[], HistoryChecksum | None],
        file: Identity,
    ) -> None:
        self._folder = Path(os.path.abspath(path) + "-replica")
        self._strict, self._checksum, self._file = durability == "replica", checksum, file

    def check_room(self) -> None:
        """Raise `ReplicaFull` where nothing new can be begun."""
        found = advertisement.read(self._folder)
        if found is None or found.full is None:
            return
        if (ours := self._checksum()) is not None:
            raise ReplicaFull(ours.address, *found.full)

    async def answer(self, durability: str | None = None, s_max: float | None = None) -> None:
        """Return when what is committed may be acknowledged.

        Raises `ReplicaUnavailable` with what the engine answers, and `NoReplicaEngine` if none has
        answered for `s_max` seconds.
        """
        loop = asyncio.get_running_loop()
        begin_s, logged, commits = loop.time(), False, None
        while True:  # an engine may begin to copy the file at any moment
            ours, found = self._checksum(), advertisement.read(self._folder)
            commits = ours.commits if commits is None and ours is not None else commits
            if self._may_pass(found, durability, ours, commits or 0):
                return
            where = ours.address if ours is not None else "of this store"
            waited_s = loop.time() - begin_s
            left_s = None if s_max is None else max(0.0, s_max - waited_s)
            if found is not None and await self._confirmed(found, where, left_s):
                return
            if s_max is not None and waited_s >= s_max:
                none = "no engine has begun to copy it"
                raise NoReplicaEngine(where) if ours else ReplicaUnavailable(where, none)
            if waited_s >= LOG_AFTER_S and not logged:
                logged = True
                _log_wait(where if ours is not None else None)
            await asyncio.sleep(ASK_EVERY_S)

    def _may_pass(
        self,
        found: Advertisement | None,
        durability: str | None,
        ours: HistoryChecksum | None,
        commits: int,
    ) -> bool:
        if ours is None:  # not replicated, or not yet
            return durability != "replica" and (durability == "disk" or not self._strict)
        current = found if found is not None and found.epoch == ours.epoch else None
        own = "replica" if self._strict or current is None else current.durability
        confirmed = current is not None and commits <= current.commits
        return (durability or own) != "replica" or confirmed

    async def _confirmed(self, found: Advertisement, where: str, s_max: float | None) -> bool:
        """Whether an engine has confirmed it; False if none is there.

        Raises `ReplicaUnavailable` with what was answered instead.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(found.socket)
        except OSError:
            return False
        try:
            writer.write(msgspec.json.encode(Question(self._file, s_max)) + b"\n")
            async with asyncio.timeout(None if s_max is None else s_max + FROZEN_S):
                received = await reader.readline()
            answer = msgspec.json.decode(received, type=Answer)
        except TimeoutError:
            frozen = "the engine that copies this store gives no answer; is it frozen?"
            raise ReplicaUnavailable(where, frozen) from None
        except (OSError, msgspec.DecodeError):
            return False  # it has ended meanwhile
        finally:
            writer.close()
        if answer.error is not None:
            raise ReplicaUnavailable(where, answer.error)
        return True


def _log_wait(where: str | None) -> None:
    missing = "no engine has begun to copy this store"
    if where is not None:
        missing = f"no engine that copies this store to {where} runs here"
    log.warning("%s; waiting for one. What was asked for is on this disk", missing)

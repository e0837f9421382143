"""The door: where other processes of this machine ask whether what they have committed, or were
shown, is in the replica.

Rules: a process asks after its commit; the answer comes after a round of the barrier that begins
after the question; both must have the same file open, because a path may name another one by now;
where no engine answers, a client reports nothing but what the last one has left written that it
knew to be in the replica; an engine that ends leaves no question open and answers none with its
end, so that the client asks the next engine; a replicated file whose advertisement is missing,
damaged or of another epoch counts as one of level "replica".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextvars import Context
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from perdure.errors import PerdureError, ReplicaFull, ReplicaUnattended, ReplicaUnavailable
from perdure.process.threads import in_thread
from perdure.replica import sockets
from perdure.store.sqlite import forked
from perdure.store.sqlite.checksum import HistoryChecksum
from perdure.store.sqlite.connection import Identity

log = logging.getLogger("perdure")

KNOCK_EVERY_S = 0.1
SAY_AFTER_S = 1.0
QUESTION_BYTES_MAX = 65_536
FROZEN_S = (
    5.0  # what an engine may take beyond the time that it was given, before it counts as frozen
)


Level = Literal["disk", "replica"]


class Sign(msgspec.Struct):
    """The advertisement beside the store: where to ask, how durable an answer is, up to which
    commit of which epoch all is confirmed.
    """

    durability: Level
    epoch: int
    socket: str = ""
    full: tuple[int, int] | None = None
    commits: int = -1


class Question(msgspec.Struct):
    """`file` is what the asking process has open; `s_max` how many seconds it wants to wait."""

    file: Identity
    s_max: float | None


class Answer(msgspec.Struct):
    """Without a `trouble` everything that was committed before the question is in the replica."""

    trouble: str | None = None


def _sign_of(side: Path) -> Path:
    return side / "door"


def _read(side: Path) -> Sign | None:
    try:
        return msgspec.json.decode(_sign_of(side).read_bytes(), type=Sign)
    except (OSError, msgspec.DecodeError):
        return None


def _write(side: Path, sign: Sign) -> None:
    """Durably: after a power cut the old one is there or the new one, whole."""
    draft = _sign_of(side).with_suffix(".new")
    with open(draft, "wb") as file:
        file.write(msgspec.json.encode(sign))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(_sign_of(side))
    folder = os.open(side, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Door:
    """The engine's side of it. `confirm` comes back when all that is committed by then is in the
    replica, by whichever process, and raises when the engine ends.
    """

    def __init__(
        self,
        side: Path,
        durability: str,
        file: Identity,
        confirm: Callable[[], Awaitable[None]],
        trouble: Callable[[], PerdureError],
    ) -> None:
        self._side, self._sign, self._file, self._confirm, self._trouble = (
            side,
            Sign(cast("Level", durability), 0),
            file,
            confirm,
            trouble,
        )
        self._listening: socket.socket | None = None
        self._guests: dict[asyncio.Task[None], socket.socket] = {}
        self._writing = asyncio.Lock()  # what two say at once must both be said

    async def open(self, epoch: int) -> None:
        """Let others ask, from the beginning of the engine's epoch on."""
        if (left := _read(self._side)) is not None:
            sockets.remove(left.socket)  # of an engine that was killed
        self._sign.epoch, self._sign.socket = epoch, sockets.place("door", beside=self._side)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.setblocking(False)
        self._listening.bind(self._sign.socket)
        self._listening.listen()
        self._listen()
        forked.watch(self)
        await in_thread(_write, self._side, self._sign)

    def in_child(self) -> None:
        """See `store.forked`: with a copy of the socket in a child, clients of an engine that was
        killed would wait for ever.
        """
        forked.take_away(
            [one.fileno() for one in (self._listening, *self._guests.values()) if one is not None]
        )

    async def advertise(self, **changes: Any) -> None:
        """Say `epoch`, `commits`, up to which all is confirmed for good, or `full`, why nothing new
        can be begun.
        """
        async with self._writing:
            sign = msgspec.structs.replace(self._sign, **changes)
            if sign != _read(self._side):  # also where the file was damaged or removed
                try:
                    await in_thread(_write, self._side, sign)
                    self._sign = sign
                except OSError as error:  # the old one stays, which promises less
                    log.warning("what clients are told by could not be written: %s", error)

    async def close(self) -> None:
        """Answer no more questions; clients that wait look for another engine."""
        forked.unwatch(self)
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()  # and the system hangs up on those that have not been accepted
            self._listening = None
            sockets.remove(self._sign.socket)
        for guest in self._guests:
            guest.cancel()
        await asyncio.gather(*self._guests, return_exceptions=True)

    def _listen(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        """Not asyncio's server: one that closes keeps connections open that it has accepted at that
        moment, and nobody answers them.
        """
        assert self._listening is not None
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self._listening.accept()
        except OSError:  # there may be no descriptor left: clients wait until there is one
            loop.remove_reader(self._listening)
            loop.call_later(KNOCK_EVERY_S, self._listen)
            return
        connection.setblocking(False)
        guest = loop.create_task(self._guest(connection), context=Context())
        self._guests[guest] = connection
        guest.add_done_callback(lambda done: self._guests.pop(done).close())

    async def _guest(self, connection: socket.socket) -> None:
        loop, said = asyncio.get_running_loop(), b""
        # What is suppressed: it has gone away, it does not speak as we do, or we end and it has to
        # ask the next engine.
        with contextlib.suppress(OSError, ValueError, PerdureError):
            while (
                b"\n" not in said
                and len(said) < QUESTION_BYTES_MAX
                and (more := await loop.sock_recv(connection, QUESTION_BYTES_MAX))
            ):
                said += more
            answer = await self._answer(msgspec.json.decode(said, type=Question))
            await loop.sock_sendall(connection, msgspec.json.encode(answer) + b"\n")

    async def _answer(self, question: Question) -> Answer:
        if question.file != self._file:
            return Answer(
                "the engine that copies the store has another file open; this one was "
                "moved, replaced or set aside"
            )
        try:
            async with asyncio.timeout(question.s_max):
                await self._confirm()
        except TimeoutError:
            error = self._trouble()
            return Answer(
                str(getattr(error, "detail", error))
            )  # without what the error that carries it says anyway
        return Answer()


class ClientGate:
    """The other side: holds back the answers of an engine that executes nothing until the one that
    does has them confirmed.

    `durability` "replica" waits in any case; with "disk" the level of the engine that copies
    decides.
    """

    def __init__(
        self, path: str, durability: str, seal: Callable[[], HistoryChecksum | None], file: Identity
    ) -> None:
        self._side, self._strict, self._seal, self._file = (
            Path(os.path.abspath(path) + "-replica"),
            durability == "replica",
            seal,
            file,
        )

    def check_room(self) -> None:
        """Raise why nothing new can be begun, if so."""
        sign = _read(self._side)
        if sign is not None and sign.full is not None and (seal := self._seal()) is not None:
            raise ReplicaFull(seal.address, *sign.full)

    async def answer(self, durability: str | None = None, s_max: float | None = None) -> None:
        """Come back when what is committed may be told. Raises `ReplicaUnavailable`, after `s_max`
        seconds if no engine answers.
        """
        loop = asyncio.get_running_loop()
        begin_s, said, commits = loop.time(), False, None
        while True:
            seal, sign = (
                self._seal(),
                _read(self._side),
            )  # an engine may begin to copy the file at any moment
            commits = seal.commits if commits is None and seal is not None else commits
            if self._may_pass(sign, durability, seal, commits or 0):
                return
            where = seal.address if seal is not None else "of this store"
            waited_s = loop.time() - begin_s
            if sign is not None and await self._asked(
                sign, where, None if s_max is None else max(0.0, s_max - waited_s)
            ):
                return
            if s_max is not None and waited_s >= s_max:
                raise (
                    ReplicaUnattended(where)
                    if seal is not None
                    else ReplicaUnavailable(where, "no engine has begun to copy it")
                )
            if waited_s >= SAY_AFTER_S and not said:
                said = True
                whom = (
                    f"no engine that copies this store to {where} runs here"
                    if seal is not None
                    else "no engine has begun to copy this store"
                )
                log.warning("%s; waiting for one. What was asked for is on this disk", whom)
            await asyncio.sleep(KNOCK_EVERY_S)

    def _may_pass(
        self, sign: Sign | None, durability: str | None, seal: HistoryChecksum | None, commits: int
    ) -> bool:
        if seal is None:  # not replicated, or not yet
            return durability != "replica" and (durability == "disk" or not self._strict)
        present = sign if sign is not None and sign.epoch == seal.epoch else None
        level = durability or ("replica" if self._strict or present is None else present.durability)
        return level != "replica" or (present is not None and commits <= present.commits)

    async def _asked(self, sign: Sign, where: str, s_max: float | None) -> bool:
        """Whether somebody has confirmed it; False if nobody is there. Raises `ReplicaUnavailable`
        for what was answered instead.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(sign.socket)
        except OSError:
            return False
        try:
            writer.write(msgspec.json.encode(Question(self._file, s_max)) + b"\n")
            async with asyncio.timeout(None if s_max is None else s_max + FROZEN_S):
                said = await reader.readline()
            answer = msgspec.json.decode(said, type=Answer)
        except TimeoutError:
            raise ReplicaUnavailable(
                where, "the engine that copies this store gives no answer; is it frozen?"
            ) from None
        except (OSError, msgspec.DecodeError):
            return False  # it has ended meanwhile
        finally:
            writer.close()
        if answer.trouble is not None:
            raise ReplicaUnavailable(where, answer.trouble)
        return True

"""The confirm server: answers other processes of this machine when the replica has their commits.

Rules: a process asks after its commit; the answer comes after a round of the barrier that begins
after the question; both must have the same file open, because a path may name another one by now;
an engine that ends leaves no question open and answers none with its end, so that the client asks
the next engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from contextvars import Context
from pathlib import Path
from typing import Any, cast

import msgspec

from perdure.errors import PerdureError
from perdure.process.threads import in_thread
from perdure.replica import advertisement, sockets
from perdure.replica.advertisement import Advertisement, Answer, Level, Question
from perdure.store.sqlite import forked
from perdure.store.sqlite.forked import Identity

log = logging.getLogger("perdure")

ACCEPT_AGAIN_S = 0.1
QUESTION_BYTES_MAX = 65_536


class ConfirmServer:
    """Answers clients of the store whose replica folder is `folder`.

    `confirm` returns when all that is committed by then is in the replica, by whichever process,
    and raises when the engine ends. `waiting_for` says why that takes so long.
    """

    def __init__(
        self,
        folder: Path,
        durability: str,
        file: Identity,
        confirm: Callable[[], Awaitable[None]],
        waiting_for: Callable[[], PerdureError],
    ) -> None:
        self._folder, self._file = folder, file
        self._advertisement = Advertisement(cast("Level", durability), 0)
        self._confirm, self._waiting_for = confirm, waiting_for
        self._listening: socket.socket | None = None
        self._clients: dict[asyncio.Task[None], socket.socket] = {}
        self._writing = asyncio.Lock()  # two changes at once must both be written

    async def open(self, epoch: int) -> None:
        """Answer clients from now on, in this epoch of the engine's."""
        if (left := advertisement.read(self._folder)) is not None:
            sockets.remove(left.socket)  # of an engine that was killed
        path = sockets.place("confirm", beside=self._folder)
        self._advertisement.epoch, self._advertisement.socket = epoch, path
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.setblocking(False)
        self._listening.bind(path)
        self._listening.listen()
        self._listen()
        forked.watch(self)
        await in_thread(advertisement.write, self._folder, self._advertisement)

    def in_child(self) -> None:
        """See `store.sqlite.forked`.

        With a copy of the socket in a child, clients of a killed engine would wait for ever.
        """
        open_sockets = (self._listening, *self._clients.values())
        forked.take_away([one.fileno() for one in open_sockets if one is not None])

    async def advertise(self, **changes: Any) -> None:
        """Publish `epoch`, `commits` or `full`; see `Advertisement`."""
        async with self._writing:
            changed = msgspec.structs.replace(self._advertisement, **changes)
            if changed != advertisement.read(self._folder):  # also where it was damaged or removed
                await self._publish(changed)

    async def _publish(self, changed: Advertisement) -> None:
        try:
            await in_thread(advertisement.write, self._folder, changed)
            self._advertisement = changed
        except OSError as error:  # the old one stays, which promises less
            log.warning("the advertisement for clients could not be written: %s", error)

    async def close(self) -> None:
        """Answer no more questions; clients that wait look for another engine."""
        forked.unwatch(self)
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()  # the system closes connections that are not accepted yet
            self._listening = None
            sockets.remove(self._advertisement.socket)
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _listen(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        """Accept a client.

        Not by asyncio's server: when that closes, it keeps connections open that it has accepted
        at that moment, and nothing answers them.
        """
        assert self._listening is not None
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self._listening.accept()
        except OSError:  # there may be no descriptor left: clients wait until there is one
            loop.remove_reader(self._listening)
            loop.call_later(ACCEPT_AGAIN_S, self._listen)
            return
        connection.setblocking(False)
        client = loop.create_task(self._serve(connection), context=Context())
        self._clients[client] = connection
        client.add_done_callback(lambda done: self._clients.pop(done).close())

    async def _serve(self, connection: socket.socket) -> None:
        """Answer one question.

        Suppressed: the client has closed, its question can't be parsed, or this engine ends and the
        client has to ask the next one.
        """
        loop, received = asyncio.get_running_loop(), b""
        with contextlib.suppress(OSError, ValueError, PerdureError):
            while b"\n" not in received and len(received) < QUESTION_BYTES_MAX:
                if not (more := await loop.sock_recv(connection, QUESTION_BYTES_MAX)):
                    break
                received += more
            answer = await self._answer(msgspec.json.decode(received, type=Question))
            await loop.sock_sendall(connection, msgspec.json.encode(answer) + b"\n")

    async def _answer(self, question: Question) -> Answer:
        if question.file != self._file:
            return Answer(
                "the engine that copies the store has another file open; this one was moved, "
                "replaced or set aside"
            )
        try:
            async with asyncio.timeout(question.s_max):
                await self._confirm()
        except TimeoutError:
            error = self._waiting_for()
            return Answer(str(getattr(error, "detail", error)))  # the client's error says the rest
        return Answer()

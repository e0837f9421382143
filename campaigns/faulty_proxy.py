"""A proxy that makes the network between an HTTP client and its server bad, and good again.

Rules: it runs on a loop and a thread of its own. A change is in force when the call returns.
Requests are passed on byte for byte, the Host header too, because S3's signature covers it.
Connections do not wait for each other.

    with Proxy(bucket.port) as proxy:
        ...  # bucket.url("agents", port=proxy.port)
        proxy.set(delay_ms=50)
        proxy.set("cut")
        proxy.set()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Collection, Coroutine
from typing import Literal, NoReturn, Self, get_args

from campaigns.s3_servers import HOST, free_ports

Fault = Literal["drop", "cut", "cut-answers", "refuse", "500", "503"]
HEAD_BYTES_MAX, PIECE_BYTES = 1 << 20, 1 << 16
SET_UP_TURNS = 5  # of the loop, until an accepted connection is served
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_END = b"\r\n\r\n"
_WORDS = {
    "403": ("AccessDenied", "Forbidden"),
    "500": ("InternalError", "Internal Server Error"),
    "503": ("SlowDown", "Service Unavailable"),
}
_GONE = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class Proxy:
    """A listener on `port` for the server at `to_port`, both on 127.0.0.1.

    `set()` says how it behaves from now on:

    - `delay_ms`: each request waits so long before it is passed on
    - `"drop"`: requests are read and never answered, answers under way are kept back; both end by
      `set()`, with the connection
    - `"cut"`: every connection is reset, open ones at once, new ones by their first request;
      nothing is passed on
    - `"cut-answers"`: requests are passed on and done, the connection is reset in the middle of the
      answer: in its body, or in its first line where it has none, for a client may take a head
      without an end for one
    - `"refuse"`: nothing listens
    - `"500"`, `"503"`: this is the answer; nothing is passed on
    - `deny`: some of "read", "write", "list" and "delete" are answered with 403, as by a policy;
      with `deny_in` only those whose target has this text in it
    """

    def __init__(self, to_port: int) -> None:
        self.to_port = to_port
        (self.port,) = free_ports(1)
        self.requests = 0  # that have arrived
        self.passed_on = 0  # that the server has got
        self.kinds = Counter[str]()  # how many of each: read, write, list, delete
        self.waiting_max = 0  # as many have waited for their answers at one time
        self._waiting = 0
        self._fault: Fault | None = None
        self.denied: frozenset[str] = frozenset()
        self._denied_in = b""
        self._delay_s = 0.0
        self._open: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Event()
        self._arrived = threading.Condition()
        self._listener: asyncio.Server | None = None

    # --- for the test's thread --------------------------------------------------------------------

    def set(
        self,
        fault: Fault | None = None,
        *,
        delay_ms: float = 0.0,
        deny: Collection[str] = (),
        deny_in: str = "",
    ) -> None:
        """Behave like this from now on; without arguments, well."""
        if fault is not None and fault not in get_args(Fault):
            raise ValueError(
                f"There is no fault {fault!r}: choose one of {', '.join(get_args(Fault))}."
            )
        self.denied, self._denied_in = frozenset(deny), deny_in.encode()
        self._do(self._set(fault, delay_ms / 1000))

    def wait_for_requests(self, number: int, timeout_s: float = 30.0) -> bool:
        """Wait until so many requests have arrived since the start; whether they did in time."""
        with self._arrived:
            return self._arrived.wait_for(lambda: self.requests >= number, timeout_s)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="perdure-proxy", daemon=True
        )
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result()

    # --- on the loop ------------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(
            self._serve, HOST, self.port, limit=HEAD_BYTES_MAX
        )

    async def _refuse(self) -> None:
        if self._listener is not None:
            # asyncio leaves a connection open, and warns of it one day, that was accepted before
            # its server closed and is set up after that: nothing is accepted for some turns.
            for listening in self._listener.sockets:
                self._loop.remove_reader(listening)
            for _ in range(SET_UP_TURNS):
                await asyncio.sleep(0)
            self._listener.close()
            self._listener = None
        self._cut()

    def _cut(self) -> None:
        for writer in self._open:
            _reset(writer)

    async def _set(self, fault: Fault | None, delay_s: float) -> None:
        self._fault, self._delay_s = fault, delay_s
        self._changed.set()  # dropped connections end
        self._changed = asyncio.Event()
        if fault == "refuse":
            await self._refuse()
        elif self._listener is None:
            await self._listen()
        if fault == "cut":
            self._cut()

    async def _end(self) -> None:
        await self._refuse()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, with one of its own to the server behind it."""
        self._open.add(writer)
        server: Ends | None = None
        try:
            while True:
                head = await reader.readuntil(_END)
                self._note_arrival(head)
                try:
                    await asyncio.sleep(self._delay_s)
                    if (status := self._refusal(head)) is not None:
                        await _answer(status, head, reader, writer)
                        continue
                    await self._suffer(writer)
                    server = server or await asyncio.open_connection(
                        HOST, self.to_port, limit=HEAD_BYTES_MAX
                    )
                    self.passed_on += 1
                    await self._exchange(head, (reader, writer), server)
                finally:
                    self._waiting -= 1
        except _GONE:
            _reset(writer)
        except asyncio.CancelledError:
            pass  # the end of the proxy; asyncio's own callback would report it
        finally:
            self._open.discard(writer)
            for one in (writer, *([server[1]] if server else [])):
                one.transport.abort()  # a close would wait for what is still to be sent

    def _refusal(self, head: bytes) -> str | None:
        """The status to answer with, where the request is not to be passed on."""
        if self._fault in ("500", "503"):
            return self._fault
        target = head.split(b" ", 2)[1]
        return "403" if _kind(head) in self.denied and self._denied_in in target else None

    def _note_arrival(self, head: bytes) -> None:
        self._waiting += 1
        self.kinds[_kind(head)] += 1
        self.waiting_max = max(self.waiting_max, self._waiting)
        with self._arrived:
            self.requests += 1
            self._arrived.notify_all()

    async def _suffer(self, client: asyncio.StreamWriter) -> None:
        """Drop and cut, for what has just come by; whose client is gone goes no further."""
        if self._fault == "drop":
            await self._changed.wait()
            raise ConnectionResetError
        if self._fault == "cut" or client.transport.is_closing():
            raise ConnectionResetError

    async def _exchange(self, head: bytes, client: Ends, server: Ends) -> None:
        """Pass one request on and its answer back; the body goes beside, for a client may wait for
        a "100 Continue".
        """
        server[1].write(head)
        body = asyncio.create_task(_copy_body(head, client[0], server[1]))
        try:
            while True:
                answer = await server[0].readuntil(_END)
                await self._suffer(client[1])
                if not answer.split(b" ", 2)[1].startswith(b"1"):
                    break
                client[1].write(answer)
            if self._fault == "cut-answers":
                await _answer_half(answer, server[0], client[1])
            client[1].write(answer)
            if not (head.startswith(b"HEAD ") or answer.split(b" ", 2)[1] in (b"204", b"304")):
                await _copy_body(answer, server[0], client[1])
            await client[1].drain()
            if _field(head, b"expect") is not None and not body.done():
                # refused before the body came, so the beginning of the next request is unknown
                raise ConnectionResetError
            await body
        finally:
            body.cancel()
            await asyncio.gather(body, return_exceptions=True)


# --- HTTP/1.1, as much as it takes to know where a message ends -----------------------------------


def _field(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip().lower()
    return None


async def _copy_body(head: bytes, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """A body by its length or in chunks; S3 has no answers that only the end of the connection
    ends.
    """
    if b"chunked" in (_field(head, b"transfer-encoding") or b""):
        size = -1
        while size != 0:
            line = await source.readuntil(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            sink.write(line)
            await _copy(source, sink, size + 2)
    elif (length := _field(head, b"content-length")) is not None:
        await _copy(source, sink, int(length))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter | None, size: int) -> None:
    while size:
        piece = await source.read(min(size, PIECE_BYTES))
        if not piece:
            raise ConnectionResetError
        size -= len(piece)
        if sink is not None:
            sink.write(piece)
            await sink.drain()


async def _answer_half(
    answer: bytes, source: asyncio.StreamReader, sink: asyncio.StreamWriter
) -> NoReturn:
    size = int(_field(answer, b"content-length") or 0) // 2
    sink.write(answer if size else answer[: len("HTTP/1.1 2")])
    await _copy(source, sink, size)
    await sink.drain()
    raise ConnectionResetError


def _reset(writer: asyncio.StreamWriter) -> None:
    """A reset, and not the polite end that a close without more to read would be."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
    writer.transport.abort()


def _kind(head: bytes) -> str:
    """What a request wants: list, read, write or delete."""
    method, target, _ = head.split(b" ", 2)
    if method == b"DELETE" or (method == b"POST" and b"delete" in target):
        return "delete"
    return "write" if method in (b"PUT", b"POST") else "list" if b"list-type" in target else "read"


async def _answer(
    status: str, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """The answer that S3 gives. The body is read first: to close on unread data would take the
    answer away.
    """
    if _field(head, b"expect") is not None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await _copy(reader, None, int(_field(head, b"content-length") or 0))
    code, reason = _WORDS[status]
    text = (
        b""
        if head.startswith(b"HEAD ")
        else f"<Error><Code>{code}</Code><Message>{reason}</Message></Error>".encode()
    )
    writer.write(
        f"HTTP/1.1 {status} {reason}\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text
    )
    await writer.drain()

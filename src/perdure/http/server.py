"""Server: uvicorn over an application of ours, for commands and tests.

Rules: the signals of the process stay with the command; requests are not logged, because addresses
hold rights and filters; streams that are open do not hold up the end for longer than a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn

END_S = 1
CONNECTIONS_MAX = 2_000
PROXIES = "FORWARDED_ALLOW_IPS"
"""uvicorn's variable for the proxies whose headers are believed."""
PORT = 8642
PORTS_TRIED = 10
"""How many ports are tried from `PORT` on, where none is asked for."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens at a host and port; at the first free one of ten where none is given.

    Raises `OSError`.
    """
    ports = range(PORT, PORT + PORTS_TRIED) if port is None else [port]
    refused = None
    for one in ports:
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, one, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            return socket.create_server(address[:2], family=family)
        except OSError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def address_of(listening: socket.socket) -> str:
    """The address to type into a browser on this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("127.0.0.1", "::1", "0.0.0.0", "::"):
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


@contextlib.asynccontextmanager
async def served(app: Any, listening: socket.socket) -> AsyncIterator[None]:
    """Serve an application at this socket while the block lasts. Raises what the server raises."""
    config = uvicorn.Config(
        app,
        access_log=False,
        lifespan="off",
        limit_concurrency=CONNECTIONS_MAX,
        log_config=None,
        log_level="critical",
        proxy_headers=PROXIES in os.environ,  # else anybody on this machine could name an address
        server_header=False,
        timeout_graceful_shutdown=END_S,
        ws="none",
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve([listening]))
    ready = asyncio.ensure_future(server.ready.wait())
    try:
        await asyncio.wait((serving, ready), return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        ready.cancel()
        server.should_exit = True
        await serving

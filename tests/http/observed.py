"""Served databases for tests: a real uvicorn over real replicas, in a thread with its own loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from perdure.http import server
from perdure.http.pages.observe import databases_app
from perdure.observe.databases import Databases
from tests.runtime.support import PATIENCE_S


@contextlib.contextmanager
def observed(*targets: str, **options: Any) -> Iterator[str]:
    """The address at which the databases at these places is served."""
    at = socket.create_server(("127.0.0.1", 0))
    begun, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    failed: list[BaseException] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with (
            Databases(targets) as databases,
            server.served(databases_app(databases, **options), at),
        ):
            begun.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=run, name="observed", daemon=True)
    thread.start()
    assert begun.wait(PATIENCE_S) and not failed, failed
    try:
        yield f"http://127.0.0.1:{at.getsockname()[1]}{options.get('prefix', '')}"
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
    assert not failed, failed

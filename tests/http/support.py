"""Served sites for tests: a real uvicorn over a real engine, in a thread with its own event loop.

Rules: nothing is mocked; a server stops with its test module; the engine is reached on its loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Self, TypeVar

import httpx

from perdure import Engine
from perdure.http.server import served
from tests.runtime.support import PATIENCE_S

T = TypeVar("T")
FORM_KEY = "k" * 32
CSRF = {"x-csrf-token": FORM_KEY, "cookie": f"perdure_csrf={FORM_KEY}"}
"""Headers with which a program sends a form to a page."""


class Served:
    """An engine with its pages at `url`, in a thread. `app` makes the application of the engine."""

    def __init__(self, engine: Engine, app: Callable[[Engine], Any], prefix: str = "") -> None:
        self.engine = engine
        self._app = app
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = self.origin + prefix
        self._begun = threading.Event()
        self._clients: list[httpx.Client] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="served", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(PATIENCE_S), "the server did not begin"
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *error: object) -> None:
        for client in self._clients:
            client.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server did not end"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._begun.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self.engine, served(self._app(self.engine), self._socket):
            self._begun.set()
            await self._stop.wait()

    def do(self, act: Callable[[Engine], Awaitable[T]]) -> T:
        """The result of something that is done with the engine, on its event loop."""

        async def acted() -> T:
            return await act(self.engine)

        return asyncio.run_coroutine_threadsafe(acted(), self._loop).result(PATIENCE_S)

    def client(self, **headers: str) -> httpx.Client:
        """A client whose addresses are below this site's; it follows no redirects, and is closed
        with the server.
        """
        # No TLS, so there is nothing to verify; loading certificates would take most of a test.
        client = httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, verify=False)
        self._clients.append(client)
        return client


Serve = Callable[..., Served]


@contextlib.contextmanager
def server(folder: Any) -> Iterator[Serve]:
    """A function that serves engines until the block ends: `serve(workflows=[…], token=…,
    prefix=…, store=…, app=…)`; further options are those of `Engine`.
    """
    with contextlib.ExitStack() as stack:

        def serve(
            *,
            token: Any = None,
            prefix: str = "",
            store: str | None = None,
            app: Callable[[Engine], Any] | None = None,
            **options: Any,
        ) -> Served:
            path = store or str(folder / f"store-{len(list(folder.iterdir()))}.db")
            make = app or (lambda engine: engine.asgi(token=token, prefix=prefix))
            return stack.enter_context(Served(Engine(path, **options), make, prefix))

        yield serve

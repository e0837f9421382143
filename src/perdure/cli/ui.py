"""`ui`: the pages and the API of a store that other processes execute.

Rules: it executes nothing; a file that can't be written is shown as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any

import click

from perdure.api.tokens import Token
from perdure.cli import log_lines, observe, serving
from perdure.cli.common import ADDRESSES, CONFIRM_S_MAX, Exit, misuse, store_option
from perdure.cli.execution import execute, opened, stop_signals
from perdure.cli.output import say
from perdure.errors import StoreNotFound, StoreReadOnly
from perdure.runtime.engine import Engine
from perdure.store.sqlite import connection, files


@click.command(short_help="Show the pages of a store in a browser.")
@click.argument("path", required=False, metavar="[STORE]")
@store_option
@serving.serve_options
@click.option("--read-only", is_flag=True, help="Show no buttons and refuse every change.")
def ui(
    path: str | None,
    store: str,
    host: str,
    port: int | None,
    token: str | None,
    view_token: str | None,
    open_it: bool,
    read_only: bool,
) -> None:
    """Serve the pages and the API of a store, which other processes execute, until stopped.

    STORE is a file, the same as --store, or the address of a replica, which is only looked at, as
    with `perdure observe`. A file that can't be written is shown
    read-only, and so is the address of a replica. Without a token only this machine is answered.

    \b
    Examples:
      perdure ui
      perdure ui agents.db --open
      perdure ui agents.db --read-only --port 9000
      perdure ui s3://agents/prod
      PERDURE_TOKEN=... perdure ui agents.db --host 0.0.0.0
    """
    log_lines.show_all(quiet=False)
    store = path or store
    tokens = serving.tokens_given(token, view_token)
    if store.startswith(":memory:"):
        raise misuse("A store in memory is in one process only. Serve it there: engine.asgi().")
    if store.startswith(ADDRESSES):
        execute(observe.serve((store,), serving.listening(host, port, tokens), tokens, open_it))
    store = connection.path_of(store)
    if not os.path.exists(store):
        raise StoreNotFound(store)
    at = serving.listening(host, port, tokens)
    execute(_serve(store, at, tokens, read_only, open_it))


async def _serve(
    store: str, at: socket.socket, tokens: list[Token], read_only: bool, open_it: bool
) -> int:
    from perdure.http import server
    from perdure.http.app import application

    with at, stop_signals() as stopped:
        async with contextlib.AsyncExitStack() as stack:
            site = await _site(store, read_only, stack, stopped)
            if site is None:
                return Exit.DONE
            await stack.enter_async_context(
                server.served(application(site, token=tokens or None), at)
            )
            serving.tell(server.address_of(at), tokens, open_it)
            say(f"{'Read-only: ' if site.read_only else ''}{store}. Ctrl-C ends it.")
            await _until_stopped(site.engine, stopped)
    return Exit.DONE


async def _site(
    store: str, read_only: bool, stack: contextlib.AsyncExitStack, stopped: asyncio.Event
) -> Any:
    """A site with a client of the store; without one where the file can't be written. None where a
    stop came first.
    """
    from perdure.http.site import Site

    files.check_not_empty(store)  # to look at a file does not make it a store
    if not read_only:
        engine = Engine(store, execute=False, create=False, replica_timeout=CONFIRM_S_MAX)
        try:
            if not await opened(engine, stopped):
                return None
        except StoreReadOnly:
            say("The file can't be written, so it is only looked at.")
        else:
            stack.push_async_exit(engine.__aexit__)
            return Site(store, engine=engine)
    return Site(store, await stack.enter_async_context(_reader(store)))


def _reader(store: str) -> Any:
    from perdure.reader import StoreReader

    return StoreReader(store)


async def _until_stopped(engine: Engine | None, stopped: asyncio.Event) -> None:
    """Wait for a stop. Raises `StoreError` when the store is lost meanwhile."""
    stop = asyncio.ensure_future(stopped.wait())
    waits: list[asyncio.Future[Any]] = [stop]
    if engine is not None:
        waits.append(asyncio.ensure_future(engine.store_lost()))
    done, left = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for one in left:
        one.cancel()
    if stop not in done:
        raise waits[1].result()

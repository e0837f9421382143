"""The `perdure observe` command: databases in files, folders and buckets, looked at."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from perdure.api.tokens import Token
from perdure.cli import log_lines, serving
from perdure.cli.common import Exit, json_option, run_async
from perdure.cli.execution import execute, stop_signals
from perdure.cli.format import columns
from perdure.cli.output import echo, echo_json, say
from perdure.core import lifecycle
from perdure.views import format

if TYPE_CHECKING:
    from perdure.observe.listing import Row

SHOWN = (
    lifecycle.RUNNING, lifecycle.WAITING, lifecycle.BLOCKED, lifecycle.FAILED, lifecycle.COMPLETED
)  # fmt: skip


@click.command(short_help="Look at databases in files, folders and buckets.")
@click.argument("targets", nargs=-1, required=True, metavar="FILE... | ADDRESS")
@click.option("--list", "list_it", is_flag=True, help="Print the databases, and serve no pages.")
@json_option
@serving.serve_options
def observe(
    targets: tuple[str, ...],
    list_it: bool,
    as_json: bool,
    host: str,
    port: int | None,
    token: str | None,
    view_token: str | None,
    open_it: bool,
) -> None:
    """Show every database below an address, and the pages of each: read-only, live, without the
    application's code and without a restore. Nothing is written and no lease is taken.

    An address is that of a replica or of many of them, as engines were given it. FILE is a store,
    or a copy of one.

    \b
    Examples:
      perdure observe agents.db
      perdure observe s3://agents/prod
      perdure observe file:///mnt/backup --list
    """
    if list_it or as_json:
        run_async(_print(targets, as_json=as_json))
        return
    log_lines.show_all(quiet=False)
    tokens = serving.tokens_given(token, view_token)
    at = serving.listening(host, port, tokens)
    execute(serve(targets, at, tokens, open_it))


async def _print(targets: tuple[str, ...], *, as_json: bool) -> None:
    from perdure.observe import listing
    from perdure.observe.databases import Databases

    async with Databases(targets) as databases:
        now_ms = time.time_ns() // 1_000_000
        rows = [listing.row(one, now_ms) for one in await databases.entries()]
        if as_json:
            echo_json(rows)
            return
        for line in databases.problems:
            say(line)
    if not rows:
        say(f"No database is at {', '.join(targets)}.")
    else:
        head, *lines = columns(_HEADS, [_cells(one, datetime.now(UTC)) for one in rows])
        echo(head)
        for row, line in zip(rows, lines, strict=True):
            echo(line, *([] if row.counted else [f"  {row.meaning}"]))


_HEADS = ("DATABASE", "STATE", *(name.upper() for name in SHOWN), "SIZE", "SEEN")


def _cells(row: Row, now: datetime) -> list[str]:
    size = "" if row.size_bytes is None else f"{row.size_bytes / 1e6:,.1f} MB"
    counts = [row.number(status) if row.counted else "–" for status in SHOWN]
    return [row.name, row.state, *counts, size, format.ago(row.seen, now) if row.seen_ms else "–"]


async def serve(
    targets: tuple[str, ...], at: socket.socket, tokens: list[Token], open_it: bool
) -> int:
    """Serve the pages until a signal to stop."""
    from perdure.http import server
    from perdure.http.pages.observe import databases_app
    from perdure.observe.databases import Databases

    with at, stop_signals() as stopped:
        async with Databases(targets) as databases:
            found = await databases.entries()  # what can't be read is said here, not in a page only
            app = databases_app(databases, token=tokens or None)
            async with server.served(app, at):
                serving.tell(server.address_of(at), tokens, open_it)
                say(f"Read-only: {format.count(len(found), 'database')}. Ctrl-C ends it.")
                await stopped.wait()
    return Exit.DONE

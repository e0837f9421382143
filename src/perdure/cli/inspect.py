"""`ls`, `show` and `tail`: read-only views of runs.

Rules: nothing is written or executed; a page of a list or of a history costs the page; with --json
nothing is cut.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from perdure.cli.common import (
    Exit,
    command,
    json_option,
    json_or_text,
    run_argument,
    store_option,
    with_engine,
    with_run,
)
from perdure.cli.format import columns, cut, ending, fitting, log_line, pad, status
from perdure.cli.format import timeline as timeline_lines
from perdure.cli.output import as_lines, echo, echo_json, room, say, style, visible, width
from perdure.cli.places import places_of
from perdure.core import lifecycle
from perdure.core.lifecycle import STATUSES
from perdure.errors import RunNotFound
from perdure.runtime.engine import Engine
from perdure.runtime.info import HistoryEvent, OpenRequest, RunInfo, RunSummary
from perdure.runtime.standing import ExposedValue
from perdure.views import format, rows, timeline
from perdure.views.rows import RunLine
from perdure.views.waiting import Places, in_queue, needs

POLL_SECONDS = 0.2
PLACE_SECONDS = 5.0
"""A place in line may change many times a second; `tail` says so this often."""

LIMIT = 20
ROWS = 1_000
"""Rows of a history that `show` prints by default."""

ROWS_AT_ONCE = 500
PLACES_MAX = 100
"""Runs of a list whose place in line is counted; of further ones only the queue is said."""

NARROW = 72
"""Columns; narrower lines have no room for times since the start of the run."""


# --- ls -------------------------------------------------------------------------------------------


def _tags(
    ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, Any] | None:
    for one in given:
        if "=" not in one:
            raise click.BadParameter(f"{one!r}: write it as KEY=VALUE.")
    return {
        key: json_or_text(text) for key, _, text in (one.partition("=") for one in given)
    } or None


@click.command(short_help="List runs, newest first.")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs with this status.")
@click.option("--workflow", metavar="NAME", help="Only runs of this workflow.")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_tags,
    help="Only runs with this tag; may be given again.",
)
@click.option(
    "--limit",
    default=LIMIT,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="How many at most.",
)
@click.option("--after", metavar="ID", help="Go on behind this run, for the next page.")
@store_option
@json_option
@click.pass_context
def ls(
    ctx: click.Context,
    status: str | None,
    workflow: str | None,
    tags: dict[str, Any] | None,
    limit: int,
    after: str | None,
    store: str,
    as_json: bool,
) -> None:
    """List runs, newest first.

    \b
    Examples:
      perdure ls
      perdure ls --status blocked
      perdure ls --workflow refund --tag customer=42 --json
    """

    async def fetch(engine: Engine) -> tuple[list[RunInfo] | list[RunSummary], list[Places]]:
        behind = None if after is None else await engine.find(after)
        runs = engine.runs if as_json else engine.summaries
        found = await runs(status=status, workflow=workflow, tags=tags, limit=limit, after=behind)
        return found, [] if as_json else await _places(engine, found)

    found, places = with_engine(store, fetch)
    if as_json:
        echo_json(found)
        return
    now = datetime.now(UTC)
    lines = [
        rows.run_line(run, now, place)
        for run, place in zip(found, places, strict=False)
        if isinstance(run, RunSummary)
    ]
    if not lines:
        say("No run." if not (status or workflow or tags or after) else "No run fits.")
    else:
        created = [format.clock(run.created_at) for run in found]
        echo(*_table(lines, created, room()))
        if len(lines) == limit:
            say(f"There may be more: {_next_page(ctx, lines[-1].id, store)}")


async def _places(engine: Engine, found: Iterable[RunInfo | RunSummary]) -> list[Places]:
    """Where each run stands in queues, for the first `PLACES_MAX` of those that wait in one."""
    ids = [run.id for run in found]
    waiting = [run.id for run in found if in_queue(run.waiting_for)][:PLACES_MAX]
    now, standings = datetime.now(UTC), await engine.standings(waiting)
    return [Places(standings.get(id, ()), now) for id in ids]


def _next_page(ctx: click.Context, last: str, store: str) -> str:
    """The command as it was typed, for the runs behind this one."""
    given = [("--status", ctx.params["status"]), ("--workflow", ctx.params["workflow"])]
    given += [
        ("--tag", f"{key}={format.value(item, None)}")
        for key, item in (ctx.params["tags"] or {}).items()
    ]
    given += [("--limit", str(ctx.params["limit"]))] if ctx.params["limit"] != LIMIT else []
    typed = [word for name, item in given if item for word in (name, item)]
    return command(store, "ls", *typed, "--after", last)


def _table(found: list[RunLine], created: list[str], room: int | None) -> list[str]:
    """The runs as a table; where it is too wide, notes are below their runs, or each run is a
    paragraph.
    """
    cells = [
        (run.id, run.workflow, status(run.status), at, f"{run.history_rows:,}")
        for run, at in zip(found, created, strict=True)
    ]
    table = columns(("ID", "WORKFLOW", "STATUS", "CREATED", "ROWS"), cells)
    used = max(map(width, table)) + 2
    if room is None or used + 20 <= room:
        limit = fitting(70, room, used)
        noted = zip(table[1:], found, strict=True)
        return [
            table[0],
            *(f"{pad(row, used)}{_note(run, limit)}".rstrip() for row, run in noted),
        ]
    lines = table[:1] if (fits := used - 2 <= room) else []
    for row, run, at in zip(table[1:], found, created, strict=True):
        named = [
            f"{style(run.id, 'bold')}  {status(run.status)}",
            f"  {run.workflow}, {at}",
        ]
        note = _note(run, room - 2)
        lines += [*([row] if fits else named), *([f"  {note}"] if note else [])]
    return lines


def _note(run: RunLine, limit: int) -> str:
    return cut(visible(run.note), limit)


# --- show -----------------------------------------------------------------------------------------


@click.command(short_help="Show what a run did, step by step.")
@run_argument
@click.option("--full", is_flag=True, help="Every row, and every value in full.")
@click.option("--seq", type=click.IntRange(1), metavar="N", help="One row of the history in full.")
@click.option("--after", type=click.IntRange(0), metavar="N", help="Only rows behind row N.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help=f"How many rows at most. Default: {ROWS:,}; with --full and --json all of them.",
)
@store_option
@json_option
def show(
    run_id: str,
    full: bool,
    seq: int | None,
    after: int | None,
    limit: int | None,
    store: str,
    as_json: bool,
) -> None:
    """Show a run: its arguments, what it did and when, how it ended or what it waits for.

    The number at the beginning of each line is the row of the history; `fork --at`, `show --seq`
    and `show --after` take it. ID may be the beginning of an id.

    \b
    Examples:
      perdure show refund
      perdure show refund-91ac --full
      perdure show refund-91ac --seq 4
      perdure show import-7 --after 9000 --limit 100
    """
    if seq is not None:
        _show_row(store, run_id, seq, as_json)
        return
    most = limit or (None if full or as_json else ROWS)

    async def fetch(engine: Engine, found: str) -> _Page:
        info = await engine.info(found)
        history = await engine.history(found, after=after, limit=most)
        shown = await engine.exposed_values(found), await engine.requests(found)
        waits = [] if info.ended_at else await engine.standing(found)
        return _Page(info, history, Places(waits, datetime.now(UTC)), *shown)

    page = with_run(store, run_id, fetch)
    info, history = page.info, page.history
    if as_json:
        echo_json(
            {
                "run": info,
                "history": history,
                "places": page.places.standings,
                "exposed": {one.name: one.value for one in page.exposed},
                "requests": page.requests,
            }
        )
        return
    last = history[-1].seq if history else info.history_rows
    echo(*_page_lines(page, full, room(), more=last < info.history_rows))
    if last < info.history_rows:
        _say_more(store, info, history, limit)
    elif after and not history:
        say(f"{info.id} has {info.history_rows:,} rows; there is none behind row {after:,}.")


class _Page(msgspec.Struct, frozen=True):
    """A run, rows of its history, where it stands in queues, what it shows and what it is asked."""

    info: RunInfo
    history: list[HistoryEvent]
    places: Places
    exposed: list[ExposedValue]
    requests: list[OpenRequest]


def _page_lines(page: _Page, full: bool, room: int | None, *, more: bool) -> list[str]:
    """A page on lines of so many columns."""
    info, history = page.info, page.history
    narrow = room is not None and room < NARROW
    limit = None if full else fitting(90, room, 20 if narrow else 36)
    begun = info.started_at or info.created_at
    lines = timeline.lines(history, begun, full=full, limit=limit, more=more)
    now, room_of_facts = datetime.now(UTC), None if full else fitting(100, room, 10)
    facts = rows.facts(info, now, room_of_facts)
    facts += rows.exposed(page.exposed, room_of_facts)
    if info.ended_at is None:
        facts += rows.requests(page.requests, now)
    if info.status == lifecycle.RUNNING:
        facts += rows.standings(page.places)
    return [
        f"{style(info.id, 'bold')}  {status(info.status)}",
        *(f"  {line}" for line in facts),
        *timeline_lines(lines, narrow=narrow),
        *ending(info, None if full else 200, page.places),
    ]


def _say_more(store: str, info: RunInfo, history: list[HistoryEvent], limit: int | None) -> None:
    """Which rows these are, and the commands for the next and the last ones."""
    first, last, total = history[0].seq, history[-1].seq, info.history_rows
    given = [] if limit is None else ["--limit", str(limit)]
    ends = sorted({last, max(last, total - (limit or ROWS))})
    which = "The next ones, and the last ones:" if len(ends) > 1 else "The others:"
    say(f"Rows {first:,} to {last:,} of {total:,}. {which}")
    for after in ends:
        say(f"  {command(store, 'show', info.id, '--after', str(after), *given)}")


def _show_row(store: str, run_id: str, seq: int, as_json: bool) -> None:
    async def fetch(engine: Engine, found: str) -> tuple[RunSummary, list[HistoryEvent]]:
        return await engine.summary(found), await engine.entry(found, seq)

    run, found = with_run(store, run_id, fetch)
    if not found:
        raise click.UsageError(
            f"Run {run.id} has rows 1 to {run.history_rows:,}; there is no row {seq:,}."
        )
    if as_json:
        echo_json(found[0])
        return
    for number, row in enumerate(found):
        first, *rest = timeline.row_in_full(row)
        echo(*([""] if number else []), style(first, "bold"), *rest)


# --- tail -----------------------------------------------------------------------------------------


@click.command(short_help="Follow a run live until it ends.")
@run_argument
@click.option(
    "--stream", metavar="NAME", help="Print the items of this stream instead of the history."
)
@store_option
@json_option
def tail(run_id: str, stream: str | None, store: str, as_json: bool) -> None:
    """Follow a run's history live until it ends; the exit code says how. With --json, one object
    per line.

    \b
    Examples:
      perdure tail refund
      perdure tail agent --stream tokens
    """

    async def follow(engine: Engine, found: str) -> RunInfo:
        if stream is None:
            await _follow_history(engine, found, as_json)
        else:
            await _follow_stream(engine, found, stream, as_json)
        return await engine.info(found)

    info = with_run(store, run_id, follow)
    if not as_json and stream is None:
        echo(*ending(info))
    raise click.exceptions.Exit(Exit.DONE if info.status == lifecycle.COMPLETED else Exit.FAILED)


async def _follow_history(engine: Engine, run_id: str, as_json: bool) -> None:
    """Print each history under the id from its first row on; the next one has the name `id~N` when
    the run has gone on by then.
    """
    seen, said, number, say_at = 0, "", 1, 0.0
    while await _exists(engine, f"{run_id}~{number}"):
        number += 1
    while True:
        # First, so that a run that has ended has its last rows in the history.
        run = await engine.summary(run_id)
        page = []
        if run.history_rows > seen:
            page = await engine.history(run_id, after=seen, limit=ROWS_AT_ONCE)
        if gone_on := await _exists(engine, earlier := f"{run_id}~{number}"):
            page = await engine.history(earlier, after=seen, limit=ROWS_AT_ONCE)
        _print_rows(page, as_json)
        seen = page[-1].seq if page else seen
        if len(page) == ROWS_AT_ONCE:
            continue
        if gone_on:
            seen, number = 0, number + 1
            continue
        if run.ended_at is not None:
            return
        note = needs(run, await places_of(engine, run_id, run.waiting_for)) or ""
        if not in_queue(run.waiting_for):
            say_at = 0.0
        if not as_json and note and note != said and time.monotonic() >= say_at:
            say(*as_lines(f"({note})"))
            said, say_at = note, time.monotonic() + PLACE_SECONDS
        said = said if note else ""
        await asyncio.sleep(POLL_SECONDS)


def _print_rows(page: list[HistoryEvent], as_json: bool) -> None:
    for row in page:
        if as_json:
            echo_json(row, indent=0)
        else:
            time = row.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
            echo(log_line(timeline.log_line(row), time))


async def _exists(engine: Engine, run_id: str) -> bool:
    try:
        await engine.get(run_id)
    except RunNotFound:
        return False
    return True


async def _follow_stream(engine: Engine, run_id: str, name: str, as_json: bool) -> None:
    run = await engine.get(run_id)
    async for item in run.stream(name):
        if isinstance(item, str) and not as_json:
            echo(*as_lines(item))
        else:
            echo_json(item, indent=0)

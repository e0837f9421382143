"""`ls` and `show`: read-only views of runs.

Rules: nothing is written or executed, so a file that can't be written is shown as well; a page of a
list or of a history costs the page; with --json nothing is cut.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import msgspec
from msgspec.structs import replace

from perdure.cli.common import command, json_option, run_argument, store_option
from perdure.cli.format import MARKS, columns, cut, ending, fitting, pad, status
from perdure.cli.format import timeline as timeline_lines
from perdure.cli.logged import text_of
from perdure.cli.output import echo, echo_json, room, say, style, visible, width
from perdure.cli.reading import with_reader, with_run_read
from perdure.core import lifecycle
from perdure.core.lifecycle import STATUSES
from perdure.reader import StoreReader
from perdure.reader.store_reader import BARS_MAX as READ_MAX
from perdure.reader.values import RETRYING, WHYS_MAX, LogLine, RunPage, RunQuery
from perdure.runtime.info import HistoryEvent, OpenRequest, RunInfo, RunSummary
from perdure.runtime.standing import ExposedValue
from perdure.runtime.workers import NO_WORKER
from perdure.views import bars, format, rows, timeline, times
from perdure.views.rows import RunLine
from perdure.views.typed import tags as typed_tags
from perdure.views.waiting import Places, is_retrying
from perdure.views.waterfall import Waterfall

LIMIT, LIMIT_MAX = 20, 10_000
ROWS = 1_000
"""Rows of a history that `show` prints by default."""

LINES_MAX = 10_000
"""Lines of steps that `show --logs` prints."""

NARROW = 72
"""Columns; narrower lines have no room for times since the start of the run."""

BARS_MAX = 2_000
"""Rows of a history that are drawn by default."""

BARS_WIDTH = 100
BAR_COLOURS = {
    "completed": "green",
    "failed": "red",
    "abandon": "magenta",
    "retrying": "yellow",
    "open": "cyan",
}


# --- ls -------------------------------------------------------------------------------------------


def _tags(
    ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, Any] | None:
    try:
        return typed_tags(given) or None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _since(
    ctx: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[str, datetime] | None:
    """What was typed, and the time that it means: an age, or a time."""
    if text is None:
        return None
    try:
        return text, times.since(text, datetime.now(UTC))
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: write it as 30m, 24h, 7d or 2026-11-29T12:00."
        ) from None


@click.command(short_help="List runs, newest first.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([*STATUSES, RETRYING]),
    help="Only runs with this status; may be given again.",
)
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
    "--since", metavar="AGE", callback=_since, help="Only runs started since then: 30m, 24h, 7d."
)
@click.option(
    "--text", metavar="TEXT", help="Only runs with this text in id, tags, error or payloads."
)
@click.option(
    "--limit",
    default=LIMIT,
    show_default=True,
    type=click.IntRange(1, LIMIT_MAX),
    help="How many at most.",
)
@click.option("--after", metavar="ID", help="Go on behind this run, for the next page.")
@store_option
@json_option
@click.pass_context
def ls(
    ctx: click.Context,
    statuses: tuple[str, ...],
    workflow: str | None,
    tags: dict[str, Any] | None,
    since: tuple[str, datetime] | None,
    text: str | None,
    limit: int,
    after: str | None,
    store: str,
    as_json: bool,
) -> None:
    """List runs, newest first.

    A text is looked for in the newest runs first, for a moment; then the command to go on is said.

    \b
    Examples:
      perdure ls
      perdure ls --status blocked --status failed
      perdure ls --workflow refund --tag customer=42 --json
      perdure ls --since 24h --text "card declined"
    """
    asked = RunQuery(
        status=statuses,
        workflow=workflow,
        tags=tags or {},
        since=since[1] if since else None,
        text=text,
        limit=limit,
    )

    whys: dict[str, str] = {}

    async def fetch(reader: StoreReader) -> tuple[RunPage, list[RunInfo]]:
        behind = None if after is None else await reader.cursor(after)
        page = await reader.runs(replace(asked, after=behind))
        if as_json:
            return page, await reader.infos([run.id for run in page.runs])
        whys.update(await reader.whys([run.id for run in page.runs if not run.ended_at][:WHYS_MAX]))
        return page, []

    page, infos = with_reader(store, fetch)
    if as_json:
        echo_json(infos)
        return
    now = datetime.now(UTC)
    lines = [rows.run_line(run, now, whys.get(run.id)) for run in page.runs]
    if lines:
        created = [format.clock(run.created_at) for run in page.runs]
        echo(*_table(lines, created, room()))
    elif page.next is None:
        filtered = asked != RunQuery(limit=limit) or after
        say("No run fits." if filtered else "No run.")
    if any(NO_WORKER in why for why in whys.values()):
        say(NO_WORKER)
    _say_next(ctx, page, store)


def _say_next(ctx: click.Context, page: RunPage, store: str) -> None:
    """How to see what is behind a page of the list."""
    if page.searched is not None:
        looked = f"Looked at {format.count(page.searched, 'run')}. To look further"
        say(f"{looked}: {_next_page(ctx, page, store)}")
    elif page.next is not None:
        say(f"There are more: {_next_page(ctx, page, store)}")


def _next_page(ctx: click.Context, page: RunPage, store: str) -> str:
    """The command as it was typed, for the runs behind this page."""
    typed = ctx.params
    given = [("--status", one) for one in typed["statuses"]] + [("--workflow", typed["workflow"])]
    given += [
        ("--tag", f"{key}={format.value(item, None)}")
        for key, item in (typed["tags"] or {}).items()
    ]
    given += [("--since", typed["since"] and typed["since"][0]), ("--text", typed["text"])]
    given += [("--limit", str(typed["limit"]))] if typed["limit"] != LIMIT else []
    words = [word for name, item in given if item for word in (name, item)]
    last = page.runs[-1].id if page.runs and page.searched is None else page.next
    return command(store, "ls", *words, "--after", last or "")


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
@click.option("--waterfall", is_flag=True, help="Draw steps and waits as bars over time.")
@click.option("--logs", is_flag=True, help="What its steps have logged; with --seq, that one.")
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
    waterfall: bool,
    logs: bool,
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
      perdure show refund-91ac --waterfall
      perdure show refund-91ac --logs
      perdure show import-7 --after 9000 --limit 100
    """
    if logs:
        _show_logs(store, run_id, seq, after or 0, limit, as_json)
        return
    if seq is not None:
        _show_row(store, run_id, seq, as_json)
        return
    most = limit or (None if full or as_json else ROWS)
    shown = limit or (READ_MAX if full or as_json else BARS_MAX)

    async def fetch(reader: StoreReader, found: str) -> _Page:
        info = await reader.run(found)  # first: then no row of it is missing in the history
        drawn = await reader.waterfall(found, after or 0, shown) if waterfall else None
        history = [] if drawn else await reader.history(found, after or 0, most)
        return await _read_page(reader, info, history, drawn)

    page = with_run_read(store, run_id, fetch)
    info, history = page.info, page.history
    drawn = page.drawn
    if as_json and drawn is None:
        echo_json(_as_json(page))
        return
    last = (drawn.last if drawn else history[-1].seq if history else 0) or info.history_rows
    more = last < info.history_rows
    if drawn is None:
        echo(*_page_lines(store, page, full, room(), more=more))
    elif as_json:
        echo_json(drawn)
    else:
        echo(*_bars(page, drawn, room() or BARS_WIDTH, after=bool(after), more=more))
    if more:
        given = (["--waterfall"] if drawn else []) + (["--limit", str(limit)] if limit else [])
        _say_more(store, info, (after or 0) + 1, last, shown if drawn else limit or ROWS, given)
    elif after and after >= info.history_rows:
        say(f"{info.id} has {info.history_rows:,} rows; there is none behind row {after:,}.")


async def _read_page(
    reader: StoreReader, info: RunInfo, history: list[HistoryEvent], drawn: Waterfall | None
) -> _Page:
    shown = await reader.exposed(info.id), await reader.requests(info.id)
    waits = [] if info.ended_at else (await reader.standings([info.id])).get(info.id, [])
    why = await reader.why(info.id)
    return _Page(info, history, Places(waits, datetime.now(UTC)), *shown, why, drawn)


def _as_json(page: _Page) -> dict[str, Any]:
    return {
        "run": page.info,
        "history": page.history,
        "places": page.places.standings,
        "exposed": {one.name: one.value for one in page.exposed},
        "requests": page.requests,
    }


class _Page(msgspec.Struct, frozen=True):
    """A run, rows of its history, where it stands in queues, what it shows and what it is asked."""

    info: RunInfo
    history: list[HistoryEvent]
    places: Places
    exposed: list[ExposedValue]
    requests: list[OpenRequest]
    why: str | None
    drawn: Waterfall | None


def _page_lines(store: str, page: _Page, full: bool, room: int | None, *, more: bool) -> list[str]:
    """A page on lines of so many columns."""
    info, history = page.info, page.history
    narrow = room is not None and room < NARROW
    limit = None if full else fitting(90, room, 20 if narrow else 36)
    begun = info.started_at or info.created_at
    lines = timeline.lines(history, begun, full=full, limit=limit, more=more)
    return [
        *_head(page, None if full else fitting(100, room, 10)),
        *timeline_lines(lines, narrow=narrow),
        *ending(info, None if full else 200, page.places),
        *([f"  {page.why}"] if _adds(info, page.why) else []),
        *([f"  To begin it now: {command(store, 'retry', info.id)}"] if is_retrying(info) else []),
    ]


def _head(page: _Page, room_of_facts: int | None) -> list[str]:
    """Id and status, and below them the facts of a run."""
    info, now = page.info, datetime.now(UTC)
    facts = rows.facts(info, now, room_of_facts)
    facts += rows.exposed(page.exposed, room_of_facts)
    if info.ended_at is None:
        facts += rows.requests(page.requests, now)
    if info.status == lifecycle.RUNNING:
        facts += rows.standings(page.places)
    return [
        f"{style(info.id, 'bold')}  {status(info.status)}",
        *(f"  {line}" for line in facts),
    ]


def _adds(info: RunInfo, why: str | None) -> bool:
    """Whether the sentence says more than the last line: what an attempt failed with, or that no
    worker is there.
    """
    if why is None or info.status in (lifecycle.BLOCKED, lifecycle.PAUSED):
        return False
    return "worker" in why or any("again_ms" in item for item in info.waiting_for)


def _bars(page: _Page, drawn: Waterfall, room: int, *, after: bool, more: bool) -> list[str]:
    """A run as bars over time, or rows of it with others before or behind them."""
    info = page.info
    begun = info.started_at or info.created_at
    end = info.ended_at or datetime.now(UTC)
    names = [one.split("\n")[0] for one in drawn.names]
    widest = min(max([*map(width, names), 8]) + 7, max(room // 3, 12))
    cells = max(room - widest - 8 - 14, bars.CELLS_MIN)
    now_ms = round((end - begun).total_seconds() * 1_000)
    head, found = bars.lines(drawn, now_ms, cells, after=after, more=more)
    lines = [_bar(one, widest) for one in found]
    return [
        *_head(page, fitting(100, room, 10)),
        f"{' ' * (9 + widest)}{style(head, 'dim')}".rstrip(),
        *lines,
        *ending(info, 200, page.places),
        *([f"  {page.why}"] if _adds(info, page.why) else []),
    ]


def _bar(line: bars.BarLine, widest: int) -> str:
    name = pad(cut(visible(line.name), widest), widest)
    mark = MARKS["attempt"] if line.state == "retrying" else MARKS.get(line.state, " ")
    cells = style(line.cells, BAR_COLOURS.get(line.state))
    took = f"  {style(line.took, 'dim')}" if line.took else ""
    return f"{line.seq:>5} {mark} {name} {cells}{took}".rstrip()


def _say_more(
    store: str, info: RunInfo, first: int, last: int, most: int, given: list[str]
) -> None:
    """Which rows these are, and the commands for the next and the last ones."""
    total = info.history_rows
    ends = sorted({last, max(last, total - most)})
    which = "The next ones, and the last ones:" if len(ends) > 1 else "The others:"
    say(f"Rows {first:,} to {last:,} of {total:,}. {which}")
    for after in ends:
        say(f"  {command(store, 'show', info.id, '--after', str(after), *given)}")


def _no_such_row(run: RunSummary, seq: int) -> click.UsageError:
    return click.UsageError(
        f"Run {run.id} has rows 1 to {run.history_rows:,}; there is no row {seq:,}."
    )


def _show_row(store: str, run_id: str, seq: int, as_json: bool) -> None:
    async def fetch(reader: StoreReader, found: str) -> tuple[RunSummary, list[HistoryEvent]]:
        return await reader.summary(found), await reader.entry(found, seq)

    run, found = with_run_read(store, run_id, fetch)
    if not found:
        raise _no_such_row(run, seq)
    if as_json:
        echo_json(found[0])
        return
    for number, row in enumerate(found):
        first, *rest = timeline.row_in_full(row)
        echo(*([""] if number else []), style(first, "bold"), *rest)


def _show_logs(
    store: str, run_id: str, seq: int | None, after: int, limit: int | None, as_json: bool
) -> None:
    """Lines that steps have logged: the first ones behind a position, else the last ones."""
    most = min(limit or ROWS, LINES_MAX)

    async def fetch(reader: StoreReader, found: str) -> tuple[str, list[LogLine]]:
        lines = await reader.logs(found, after, most, seq=seq, newest=not after)
        if seq is not None and not lines and not await reader.entry(found, seq):
            raise _no_such_row(await reader.summary(found), seq)
        return found, lines

    id, lines = with_run_read(store, run_id, fetch)
    if as_json:
        echo_json(lines)
        return
    for line in lines:
        echo(*text_of(line))
    if not lines:
        say(f"Steps of {id} have logged nothing{' there' if after or seq else ''}.")

"""`ls`, `show`, `tail` and `doctor`: the commands that only look."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import click

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
from perdure.cli.output import as_lines, echo, echo_json, room, say, style, visible, width
from perdure.cli.replica_options import seen_from_outside
from perdure.errors import RunNotFound
from perdure.runtime.engine import Engine
from perdure.runtime.info import HistoryEvent, RunInfo
from perdure.store.rows import STATUSES
from perdure.views import format, timeline
from perdure.views.waiting import needs

POLL_SECONDS = 0.2
LIMIT = 20


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

    async def fetch(engine: Engine) -> list[RunInfo]:
        behind = None if after is None else await engine.find(after)
        return await engine.runs(
            status=status, workflow=workflow, tags=tags, limit=limit, after=behind
        )

    found = with_engine(store, fetch)
    if as_json:
        echo_json(found)
    elif not found:
        say("No run." if not (status or workflow or tags or after) else "No run fits.")
    else:
        echo(*_table(found, room()))
        if len(found) == limit:
            say(f"There may be more: {_next_page(ctx, found[-1].id, store)}")


def _next_page(ctx: click.Context, last: str, store: str) -> str:
    """The command as it was typed, but for the runs behind this one."""
    given = [("--status", ctx.params["status"]), ("--workflow", ctx.params["workflow"])]
    given += [
        ("--tag", f"{key}={format.value(item, None)}")
        for key, item in (ctx.params["tags"] or {}).items()
    ]
    given += [("--limit", str(ctx.params["limit"]))] if ctx.params["limit"] != LIMIT else []
    typed = [word for name, item in given if item for word in (name, item)]
    return command(store, "ls", *typed, "--after", last)


def _table(found: list[RunInfo], room: int | None) -> list[str]:
    """The runs as a table; on narrow lines with what is to say of a run beneath it, and at last as
    paragraphs.
    """
    cells = [
        (
            one.id,
            one.workflow,
            format.status(one.status),
            format.clock(one.created_at),
            f"{one.history_rows:,}",
        )
        for one in found
    ]
    rows = format.columns(("ID", "WORKFLOW", "STATUS", "CREATED", "ROWS"), cells)
    used = max(map(width, rows)) + 2
    if room is None or used + 20 <= room:
        limit = format.fitting(70, room, used)
        return [
            rows[0],
            *(
                f"{format.pad(row, used)}{_note(info, limit)}".rstrip()
                for row, info in zip(rows[1:], found, strict=True)
            ),
        ]
    lines = rows[:1] if (fits := used - 2 <= room) else []
    for row, info in zip(rows[1:], found, strict=True):
        named = [
            f"{style(info.id, 'bold')}  {format.status(info.status)}",
            f"  {info.workflow}, {format.clock(info.created_at)}",
        ]
        note = _note(info, room - 2)
        lines += [*([row] if fits else named), *([f"  {note}"] if note else [])]
    return lines


def _note(info: RunInfo, limit: int) -> str:
    note = format.error_line(info.error) if info.error else needs(info) or ""
    return format.cut(visible(note.partition("\n")[0]), limit)


# --- show -----------------------------------------------------------------------------------------


@click.command(short_help="Show what a run did, step by step.")
@run_argument
@click.option("--full", is_flag=True, help="Every row, and every value in full.")
@click.option("--seq", type=click.IntRange(1), metavar="N", help="One row of the history in full.")
@store_option
@json_option
def show(run_id: str, full: bool, seq: int | None, store: str, as_json: bool) -> None:
    """Show a run: what it was asked, what it did and when, what came of it, what it waits for.

    The number in front of each line is the row of the history; `fork --at` and `show --seq` take
    it. ID may be the beginning of an id.

    \b
    Examples:
      perdure show refund
      perdure show refund-91ac --full
      perdure show refund-91ac --seq 4
    """

    async def fetch(engine: Engine, found: str) -> tuple[RunInfo, list[HistoryEvent]]:
        return await engine.info(found), await engine.history(found)

    info, history = with_run(store, run_id, fetch)
    if seq is not None:
        _show_row(info, history, seq, as_json)
    elif as_json:
        echo_json({"run": info, "history": history})
    else:
        echo(
            *timeline.header(info, None if full else format.fitting(100, room(), 10)),
            *timeline.body(info, history, full, room()),
        )


def _show_row(info: RunInfo, history: list[HistoryEvent], seq: int, as_json: bool) -> None:
    row = next((event for event in history if event.seq == seq), None)
    if row is None:
        raise click.UsageError(
            f"Run {info.id} has rows 1 to {len(history)}; there is no row {seq}."
        )
    if as_json:
        echo_json(row)
        return
    echo(*timeline.row_in_full(row))
    for answer in (event for event in history if event.ref == seq):
        echo("", *timeline.row_in_full(answer))


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
        echo(*timeline.ending(info))
    raise click.exceptions.Exit(Exit.DONE if info.status == "completed" else Exit.FAILED)


async def _follow_history(engine: Engine, run_id: str, as_json: bool) -> None:
    """Each history under the id from where we have come to; the next one is called `id~N` when the
    run has gone on by then.
    """
    seen, told, number = 0, "", 1
    while await _exists(engine, f"{run_id}~{number}"):
        number += 1
    while True:
        info = await engine.info(
            run_id
        )  # first, so that a run that has ended has its last rows in the history
        history = await engine.history(run_id) if info.history_rows > seen else []
        if gone_on := await _exists(engine, earlier := f"{run_id}~{number}"):
            history, number = await engine.history(earlier), number + 1
        names = {event.seq: event for event in history}
        for event in history[seen:]:
            if as_json:
                echo_json(event, indent=0)
            else:
                echo(timeline.live_line(event, names))
        seen = 0 if gone_on else max(seen, len(history))
        if gone_on:
            continue
        if info.ended_at is not None:
            return
        if not as_json and (note := needs(info)) and note != told:
            say(*as_lines(f"({note})"))
        told = needs(info) or ""
        await asyncio.sleep(POLL_SECONDS)


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


# --- doctor ---------------------------------------------------------------------------------------


@click.command(short_help="Look at the store itself, and at runs that are stuck.")
@store_option
@json_option
def doctor(store: str, as_json: bool) -> None:
    """Look at the store itself: file, versions, integrity, workers, and runs that are stuck, with
    the reason.

    \b
    Examples:
      perdure doctor
      perdure doctor --store /var/lib/app/perdure.db --json
    """
    facts = with_engine(store, lambda engine: engine.doctor())
    if "replica" in facts:
        facts["replica"] |= seen_from_outside(facts["replica"]["address"])
    if as_json:
        echo_json(facts)
    else:
        _print_facts(facts)
    if facts.get("integrity", "ok") != "ok":
        say("The file is damaged. Copy it before anything else, then restore a good copy.")
        raise click.exceptions.Exit(Exit.STORE)


def _print_facts(facts: dict[str, Any]) -> None:
    first = [name for name in ("path", "file_bytes", "wal_bytes") if name in facts]
    facts = {name: facts[name] for name in [*first, *facts]}
    lists = {name: facts.pop(name) for name in ("workers", "stuck") if name in facts}
    width = max(len(name) for name in facts)
    for name, fact in facts.items():
        echo(f"{name.replace('_', ' ').ljust(width)}  {_fact(name, fact)}")
    for name, entries in lists.items():
        echo(f"{name.ljust(width)}  {len(entries) or 'none'}")
        for entry in entries:
            echo(*as_lines(f"  {_entry(entry)}"))


def _fact(name: str, fact: Any) -> str:
    if fact == []:
        return "none"
    if isinstance(fact, dict):
        return ", ".join(f"{key} {_fact(key, item)}" for key, item in fact.items()) or "none"
    if name.endswith("bytes") and isinstance(fact, int):
        return f"{fact:,}"
    return str(fact) if isinstance(fact, str | int | float) else format.value(fact)


def _entry(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    with contextlib.suppress(KeyError):
        return f"{entry['id']}  {format.status(entry['status'])}  {entry['reason']}"
    return ", ".join(f"{key} {_fact(key, item)}" for key, item in entry.items())

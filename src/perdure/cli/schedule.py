"""`schedule`: workflows that start by themselves, listed and steered.

Rules: a name is given in full; what a command has done is said once it is committed; times are
shown in the zone of the schedule.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from perdure.cli.common import command, json_option, misuse, store_option, strict_json, with_engine
from perdure.cli.format import columns, cut
from perdure.cli.output import echo, echo_json, room, say, visible, width
from perdure.cli.reading import with_reader
from perdure.reader import StoreReader
from perdure.runtime.engine import Engine
from perdure.runtime.schedule_handle import ScheduleHandle
from perdure.views import times

if TYPE_CHECKING:
    from perdure.api.schedules import ScheduleInfo

PAGE_ROWS = 1_000

name_argument = click.argument("name")


def duration(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """A timedelta from text such as 90, 90s, 15m or 1h."""
    if text is None:
        return None
    found = times.duration(text, "s")
    if found is None:
        raise click.BadParameter(f"{text!r} is no duration. {times.EXAMPLES}.")
    return found


@click.group(short_help="Workflows that start by themselves.")
def schedule() -> None:
    """List and steer schedules. Code has its own in Engine(schedules=[...]); `add` sets one that
    stays until it is removed. A worker starts their runs.

    \b
    Examples:
      perdure schedule ls
      perdure schedule add nightly "0 3 * * *" report '{"day": "today"}' --tz Europe/Berlin
      perdure schedule next nightly
    """


@schedule.command(short_help="List schedules.")
@store_option
@json_option
def ls(store: str, as_json: bool) -> None:
    """List schedules by name: when they start next, and how many ticks were missed or skipped.

    "orphaned": there are workers, and the code of none has it, so it starts nothing. "no worker":
    it goes on, with what was missed, when there is one.

    \b
    Examples:
      perdure schedule ls
      perdure schedule ls --json | jq '.[] | select(.status != "active")'
    """
    found = with_reader(store, _all)
    if as_json:
        echo_json(found)
    elif not found:
        say(f"No schedule. `{command(store, 'schedule', 'add', '--help')}` says how to make one.")
    else:
        echo(*_table(found, room()))
        for one in found:
            if one.error is not None:
                say(f"{one.name}: the last tick could not start: {one.error}")


async def _all(reader: StoreReader) -> list[ScheduleInfo]:
    found: list[ScheduleInfo] = []
    while page := await reader.schedules(found[-1].name if found else "", PAGE_ROWS):
        found += page
    return found


def _table(found: list[ScheduleInfo], room: int | None) -> list[str]:
    """The schedules as a table; where it is too wide, in two lines each."""
    head = ("SCHEDULE", "WHEN", "ZONE", "STATUS", "NEXT", "LAST RUN", "MISSED", "SKIPPED")
    rows = [[visible(cell) for cell in _line(one)] for one in found]
    table = columns(head, rows)
    if room is None or max(map(width, table)) <= room:
        return table
    narrow = []
    for name, when, tz, status, next_at, last_run, missed, skipped in rows:
        counts = f"missed {missed}, skipped {skipped}"
        narrow += [f"{name}  {status}  {next_at}", f"  {when}  {tz}  {last_run}  {counts}"]
    return [cut(line, room) for line in narrow]


def _line(one: ScheduleInfo) -> list[str]:
    next_at = "-" if one.next_at is None else f"{one.next_at:%Y-%m-%d %H:%M:%S}"
    counts = (str(one.missed), str(one.skipped))
    return [one.name, one.when, one.tz, one.status, next_at, one.last_run or "-", *counts]


@schedule.command(short_help="Add or change a schedule.")
@name_argument
@click.argument("when")
@click.argument("workflow")
@click.argument("arguments", required=False, callback=strict_json)
@click.option("--tz", default="UTC", show_default=True, help="Time zone of WHEN.")
@click.option(
    "--overlap",
    default="skip",
    show_default=True,
    type=click.Choice(["skip", "wait", "cancel", "allow"]),
    help="What a tick does while a run of the schedule has not ended.",
)
@click.option(
    "--catch-up",
    default="1h",
    show_default=True,
    callback=duration,
    metavar="DURATION",
    help="How old a missed tick may be that still runs.",
)
@click.option(
    "--catch-up-max",
    default=1,
    show_default=True,
    help="How many missed ticks run, the newest first.",
)
@click.option(
    "--jitter",
    default="0s",
    show_default=True,
    callback=duration,
    metavar="DURATION",
    help="Delay each tick by up to this much.",
)
@click.option("--queue", help="The queue that its runs wait in.")
@click.option("--paused", is_flag=True, help="Start nothing until it is resumed.")
@store_option
@json_option
def add(
    name: str, when: str, workflow: str, arguments: Any, store: str, as_json: bool, **options: Any
) -> None:
    """Add a schedule, or change the one of this name.

    WHEN is a cron line of five fields, or six with seconds in front, a word such as @daily, or
    "@every 15m". ARGUMENTS are the workflow's, as a JSON object by name. A worker that knows the
    workflow executes the runs.

    \b
    Examples:
      perdure schedule add nightly "0 3 * * *" report '{"day": "today"}' --tz Europe/Berlin
      perdure schedule add sync "@every 15m" sync_all --overlap wait --jitter 30s
      perdure schedule add tick "*/10 * * * * *" beat --catch-up 0s
    """
    from perdure.api.definitions import Workflow
    from perdure.api.definitions import workflow as as_workflow
    from perdure.api.schedules import Schedule

    (given,) = ({},) if arguments is None else arguments
    if not isinstance(given, dict):
        raise misuse('ARGUMENTS is a JSON object by name, such as \'{"day": "today"}\'.')

    @as_workflow(name=workflow)
    async def stands_for() -> None: ...

    assert isinstance(stands_for, Workflow)
    wanted = Schedule(name, when, stands_for(), **options)

    async def act(engine: Engine) -> ScheduleInfo:
        handle = await engine._schedule_by_name(wanted, workflow, given)
        return await handle.info()

    info = with_engine(store, act)
    if as_json:
        echo_json(info)
        return
    next_at = info.next_at
    follows = "It is paused." if next_at is None else f"It starts next at {next_at.isoformat()}."
    say(f"Schedule {name} is set. {follows}")


@schedule.command(short_help="Remove a schedule.")
@name_argument
@store_option
@json_option
def rm(name: str, store: str, as_json: bool) -> None:
    """Remove a schedule. Its runs stay; code that declares it brings it back at its next start.

    \b
    Example:
      perdure schedule rm nightly
    """
    _with_schedule(store, name, lambda handle: handle.remove())
    if as_json:
        echo_json({"name": name, "removed": True})
        return
    say(
        f"Schedule {name} is removed. Its runs stay. Code that has it sets it again when it starts."
    )


@schedule.command(short_help="Let a schedule start nothing more.")
@name_argument
@store_option
@json_option
def pause(name: str, store: str, as_json: bool) -> None:
    """Let a schedule start nothing until it is resumed. Runs that it has started go on.

    \b
    Example:
      perdure schedule pause nightly
    """

    async def act(handle: ScheduleHandle) -> tuple[bool, ScheduleInfo]:
        return await handle.pause(), await handle.info()

    paused, info = _with_schedule(store, name, act)
    if as_json:
        echo_json(info)
        return
    if not paused:
        say(f"Schedule {name} is paused already: nothing was changed.")
        return
    say(f"Paused {name}. It goes on with: {command(store, 'schedule', 'resume', name)}")


@schedule.command(short_help="Let a paused schedule go on.")
@name_argument
@store_option
@json_option
def resume(name: str, store: str, as_json: bool) -> None:
    """Let a paused schedule go on with its next tick; those of the pause are left out.

    \b
    Example:
      perdure schedule resume nightly
    """

    async def act(handle: ScheduleHandle) -> tuple[bool, ScheduleInfo]:
        return await handle.resume(), await handle.info()

    resumed, info = _with_schedule(store, name, act)
    if as_json:
        echo_json(info)
    elif not resumed:
        say(f"Schedule {name} is not paused: nothing was changed.")
    elif info.next_at is None:
        say(f"Resumed {name}. It is {info.status}, so it starts nothing.")
    else:
        say(f"Resumed {name}. It starts next at {info.next_at.isoformat()}.")


@schedule.command(short_help="Start a run of a schedule now.")
@name_argument
@json_option
@store_option
def trigger(name: str, as_json: bool, store: str) -> None:
    """Start a run of a schedule now and print its id, whatever its times and its pause are.

    Only the id goes to stdout.

    \b
    Examples:
      perdure schedule trigger nightly
      perdure schedule trigger nightly --json | jq -r .run
    """
    run = _with_schedule(store, name, lambda handle: handle.trigger())
    if as_json:
        echo_json({"run": run.id, "schedule": name})
        return
    echo(run.id)
    say(f"`{command(store, 'tail', run.id)}` follows it to its end.")


@schedule.command(short_help="Start the ticks of a time in the past.")
@name_argument
@click.argument("start")
@click.argument("end")
@store_option
@json_option
def backfill(name: str, start: str, end: str, store: str, as_json: bool) -> None:
    """Start the ticks from START until END, which is not part of it, and print the ids of their
    runs. Ticks that have run are left as they are, so it can be repeated.

    START and END are dates or times, such as 2026-11-01 or 2026-11-01T12:00, in the zone of the
    schedule if they name none.

    \b
    Examples:
      perdure schedule backfill nightly 2026-11-01 2026-11-08
      perdure schedule backfill hourly 2026-11-01T00:00+01:00 2026-11-01T06:00+01:00 --json
    """

    async def act(handle: ScheduleHandle) -> list[str]:
        from perdure.api.ticks import zone_of

        zone = zone_of((await handle.info()).tz).zone
        runs = await handle.backfill(_time(start, zone), _time(end, zone))
        return [run.id for run in runs]

    found = _with_schedule(store, name, act)
    if as_json:
        echo_json(found)
    elif found:
        echo(*found)
    else:
        say(f"{name} has no tick from {start} until {end}.")


def _time(text: str, zone: Any) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise misuse(f"{text!r} is no time. Write 2026-11-01, or 2026-11-01T12:00.") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=zone)


@schedule.command("next", short_help="Show the next ticks of a schedule.")
@name_argument
@click.option("-n", "count", default=10, show_default=True, help="How many, up to 1,000.")
@store_option
@json_option
def next_(name: str, count: int, store: str, as_json: bool) -> None:
    """Show the next ticks of a schedule, with what the clock does at each: where it is changed, a
    time may not exist, or come twice.

    \b
    Examples:
      perdure schedule next nightly
      perdure schedule next nightly -n 3 --json
    """
    found = with_reader(store, lambda reader: reader.ticks(name, count))
    if as_json:
        echo_json([{"at": tick.isoformat(), "clock": tick.clock} for tick in found])
    else:
        echo(*(f"{tick:%a %Y-%m-%d %H:%M:%S %z}  {tick.clock}".rstrip() for tick in found))


def _with_schedule(store: str, name: str, act: Callable[[ScheduleHandle], Awaitable[Any]]) -> Any:
    """Do something with a schedule, as a client. Raises `ScheduleNotFound`."""

    async def main(engine: Engine) -> Any:
        return await act(await engine.get_schedule(name))

    return with_engine(store, main)

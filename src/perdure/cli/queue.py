"""`queue ls`, `show`, `set`, `pause` and `resume`: queues, their limits, and what stands in them.

Rules: limits are stored, so a change holds for every process and for the next start; a list is as
long as its limit; names are whole, a wrong one is answered with those that there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from perdure.api.queues import Rate
from perdure.cli.common import Commands, F, command, json_option, store_option, with_engine
from perdure.cli.format import columns, cut, pad
from perdure.cli.output import echo, echo_json, room, say, style, visible, width
from perdure.cli.reading import with_reader
from perdure.errors import QueueNotFound
from perdure.runtime.engine import Engine
from perdure.runtime.info import QueueInfo
from perdure.runtime.standing import QueueKey, QueuePlace
from perdure.views import format, queues, times

LIMIT = 20
COUNT_MAX = 100_000
"""Running places that the store counts; of more it is only said that there are."""

NONE = "none"
_RATE = re.compile(r"(\d[\d_]*)\s*/\s*(.+)")


@click.group(cls=Commands, short_help="Look at queues, set their limits, pause them.")
def queue() -> None:
    """Queues: names with limits, for runs and for steps.

    A queue is declared in code (`Engine(queues=[Queue("openai", concurrency=10)])`) or made here.
    What is set here holds for every process, until a deploy declares something new.

    \b
    Examples:
      perdure queue ls
      perdure queue set openai --concurrency 10 --rate 500/60s
      perdure queue pause openai
    """


name_argument = click.argument("name", metavar="NAME")


# --- options --------------------------------------------------------------------------------------


def _count(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """A limit as `(number,)`, `(None,)` for none, or None where it is not given."""
    if text is None or text == NONE:
        return text and (None,)
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise click.BadParameter(
            f"{text!r} is no limit. Give a whole number of at least 1, or `none` to remove the "
            "limit. A queue that is to admit nothing is paused: perdure queue pause NAME."
        )
    return (int(text),)


def _rate(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """A rate as `(limit, seconds)`, `(None,)` for none, or None where it is not given."""
    if text is None or text == NONE:
        return text and (None,)
    found = _RATE.fullmatch(text.strip())
    per = found and times.duration(found[2] if found[2][0].isdigit() else f"1{found[2]}", "s")
    if found is None or per is None:
        raise click.BadParameter(
            f"{text!r} is no rate. Write it as NUMBER/TIME, for example 100/60s, 5/s, 1000/1h or "
            "10/1d; `none` removes the limit."
        )
    return int(found[1]), per.total_seconds()


def _limit_option(name: str, metavar: str, read: Any, text: str) -> Callable[[F], F]:
    return click.option(name, metavar=metavar, callback=read, help=text)


# --- set, pause, resume ---------------------------------------------------------------------------


@click.command(name="set", short_help="Make a queue, or change its limits.")
@name_argument
@_limit_option("--concurrency", "N", _count, "So many at once, over all processes.")
@_limit_option("--per-worker", "N", _count, "So many at once in one worker process.")
@_limit_option("--rate", "N/TIME", _rate, "So many in a time: 100/60s, 5/s, 1000/1h.")
@_limit_option("--burst", "N", _count, "So many at once out of an unused --rate. Default: its N.")
@_limit_option("--key-concurrency", "N", _count, "So many at once of one key.")
@_limit_option("--key-rate", "N/TIME", _rate, "So many of one key in a time.")
@_limit_option("--key-burst", "N", _count, "So many at once out of an unused --key-rate.")
@_limit_option("--waiting-max", "N", _count, "So many may wait; a start beyond it is refused.")
@store_option
@json_option
def set_(name: str, store: str, as_json: bool, **given: tuple[Any, ...] | None) -> None:
    """Make a queue, or change the limits that are given and leave the others. `none` removes one.

    The change holds at once and for every process; what runs already goes on. It stays until it is
    changed again, here or by a deploy whose code declares other limits than the last one.

    \b
    Examples:
      perdure queue set openai --concurrency 10 --rate 500/60s
      perdure queue set openai --key-concurrency 2
      perdure queue set openai --rate none
    """
    if not any(given.values()):
        raise click.UsageError(
            "There is nothing to set. Give a limit, for example --concurrency 10; --concurrency "
            "none makes a queue without limits."
        )

    async def act(engine: Engine) -> tuple[QueueInfo | None, QueueInfo]:
        before = next((one for one in await engine.queues() if one.name == name), None)
        return before, await engine.queue(name, **_changes(before, given))

    before, after = with_engine(store, act)
    if as_json:
        echo_json(after)
        return
    limits, was = _limits(after), None if before is None else _limits(before)
    if was is None:
        say(f"Made queue {name}: {limits}.")
    elif was == limits:
        say(f"Queue {name} is as it was: {limits}.")
    else:
        say(f"Changed queue {name}: {limits}.", f"  It was: {was}.")
    if after.paused:
        say(f"  It is paused: {_command(store, 'resume', name)}")


def _limits(one: QueueInfo) -> str:
    return ", ".join(queues.limits(one)) or "no limits"


def _command(store: str, verb: str, name: str) -> str:
    """A command for a queue, whose name may begin with a dash."""
    dashes = ["--"] if name.startswith("-") else []
    return command(store, "queue", verb, *dashes, name)


def _changes(before: QueueInfo | None, given: dict[str, tuple[Any, ...] | None]) -> dict[str, Any]:
    """What `Engine.queue` is given: rates are put together with their bursts."""
    changes: dict[str, Any] = {}
    for name in ("concurrency", "per_worker", "key_concurrency", "waiting_max"):
        if (limit := given[name]) is not None:
            changes[name] = limit[0]
    for name, burst_name in (("rate", "burst"), ("key_rate", "key_burst")):
        rate, burst = given[name], given[burst_name]
        if rate is None and burst is None:
            continue
        if rate is None:
            rate = _known_rate(before, name, burst_name)
        elif burst is not None and rate == (None,):
            raise _without_rate(name, burst_name)
        limit, per = (None, None) if rate == (None,) else rate
        most = None if burst is None else burst[0]
        changes[name] = None if limit is None else Rate(limit, per, most)
    return changes


def _known_rate(before: QueueInfo | None, name: str, burst_name: str) -> tuple[Any, ...]:
    """The rate that the queue has, for a new burst."""
    known = None if before is None else getattr(before, name)
    if known is None:
        raise _without_rate(name, burst_name)
    return known.limit, known.per


def _without_rate(name: str, burst_name: str) -> click.UsageError:
    rate, burst = (f"--{one.replace('_', '-')}" for one in (name, burst_name))
    return click.UsageError(f"{burst} belongs to a rate: give {rate} too, for example 100/60s.")


async def _named(engine: Engine, name: str) -> QueueInfo:
    """A queue by its name. Raises `QueueNotFound`, with the names that there are."""
    found = {one.name: one for one in await engine.queues()}
    if name not in found:
        raise QueueNotFound(name, tuple(found))
    return found[name]


@click.command(short_help="Admit nothing more until it is resumed.")
@name_argument
@store_option
@json_option
def pause(name: str, store: str, as_json: bool) -> None:
    """Admit nothing more from this queue until it is resumed. What runs already goes on; what
    waits keeps its place.

    \b
    Example:
      perdure queue pause openai
    """
    before, after = _set_paused(store, name, paused=True)
    if as_json:
        echo_json(after)
        return
    if before.paused:
        say(f"Queue {name} is paused already: nothing was changed.")
    else:
        say(f"Paused queue {name}, with {format.count(before.waiting, 'place')} waiting.")
    say(f"It goes on with: {_command(store, 'resume', name)}")


@click.command(short_help="Let a paused queue go on.")
@name_argument
@store_option
@json_option
def resume(name: str, store: str, as_json: bool) -> None:
    """Let a paused queue admit what waits in it.

    \b
    Example:
      perdure queue resume openai
    """
    before, after = _set_paused(store, name, paused=False)
    if as_json:
        echo_json(after)
        return
    if not before.paused:
        say(f"Queue {name} is not paused: nothing was changed.")
    else:
        say(f"Resumed queue {name}, with {format.count(before.waiting, 'place')} waiting.")


def _set_paused(store: str, name: str, *, paused: bool) -> tuple[QueueInfo, QueueInfo]:
    """Pause or resume a queue. Returns what it was before and what it is now."""

    async def act(engine: Engine) -> tuple[QueueInfo, QueueInfo]:
        before = await _named(engine, name)
        if before.paused == paused:
            return before, before
        return before, await engine.queue(name, paused=paused)

    return with_engine(store, act)


# --- ls -------------------------------------------------------------------------------------------


@click.command(short_help="List queues: limits, how many wait and run, when the next is admitted.")
@store_option
@json_option
def ls(store: str, as_json: bool) -> None:
    """List queues with their limits, how many wait and run, and when the next one is admitted.

    \b
    Examples:
      perdure queue ls
      perdure queue ls --json
    """
    found = with_reader(store, lambda reader: reader.queues())
    if as_json:
        echo_json(found)
    elif not found:
        say(f"No queue. Make one: {command(store, 'queue', 'set', 'NAME', '--concurrency', '10')}")
    else:
        echo(*_table(found, room()))


def _table(found: list[QueueInfo], room: int | None) -> list[str]:
    """The queues as a table; where it is too wide, limits are below their queues."""
    now = datetime.now(UTC)
    cells = [
        (
            visible(one.name),
            f"{one.waiting:,}",
            format.bounded(one.running, COUNT_MAX),
            _coloured(queues.state(one, now)),
        )
        for one in found
    ]
    table = columns(("QUEUE", "WAITING", "RUNNING", "STATE"), cells)
    texts = [_limits(one) for one in found]
    used = max(map(width, table)) + 2
    if room is None or used + max(map(len, texts)) <= room:
        heads = [style("LIMITS", "bold"), *texts]
        return [f"{pad(row, used)}{text}" for row, text in zip(table, heads, strict=True)]
    lines = table[:1]
    for row, text in zip(table[1:], texts, strict=True):
        lines += [row, cut(f"  {text}", room)]
    return lines


def _coloured(state: str) -> str:
    return style(state, "yellow") if state.startswith(("paused", "held")) else state


# --- show -----------------------------------------------------------------------------------------


@click.command(short_help="Show a queue: its keys, and who runs and waits in it.")
@name_argument
@click.option(
    "--limit",
    default=LIMIT,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="How many keys, running and waiting ones at most.",
)
@store_option
@json_option
def show(name: str, limit: int, store: str, as_json: bool) -> None:
    """Show a queue: its limits, the keys that are busy, what runs and what waits, the next one
    first.

    \b
    Examples:
      perdure queue show openai
      perdure queue show openai --limit 100 --json
    """
    page = with_reader(store, lambda reader: reader.queue(name, limit))
    found = _Contents(page.queue, page.keys, page.admitted, page.waiting)
    if as_json:
        echo_json(found)
    else:
        echo(*_page(found, datetime.now(UTC), room()))


class _Contents(msgspec.Struct, frozen=True):
    """A queue and what is in it."""

    queue: QueueInfo
    keys: list[QueueKey]
    running: list[QueuePlace]
    waiting: list[QueuePlace]


def _page(found: _Contents, now: datetime, room: int | None) -> list[str]:
    one = found.queue
    state = queues.state(one, now)
    lines = [f"{style(visible(one.name), 'bold')}{f'  {_coloured(state)}' if state else ''}"]
    lines += [f"  {text}" for text in queues.limits(one) or ["no limits"]]
    keys = [key for key in found.keys if key.key is not None]
    if keys:
        cells = [
            (
                _name(key.key or ""),
                str(key.running),
                str(key.waiting),
                queues.key_state(key, one, now),
            )
            for key in keys
        ]
        lines += ["", *columns(("KEY", "RUNNING", "WAITING", ""), cells)]
    for title, places, total in (
        ("RUNNING", found.running, one.running),
        ("WAITING", found.waiting, one.waiting),
    ):
        lines += ["", *_places(title, places, now, room)]
        if total > len(places):
            lines.append(f"{total - len(places):,} more")
    return lines


def _places(title: str, places: list[QueuePlace], now: datetime, room: int | None) -> list[str]:
    """Places as a table under a title that says how many."""
    if not places:
        return [style(f"{title}: none", "bold")]
    cells = [
        (
            visible(one.run),
            "" if one.step is None else f"{visible(one.step)} (row {one.seq})",
            "" if one.key is None else _name(one.key),
            str(one.priority) if one.priority else "",
            format.between(one.admitted_at or one.asked_at, now),
            "" if one.worker is None else f"worker {one.worker}",
        )
        for one in places
    ]
    heads = (title, "STEP", "KEY", "PRIORITY", "FOR", "BY")
    shown = [at for at in range(len(heads)) if any(row[at] for row in cells)]
    table = columns([heads[at] for at in shown], [[row[at] for at in shown] for row in cells])
    return table if room is None else [cut(line, room) for line in table]


def _name(text: str) -> str:
    """A key that a table can show."""
    return cut(visible(text), 40)


queue.add_section("Commands", [ls, show, set_, pause, resume])

"""`inbox ls`, `answer` and `link`: what waits for a person, and answers to it.

Rules: an answer is for the wait that is there now, and is recorded with a name; the token of a link
is printed once, and is nowhere else.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from perdure.cli.common import (
    Commands,
    command,
    json_option,
    run_argument,
    store_option,
    user_name,
    with_run,
)
from perdure.cli.format import columns, cut
from perdure.cli.output import echo, echo_json, room, say, visible
from perdure.cli.reading import with_reader
from perdure.cli.schedule import duration
from perdure.reader import StoreReader
from perdure.reader.values import InboxItem, InboxPage
from perdure.runtime.engine import Engine
from perdure.runtime.engine_answers import AnswerLink
from perdure.views import format, shapes
from perdure.views.typed import json_or_text

LIMIT = 50
URL_VARIABLE = "PERDURE_URL"


@click.group(
    cls=Commands, invoke_without_command=True, short_help="What waits for a person; answer it."
)
@store_option
@json_option
@click.pass_context
def inbox(ctx: click.Context, store: str, as_json: bool) -> None:
    """What waits for a person: messages and requests that a run waits for, and steps whose outcome
    nobody knows. Without a command it lists them.

    \b
    Examples:
      perdure inbox
      perdure inbox answer refund-7 true
      perdure inbox link refund-7 --to ada@example.org --url https://agents.example.org
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(ls, store=store, as_json=as_json, limit=LIMIT)
    else:  # what is given before the command counts for it
        given = {"store": store, "as_json": as_json}
        ctx.default_map = dict.fromkeys(inbox.commands, given)


@click.command(short_help="List what waits for a person.")
@click.option("--limit", type=click.IntRange(1, 500), default=LIMIT, show_default=True)
@store_option
@json_option
def ls(store: str, as_json: bool, limit: int) -> None:
    """List what waits for a person, that of the newest runs first.

    \b
    Examples:
      perdure inbox ls
      perdure inbox ls --json
    """

    async def read(reader: StoreReader) -> InboxPage:
        return await reader.inbox(limit=limit)

    found = with_reader(store, read)
    if as_json:
        echo_json(found.items)
    elif not found.items:
        say("Nothing waits for a person.")
    else:
        echo(*_table(found.items))
        if found.next is not None:
            say(f"These are the newest; --limit {min(2 * limit, 500)} shows more.")
        say(f"Answer one: {_hint(store, found.items[0])}")


def _table(items: list[InboxItem]) -> list[str]:
    now = datetime.now(UTC)
    rows = [
        (visible(one.run), format.ago(one.since, now), visible(one.channel or "–"), _question(one))
        for one in items
    ]
    lines = columns(("RUN", "SINCE", "CHANNEL", "ASKS"), rows)
    most = room()
    return lines if most is None else [cut(line, most) for line in lines]


def _question(item: InboxItem) -> str:
    """What is asked, on one line."""
    if item.kind == "unknown outcome":
        return visible(f"what became of step {item.step or '?'}?")
    asked = item.prompt or f"for a {item.kind}"
    return visible(" ".join(f"{asked} ({item.type or 'Any'})".split()))


def _hint(store: str, item: InboxItem) -> str:
    if item.kind == "unknown outcome":
        return command(store, "resolve", item.run, "--result", "JSON")
    if item.kind == "request":
        return command(store, "ask", item.run, "VALUE", "--channel", item.channel or "")
    return command(store, "inbox", "answer", item.run, "VALUE")


@click.command(short_help="Answer what a run waits for.")
@run_argument
@click.argument("value")
@click.option("--channel", help="The channel, where the run waits on several.")
@click.option("--seq", type=click.IntRange(1), help="Only if the wait began at this row.")
@click.option("--sender", help="Who answers; recorded. Default: your user name.")
@store_option
@json_option
def answer(
    run_id: str, value: str, channel: str | None, seq: int | None, sender: str | None, store: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Answer the message that a run waits for. One answer is taken for each wait: a second one is
    refused, and says who gave the first.

    VALUE is JSON; what is not JSON is taken as text. Put -- before a VALUE that begins with a dash.

    \b
    Examples:
      perdure inbox answer refund-7 true
      perdure inbox answer report-1 '{"publish": true, "note": "fine"}' --channel verdict
    """
    given = json_or_text(value)
    by = sender or user_name()

    async def act(engine: Engine, found: str) -> str:
        await engine.answer(found, given, channel=channel, seq=seq, sender=by)
        return found

    found = with_run(store, run_id, act)
    if as_json:
        echo_json(shapes.AnswerSent(found, by))
    else:
        say(f"Answered {found}: {format.value(given)}" + (f", as {by}" if by else ""))


@click.command(short_help="Make a link that answers once.")
@run_argument
@click.option("--channel", help="The channel, where the run waits on several.")
@click.option(
    "--expires", default="7d", show_default=True, callback=duration, metavar="TIME",
    help="How long it is good: 7d, 12h, 30m.",
)  # fmt: skip
@click.option("--to", "recipient", help="For whom; recorded as who answered.")
@click.option(
    "--url", envvar=URL_VARIABLE, show_envvar=True, metavar="URL",
    help="Where the pages are, such as https://agents.example.org/durable.",
)  # fmt: skip
@store_option
@json_option
def link(
    run_id: str, channel: str | None, expires: timedelta, recipient: str | None, url: str | None,
    store: str, as_json: bool,
) -> None:  # fmt: skip
    """Make a link by which a person answers what a run waits for: once, without a login, until it
    expires. It is printed this once; whoever has it can use it.

    \b
    Examples:
      perdure inbox link refund-7 --url https://agents.example.org
      perdure inbox link refund-7 --expires 2h --to ada@example.org
    """

    async def act(engine: Engine, found: str) -> AnswerLink:
        return await engine.answer_link(
            found, channel=channel, expires=expires, recipient=recipient
        )

    made = with_run(store, run_id, act)
    address = made.path if url is None else made.url(url)
    if as_json:
        about = (made.run_id, made.channel, made.recipient, made.expires_at)
        echo_json(shapes.LinkMade(address, *about))
        return
    echo(address)
    until = f"{made.expires_at:%Y-%m-%d %H:%M} UTC"
    say(f"Good for one answer to {made.run_id} on {made.channel}, until {until}.")
    if url is None:
        say("Put the address of the pages before it, or give it with --url.")


inbox.add_section("Commands", [ls, answer, link])

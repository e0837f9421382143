"""`send`, `pause`, `resume` and `cancel`: control of runs.

Rules: what a command has done is said once it is committed; the process that executes the run
acts on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import click

from perdure.cli.common import (
    command,
    run_argument,
    store_option,
    with_run,
    with_run_as_it_was,
)
from perdure.cli.output import say
from perdure.core import lifecycle
from perdure.runtime.engine import Engine
from perdure.views import format
from perdure.views.typed import json_or_text


@click.command(short_help="Send a message to a run.")
@run_argument
@click.argument("channel")
@click.argument("value")
@click.option("--key", help="However often it is sent with this key, it arrives once.")
@click.option("--sender", help="Who sends it; recorded.")
@store_option
def send(
    run_id: str, channel: str, value: str, key: str | None, sender: str | None, store: str
) -> None:
    """Send a message to a run that receives on this channel, now or later.

    VALUE is JSON; what is not JSON is taken as text. Put -- before a VALUE that begins with a dash.

    \b
    Examples:
      perdure send refund approval true
      perdure send agent chat "one more thing"
      perdure send order-7 payment '{"amount": 120, "currency": "EUR"}' --key payment-7
    """

    async def act(engine: Engine, found: str) -> str:
        await engine.send(found, json_or_text(value), channel=channel, key=key, sender=sender)
        return found

    found = with_run(store, run_id, act)
    say(f"Sent to {found}, channel {channel}: {format.value(json_or_text(value))}")


@click.command(short_help="Stop a run until it is resumed.")
@run_argument
@store_option
def pause(run_id: str, store: str) -> None:
    """Stop a run until it is resumed. Steps that are running end and are recorded; nothing new
    begins.

    \b
    Example:
      perdure pause refund-91ac
    """
    found = _control(store, run_id, lambda engine, one: engine.pause(one))
    say(f"Paused {found}. It goes on with: {command(store, 'resume', found)}")


@click.command(short_help="Let a paused run go on.")
@run_argument
@store_option
def resume(run_id: str, store: str) -> None:
    """Let a paused run go on.

    \b
    Example:
      perdure resume refund-91ac
    """
    found, status = with_run_as_it_was(store, run_id, lambda engine, one: engine.resume(one))
    if lifecycle.outcome("resume", status) == status:
        say(f"{found} is {status}, not paused: nothing was changed.")
    else:
        say(f"Resumed {found}. A worker, or `perdure run`, goes on with it.")


@click.command(short_help="Cancel a run, letting it clean up.")
@run_argument
@store_option
def cancel(run_id: str, store: str) -> None:
    """Cancel a run: CancelledError arrives where it waits, its `finally` blocks run, children are
    cancelled too.

    \b
    Example:
      perdure cancel refund-91ac
    """
    found = _control(store, run_id, lambda engine, one: engine.cancel(one))
    say(f"Asked {found} to cancel. `{command(store, 'tail', found)}` follows it to its end.")


def _control(store: str, prefix: str, verb: Callable[[Engine, str], Awaitable[object]]) -> str:
    async def act(engine: Engine, found: str) -> str:
        await verb(engine, found)
        return found

    return with_run(store, prefix, act)

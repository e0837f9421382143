"""`ask`: a request to a run, and its reply.

Rules: the reply is the result; a refusal, the end of the run and a time that is over are errors;
the request stays with the run, and the same key gives the same reply.
"""

from __future__ import annotations

import click

from perdure.cli.common import json_option, run_argument, store_option, with_run
from perdure.cli.output import echo_json, echo_result
from perdure.runtime.engine import Engine
from perdure.runtime.requests import new_key
from perdure.views.typed import json_or_text


@click.command(short_help="Ask a run, and print its reply.")
@run_argument
@click.argument("value")
@click.option("--channel", required=True, help="Where the workflow takes the request.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to wait for the reply. The request stays with the run.",
)
@click.option("--key", help="However often it is asked with this key, it is one request.")
@click.option("--sender", default="perdure ask", help="Who asks, as the workflow sees it.")
@json_option
@store_option
def ask(
    run_id: str,
    value: str,
    channel: str,
    timeout: float,
    key: str | None,
    sender: str,
    as_json: bool,
    store: str,
) -> None:
    """Ask a run that takes requests on a channel, and print its reply.

    VALUE is JSON; what is not JSON is taken as text. Put -- before a VALUE that begins with a dash.
    A worker, or `perdure run`, has to execute the run. A refusal ends with exit code 1.

    \b
    Examples:
      perdure ask cart-7 '{"item": "tea"}' --channel add
      perdure ask cart-7 '{"item": "tea"}' --channel add --key tea-1 --timeout 5
      perdure ask agent "what are you doing?" --channel questions --json | jq .reply
    """
    given = new_key() if key is None else key

    async def act(engine: Engine, found: str) -> tuple[str, object]:
        asked = json_or_text(value)
        return found, await engine.ask(
            found, asked, channel=channel, timeout=timeout, key=given, sender=sender
        )

    found, reply = with_run(store, run_id, act)
    if as_json:
        echo_json({"run": found, "channel": channel, "key": given, "reply": reply})
    else:
        echo_result(reply)

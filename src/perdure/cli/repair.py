"""`retry`, `resolve` and `fork`: repair of runs that failed, are blocked, or wait.

Rules: history is never edited; what was recorded stays, and a new path begins behind it.
"""

from __future__ import annotations

from typing import Any

import click

from perdure.cli.common import (
    run_argument,
    store_option,
    strict_json,
    user_name,
    with_run,
    with_run_as_it_was,
)
from perdure.cli.output import echo, say
from perdure.core import lifecycle
from perdure.runtime.engine import Engine


@click.command(short_help="Let a failed run go on, or a waiting step begin now.")
@run_argument
@click.option(
    "--seq",
    type=click.IntRange(1),
    metavar="N",
    help="The row of the step that is to begin its next attempt, where several wait.",
)
@store_option
def retry(run_id: str, seq: int | None, store: str) -> None:
    """Let a run go on when the cause is gone: a blocked one from where it stopped, a failed or
    cancelled one as if what ended it (a failed step or child, a timeout, a cancel) had not
    happened. That is done again; what had completed is kept.

    A child that failed is retried under its own id. The old run is kept as ID~1.

    Of a run that has not ended, steps that wait for their next attempt begin it now. A queue still
    decides when a step of it begins.

    \b
    Examples:
      perdure retry refund-91ac
      perdure retry refund-91ac --seq 7
    """
    steps: list[int] = []

    async def act(engine: Engine, one: str) -> None:
        steps.extend(await engine.retry(one, seq=seq, sender=user_name()))

    found, status = with_run_as_it_was(store, run_id, act)
    if steps:
        which = f"row{'' if len(steps) == 1 else 's'} {', '.join(map(str, steps))}"
        say(
            f"{found}: the next attempt of the step in {which} begins now, or as soon as a "
            "worker executes the run."
        )
        return
    if lifecycle.outcome("retry", status) == status:
        say(
            f"{found} is {status}: nothing has ended or blocked it, and no step of it waits for "
            "its next attempt, so nothing was changed."
        )
        return
    say(
        f"{found} goes on without what ended it, as soon as a worker, or `perdure run FILE "
        f"--id {found}`, executes it."
    )


@click.command(short_help="Say how a step ended whose outcome is unknown.")
@run_argument
@click.option(
    "--result", metavar="JSON", callback=strict_json, help="It worked, and this is its result."
)
@click.option("--error", metavar="TEXT", help="It failed, with this message.")
@click.option("--retry", "again", is_flag=True, help="Try it again.")
@click.option(
    "--seq", type=click.IntRange(1), metavar="N", help="The step's row, where several are open."
)
@store_option
def resolve(
    run_id: str,
    result: tuple[Any] | None,
    error: str | None,
    again: bool,
    seq: int | None,
    store: str,
) -> None:
    """Say how a step ended, for a blocked run: the process died during a step with on_crash="ask".
    Or end a step that waits for its next attempt, with that result or error.

    `perdure show ID` says which step it is. Give one of --result, --error and --retry.

    \b
    Examples:
      perdure resolve refund-91ac --result '{"paid": true}'
      perdure resolve refund-91ac --error "the bank refused"
      perdure resolve refund-91ac --retry
    """
    if (result is not None) + (error is not None) + again != 1:
        raise click.UsageError("Give one of --result, --error and --retry.")

    by = user_name()

    async def act(engine: Engine, found: str) -> str:
        if result is not None:
            await engine.resolve(found, seq=seq, result=result[0], sender=by)
        elif error is not None:
            await engine.resolve(found, seq=seq, error=error, sender=by)
        else:
            await engine.resolve(found, seq=seq, retry=True, sender=by)
        return found

    found = with_run(store, run_id, act)
    say(
        f"Resolved. {found} goes on as soon as a worker, or `perdure run FILE --id "
        f"{found}`, executes it."
    )


@click.command(short_help="Start a new run from any point of another.")
@run_argument
@click.option(
    "--at",
    "seq",
    type=click.IntRange(1),
    required=True,
    metavar="SEQ",
    help="The row where the new run begins to differ.",
)
@click.option(
    "--result",
    metavar="JSON",
    callback=strict_json,
    help="Use this result for the step in that row.",
)
@click.option(
    "--args",
    metavar="JSON",
    callback=strict_json,
    help=(
        "Run the step in that row, or at row 1 the workflow, with these arguments: an object by "
        "name."
    ),
)
@click.option(
    "--id", "new_id", metavar="NEW", help="The new run's id. Default: made from the old one."
)
@store_option
def fork(
    run_id: str,
    seq: int,
    result: tuple[Any] | None,
    args: tuple[Any] | None,
    new_id: str | None,
    store: str,
) -> None:
    """Start a new run that shares the history of another and does again what row SEQ asked for. The
    old run stays as it is.

    `perdure show ID` has the numbers of the rows. Rows before the answer to SEQ are kept; with
    --result the answer is given.

    \b
    Examples:
      perdure fork agent-91ac --at 7
      perdure fork agent-91ac --at 7 --result '{"text": "a better answer", "tool_calls": []}'
      perdure fork refund-91ac --at 4 --args '{"amount": 100}' --id refund-test
    """
    if result is not None and args is not None:
        raise click.UsageError("Give --result or --args: with a result the step does not run.")
    if args is not None and not isinstance(args[0], dict):
        raise click.UsageError("--args is an object by name, for example '{\"amount\": 100}'.")

    async def act(engine: Engine, found: str) -> tuple[str, str]:
        changes: dict[str, Any] = {}
        if result is not None:
            changes["result"] = result[0]
        if args is not None:
            changes["args"] = args[0]
        return found, (await engine.fork(found, at=seq, new_id=new_id, **changes)).id

    found, new = with_run(store, run_id, act)
    echo(new)
    say(
        f"Forked {found} before row {seq}. It runs as soon as a worker, or `perdure run "
        f"FILE --id {new}`, executes it."
    )

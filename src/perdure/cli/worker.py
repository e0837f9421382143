"""`worker`: executes the due runs of a store until it is stopped.

Rules: a stop drains; what is left goes on with the next worker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import click

from perdure.cli import log_lines, targets
from perdure.cli.common import Exit, misuse, store_option
from perdure.cli.execution import execute, opened, stop_signals
from perdure.cli.output import say
from perdure.cli.replica_options import engine_options, replica_options, tell_beginning
from perdure.core.limits import Limits
from perdure.runtime.engine import Engine
from perdure.views import format


@click.command(short_help="Execute runs until stopped.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@store_option
@replica_options
@click.option(
    "--standby",
    is_flag=True,
    help="Follow the replica while another engine holds it, and take over when that is gone.",
)
@click.option(
    "--concurrency", type=click.IntRange(min=1), metavar="N",
    help=(
        "How many runs this worker has at work at once; the others wait in the file, also for "
        "other workers. Default: 2,000."
    ),
)  # fmt: skip
@click.option(
    "--grace", type=click.FloatRange(0), default=10.0, show_default=True, metavar="SECONDS",
    help="How long running steps get to end after a stop.",
)  # fmt: skip
@click.option(
    "--redact", multiple=True, metavar="NAME",
    help=(
        "Mask members with this name where people look, such as '*_token'; may be repeated. The "
        "names stay with the store."
    ),
)  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="Say nothing.")
def worker(
    files: tuple[str, ...],
    store: str,
    concurrency: int | None,
    grace: float,
    redact: tuple[str, ...],
    quiet: bool,
    standby: bool,
    **replica: Any,
) -> None:
    """Execute the runs of a store, with the workflows of these files, until stopped.

    Schedules and queues that the files hold, as in `nightly = Schedule(...)`, are declared by it.

    Ctrl-C or SIGTERM drains: nothing new begins, running steps get the grace to end and be
    recorded. What is left goes on with the next worker. A second signal stops at once; nothing is
    lost then either.

    \b
    Examples:
      perdure worker app.py
      perdure worker flows/*.py --store /var/lib/app/perdure.db
      perdure worker app.py --concurrency 4
      perdure worker app.py --redact password --redact '*_token'
      perdure worker app.py --replica s3://agents/prod
      perdure worker app.py --replica s3://agents/prod --standby
    """
    log_lines.show_all(quiet=quiet)
    if standby and replica["replica"] is None:
        raise misuse(
            "--standby follows a replica: name it with --replica ADDRESS, or PERDURE_REPLICA."
        )
    options = engine_options(**replica, quiet=quiet, standby=standby)
    options["redact"] = redact
    if concurrency is not None:  # those that wait for something leave memory when there is no room
        options["limits"] = Limits(
            runs_loaded_max=concurrency, runs_parked_max=min(concurrency, Limits().runs_parked_max)
        )
    execute(_work(files, store, grace, quiet, options))


async def _work(
    files: Sequence[str], store: str, grace: float, quiet: bool, options: dict[str, Any]
) -> int:
    workflows = targets.workflows_in(files)

    def report(text: str) -> None:
        if not quiet:
            say(text)

    with stop_signals() as stopped:
        declared: dict[str, Any] = targets.declared_in(files)
        engine = Engine(
            store, workflows=list(workflows.values()), close_grace=grace, **declared, **options
        )
        if not await opened(engine, stopped):
            report("Stopped while another engine held the replica.")
            return Exit.DONE
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(engine.__aexit__)
            tell_beginning(engine, quiet, logged=True)
            report(
                f"Executing {', '.join(sorted(workflows))} from {store}. Ctrl-C stops and "
                f"loses nothing."
            )
            stop = asyncio.ensure_future(stopped.wait())
            lost = asyncio.ensure_future(engine.store_lost())
            await asyncio.wait((stop, lost), return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if lost.done():
                raise lost.result()
            lost.cancel()
            more = " The last sync may take 5 s more." if engine.replica is not None else ""
            report(
                f"Stopping: running steps get {grace:g} s to end.{more} Ctrl-C again stops at once."
            )
    report("Stopped. What is left goes on with the next worker.")
    if engine.replica is not None and engine.replica.ended:
        report(format.sentence(engine.replica.ended))
    return Exit.DONE

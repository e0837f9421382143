"""`run`: executes one run with its children, shows its progress and prints its result.

Rules: the same command means the same run, unless --again says otherwise; however it ends, the
command says what is recorded and which command goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from perdure.api.definitions import Call
from perdure.cli import log_lines, targets
from perdure.cli.common import Exit, Misuse, json_option, misuse, store_option
from perdure.cli.execution import execute, opened, stop_signals
from perdure.cli.format import status
from perdure.cli.output import as_lines, echo_json, echo_result, is_terminal, say
from perdure.cli.places import place_options, places_of
from perdure.cli.progress import Activity, Display, Snapshot, display_for
from perdure.cli.replica_options import (
    engine_options,
    replica_options,
    tell_beginning,
)
from perdure.core import lifecycle
from perdure.errors import RunBlocked, RunCancelled, RunFailed, RunNotFound
from perdure.runtime.engine import Engine
from perdure.runtime.facts import DUE_RUNS_MAX
from perdure.runtime.info import RunInfo
from perdure.runtime.run_handle import Run
from perdure.views import format, traces
from perdure.views.waiting import send_hint, waiting_text

POLL_SHARE = 20
"""Counting a long history costs; so many times its own time passes before the next count."""

LOOK_EVERY_S = 2.0
"""Another process may have paused the run, or blocked a child; a replica may have failed."""

DRAW_EVERY_S = 1.0


@dataclass(frozen=True)
class Request:
    """What the command line of `run` asks for."""

    target: str
    arguments: tuple[str, ...]
    run_id: str | None
    store: str
    again: bool
    as_json: bool
    quiet: bool
    replica: str | None = None
    durability: str | None = None
    fencing: str | None = None
    no_fencing: bool = False
    queue: str | None = None
    key: str | None = None
    priority: int = 0
    weight: int | None = None

    @property
    def may_go_on(self) -> bool:
        """With an id and no arguments, an existing run is meant, if there is one."""
        return self.run_id is not None and not self.arguments and not self.again

    def command(self, *options: str) -> str:
        """This command with other options, as it would be typed."""
        dashes = ["--"] if any(text.startswith("-") for text in self.arguments) else []
        return shlex.join(
            [
                "perdure",
                "run",
                *options,
                *self.place_arguments,
                *self.store_arguments,
                self.target,
                *dashes,
                *self.arguments,
            ]
        )

    def same_command(self, run_id: str) -> str:
        """What goes on with the run of this command."""
        return self.command(*(["--id", run_id] if self.run_id is not None or self.again else []))

    @property
    def worker_command(self) -> str:
        """What executes the other runs of the store."""
        return shlex.join(
            ["perdure", "worker", *self.store_arguments, str(targets.split_target(self.target)[0])]
        )

    @property
    def store_arguments(self) -> list[str]:
        store = [] if self.store == "perdure.db" else ["--store", self.store]
        return (
            store
            if self.replica is None or "PERDURE_REPLICA" in os.environ
            else [*store, "--replica", self.replica]
        )

    @property
    def place_arguments(self) -> list[str]:
        """The options that give the run its place in a queue."""
        given = {"--queue": self.queue, "--key": self.key}
        words = [word for name, text in given.items() if text for word in (name, text)]
        words += ["--priority", str(self.priority)] if self.priority else []
        return words + ([] if self.weight is None else ["--weight", str(self.weight)])

    @property
    def store_option(self) -> str:
        return "" if self.store == "perdure.db" else f" --store {shlex.quote(self.store)}"


@click.command(short_help="Run a workflow, or go on with it, showing progress.")
@click.argument("target", metavar="FILE[:WORKFLOW]")
@click.argument("arguments", metavar="[ARGS]...", nargs=-1)
@click.option(
    "--id",
    "run_id",
    help=(
        "The run's id. Default: made from workflow and arguments, so the same command is the "
        "same run."
    ),
)
@store_option
@replica_options
@click.option("--again", is_flag=True, help="Start another run even if these arguments had one.")
@place_options
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def run(**given: Any) -> None:
    """Run a workflow of a Python file, and print its result.

    ARGS are converted to the types that the workflow's parameters have: as JSON where that fits,
    else as text; NAME=VALUE gives one by name. Put -- before arguments that begin with a dash.

    The same command goes on with the same run: after Ctrl-C, after kill -9, after a reboot. What
    was recorded is not done again. When the run had completed, its recorded result is printed;
    --again starts another one. With the --id of a run that exists, ARGS may be left out.

    \b
    Examples:
      perdure run app.py A-17 120
      perdure run app.py:refund order=A-17 amount=120
      perdure run app.py A-17 120 --again
      perdure run app.py A-17 120 --json --quiet | jq .result
      perdure run app.py A-17 120 --queue nightly --key acme
    """
    execute(_run(Request(**given)))


# --- run ------------------------------------------------------------------------------------------


async def _run(request: Request) -> int:
    path, name = targets.split_target(request.target)
    module = targets.load(path)
    workflows = targets.workflows_of(module)

    def asked_for() -> Call[Any]:
        return targets.make_call(targets.pick(module, workflows, name), request.arguments)

    call = None if request.may_go_on else asked_for()
    make_display = display_for(request.quiet)
    with stop_signals() as stopped, log_lines.while_running(quiet=request.quiet) as log:
        options = engine_options(
            request.replica, request.durability, request.fencing, request.no_fencing, request.quiet
        )
        activity = Activity()
        engine = Engine(
            request.store,
            workflows=list(workflows.values()),
            execute="asked",
            queues=targets.declared_in([request.target]).get("queues", ()),
            observer=None if request.quiet else activity,
            **options,
        )
        if not await opened(engine, stopped):
            say("Stopped before anything had begun.")
            return Exit.INTERRUPTED
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(engine.__aexit__)
            tell_beginning(engine, request.quiet)
            run = await _known(engine, request) if call is None else None
            if run is None:
                call = call or _first_call(request, asked_for)
                run, note = await _begin(engine, request, call)
            else:
                note = await _progress_note(engine, run)
            log.run_id = run.id
            if note != "started" and (await run.summary()).ended_at is not None:
                # Until a replica has it, where that is asked for.
                if not await _wait(run, stopped):
                    return await _interrupted(engine, run, request)
                return _report(await run.info(), request, recorded=True)
            shown = make_display(run.id)
            shown.note(note)
            await _let_go_on(engine, run, shown)
            code = await _follow(engine, run, request, shown, activity, stopped)
            await _say_what_is_due(engine, request)
            return code


async def _let_go_on(engine: Engine, run: Run[Any], shown: Display) -> None:
    """Retry what a crash loop has blocked, where the command is typed on a terminal; a script is
    shown the command.
    """
    if is_terminal(sys.stdin) and is_terminal(sys.stderr):
        for one in await engine.blocked(run.id):
            if one.by == "crash_loop":
                await engine.retry(one.id)
                shown.note(
                    f"{one.id} was blocked and goes on, because you gave the command "
                    f"again: {one.reason.partition('. ')[0]}"
                )


async def _say_what_is_due(engine: Engine, request: Request) -> None:
    """Say how many other runs are due: this command executes its own run only."""
    due = 0 if request.quiet else await engine.left_to_workers()
    if due:
        number = f"{due:,}" if due <= DUE_RUNS_MAX else f"More than {DUE_RUNS_MAX:,}"
        runs = "other run is" if due == 1 else "other runs are"
        say(
            f"{number} {runs} due in this file. To execute {'it' if due == 1 else 'them'}:",
            f"  {request.worker_command}",
        )


def _first_call(request: Request, asked_for: Callable[[], Call[Any]]) -> Call[Any]:
    """The call of a run that does not exist, although no arguments were given."""
    try:
        return asked_for()
    except Misuse as error:
        raise misuse(
            f"There is no run {request.run_id!r} to go on with, and a new one needs "
            f"arguments. {error.message}"
        ) from error


async def _known(engine: Engine, request: Request) -> Run[Any] | None:
    """The run that --id names, where no arguments are given to start a new one."""
    try:
        run = await engine.get(request.run_id or "")
    except RunNotFound:
        return None
    workflow = (await run.summary()).workflow
    if workflow not in engine.workflows:
        raise misuse(
            f"Run {run.id} is one of workflow {workflow!r}, which {request.target} does not have."
        )
    return run


async def _begin(engine: Engine, request: Request, call: Call[Any]) -> tuple[Run[Any], str]:
    """Start the run that is asked for, or find it there; the note says which."""
    run_id = targets.default_id(call) if request.run_id is None else request.run_id
    if request.again:
        run_id = await _fresh(engine, run_id)
    note = "started"
    with contextlib.suppress(RunNotFound):
        note = await _progress_note(engine, await engine.get(run_id))
    run = await engine.start(
        call, id=run_id, queue=request.queue, key=request.key, priority=request.priority,
        weight=request.weight,
    )  # fmt: skip
    return run, note


async def _progress_note(engine: Engine, run: Run[Any]) -> str:
    progress = await engine.progress(run.id)
    if not progress.steps_total:  # a run of children only: no count of steps says how far it is
        return "resumed"
    return f"resumed: {progress.steps_done:,} of {progress.steps_total:,} steps were recorded"


async def _fresh(engine: Engine, run_id: str) -> str:
    """The id itself, or the first of id-2, id-3 … that no run has."""
    candidate = run_id
    for number in itertools.count(2):
        try:
            await engine.get(candidate)
        except RunNotFound:
            break
        candidate = f"{run_id}-{number}"
    return candidate


async def _follow(
    engine: Engine,
    run: Run[Any],
    request: Request,
    shown: Display,
    activity: Activity,
    stopped: asyncio.Event,
) -> int:
    """Show progress until there is something to report, and report it."""
    shows: asyncio.Future[None] | None = None
    if shown.poll_seconds is not None:
        pause = shown.poll_seconds
        shows = asyncio.ensure_future(_show(engine, run, request, shown, pause, activity))
    try:
        done = await _wait(run, stopped, shows)
    finally:
        if shows is not None:
            shows.cancel()
            await asyncio.wait([shows])
        shown.close()
    info = await run.info()
    if not done or (info.ended_at is None and info.status != lifecycle.BLOCKED):
        return await _interrupted(engine, run, request)
    blocked = [one for one in await engine.blocked(run.id) if one.id == run.id]
    return _report(
        info, request, recorded=False, crash_loop=any(one.by == "crash_loop" for one in blocked)
    )


async def _wait(
    run: Run[Any], stopped: asyncio.Event, shows: asyncio.Future[None] | None = None
) -> bool:
    """Wait until the run has ended or is blocked, and that is confirmed: then True; False where a
    stop comes first. Raises what the store, or what shows progress, failed with.
    """
    ended = asyncio.ensure_future(_ended(run))
    stop = asyncio.ensure_future(stopped.wait())
    try:
        waits: list[asyncio.Future[Any]] = [ended, stop, *([] if shows is None else [shows])]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if shows is not None and shows.done() and not ended.done():
            shows.result()
        return ended.done()
    finally:
        stop.cancel()
        if not ended.cancel():
            ended.result()


async def _show(
    engine: Engine,
    run: Run[Any],
    request: Request,
    shown: Display,
    pause_s: float,
    activity: Activity,
) -> None:
    """Show progress until cancelled: read it when the engine reports something, and now and then
    for what other processes do; draw the time in between.
    """
    look_at = 0.0
    while True:
        begun = time.thread_time()
        if activity.changed.is_set() or time.monotonic() >= look_at:
            activity.changed.clear()
            snapshot = await _snapshot(engine, run, request)
            look_at = time.monotonic() + LOOK_EVERY_S
        snapshot.running = activity.running or snapshot.running
        shown.show(snapshot)
        await asyncio.sleep(max(pause_s, POLL_SHARE * (time.thread_time() - begun)))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAW_EVERY_S):
                await activity.changed.wait()


async def _ended(run: Run[Any]) -> None:
    # How it ended is read from the record afterwards.
    with contextlib.suppress(RunFailed, RunCancelled, RunBlocked):
        await run.result()


async def _snapshot(engine: Engine, run: Run[Any], request: Request) -> Snapshot:
    progress = await engine.progress(run.id)
    snapshot = Snapshot(
        progress.status, progress.steps_done, progress.steps_total, list(progress.running)
    )
    children = any("child" in item for item in progress.waiting_for)
    if children and (blocked := await engine.blocked(run.id)):
        snapshot.waiting = f"{blocked[0].id} is blocked: {blocked[0].reason}"
        if blocked[0].by == "crash_loop":
            snapshot.hint = f"perdure retry {shlex.quote(blocked[0].id)}{request.store_option}"
    elif progress.status == lifecycle.WAITING and progress.waiting_for:
        snapshot.waiting = waiting_text(
            progress.waiting_for, await places_of(engine, run.id, progress.waiting_for)
        )
        snapshot.hint = send_hint(run.id, progress.waiting_for, request.store_option)
    elif engine.replica is not None and (trouble := engine.replica.barrier.last_error) is not None:
        snapshot.waiting = f"the replica: {getattr(trouble, 'detail', trouble)}"
    elif progress.status == lifecycle.PAUSED:
        snapshot.waiting, snapshot.hint = (
            lifecycle.PAUSED,
            f"perdure resume {shlex.quote(run.id)}{request.store_option}",
        )
    return snapshot


async def _interrupted(engine: Engine, run: Run[Any], request: Request) -> int:
    if not request.quiet:
        progress = await engine.progress(run.id)
        say(
            f"Stopped. Nothing is lost: {progress.steps_done:,} of "
            f"{progress.steps_total:,} steps are recorded. Go on with:"
        )
        say(f"  {request.same_command(run.id)}")
    return Exit.INTERRUPTED


# --- how it ended ---------------------------------------------------------------------------------


def _report(info: RunInfo, request: Request, recorded: bool, crash_loop: bool = False) -> int:
    if request.as_json:
        echo_json(
            {
                "id": info.id,
                "status": info.status,
                "result": info.result,
                "error": info.error,
                "recorded": recorded,
            }
        )
    if info.status == lifecycle.COMPLETED:
        if recorded and not request.quiet:
            say(
                f"{info.id} completed at {format.clock(info.ended_at)}; this is its "
                f"recorded result. --again starts another run."
            )
        elif not request.quiet:
            begun_at = info.started_at or info.created_at
            took = format.between(begun_at, info.ended_at or info.created_at)
            say(f"{info.id}: completed in {took}")
        if not request.as_json:
            echo_result(info.result)
        return Exit.DONE
    say(*_what_went_wrong(info), *_what_next(info, request, crash_loop))
    return Exit.FAILED


def _what_went_wrong(info: RunInfo) -> list[str]:
    match info.status:
        case lifecycle.FAILED:
            return [
                f"{info.id} {status('failed')}: {format.error_line(info.error)}",
                *traces.trace(info.error),
            ]
        case lifecycle.BLOCKED:
            return as_lines(f"{info.id} is {status(lifecycle.BLOCKED)}: {info.reason}")
        case _:
            return [f"{info.id} was {status(info.status)}."]


def _what_next(info: RunInfo, request: Request, crash_loop: bool) -> list[str]:
    run = shlex.quote(info.id) + request.store_option
    found = [(f"perdure show {run}", "what it did, step by step")]
    if info.status == lifecycle.FAILED:
        found.append((f"perdure retry {run}", "do again what failed, when its cause is gone"))
    if crash_loop:
        found.append((f"perdure retry {run} && {request.same_command(info.id)}", "go on with it"))
    if info.status != lifecycle.BLOCKED:
        found.append((request.command("--again"), "start another run"))
    width = max(len(command) for command, _ in found)
    return [f"  {command.ljust(width)}   {what}" for command, what in found]

"""`run` and `worker`: the commands that execute runs.

Rules: the same command means the same run, unless --again says otherwise; however it ends, the person reads what is
recorded and which command goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from perdure.api import Call
from perdure.cli import loading, words
from perdure.cli.common import Exit, json_option, print_json, print_result, run_async, say, store_option
from perdure.cli.progress import Display, Snapshot, display
from perdure.cli.waits import waiting_line
from perdure.errors import PerdureError, RunNotFound
from perdure.runtime.engine import Engine, Run

POLL_SECONDS = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Request:
    """What the command line of `run` asks for."""

    target: str
    words: tuple[str, ...]
    run_id: str | None
    store: str
    again: bool
    as_json: bool
    quiet: bool

    def command(self, run_id: str) -> str:
        """The command that goes on with this run."""
        parts = ["perdure", "run", self.target, *self.words]
        if self.run_id is not None or self.again:
            parts += ["--id", run_id]
        return shlex.join(parts) + self.store_option

    @property
    def store_option(self) -> str:
        return "" if self.store == "perdure.db" else f" --store {shlex.quote(self.store)}"


@click.command(short_help="Run a workflow, or go on with it, showing progress.")
@click.argument("target", metavar="FILE[:WORKFLOW]")
@click.argument("words", metavar="[ARGS]...", nargs=-1)
@click.option("--id", "run_id", help="The run's id. Default: made from workflow and arguments, so the same command is the same run.")
@store_option
@click.option("--again", is_flag=True, help="Start another run even if these arguments had one.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def run(**given: Any) -> None:
    """Run a workflow of a Python file, and print its result.

    ARGS are converted to the types that the workflow's parameters have: as JSON where that fits, else as text;
    NAME=VALUE gives one by name. Put -- before arguments that begin with a dash.

    The same command goes on with the same run: after Ctrl-C, after kill -9, after a reboot. What was recorded is not
    done again. When the run had completed, its recorded result is printed; --again starts another one. With the --id
    of a run that exists, ARGS may be left out.

    \b
    Examples:
      perdure run app.py A-17 120
      perdure run app.py:refund order=A-17 amount=120
      perdure run app.py A-17 120 --again
      perdure run app.py A-17 120 --json --quiet | jq .result
    """
    raise click.exceptions.Exit(run_async(_run(Request(**given))))


@click.command(short_help="Execute runs until stopped.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@store_option
@click.option("--grace", default=10.0, show_default=True, metavar="SECONDS", help="How long running steps get to end after a stop.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing.")
def worker(files: tuple[str, ...], store: str, grace: float, quiet: bool) -> None:
    """Execute the runs of a store, with the workflows of these files, until stopped.

    Ctrl-C or SIGTERM drains: nothing new begins, running steps get the grace to end and be recorded. What is left
    goes on with the next worker. A second signal stops at once; nothing is lost then either.

    \b
    Examples:
      perdure worker app.py
      perdure worker flows/*.py --store /var/lib/app/perdure.db
    """
    run_async(_work(files, store, grace, say if not quiet else lambda text: None))


# --- run ------------------------------------------------------------------------------------------


async def _run(request: Request) -> int:
    path, name = loading.split_target(request.target)
    module = loading.load(path)
    workflows = loading.workflows_of(module)
    definition = loading.pick(module, workflows, name)
    with _stop_signals() as stopped:
        async with Engine(request.store, workflows=list(workflows.values())) as engine:
            run = await _known(engine, request)
            if run is None:
                call = loading.make_call(definition, request.words)
                run = await _begin(engine, request, call)
            else:
                await _begun(engine, run, request)
            return await _follow(engine, run, request, stopped)


async def _known(engine: Engine, request: Request) -> Run[Any] | None:
    """The run that --id names, where no arguments are given to start a new one."""
    if request.run_id is None or request.words or request.again:
        return None
    with contextlib.suppress(RunNotFound):
        return await engine.get(await engine.find(request.run_id))
    return None


async def _begin(engine: Engine, request: Request, call: Call[Any]) -> Run[Any]:
    run_id = request.run_id or loading.default_id(call)
    if request.again:
        run_id = await _fresh(engine, run_id)
    with contextlib.suppress(RunNotFound):
        await _begun(engine, await engine.get(run_id), request)
    return await engine.start(call, id=run_id)


async def _begun(engine: Engine, run: Run[Any], request: Request) -> None:
    """Say that there is something to go on with."""
    if request.quiet or (await run.info()).ended_at is not None:
        return
    progress = await engine.progress(run.id)
    say(f"resumed: {progress.steps_done:,} of {words.count(progress.steps_total, 'step')} were recorded")


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


async def _follow(engine: Engine, run: Run[Any], request: Request, stopped: asyncio.Event) -> int:
    info = await run.info()
    if info.ended_at is not None:
        return _report(info, request, recorded=True)
    shown = display(run.id, request.quiet)
    try:
        await _watch(engine, run, request, shown, stopped)
    finally:
        shown.close()
    info = await run.info()
    if info.ended_at is None and info.status != "blocked":
        return await _interrupted(engine, run, request)
    return _report(info, request, recorded=False)


async def _watch(engine: Engine, run: Run[Any], request: Request, shown: Display, stopped: asyncio.Event) -> None:
    """Show progress until the run has ended, is blocked, or somebody stops us."""
    ended = asyncio.ensure_future(_ended(run))
    stop = asyncio.ensure_future(stopped.wait())
    try:
        while True:
            snapshot = await _snapshot(engine, run, request)
            shown.show(snapshot)
            if snapshot.status == "blocked":
                return
            done, _ = await asyncio.wait({ended, stop}, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
    finally:
        ended.cancel()
        stop.cancel()


async def _ended(run: Run[Any]) -> None:
    with contextlib.suppress(PerdureError):  # how it ended is read from the record afterwards
        await run.result()


async def _snapshot(engine: Engine, run: Run[Any], request: Request) -> Snapshot:
    progress = await engine.progress(run.id)
    snapshot = Snapshot(progress.status, progress.steps_done, progress.steps_total, list(progress.running))
    if progress.status in ("waiting", "paused"):
        snapshot.waiting, snapshot.hint = waiting_line(await run.info(), request.store_option)
    return snapshot


async def _interrupted(engine: Engine, run: Run[Any], request: Request) -> int:
    if not request.quiet:
        progress = await engine.progress(run.id)
        say(f"Stopped. Nothing is lost: {progress.steps_done:,} of {words.count(progress.steps_total, 'step')} are recorded. Go on with:")
        say(f"  {request.command(run.id)}")
    return Exit.INTERRUPTED


# --- how it ended ---------------------------------------------------------------------------------


def _report(info: Any, request: Request, recorded: bool) -> int:
    if request.as_json:
        print_json({"id": info.id, "status": info.status, "result": info.result, "error": info.error, "recorded": recorded})
    if info.status == "completed":
        if recorded and not request.quiet:
            say(f"{info.id} completed at {words.clock(info.ended_at)}; this is its recorded result. --again starts another run.")
        elif not request.quiet:
            say(f"{info.id}: completed in {words.between(info.started_at or info.created_at, info.ended_at)}")
        if not request.as_json:
            print_result(info.result)
        return Exit.DONE
    say(_what_went_wrong(info))
    say(_what_next(info, request))
    return Exit.FAILED


def _what_went_wrong(info: Any) -> str:
    match info.status:
        case "failed":
            return f"{info.id} {words.status('failed')}: {words.error_line(info.error)}"
        case "blocked":
            return f"{info.id} is {words.status('blocked')}: {info.reason}"
        case _:
            return f"{info.id} was {words.status(info.status)}."


def _what_next(info: Any, request: Request) -> str:
    option = request.store_option
    lines = [(f"perdure show {info.id}{option}", "what it did, step by step")]
    if info.status == "failed":
        lines.append((f"perdure retry {info.id}{option}", "go on from the failed step, when its cause is gone"))
    if info.status == "blocked":
        lines.append((f"perdure resolve {info.id} --retry{option}", "try that step again; --result or --error say how it went"))
    if info.status != "blocked":
        lines.append((f"{shlex.join(['perdure', 'run', request.target, *request.words])} --again{option}", "start another run"))
    width = max(len(command) for command, _ in lines)
    return "\n".join(f"  {command.ljust(width)}   {what}" for command, what in lines)


# --- worker ---------------------------------------------------------------------------------------


async def _work(files: Sequence[str], store: str, grace: float, tell: Callable[[str], None]) -> None:
    workflows: dict[str, loading.AnyWorkflow] = {}
    for file in files:
        path, _ = loading.split_target(file)
        for name, definition in loading.workflows_of(loading.load(path)).items():
            if workflows.setdefault(name, definition).fn is not definition.fn:
                raise click.UsageError(f"{file} has a workflow {name!r}, and so has another of these files.")
    with _stop_signals() as stopped:
        async with Engine(store, workflows=list(workflows.values()), close_grace=grace):
            tell(f"Executing {', '.join(sorted(workflows))} from {store}. Ctrl-C stops and loses nothing.")
            await stopped.wait()
            tell(f"Stopping: running steps get {grace:g} s to end. Ctrl-C again stops at once.")
    tell("Stopped. What is left goes on with the next worker.")


@contextlib.contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second one stops the process as usual."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        stopped.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt instead
        for number in _SIGNALS:
            loop.add_signal_handler(number, stop)
    try:
        yield stopped
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

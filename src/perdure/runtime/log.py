"""Log records about runs, steps and workers: their messages, levels and fields, and a filter for
the lines of user code.

Rules: one line for each fact, a run's end after its commit; every record has the attributes in
`FIELDS`, None where one does not apply; loggers are `perdure.run`, `perdure.step` and
`perdure.worker`; no handler and no level is set here; logging never raises into the engine.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Collection, Sequence
from typing import Any, Protocol

import msgspec

from perdure.api import verbs
from perdure.codec.errors import decode_error, one_line
from perdure.codec.frames import place
from perdure.core.events import Command
from perdure.core.guard import inside
from perdure.errors import LeaseLost, PerdureError, brief
from perdure.runtime.steps import Again
from perdure.store.rows import WorkerEnded, WorkerRow

FIELDS = ("run_id", "workflow", "step", "seq", "attempt", "worker")
"""Attributes of a record: the run and its workflow, the step's name, its row and the attempt, and
the number of a worker.
"""

_NOTHING: dict[str, Any] = dict.fromkeys(FIELDS)
_run, _step, _worker = (logging.getLogger(f"perdure.{name}") for name in ("run", "step", "worker"))


class Subject(Protocol):
    """The run that a record is about."""

    @property
    def run_id(self) -> str: ...

    @property
    def workflow(self) -> str: ...


# --- runs -----------------------------------------------------------------------------------------


def run_failed(run: Subject, error_raw: bytes, *, child: bool, reported: bool) -> None:
    """A run has failed: an error; of a child a warning, because its parent decides what that means.

    The traceback comes with it unless it is `reported`: a caller that waits gets it with
    `RunFailed`.
    """
    level = logging.WARNING if child else logging.ERROR
    if _run.isEnabledFor(level):
        error = None if child or reported else decode_error(error_raw)
        _say(
            _run,
            level,
            _fields(run),
            "run %s (%s) failed: %s",
            run.run_id,
            run.workflow,
            _error_text(error_raw),
            error=error,
        )


def run_blocked(run: Subject, reason: str, error: BaseException | None = None) -> None:
    """A run is blocked until a person, or other code, changes something."""
    text = brief(reason, 1_000)
    _say(
        _run,
        logging.ERROR,
        _fields(run),
        "run %s (%s) is blocked: %s",
        run.run_id,
        run.workflow,
        text,
        error=error,
    )


def run_refused(run: Subject, error: PerdureError) -> None:
    """What a run did could not be written: another worker has taken it over, or the store does not
    take it.
    """
    level = logging.WARNING if isinstance(error, LeaseLost) else logging.ERROR
    _say(_run, level, _fields(run), "run %s (%s) stops here: %s", run.run_id, run.workflow, error)


def run_stopped(run: Subject, error: BaseException) -> None:
    """An error of Perdure's own in the middle of a run."""
    _say(
        _run,
        logging.ERROR,
        _fields(run),
        "run %s (%s) can't go on",
        run.run_id,
        run.workflow,
        error=error,
    )


def run_taken_over(run: Subject, steps: Sequence[tuple[Command, int]]) -> None:
    """A run goes on after the process that executed it has died during these attempts."""
    fields = _fields(run)
    if len(steps) == 1:
        ((command, attempt),) = steps
        fields = _fields(run, step=command.name, seq=command.seq, attempt=attempt)
        what = f"attempt {attempt} of step {command.name} (row {command.seq})"
    else:
        what = f"attempts of {len(steps):,} steps"
    _say(
        _run,
        logging.WARNING,
        fields,
        "run %s (%s) goes on here; its process died during %s",
        run.run_id,
        run.workflow,
        what,
    )


# --- steps ----------------------------------------------------------------------------------------


def attempt_failed(run: Subject, command: Command, again: Again, now_ms: int) -> None:
    """An attempt has failed and there will be another one."""
    if _step.isEnabledFor(logging.WARNING):
        attempt = again.attempt - 1
        wait_s = max(0, again.again_ms - now_ms) / 1000
        _say(
            _step,
            logging.WARNING,
            _fields(run, command.name, command.seq, attempt),
            "run %s: attempt %d of step %s (row %d) failed, the next one begins in %s s: %s",
            run.run_id,
            attempt,
            command.name,
            command.seq,
            f"{wait_s:.1f}" if wait_s >= 0.1 else f"{wait_s:g}",
            _error_text(again.note, "error"),
        )


def step_failed(run: Subject, command: Command, attempt: int, failure_raw: bytes) -> None:
    """The last attempt of a step has failed; the workflow gets the error."""
    if _step.isEnabledFor(logging.WARNING):
        _say(
            _step, logging.WARNING, _fields(run, command.name, command.seq, attempt),
            "run %s: attempt %d of step %s (row %d) failed, and there is no other one: %s",
            run.run_id, attempt, command.name, command.seq, _error_text(failure_raw, "error"),
        )  # fmt: skip


# --- workers --------------------------------------------------------------------------------------


def worker_dead(worker: WorkerRow, ended: WorkerEnded) -> None:
    """A worker was found dead: its runs go on, but for those over which too many processes have
    died.
    """
    own = _NOTHING | {"worker": worker.worker}
    what = f"its runs ({ended.freed}) go on where a worker is alive"
    left = what if ended.freed else "it leaves no run to go on with"
    text = "worker %d (%s, pid %s) is dead; %s"
    _say(_worker, logging.WARNING, own, text, worker.worker, worker.name, worker.pid, left)
    for run_id, workflow, reason in ended.blocked:
        fields = own | {"run_id": run_id, "workflow": workflow}
        _say(_run, logging.ERROR, fields, "run %s (%s) is blocked: %s", run_id, workflow, reason)


def lease_lost(worker: int) -> None:
    """This worker was taken for dead."""
    _say(
        _worker,
        logging.ERROR,
        _NOTHING | {"worker": worker},
        "worker %d lost its lease; it drops its runs and joins anew",
        worker,
    )


def unknown_workflow(worker: int, workflow: str, run_id: str, known: Collection[str]) -> None:
    """A run is due and no worker has taken it."""
    _say(
        _worker,
        logging.WARNING,
        _NOTHING | {"run_id": run_id, "workflow": workflow, "worker": worker},
        "run %s is due, but no worker knows its workflow %r: pass it as "
        "Engine(workflows=[...]), or name its file to `perdure worker`. "
        "Known here: %s",
        run_id,
        workflow,
        ", ".join(sorted(known)) or "none",
    )


# --- lines of user code ---------------------------------------------------------------------------


class RunContextFilter(logging.Filter):
    """Adds to every record which run, step and attempt it was logged in; give it to a handler, not
    to a logger.

    The attributes are `run_id`, `workflow`, `step`, `seq` (the step's row in the history),
    `attempt` and `worker`; one that does not apply, and all of them outside of runs, are `default`.
    What a caller has set by `extra` stays. Of workflow code only what is logged while it runs for
    the first time passes, not what it says again on replay.

    >>> handler = logging.StreamHandler()
    >>> handler.addFilter(RunContextFilter())
    >>> handler.setFormatter(
    ...     logging.Formatter("%(levelname)s [%(run_id)s %(step)s#%(attempt)s] %(message)s")
    ... )
    """

    def __init__(self, *, default: object = "-") -> None:
        super().__init__()
        self.default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be handled; sets its attributes."""
        found: dict[str, Any] = {}
        if inside.loop is not None:
            if inside.muted:
                return False
            found = _fields(inside.loop.owner.facts)
        elif (attempt := verbs._attempt.get()) is not None:
            found = _fields(attempt, attempt.step, attempt.seq, attempt.attempt)
        for name in FIELDS:
            if getattr(record, name, None) is None:
                value = found.get(name)
                setattr(record, name, self.default if value is None else value)
        return True


# --- inside ---------------------------------------------------------------------------------------


def _fields(
    run: Subject, step: str | None = None, seq: int | None = None, attempt: int | None = None
) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "workflow": run.workflow,
        "step": step,
        "seq": seq,
        "attempt": attempt,
        "worker": None,
    }


def _say(
    logger: logging.Logger,
    level: int,
    fields: dict[str, Any],
    text: str,
    *args: object,
    error: BaseException | None = None,
) -> None:
    """Log a record; a filter of the application that fails costs the line, and not the run that it
    is about.
    """
    try:
        logger.log(level, text, *args, extra=fields, exc_info=error, stacklevel=3)
    except Exception:
        if logging.raiseExceptions:
            traceback.print_exc()


def _error_text(raw: bytes, key: str | None = None) -> str:
    """A recorded error on one line, with the line of the user's code that it began in."""
    error = msgspec.json.decode(raw)
    error = error if key is None else error[key]
    where = place(error)
    return brief(one_line(error)) + (f" ({where})" if where else "")

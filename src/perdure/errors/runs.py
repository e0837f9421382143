"""Errors of runs and engines: ids, ends, limits, and the reasons of a blocked run."""

from __future__ import annotations

from shlex import quote  # an id may hold what a shell obeys
from typing import Self

from perdure.errors.base import PerdureError


class RunNotFound(PerdureError, LookupError):
    """No run has this id, or several runs have this prefix."""

    CANDIDATES_MAX = 10

    def __init__(self, run_id: str, candidates: tuple[str, ...] = ()) -> None:
        self.run_id, self.candidates = run_id, candidates
        if candidates:
            more = " and others" if len(candidates) > self.CANDIDATES_MAX else ""
            text = (
                f"{run_id!r} is the beginning of several run ids: "
                f"{', '.join(candidates[: self.CANDIDATES_MAX])}{more}. Give more of it."
            )
        else:
            text = f"There is no run {run_id!r} in this store. `perdure ls` lists the runs."
        super().__init__(text)

    @classmethod
    def pruned(cls, run: int) -> Self:
        """The run with this key was deleted while it was looked at."""
        error = cls.__new__(cls)
        error.run_id, error.candidates = f"number {run}", ()
        PerdureError.__init__(
            error,
            f"Run number {run} is not in this store any more: it has ended, and was deleted when "
            "its time was over (Retention). `perdure ls` lists the runs.",
        )
        return error


class RunExists(PerdureError):
    """The id is taken by a run of another workflow or with other arguments.

    `run` is the key of that run. `compare` has the keys of runs under the id whose arguments may be
    equal, though written differently.
    """

    ADVICE = (
        "Choose another id, or start it with the same workflow and arguments to get the existing "
        "run."
    )

    def __init__(
        self,
        run_id: str,
        difference: str,
        run: int = 0,
        compare: tuple[int, ...] = (),
        advice: str = ADVICE,
    ) -> None:
        self.run_id, self.difference, self.run, self.compare = run_id, difference, run, compare
        super().__init__(f"Run {run_id!r} exists already, and {difference}. {advice}")


class RunFinished(PerdureError):
    """The run has ended: no message, cancel, pause or resume reaches it."""

    def __init__(self, run_id: str, status: str, verb: str) -> None:
        self.run_id, self.status = run_id, status
        super().__init__(
            f"Can't {verb} run {run_id!r}: it has ended ({status}). `perdure fork` starts "
            f"a new run from any point of it."
        )


class InboxFull(PerdureError):
    """The inbox of a run has reached its limit."""

    def __init__(self, run_id: str, limit_rows: int) -> None:
        self.run_id, self.limit_rows = run_id, limit_rows
        super().__init__(
            f"The inbox of run {run_id!r} is full: {limit_rows:,} messages wait to be received, "
            f"or did not fit what it receives. "
            "Let the run catch up, or raise the limit inbox_rows_max."
        )


class RunFailed(PerdureError):
    """A run ended with an error; `__cause__` is that error, rebuilt from the record."""

    def __init__(self, run_id: str, error: str) -> None:
        self.run_id, self.error = run_id, error
        super().__init__(
            f"Run {run_id!r} failed: {error.rstrip('.')}. "
            f"`perdure show {quote(run_id)}` shows where; `perdure retry {quote(run_id)}` does "
            f"again what failed, and keeps the rest."
        )


class RunCancelled(PerdureError):
    """A run was cancelled before it had a result."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(
            f"Run {run_id!r} was cancelled, so it has no result. Start a new run, or fork this one."
        )


class RunBlocked(PerdureError):
    """A run that waits for a person; `reason` says what for."""

    def __init__(self, run_id: str, reason: str) -> None:
        self.run_id, self.reason = run_id, reason
        super().__init__(f"Run {run_id!r} is blocked and needs a person: {reason}")


class Nondeterminism(RunBlocked):
    """Workflow code asked for something other than its history records."""


class CrashLoop(RunBlocked):
    """A run during which the process died too often without any progress."""

    def __init__(self, run_id: str, crashes: int) -> None:
        self.crashes = crashes
        super().__init__(
            run_id,
            f"the process died {crashes} times while it executed this run, and the run recorded "
            "nothing in between. Unless it was killed on purpose, find out why; it goes on with: "
            f"perdure retry {quote(run_id)}",
        )


class RefusalIgnored(RunBlocked):
    """Workflow code swallowed a refusal and went on; `line` is where it was refused."""

    def __init__(self, run_id: str, what: str, line: str) -> None:
        self.what, self.line = what, line
        super().__init__(
            run_id,
            f"a refusal was swallowed.\n  refused: {what}\n  at:      {line}\n"
            "Nothing that the run asked for since then was done or written. Fix the code "
            "and start it again: await a @step or "
            "receive a message in place of that, or let the error through. "
            f"`perdure retry {run_id}` has it go on from its history.",
        )


class HistoryTooLong(RunBlocked):
    """A history reached its limit of rows."""

    @staticmethod
    def describe(rows: int, rows_max: int, run_id: str) -> str:
        """The text for the run's `reason`."""
        return (
            f"its history has {rows:,} rows and the limit is {rows_max:,}. Let the workflow go "
            f"on with continue_as() before that; "
            f"to finish this run, raise Limits(history_rows_max=...) and `perdure retry "
            f"{quote(run_id)}`"
        )


class EndlessTurn(PerdureError, RuntimeError):
    """Workflow code ran to the limit of callbacks without waiting for anything durable."""

    def __init__(self, callbacks_max: int) -> None:
        super().__init__(
            f"The workflow ran {callbacks_max:,} callbacks without waiting for anything durable. "
            "A loop over asyncio.sleep(0)? Await a step, a timer or a message in it."
        )


class UnknownWorkflow(PerdureError, LookupError):
    """No workflow of this name is registered in this engine."""

    def __init__(self, name: str, known: tuple[str, ...] = ()) -> None:
        self.name = name
        have = f"Known here: {', '.join(known)}." if known else "None is registered here."
        super().__init__(
            f"No workflow is called {name!r}. {have} Pass it as Engine(..., workflows=[{name}])."
        )


class EngineClosed(PerdureError, RuntimeError):
    """The engine was not entered yet, or is closed."""

    def __init__(self) -> None:
        super().__init__(
            "This engine is not open. Use it inside `async with Engine(...) as engine:`."
        )

"""The error tree: every class owns its message, and every message says what to do next.

Rules: errors carry their facts as attributes; no class is raised with a free text of the caller's
where the class can build the sentence itself; nothing here imports anything of Perdure.
"""

from __future__ import annotations

from shlex import quote  # an id may hold what a shell obeys


class PerdureError(Exception):
    """The root of everything that Perdure raises on purpose."""


# --- runs -----------------------------------------------------------------------------------------


class RunNotFound(PerdureError, LookupError):
    """No run has this id, or no single run has this prefix."""

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


class RunExists(PerdureError):
    """The id is taken by a run of another workflow or with other arguments.

    `run` is the key of that run, `compare` has those of runs under the id whose arguments may be
    equal, though written differently.
    """

    def __init__(
        self, run_id: str, difference: str, run: int = 0, compare: tuple[int, ...] = ()
    ) -> None:
        self.run_id, self.difference, self.run, self.compare = run_id, difference, run, compare
        super().__init__(
            f"Run {run_id!r} exists already, and {difference}. Choose another id, "
            "or start it with the same workflow and arguments to get the existing run."
        )


class RunFinished(PerdureError):
    """The run has ended, so it can't be sent to, cancelled, paused or resumed."""

    def __init__(self, run_id: str, status: str, verb: str) -> None:
        self.run_id, self.status = run_id, status
        super().__init__(
            f"Can't {verb} run {run_id!r}: it has ended ({status}). `perdure fork` starts "
            f"a new run from any point of it."
        )


class InboxFull(PerdureError):
    """A run has as many messages waiting as it may have."""

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
            f"`perdure show {quote(run_id)}` tells where; `perdure retry {quote(run_id)}` does "
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
    """A run waits for a person: its reason says what for."""

    def __init__(self, run_id: str, reason: str) -> None:
        self.run_id, self.reason = run_id, reason
        super().__init__(f"Run {run_id!r} is blocked and needs a person: {reason}")


class Nondeterminism(RunBlocked):
    """Workflow code asked for something else than the history records."""


class RefusalIgnored(RunBlocked):
    """Workflow code went on after it was refused something, as if that had not happened; `line` is
    where that was.
    """

    def __init__(self, run_id: str, what: str, line: str) -> None:
        self.what, self.line = what, line
        super().__init__(
            run_id,
            f"a refusal was swallowed.\n  refused: {what}\n  at:      {line}\n"
            "Nothing that the run asked for since then was done or written. Put the code right "
            "and start it again: await a @step or "
            "receive a message in place of that, or let the error through. "
            f"`perdure retry {run_id}` has it go on from its history.",
        )


class HistoryTooLong(RunBlocked):
    """A history reached its limit of rows."""

    @staticmethod
    def words(rows: int, rows_max: int, run_id: str) -> str:
        """The reason that stands at the run."""
        return (
            f"its history has {rows:,} rows and the limit is {rows_max:,}. Let the workflow go "
            f"on with continue_as() before that; "
            f"to finish this run, raise Limits(history_rows_max=...) and `perdure retry "
            f"{quote(run_id)}`"
        )


class UnknownWorkflow(PerdureError, LookupError):
    """No workflow of this name is registered here."""

    def __init__(self, name: str, known: tuple[str, ...] = ()) -> None:
        self.name = name
        have = f"Known here: {', '.join(known)}." if known else "None is registered here."
        super().__init__(
            f"No workflow is called {name!r}. {have} Pass it as Engine(..., workflows=[{name}])."
        )


# --- code -----------------------------------------------------------------------------------------


class DefinitionError(PerdureError, TypeError):
    """A decorator or an option is used in a way that can't work."""


class BadName(DefinitionError, ValueError):
    """A channel, stream, queue, tag, message key or id that can't be stored under this name."""

    def __init__(self, what: str, detail: str) -> None:
        self.what, self.detail = what, detail
        super().__init__(f"This can't be a {what}: {detail}. Give it a name of printable text.")


class BadPosition(DefinitionError, ValueError):
    """A position from which a stream can't be read on, because no item of this stream
    stands there.
    """

    def __init__(self, run_id: str, stream: str, position: int, detail: str) -> None:
        self.run_id, self.stream, self.position = run_id, stream, position
        super().__init__(
            f"Stream {stream!r} of run {run_id!r} can't be read on from position {position}: "
            f"{detail}. Pass one that "
            "stream_with_positions() has given for it in this store, or 0 for all items."
        )


class NotInWorkflow(PerdureError, RuntimeError):
    """A workflow or step verb was used where no run is being executed."""

    def __init__(self, verb: str, instead: str) -> None:
        super().__init__(f"{verb} works only inside a {instead}.")


class NotDeterministic(PerdureError, RuntimeError):
    """Workflow code did something that can't be replayed: I/O, a thread, a subprocess."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"{what} inside workflow code can't be replayed after a crash. Wrap this in a "
            f"@step and await the step instead."
        )


# --- steps ----------------------------------------------------------------------------------------


class StepFailed(PerdureError):
    """A step gave up; `__cause__` is the last attempt's error, rebuilt from the record."""

    def __init__(self, step: str, attempts: int, error: str) -> None:
        self.step, self.attempts, self.error = step, attempts, error
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        super().__init__(f"Step {step} failed after {times}: {error}")


class StepTimeout(StepFailed, TimeoutError):
    """The last attempt of a step took longer than its timeout."""


class NotAllowedInStep(DefinitionError, AttributeError):
    """A transactional step did what its connection is not for."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(
            f"A transactional step can't do this: {detail}. All that it wrote is undone if "
            f"it does not go on without it."
        )


class TransactionEnded(PerdureError):
    """SQL of a transactional step made SQLite roll the whole transaction back."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(
            f"SQLite rolled the step's transaction back "
            f"({detail or 'without an error that the step let through'}), so nothing that the "
            "step wrote is kept. OR ROLLBACK, RAISE(ROLLBACK, ...) and a full disk do that; OR "
            "ABORT and `with db:` undo "
            "one statement, or one block."
        )


class RecordedError(PerdureError):
    """Stands for an error whose class can't be rebuilt here; the text is the original's, and
    `fields` are its recorded attributes.
    """

    def __init__(self, type_name: str, message: str, fields: object = None) -> None:
        self.type_name, self.message = type_name, message
        self.fields: dict[str, object] = fields if isinstance(fields, dict) else {}
        super().__init__(f"{type_name}: {message}" if message else type_name)


class TouchedFromOutside(PerdureError, RuntimeError):
    """Code outside of a run woke what the run waits for: an event, a future, a queue, a task."""

    def __init__(self, run_id: str) -> None:
        self.run_id, self.what = (
            run_id,
            (
                f"Using an event, future, queue or task of run {run_id!r} outside of the "
                f"workflow's own code"
            ),
        )
        super().__init__(
            f"An event, future, queue or task of run {run_id!r} was used outside of the "
            f"workflow's own code. No row would record that, and "
            "a replay would not know of it. Send a message: engine.send(id, value, "
            "channel=...), and receive() it in the workflow."
        )


# --- values ---------------------------------------------------------------------------------------


class NotSerializable(PerdureError, TypeError):
    """A value can't be stored, or would not come back the same."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, detail
        super().__init__(f"{where} can't be stored: {detail}")


class DoesNotFit(NotSerializable):
    """Recorded or received data is not of the type that code asks for."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, detail
        PerdureError.__init__(self, f"{where} does not fit: {detail}")


class PayloadTooLarge(PerdureError, ValueError):
    """A value is larger than the limit for one payload."""

    def __init__(self, where: str, size_bytes: int, limit_bytes: int) -> None:
        self.where, self.size_bytes, self.limit_bytes = where, size_bytes, limit_bytes
        super().__init__(
            f"{where} is {size_bytes:,} bytes as JSON; the limit is {limit_bytes:,}. Keep large "
            f"data in a file "
            "or bucket and pass its name, or raise Limits(payload_bytes_max=...)."
        )


# --- stores ---------------------------------------------------------------------------------------


class StoreError(PerdureError):
    """Something is wrong with the store, not with a run."""


class StoreNotFound(StoreError, FileNotFoundError):
    """There is no file at the store's path."""

    def __init__(self, path: str) -> None:
        self.path = path
        StoreError.__init__(
            self,
            f"There is no store at {path!r}. `perdure init` writes an app to start from, the "
            f"first run makes "
            "the file; --store or PERDURE_STORE names another one.",
        )

    def __str__(self) -> str:
        return str(self.args[0])


class StoreLocked(StoreError):
    """Another process kept the file locked for too long."""

    def __init__(self, path: str, waited_ms: int) -> None:
        self.path, self.waited_ms = path, waited_ms
        super().__init__(
            f"The store {path!r} stayed locked by another process for {waited_ms} ms. Nothing "
            f"was written; "
            "close the program that holds a transaction open on it and try again."
        )


class StoreCorrupt(StoreError):
    """The file is not a database, is damaged, or belongs to another program."""

    def __init__(self, path: str, detail: str) -> None:
        self.path, self.detail = path, detail
        super().__init__(
            f"The store {path!r} can't be used: {detail}. It was left untouched. Restore a "
            f"copy, or name another file."
        )


class StoreTooNew(StoreError):
    """The file was written by a newer Perdure."""

    def __init__(self, path: str, found: int, known: int) -> None:
        self.path, self.found, self.known = path, found, known
        super().__init__(
            f"The store {path!r} has schema version {found}; this Perdure knows versions up to "
            f"{known}. "
            "It was left untouched. Upgrade perdure to open it."
        )


class StoreReadOnly(StoreError):
    """The file or its folder can't be written."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"The store {path!r} can't be written: the file or its folder is read-only. Mend "
            f"the permissions; "
            "`perdure.connect` and `perdure ls` can read it as it is."
        )


class StoreFull(StoreError):
    """The disk is full; what was recorded before is safe."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"The disk under {path!r} is full. Nothing that was recorded is lost; free "
            f"some space and the runs go on by themselves."
        )


class StoreReplaced(StoreError):
    """The file was deleted, moved or replaced under a running engine."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"The store {path!r} was deleted, moved or replaced while this engine had it open. "
            f"The engine has stopped and has not "
            "touched what is there now; what it wrote in the last seconds is in the file that "
            "it had. Put the right file in place "
            "and start again; stop every engine before you move a store."
        )


class StoreUnavailable(StoreError):
    """The store failed in another way; the text is the database's own, or says why the file was not
    even opened.
    """

    def __init__(self, path: str, detail: str, *, opened: bool = True) -> None:
        self.path, self.detail = path, detail
        later = (
            " What was committed before is safe; `perdure doctor` looks closer." if opened else ""
        )
        super().__init__(
            f"The store {path!r} {'failed' if opened else 'could not be opened'}: {detail}.{later}"
        )


class WriteRefused(PerdureError):
    """One write can't be stored as it is; the store and all other writes are well."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(
            f"This can't be stored: {detail}. Nothing of it was written, and nothing else "
            f"is affected."
        )


class UsedAfterFork(StoreError, RuntimeError):
    """An engine, or the file that it has open, was used in a child that was forked from the
    engine's process.
    """

    def __init__(self, parent: int) -> None:
        self.parent = parent
        StoreError.__init__(
            self,
            f"This process is a fork of process {parent}, which has the store open, so neither "
            f"the engine nor the file can be used here: "
            "SQLite's locks do not survive a fork. Enter the engine after the fork, in each "
            "worker; with multiprocessing use the start "
            'method "spawn" or "forkserver".',
        )


class LeaseLost(StoreError):
    """Another process has taken over what this one was executing."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        super().__init__(
            f"{owner} lost its lease, and another process may have taken over its runs, so "
            f"nothing more was "
            "written. Start the engine again to take part."
        )


class EngineClosed(PerdureError, RuntimeError):
    """The engine was not entered yet, or has been closed."""

    def __init__(self) -> None:
        super().__init__(
            "This engine is not open. Use it inside `async with Engine(...) as engine:`."
        )


def brief(text: str, chars_max: int = 300) -> str:
    """What another program said, on one line that fits a message: a proxy's error may be a whole
    page.

    >>> brief("502: <html>\\n  <body>\\x1b[1mBad Gateway", 20)
    '502: <html> <body> …'
    """
    line = " ".join(
        "".join(char if char.isprintable() else " " for char in text[: 10 * chars_max]).split()
    )
    return line if len(line) <= chars_max else line[: chars_max - 2].rstrip() + " …"


def chain(error: BaseException | None) -> list[BaseException]:
    """An error and all that it grew out of: causes, contexts, members of groups.

    >>> chain(ExceptionGroup("several", [ValueError("one")]))[1:]
    [ValueError('one')]
    """
    found: dict[int, BaseException] = {}
    todo = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in found:
            continue
        found[id(one)] = one
        todo += [
            one.__cause__,
            one.__context__,
            *(one.exceptions if isinstance(one, BaseExceptionGroup) else ()),
        ]
    return list(found.values())

"""Errors of the store: the file, its disk, its lock, its owner."""

from __future__ import annotations

from perdure.errors.base import PerdureError


class StoreError(PerdureError):
    """The store failed, not a run."""


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


class SecretsMissing(StoreError):
    """A run needs secrets that were left out when it was exported."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"The run came into {path!r} without its secrets, which an export leaves out. It can "
            "be shown, and neither continued nor asked for a result that has one. Export it again "
            "with `perdure export --with-secrets`."
        )


class StoreReadOnly(StoreError):
    """The file or its folder can't be written; with `wal` it can't be read there, either."""

    def __init__(self, path: str, *, wal: bool = False) -> None:
        self.path = path
        read_only = "the file or its folder is read-only"
        super().__init__(
            f"The store {path!r} can't be read where it lies: it has a WAL, and {read_only}. Copy "
            f"it and {path + '-wal'!r} together to a folder of yours, and open that."
            if wal
            else f"The store {path!r} can't be written: {read_only}. Fix the permissions; the "
            "commands that look, `perdure ui` and `perdure.connect` read it as it is."
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
    """Another failure of the database, with its own text, or why the file could not be opened."""

    def __init__(self, path: str, detail: str, *, opened: bool = True) -> None:
        self.path, self.detail = path, detail
        later = (
            " What was committed before is safe; `perdure doctor` looks closer." if opened else ""
        )
        super().__init__(
            f"The store {path!r} {'failed' if opened else 'could not be opened'}: {detail}.{later}"
        )


class WriteRefused(PerdureError):
    """One write can't be stored; no other write is affected."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(
            f"This can't be stored: {detail}. Nothing of it was written, and nothing else "
            f"is affected."
        )


class UsedAfterFork(StoreError, RuntimeError):
    """An engine or its open file was used in a process forked from the engine's own."""

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
    """The lease of this process has expired; another process may own its runs."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        super().__init__(
            f"{owner} lost its lease, and another process may have taken over its runs, so "
            f"nothing more was "
            "written. Start the engine again to take part."
        )

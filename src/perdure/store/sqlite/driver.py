"""The SQLite store: one connection that writes, one that reads.

Rules: a batch is one `BEGIN IMMEDIATE … COMMIT`; rows of history are inserted together at its end;
a refused write is an error value among the results; any other error rolls the whole batch back:
`BatchRolledBack` where it is about one write, a `StoreError` where the store takes none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, cast

import apsw
import msgspec

from perdure.core.limits import Limits
from perdure.errors import (
    PerdureError,
    StoreReplaced,
    StoreTooNew,
    StoreUnavailable,
)  # fmt: skip
from perdure.store import sql
from perdure.store.sqlite import checksum, connection, forked
from perdure.store.sqlite.applying import Applier
from perdure.store.sqlite.authorizer import Guard, RolledBack
from perdure.store.sqlite.checksum import HistoryChecksum
from perdure.store.sqlite.lease_connection import SqliteLeaseConnection
from perdure.store.writes import (
    AdoptChild,
    Append,
    BatchRolledBack,
    BeginEpoch,
    Claim,
    ClockMovedBack,
    ControlRun,
    Deliver,
    Emit,
    EndWorker,
    ForkRun,
    JoinWorker,
    RecordHeartbeat,
    RenewLease,
    StartRun,
    Transact,
    Turn,
    WakeBlocked,
    Write,
    counts_for_replica,
)

Q = sql.load("sqlite.sql")
_json = msgspec.json.Encoder()
_OF_ONE_WRITE = (apsw.ConstraintError, apsw.MismatchError, apsw.RangeError, apsw.TooBigError)


class SqliteStore(Applier):
    """See `base.Store`. `path` is a file name, or `:memory:` for a store that ends with the
    process.
    """

    def __init__(
        self, path: str, *, limits: Limits, create: bool = True, vfs: str | None = None
    ) -> None:
        self.path, self.limits, self._vfs = path, limits, vfs
        self._db = connection.open_writer(path, create=create, vfs=vfs)
        self._cursor = self._db.cursor()
        try:
            reader = self._db if path == ":memory:" else connection.open_reader(path, vfs=vfs)
        except BaseException:
            self._db.close()
            raise
        super().__init__(reader, path)
        self._waits_for_lock = True
        self.commit_ms = 0.0
        self._version = self._data_version()
        self._own_version = -1
        self._sealed, self._added = False, checksum.Additions()
        self._owners: dict[
            int, int
        ] = {}  # of runs, as looked up since another connection last committed
        self._alive: set[int] = set()  # workers, likewise
        self._files = connection.files_of(path)  # only now there is a WAL
        self._guard = Guard(self._db)
        forked.watch(self)
        self._rows: list[tuple[Any, ...]] = []
        self._digests: dict[int, dict[bytes, int]] = {}
        self._apply: dict[type, Callable[[Any], Any]] = {
            Append: self._append_rows,
            Turn: self._turn,
            StartRun: self._start,
            Deliver: self._deliver,
            ControlRun: self._control,
            ForkRun: self._fork,
            Claim: self._claim,
            JoinWorker: self._join,
            RenewLease: self._keep_lease,
            AdoptChild: self._adopt_child,
            EndWorker: self._end_worker,
            WakeBlocked: self._wake_blocked,
            Emit: self._emit,
            RecordHeartbeat: self._record_heartbeat,
            Transact: self._transact,
            ClockMovedBack: self._clock_moved_back,
            BeginEpoch: self._begin_epoch,
        }

    # --- the one door in --------------------------------------------------------------------------

    def write(self, batch: Sequence[Write], wait_for_lock: bool) -> list[Any | PerdureError]:
        """See `base.Store`."""
        if self.damaged is not None:
            raise self.damaged
        if wait_for_lock is not self._waits_for_lock:
            self._db.set_busy_timeout(connection.BUSY_MS if wait_for_lock else 0)
            self._waits_for_lock = wait_for_lock
        done: list[Any] = []
        try:
            self._write(batch, done)
        except apsw.Error as error:
            if not isinstance(error, _OF_ONE_WRITE):
                raise self._failed(error, self._db.system_errno) from error
            raise _rolled_back(batch, done) from error
        except MemoryError as error:
            raise StoreUnavailable(
                self.path, "there was not enough memory for a transaction"
            ) from error
        except UnicodeDecodeError as error:
            raise self._failed(error) from error
        except PerdureError:
            raise
        except RolledBack as error:
            if len(batch) > 1:
                raise _rolled_back(batch, done) from error
            return self.write([_failing(batch[0], error)], wait_for_lock)
        except Exception as error:
            raise _rolled_back(batch, done) from error
        return done

    def _write(self, batch: Sequence[Write], results: list[Any]) -> None:
        db, execute, apply = self._db, self._cursor.execute, self._apply
        if db.in_transaction:
            self._undo()  # what could not be undone at once, as when memory ran out
        execute("BEGIN IMMEDIATE")
        try:
            if db.data_version("main") != self._own_version:
                self._look_again()
            changes = db.total_changes() if self._sealed else 0
            for write in batch:  # at an error `results` holds those before it
                results.append(apply[type(write)](write))  # noqa: PERF401
            if self._rows:
                self._flush()
            if self._sealed and counts_for_replica(batch) and self._changed_since(changes):
                self._added.write(db)
            begin = perf_counter()
            execute("COMMIT")
            self.commit_ms = (perf_counter() - begin) * 1000
            self._own_version = db.data_version("main")
        except BaseException:
            self._undo()
            raise

    def _look_again(self) -> None:
        """Another connection has committed: owners may be others, and if a newer Perdure has
        migrated the file we leave it alone.
        """
        self._forget_owners()
        self._look_for_checksum()
        (version,) = self._one("PRAGMA user_version")
        if version > connection.SCHEMA_VERSION:
            raise StoreTooNew(self.path, version, connection.SCHEMA_VERSION)

    def _look_for_checksum(self) -> None:
        if not self._sealed and self._one(Q["read_checksum"]) is not None:
            self._sealed = True
            checksum.leave_checkpoints(self._db)
            checksum.leave_checkpoints(self._read)

    def begin_epoch(self, store_id: str, address: str, epoch: int) -> None:
        """Make this a replicated file; from here on Litestream alone checkpoints it. Raises what
        the store fails with.
        """
        try:
            checksum.put(self._db, store_id, address, epoch)
        except apsw.Error as error:
            raise self._failed(error, self._db.system_errno) from error

    def checksum(self) -> HistoryChecksum | None:
        """The seal as of the last commit."""
        found = self._all("read_checksum")
        return HistoryChecksum(*found[0]) if found else None

    def _changed_since(self, changes: int) -> bool:
        """Whether this transaction has changed anything: a refusal, or an empty claim, has not."""
        # a statement that is not read to its end has not counted its changes yet
        self._cursor.fetchall()
        return self._db.total_changes() != changes

    def _undo(self) -> None:
        self._rows.clear()
        self._added.forget()
        self._digests.clear()
        self._forget_owners()
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def changed_by_others(self) -> bool:
        """Whether another connection has committed since the last call; call it when
        nobody writes.
        """
        version, self._version = self._version, self._data_version()
        return version != self._version

    def _data_version(self) -> int:
        return int(self.pragma("data_version", self._db))

    @property
    def file(self) -> connection.Identity:
        """The file that we have open, whatever its path names by now."""
        return next(iter(self._files.values()), None) or (0, 0)

    def lease_connection(self, busy_ms: int) -> SqliteLeaseConnection | None:
        """A connection for a worker's beats; None where no other process can see them. Raises what
        the store fails with.
        """
        return (
            None
            if self.path == ":memory:"
            else SqliteLeaseConnection(self, self._files, self._vfs, busy_ms)
        )

    def check_identity(self) -> None:
        """Raise `StoreReplaced` if our paths name other files by now, `StoreTooNew` if a newer
        Perdure has migrated ours.
        """
        if (lost := connection.lost_file(self._files)) is not None:
            with (
                self.beating
            ):  # a beat that comes between would stay in the WAL, beside what is the file now
                self.replaced = StoreReplaced(lost)
                self._read.set_busy_timeout(0)
                connection.abandon(self._read, self._files)
            raise self.replaced
        version = int(self.pragma("user_version"))
        if version > connection.SCHEMA_VERSION:
            raise StoreTooNew(self.path, version, connection.SCHEMA_VERSION)

    def in_child(self) -> None:
        """See `forked`: nothing of this store can be used in a child."""
        for identity in self._files.values():
            forked.inherited(identity)
        self._db = self._read = self._cursor = dead = cast("Any", forked.Dead())
        self._guard.in_child(dead)

    def close(self) -> None:
        """Refresh the planner's statistics where they are stale, and let go of the file."""
        try:
            if self.damaged is not None:
                connection.leave_as_it_is(self._db)  # who mends it shall find it as it was found
                connection.leave_as_it_is(self._read)
            elif connection.lost_file(self._files) is None:
                self._db.execute("PRAGMA optimize")
            else:
                connection.abandon(self._db, self._files)
        except apsw.Error:
            pass  # full, locked or read-only: a worse plan next time is the whole loss
        forked.unwatch(self)
        self._read.close()
        self._db.close()


def _rolled_back(batch: Sequence[Write], done: list[Any]) -> BatchRolledBack:
    """The first write without a result is the one that failed; with all of them applied, it was one
    of the rows at the end.
    """
    return BatchRolledBack(len(done) if len(done) < len(batch) else None)


def _failing(write: Write, ended: RolledBack) -> Transact:
    """The transactional step that made SQLite roll back, as one that fails with that: its failure
    needs a transaction of its own.
    """
    assert isinstance(write, Transact)

    def work(db: Any) -> Any:
        raise ended.error from ended.__cause__

    return Transact(write.run, write.owner, work, write.conclude)

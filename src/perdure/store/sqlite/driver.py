"""The SQLite store: one connection, and a second one for reads during a write.

Rules: a batch is one `BEGIN IMMEDIATE … COMMIT`; a refused write is an error value among the
results; any other error rolls the whole batch back: `BatchRolledBack` where it is about one write,
a `StoreError` where the store takes none. What a write does is decided in `store.transitions`. A
read never waits for a write: while a thread writes, it goes to a second connection, which is opened
when it is first needed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import apsw

from perdure.codec.secrets import Redaction
from perdure.core.limits import Limits
from perdure.errors import PerdureError, StoreReplaced, StoreTooNew, StoreUnavailable
from perdure.store.sqlite import checksum, connection, error_map, files, forked
from perdure.store.sqlite.authorizer import RolledBack
from perdure.store.sqlite.lease_connection import SqliteLeaseConnection
from perdure.store.sqlite.queries import Q
from perdure.store.sqlite.reader import Reader
from perdure.store.sqlite.transaction import SqliteTransaction
from perdure.store.transitions import Transitions
from perdure.store.writes import BatchRolledBack, Transact, Write, counts_for_replica

if TYPE_CHECKING:
    from perdure.store.sqlite.export import SqliteExport

_OF_ONE_WRITE = (apsw.ConstraintError, apsw.MismatchError, apsw.RangeError, apsw.TooBigError)


class SqliteStore(Reader):
    """See `base.Store`. `path` is a file, or `:memory:` for a store that ends with the process.

    `redaction` says by name which members of payloads people do not read; its names stay with the
    file, for all that write to it.
    """

    def __init__(
        self,
        path: str,
        *,
        limits: Limits,
        create: bool = True,
        vfs: str | None = None,
        redaction: Redaction | None = None,
    ) -> None:
        self.path, self.limits, self._vfs = path, limits, vfs
        self._db = connection.open_writer(path, create=create, vfs=vfs)
        super().__init__(self._db, path)
        self._second: apsw.Connection | None = None
        self._used = threading.Lock()
        """Held while a thread writes, and during a read on the same connection."""
        self._reading = threading.Lock()
        """Held while a thread reads on the second connection, which it opens where there is none.
        It is taken last.
        """
        self.commit_ms = self.held_ms = 0.0
        self._version = self._data_version()
        self._files = files.files_of(path)  # only now there is a WAL
        self.watched = tuple(self._files)[:2]
        self._transaction = SqliteTransaction(self._db)
        self.redaction = self._kept(redaction or Redaction())
        self._transitions = Transitions(self._transaction, limits, self.redaction.hides)
        self._cursor = self._transaction.cursor
        self._waits_for_lock, self._own_version = True, -1
        self._rests = False
        forked.watch(self)

    def _kept(self, redaction: Redaction) -> Redaction:
        """A redaction with the names that the file has; those that it has not are added to it."""
        with error_map.translated(self.path):
            names = [name for (name,) in self._db.execute(Q["redacted_names"])]
            if new := [(name,) for name in redaction.names if name not in names]:
                with self._db:
                    self._db.executemany(Q["keep_redacted_name"], new)
        return redaction.joined(names)

    # --- writing ----------------------------------------------------------------------------------

    def write(self, batch: Sequence[Write], wait_for_lock: bool) -> list[Any | PerdureError]:
        """See `base.Store`."""
        if self.damaged is not None:
            raise self.damaged
        done: list[Any] = []
        try:
            with self._used:  # Ctrl-C can come behind a call of acquire, but not in here
                self._write(batch, wait_for_lock, done)
        except apsw.Error as error:
            if not isinstance(error, _OF_ONE_WRITE):
                raise self._failed(error, self._db.system_errno) from error
            raise _rolled_back(batch, done) from error
        except MemoryError as error:
            reason = "there was not enough memory for a transaction"
            raise StoreUnavailable(self.path, reason) from error
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

    def _write(self, batch: Sequence[Write], wait_for_lock: bool, results: list[Any]) -> None:
        db, execute, transaction = self._db, self._cursor.execute, self._transaction
        if self._rests:
            db.pragma("cache_size", connection.CACHE_SIZE)
            self._rests = False
        if wait_for_lock is not self._waits_for_lock:
            db.set_busy_timeout(error_map.BUSY_MS if wait_for_lock else 0)
            self._waits_for_lock = wait_for_lock
        if db.in_transaction:
            transaction.roll_back()  # what could not be undone at once, as when memory ran out
        execute("BEGIN IMMEDIATE")
        begun = perf_counter()
        try:
            if db.data_version("main") != self._own_version:
                self._see_others()
            replicated, apply = transaction.replicated, self._transitions.apply
            changes = db.total_changes() if replicated else 0
            for write in batch:  # at an error `results` holds those before it
                results.append(apply[type(write)](write))  # noqa: PERF401
            self._transitions.flush()
            if replicated and counts_for_replica(batch):
                transaction.update_checksum(changes)
            begin = perf_counter()
            execute("COMMIT")
            end = perf_counter()
            self.commit_ms, self.held_ms = (end - begin) * 1000, (end - begun) * 1000
            self._own_version = db.data_version("main")
        except BaseException:
            self._transitions.undo()
            transaction.roll_back()
            raise

    def _see_others(self) -> None:
        """Another connection has committed: owners may have changed, the file may have got a
        checksum, and one that a newer Perdure has migrated is left alone.
        """
        self._transitions.forget()
        if not self._transaction.replicated and self._transaction.rows("read_checksum", ()):
            self._transaction.replicated = True
            checksum.leave_checkpoints(self._db)
        (version,) = self._transaction.rows("user_version", ())[0]
        if version > connection.SCHEMA_VERSION:
            raise StoreTooNew(self.path, version, connection.SCHEMA_VERSION)

    # --- reading ----------------------------------------------------------------------------------

    def _rows_of_query(self, text: str, bindings: Sequence[Any], *, keep: bool = True) -> list[Any]:
        free = self._used.acquire(False)
        try:
            if (free and not self._db.in_transaction) or self.path == ":memory:":
                return self._db.execute(text, bindings, can_cache=keep).fetchall()
            with self._reading:  # it sees commits only
                if self._second is None:
                    self._second = connection.open_second(self.path, self._files, vfs=self._vfs)
                return self._second.execute(text, bindings, can_cache=keep).fetchall()
        finally:
            if free:
                self._used.release()

    # --- replicated files -------------------------------------------------------------------------

    def begin_epoch(self, store_id: str, address: str, epoch: int) -> None:
        """Make this a replicated file, or begin another epoch of it.

        From here on Litestream alone checkpoints it. Raises a `StoreError`.
        """
        try:
            checksum.put(self._db, store_id, address, epoch)
        except apsw.Error as error:
            raise self._failed(error, self._db.system_errno) from error

    # --- retention --------------------------------------------------------------------------------

    def reads_apart(self) -> contextlib.AbstractContextManager[Reader] | None:
        """See `base.Store`."""
        if self.path == ":memory:":
            return None
        return _reader_apart(self.path)

    def export(self, path: str) -> contextlib.AbstractContextManager[SqliteExport]:
        """See `base.Store`."""
        from perdure.store.sqlite.export import exporting  # late: few engines export

        return exporting(self.path, path)

    # --- the file ---------------------------------------------------------------------------------

    def changed_by_others(self) -> bool:
        """See `base.Store`."""
        version, self._version = self._version, self._data_version()
        return version != self._version

    def _data_version(self) -> int:
        return int(self.pragma("data_version", self._db))

    @contextlib.contextmanager
    def for_queries(self) -> Iterator[apsw.Connection]:
        """See `Reader`. Of a store in memory a copy, because its connection writes."""
        with self._used:
            copy = self._db.serialize("main")
        with contextlib.closing(forked.connection(":memory:", vfs=None)) as db:
            db.deserialize("main", copy)
            yield db

    @property
    def file(self) -> files.Identity:
        """The file that is open, whatever its path names by now."""
        return next(iter(self._files.values()), None) or (0, 0)

    def lease_connection(self, busy_ms: int) -> SqliteLeaseConnection | None:
        """See `base.Store`."""
        if self.path == ":memory:":
            return None
        return SqliteLeaseConnection(self, self._files, self._vfs, busy_ms)

    def check_identity(self) -> None:
        """See `base.Store`."""
        if (lost := files.lost_file(self._files)) is not None:
            with self.renewing:  # a beat now would stay in the WAL, beside what is the file by now
                self.replaced = StoreReplaced(lost)
                self._abandon()
            raise self.replaced
        version = int(self.pragma("user_version"))
        if version > connection.SCHEMA_VERSION:
            raise StoreTooNew(self.path, version, connection.SCHEMA_VERSION)

    def rest(self) -> None:
        """See `base.Store`."""
        if self.path == ":memory:" or self.damaged or self.replaced:
            return
        if self._transaction.replicated or not self._used.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(apsw.Error):  # the next use says what is wrong
                self._give_back()
        finally:
            self._used.release()

    def _give_back(self) -> None:
        if self._second is not None and self._reading.acquire(blocking=False):
            try:
                self._close_second()
            finally:
                self._reading.release()
        if not self._db.in_transaction:
            if not self._rests:
                self._db.pragma("cache_size", connection.CACHE_PAGES_AT_REST)
                self._rests = True
            self._db.execute(Q["forget_schema"], can_cache=False)  # last: the others read it
            self._db.release_memory()

    def _close_second(self) -> None:
        """Close the connection that only reads. It checkpoints at its end alone: what has become a
        replicated file while it was open is left to Litestream here.
        """
        if self._second is not None:
            if self._transaction.replicated:
                checksum.leave_checkpoints(self._second)
            self._second.close()
            self._second = None

    def _abandon(self) -> None:
        """Put what is in the WAL into the file at once, unless that has to wait for a write or a
        read.
        """
        lock, db = self._used, self._db
        if not lock.acquire(blocking=False):
            if self._second is None or not self._reading.acquire(blocking=False):
                return
            lock, db = self._reading, self._second
        try:
            db.set_busy_timeout(0)
            files.abandon(db, self._files)
        finally:
            if lock is self._used:
                self._waits_for_lock = False
            lock.release()

    def in_child(self) -> None:
        """See `forked`: nothing of this store can be used in a child."""
        for identity in self._files.values():
            forked.inherited(identity)
        self._used = threading.Lock()  # a thread that the child does not have may hold the other
        self._reading = threading.Lock()
        self._db = self._read = self._second = self._cursor = dead = cast("Any", forked.Dead())
        self._transaction.in_child(dead)

    def close(self) -> None:
        """Refresh the planner's statistics where they are stale, and close the file."""
        try:
            if self.damaged is not None:
                files.leave_as_it_is(self._db)  # a repair needs it as it is
                if self._second is not None:
                    files.leave_as_it_is(self._second)
            elif files.lost_file(self._files) is None:
                self._db.execute("PRAGMA optimize")
            else:
                files.abandon(self._db, self._files)
        except apsw.Error:
            pass  # full, locked or read-only: a worse plan next time is the whole loss
        forked.unwatch(self)
        self._close_second()
        self._db.close()


@contextlib.contextmanager
def _reader_apart(path: str) -> Iterator[Reader]:
    with contextlib.closing(connection.open_reader(path)) as db:
        yield Reader(db, path)


def _rolled_back(batch: Sequence[Write], done: list[Any]) -> BatchRolledBack:
    """The first write without a result has failed; with all results, one of the gathered rows."""
    return BatchRolledBack(len(done) if len(done) < len(batch) else None)


def _failing(write: Write, ended: RolledBack) -> Transact:
    """A step that made SQLite roll back, as one that fails: that is recorded in a transaction."""
    assert isinstance(write, Transact)

    def work(db: Any) -> Any:
        raise ended.error from ended.__cause__

    return Transact(write.run, write.owner, work, write.conclude)

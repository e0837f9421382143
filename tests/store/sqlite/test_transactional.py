"""A transactional step's function at the store: what its SQL may do, what is undone, and what
happens to the rest of its batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure.core.events import COMPLETED, FAILED, START, Event
from perdure.core.limits import Limits
from perdure.errors import NotAllowedInStep, TransactionEnded
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.reserved import is_reserved
from perdure.store.writes import BatchRolledBack, Deliver, JoinWorker, StartRun, Transact, Write

JOIN = JoinWorker("me", "here", 1, "then", 0, 10_000)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(
        ":memory:" if request.param == "memory" else str(tmp_path / "p.db"), limits=Limits()
    )
    yield store
    store.close()


class Place:
    """A run with an owner, in which functions are executed as transactional steps."""

    def __init__(self, store: SqliteStore) -> None:
        self.store, self.seq = store, 1
        worker: Any = store.write([JOIN], True)[0]
        start = StartRun("r", "flow", b"{}", 1, 0, None, owner=worker, first=[Event(1, START, 0)])
        started: Any = store.write([start], True)[0]
        self.worker, self.run = worker, started.run
        self.errors: list[BaseException | None] = []

    def step(self, work: Callable[[Any], Any]) -> Transact:
        """The function as a write; its error ends up in `errors`."""
        self.seq += 1
        seq = self.seq

        def conclude(value: Any, error: BaseException | None) -> Event:
            self.errors.append(error)
            return Event(seq, FAILED if error else COMPLETED, 0, ref=1)

        return Transact(self.run, self.worker, work, conclude)

    def done(self, work: Callable[[Any], Any]) -> BaseException | None:
        """Execute one function; its error, if it had one."""
        self.store.write([self.step(work)], True)
        return self.errors[-1]


@pytest.fixture
def place(store: SqliteStore) -> Place:
    place = Place(store)
    place.done(
        lambda db: db.execute(
            "CREATE TABLE mine (a UNIQUE); CREATE TABLE other (b INTEGER PRIMARY KEY AUTOINCREMENT)"
        ).fetchall()
    )
    return place


def mine(store: SqliteStore) -> list[Any]:
    return [a for (a,) in store._db.execute("SELECT a FROM mine ORDER BY a")]


def kinds(place: Place) -> list[str]:
    return [event.kind for event in place.store.history(place.run)]


# --- what works -----------------------------------------------------------------------------------


def test_rows_are_written_and_read_as_with_apsw(place: Place) -> None:
    def work(db: Any) -> None:
        with db:
            db.execute("INSERT INTO mine VALUES (?)", (1,))
        db.executemany("INSERT INTO mine VALUES (:a)", [{"a": 2}, {"a": 3}])
        assert db.changes() == 1
        assert db.last_insert_rowid() == 3
        assert [row for row in db.execute("SELECT a FROM mine")] == [(1,), (2,), (3,)]  # noqa: C416
        assert db.execute("SELECT a FROM mine").fetchone() == (1,)
        assert db.execute("SELECT a FROM mine WHERE a > 9").fetchone() is None
        assert db.cursor().execute("SELECT count(*) FROM mine").get == 3
        assert db.pragma("user_version") > 0
        assert db.table_exists("main", "mine")
        assert db.in_transaction
        assert db.execute("SELECT a AS x FROM mine").description == (
            ("x", None, None, None, None, None, None),
        )

    assert place.done(work) is None
    assert mine(place.store) == [1, 2, 3]


def test_a_block_is_undone_alone(place: Place) -> None:
    def work(db: Any) -> None:
        db.execute("INSERT INTO mine VALUES (1)")
        with pytest.raises(apsw.ConstraintError), db:  # noqa: PT012
            db.execute("INSERT INTO mine VALUES (2)")
            db.execute("INSERT INTO mine VALUES (1)")

    assert place.done(work) is None
    assert mine(place.store) == [1]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW all_runs AS SELECT * FROM run",
        "CREATE INDEX mine_a ON mine (a)",
        # it is refused where it fires
        "CREATE TRIGGER tr AFTER INSERT ON mine BEGIN DELETE FROM event; END",
        "ALTER TABLE mine RENAME TO yours",
        "ALTER TABLE mine ADD COLUMN run",
        "DROP TABLE other",
        "CREATE TEMP TABLE scratch (a)",
        (
            "CREATE VIRTUAL TABLE doc USING fts5(body); INSERT INTO doc VALUES ('one two'); "
            "SELECT * FROM doc('two')"
        ),
        (
            "CREATE VIRTUAL TABLE box USING rtree(id, low, high); INSERT INTO box VALUES (1, 2, "
            "3); SELECT * FROM box WHERE low > 1"
        ),
        "UPDATE mine SET a = 3",
        "SELECT * FROM perdure_runs",
        "PRAGMA table_info(event)",
        "SAVEPOINT s; ROLLBACK TO s; RELEASE s",
        "ANALYZE mine",
    ],
)
def test_what_concerns_only_its_own_tables_is_allowed(place: Place, sql: str) -> None:
    assert place.done(lambda db: db.execute(sql).fetchall()) is None


# --- what does not --------------------------------------------------------------------------------

FORBIDDEN_SQL = [
    "DELETE FROM event",
    "UPDATE run SET status = 'completed'",
    "INSERT INTO tag VALUES ('a', 'b', 1)",
    "UPDATE replica SET rows = 0",
    "ALTER TABLE event RENAME TO event2",
    "ALTER TABLE run RENAME COLUMN owner TO o",
    "ALTER TABLE run ADD COLUMN mine",
    "ALTER TABLE run DROP COLUMN tags",
    "DROP TABLE chunk",
    "DROP INDEX inbox_key",
    "DROP VIEW perdure_runs",
    "CREATE INDEX i ON event (kind)",
    "CREATE UNIQUE INDEX i ON event (kind)",
    "CREATE TRIGGER t AFTER INSERT ON event BEGIN SELECT 1; END",
    "CREATE TEMP TRIGGER t AFTER INSERT ON main.event BEGIN SELECT RAISE(ABORT, 'no'); END",
    "CREATE TRIGGER t INSTEAD OF INSERT ON perdure_runs BEGIN SELECT 1; END",
    "CREATE TEMP TABLE event (key, kind)",
    "CREATE TEMP VIEW RUN AS SELECT 1",
    "CREATE TABLE Perdure_mine (a)",
    "CREATE VIEW perdure_own AS SELECT 1",
    "ALTER TABLE mine RENAME TO perdure_mine",
    "CREATE TEMP TABLE t1 (a); ALTER TABLE temp.t1 RENAME TO event",
    "DELETE FROM sqlite_sequence",
    "UPDATE sqlite_sequence SET seq = 0",
    "ANALYZE",
    "ANALYZE run",
    "INSERT INTO sqlite_stat1 VALUES ('run', NULL, '1')",
    "DELETE FROM sqlite_schema",
    "COMMIT",
    "ROLLBACK",
    "END",
    "BEGIN",
    "RELEASE perdure_step",
    "ROLLBACK TO PERDURE_STEP",
    "SAVEPOINT perdure_step",
    "ATTACH ':memory:' AS x",
    "DETACH x",
    "VACUUM",
    "VACUUM INTO '/tmp/never'",
    *(
        f"PRAGMA {name}"
        for name in (
            "user_version = 99",
            "application_id = 5",
            "writable_schema = 1",
            "schema_version = 7",
            "locking_mode = EXCLUSIVE",
            "journal_mode = DELETE",
            "wal_autocheckpoint = 1",
            "wal_checkpoint",
            "wal_checkpoint(TRUNCATE)",
            "synchronous = OFF",
            "query_only = 1",
            "foreign_keys = 1",
            "defer_foreign_keys = 1",
            "recursive_triggers = 1",
            "ignore_check_constraints = 1",
            "cache_size = 1",
            "temp_store = 1",
            "busy_timeout = 1",
            "mmap_size = 1",
            "optimize",
            "shrink_memory",
            "incremental_vacuum",
            "main.user_version = 99",
            "hard_heap_limit = 1",
            "trusted_schema = 0",
            "reverse_unordered_selects = 1",
            "legacy_alter_table = 1",
            "case_sensitive_like = 1",
            "cell_size_check = 1",
            "read_uncommitted = 1",
            "secure_delete = 1",
            "journal_size_limit = 1",
            "page_size = 512",
            "encoding = 'UTF-16'",
            "auto_vacuum = 2",
            "max_page_count = 10",
            "threads = 4",
            "analysis_limit = 1",
        )
    ),
]


def state_of(store: SqliteStore) -> dict[str, Any]:
    """All that a step must not change, but for the run's own history."""
    tables = ("worker", "run", "inbox", "chunk", "tag", "stream", "replica", "sqlite_sequence")
    pragmas = (
        "user_version",
        "application_id",
        "journal_mode",
        "synchronous",
        "foreign_keys",
        "query_only",
        "locking_mode",
        "cache_size",
    )
    rows = {table: store._db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    schema = [
        row
        for row in store._db.execute("SELECT type, name, sql FROM sqlite_schema")
        if row[0] != "index" or row[2]
    ]
    temporary = store._db.execute("SELECT name FROM sqlite_temp_schema").fetchall()
    return {
        **rows,
        **{name: store.pragma(name, store._db) for name in pragmas},
        "schema": schema,
        "temporary": temporary,
    }


@pytest.mark.parametrize("sql", FORBIDDEN_SQL)
def test_sql_that_is_not_a_steps_is_refused_and_all_of_the_step_is_undone(
    place: Place, sql: str
) -> None:
    before = state_of(place.store)

    def work(db: Any) -> None:
        db.execute("INSERT INTO mine VALUES (1)")
        db.execute(sql).fetchall()

    error = place.done(work)
    assert isinstance(error, NotAllowedInStep | apsw.SQLError), (
        error
    )  # SQLite itself refuses some of it
    assert state_of(place.store) == before
    assert mine(place.store) == []
    assert place.done(lambda db: db.execute("INSERT INTO mine VALUES (2)")) is None, (
        "the store works as before"
    )


def test_a_refusal_that_the_step_survives_leaves_the_rest_of_it(place: Place) -> None:
    def work(db: Any) -> None:
        with pytest.raises(NotAllowedInStep, match="table event is Perdure's"):
            db.execute("DELETE FROM event")
        db.execute("INSERT INTO mine VALUES (1)")

    assert place.done(work) is None
    assert mine(place.store) == [1]


def test_a_trigger_of_the_steps_own_does_not_write_ours(place: Place) -> None:
    place.done(
        lambda db: db.execute(
            "CREATE TRIGGER mine_too AFTER INSERT ON mine BEGIN DELETE FROM event; END"
        )
    )
    with_trigger = place.done(lambda db: db.execute("INSERT INTO mine VALUES (1)"))
    assert isinstance(with_trigger, NotAllowedInStep)
    assert "by trigger mine_too" in str(with_trigger)


METHODS: list[Callable[[Any], Any]] = [
    lambda db: db.close(),
    lambda db: db.backup("main", db, "main"),
    lambda db: db.deserialize("main", b""),
    lambda db: db.serialize("main"),
    lambda db: db.set_authorizer(None),
    lambda db: setattr(db, "authorizer", None),
    lambda db: setattr(db, "exec_trace", print),
    lambda db: db.set_exec_trace(None),
    lambda db: db.create_scalar_function("max", None),
    lambda db: db.load_extension("x"),
    lambda db: db.set_busy_timeout(0),
    lambda db: db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0),
    lambda db: db.limit(0, 1),
    lambda db: db.wal_checkpoint(),
    lambda db: db.wal_autocheckpoint(1),
    lambda db: db.set_commit_hook(lambda: 1),
    lambda db: db.create_collation("nocase", None),
    lambda db: db.pragma("user_version", 99),
    lambda db: db.set_progress_handler(None),
    lambda db: db.blob_open("main", "event", "data", 1, True),
    lambda db: db.cursor().connection.authorizer,
    lambda db: db.drop_modules(None),
    lambda db: db.execute("SELECT 1").connection.close(),
    lambda db: db.preupdate_hook(None),
    lambda db: db.set_wal_hook(None),
]


@pytest.mark.parametrize("number", range(len(METHODS)))
def test_methods_that_change_the_connection_are_not_there(place: Place, number: int) -> None:
    before = state_of(place.store)
    assert isinstance(place.done(METHODS[number]), NotAllowedInStep)
    assert state_of(place.store) == before
    assert place.done(lambda db: db.execute("INSERT INTO mine VALUES (2)")) is None


def test_it_dies_with_the_step_and_works_in_no_other_thread(place: Place) -> None:
    kept: list[Any] = []
    errors: list[BaseException] = []

    def elsewhere(db: Any) -> None:
        try:
            db.execute("INSERT INTO mine VALUES (1)")
        except NotAllowedInStep as error:
            errors.append(error)

    def work(db: Any) -> None:
        db.execute("INSERT INTO mine VALUES (5)")
        cursor = db.execute("SELECT a FROM mine UNION SELECT 6 ORDER BY 1")
        assert next(cursor) == (5,)
        db.execute("CREATE TABLE big (b)")
        db.execute("INSERT INTO big VALUES (zeroblob(3))")
        kept.extend([db, cursor, db.blob_open("main", "big", "b", 1, True)])
        thread = threading.Thread(target=elsewhere, args=(db,))
        thread.start()
        thread.join()

    assert place.done(work) is None
    assert "thread" in str(errors[0])
    db, cursor, blob = kept
    for late in (
        lambda: db.execute("SELECT 1"),
        lambda: next(cursor),
        cursor.fetchall,
        lambda: db.changes(),
        db.__enter__,
    ):
        with pytest.raises(NotAllowedInStep, match="after it had ended"):
            late()
    with pytest.raises(ValueError, match="closed"):
        blob.write(b"X")
    assert mine(place.store) == [5]


def test_a_statement_that_is_not_read_to_its_end_holds_up_nothing(place: Place) -> None:
    assert (
        place.done(lambda db: next(db.execute("INSERT INTO mine VALUES (1), (2) RETURNING a")))
        is None
    )
    assert mine(place.store) == [1, 2]


# --- what makes SQLite roll everything back -------------------------------------------------------


def or_rollback(db: Any) -> None:
    db.execute("INSERT INTO mine VALUES (1)")
    db.execute("INSERT OR ROLLBACK INTO mine VALUES (1)")


def or_rollback_unheard(db: Any) -> None:
    """It goes on as if nothing had happened: what it writes then would be committed at once,
    outside any transaction.
    """
    with pytest.raises(apsw.ConstraintError):
        or_rollback(db)
    with pytest.raises(TransactionEnded):
        db.execute("INSERT INTO mine VALUES (9)")


def raise_rollback(db: Any) -> None:
    db.execute(
        "CREATE TRIGGER never BEFORE INSERT ON mine BEGIN SELECT RAISE(ROLLBACK, 'never'); END"
    )
    with db:
        db.execute("INSERT INTO mine VALUES (1)")


def on_conflict(db: Any) -> None:
    db.execute("CREATE TABLE strict (a UNIQUE ON CONFLICT ROLLBACK)")
    db.executemany("INSERT INTO strict VALUES (?)", [(1,), (1,)])


@pytest.mark.parametrize("work", [or_rollback, or_rollback_unheard, raise_rollback, on_conflict])
def test_a_whole_rollback_costs_the_step_alone(place: Place, work: Callable[[Any], None]) -> None:
    store, told = place.store, []
    before = place.step(lambda db: db.execute("INSERT INTO mine VALUES (10)"))
    bad = place.step(work)
    after = place.step(lambda db: db.execute("INSERT INTO mine VALUES (20)"))
    batch: list[Write] = [before, Deliver("r", "message", 0, "c", None, None, b"1"), bad, after]
    with pytest.raises(BatchRolledBack) as spoiled:
        store.write(batch, True)
    assert spoiled.value.index == 2
    assert mine(store) == []
    assert store.inbox(place.run, 0) == []
    place.errors.clear()
    for part in (batch[:2], batch[2:3], batch[3:]):
        told += store.write(part, True)
    assert mine(store) == [10, 20]
    assert [type(error) for error in place.errors] == [type(None), TransactionEnded, type(None)]
    assert kinds(place)[-3:] == [COMPLETED, FAILED, COMPLETED]
    assert len(told) == 4


def test_what_stood_before_it_is_written_in_the_end(place: Place) -> None:
    """Alone in its batch, the failure is written by a transaction of its own within the
    same call."""
    assert isinstance(place.done(or_rollback), TransactionEnded)
    assert kinds(place)[-1] == FAILED
    assert mine(place.store) == []


def test_an_interrupt_stops_the_statement_and_nothing_else(place: Place) -> None:
    """SQLite's own flag stays set while any statement is open, and then stops every write of the
    store.
    """

    def work(db: Any) -> None:
        db.execute("INSERT INTO mine VALUES (1)")
        db.interrupt()
        db.execute("INSERT INTO mine VALUES (2)")
        threading.Timer(0.02, db.interrupt).start()
        with pytest.raises(apsw.InterruptError):
            db.execute(
                "WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT "
                "count(*) FROM c"
            ).fetchall()
        db.execute("INSERT INTO mine VALUES (3)")

    assert place.done(work) is None
    assert mine(place.store) == [1, 2, 3]


def test_names_of_tables_are_those_of_the_migrations(store: SqliteStore) -> None:
    tables = {
        name for (name,) in store._db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    } - {"sqlite_sequence"}
    assert tables, "the schema is there"
    assert all(is_reserved(name) for name in tables)
    assert not is_reserved("mine")

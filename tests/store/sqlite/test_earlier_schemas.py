"""Files of earlier schema versions: what a migration has to make up for in what they hold."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from perdure import Limits, ScheduleNotFound
from perdure.store import sql
from perdure.store.rows import Woken, Written
from perdure.store.sqlite import connection
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.queries import PACKAGE
from perdure.store.sqlite.reader import Reader
from perdure.store.sqlite.reserved import is_reserved
from perdure.store.writes import Deliver, Family, Finish, JoinWorker, StartRun, Turn, WakeBlocked
from tests.store.support import old_file


def go_on(store: SqliteStore, run: int, owner: int, at_ms: int) -> int:
    """End a run in a successor under its id."""
    start = StartRun("r", "main", b"{}", 1, at_ms, None, owner=owner)
    (done,) = store.write(
        [Turn(run, owner, [], at_ms, finish=Finish("completed", successor=start))], True
    )
    assert isinstance(done, Written)
    return int(done.woken[-1])


def send(store: SqliteStore, key: str) -> Any:
    return store.write([Deliver("r", "message", 5, "x", None, key, b"1")], True)[0]


def keys(store: SqliteStore) -> list[tuple[Any, ...]]:
    return store._db.execute(
        "SELECT run, key FROM inbox WHERE key IS NOT NULL ORDER BY id"
    ).fetchall()


def test_a_file_of_the_schema_before_keeps_its_keys_and_its_generations(tmp_path: Path) -> None:
    path = str(tmp_path / "old.db")
    old = old_file(path, 2)
    run = (
        "INSERT INTO run (run, id, workflow, status, args, seed, created_ms, successor, owner) "
        "VALUES (?, ?, 'main', ?, '{}', 1, 1, ?, ?)"
    )
    old.executemany(
        run,
        [
            (1, "r~1", "completed", 2, None),
            (2, "r~2", "completed", 3, None),
            (3, "r", "waiting", None, None),
        ],
    )
    old.execute(
        "INSERT INTO inbox (run, kind, name, key, at_ms, taken) VALUES (3, 'message', 'x', "
        "'first', 1, 2)"
    )  # moved along
    old.close()
    store = SqliteStore(path, limits=Limits())
    (worker,) = store.write([JoinWorker("w", "h", 1, "", 0, 60_000)], True)
    assert isinstance(worker, int)
    store.write([WakeBlocked((), 1)], True)
    assert isinstance(send(store, "first"), Woken)
    send(store, "second")
    assert keys(store) == [(3, "first"), (3, "second")]
    store._db.execute("UPDATE run SET owner = ?, status = 'running' WHERE run = 3", (worker,))
    latest = go_on(store, 3, worker, 10)
    assert [row.name for row in store.inbox(latest, 0)] == ["x"]
    for key in ("first", "second", "third", "third"):
        send(store, key)
    assert keys(store) == [(3, "first"), (3, "second"), (latest, "third")]
    latest = go_on(store, latest, worker, 20)
    send(store, "third")
    assert [len(store.inbox(latest, 0)), len(keys(store))] == [2, 3]
    ids = store._db.execute("SELECT id FROM run ORDER BY run").fetchall()
    assert ids == [("r~1",), ("r~2",), ("r~3",), ("r~4",), ("r",)]
    store.close()


def test_children_in_an_older_file_get_the_family_of_the_run_above_them(tmp_path: Path) -> None:
    path = str(tmp_path / "old.db")
    old = old_file(path, 4)
    run = (
        "INSERT INTO run (run, id, workflow, status, args, seed, created_ms, parent) VALUES (?, "
        "?, 'main', ?, '{}', 1, 1, ?)"
    )
    old.executemany(
        run,
        [
            (1, "top", "waiting", None),
            (2, "child", "waiting", 1),
            (3, "below", "pending", 2),
            (4, "done", "completed", 1),
            (5, "another", "pending", None),
            (6, "lost", "pending", 99),
        ],
    )
    old.close()
    store = SqliteStore(path, limits=Limits())
    assert store._db.execute(
        "SELECT run, root FROM run WHERE root IS NOT NULL ORDER BY run"
    ).fetchall() == [(2, 1), (3, 1)]
    assert store.family(3) == Family(3, 1)
    store.close()


@pytest.mark.parametrize("version", range(1, connection.SCHEMA_VERSION + 1))
def test_a_file_of_any_schema_is_read_without_being_changed(tmp_path: Path, version: int) -> None:
    path = str(tmp_path / "old.db")
    old = old_file(path, version)
    old.execute(
        "INSERT INTO run (run, id, workflow, status, args, seed, created_ms) "
        "VALUES (1, 'r', 'main', 'waiting', '{}', 1, 1)"
    )
    old.execute("INSERT INTO event (key, kind, at_ms) VALUES (1 << 24 | 1, 'start', 1)")
    old.execute(
        "INSERT INTO worker (name, host, pid, born, started_ms, lease_ms, ttl_ms) "
        "VALUES ('w', 'here', 1, 'then', 0, 9, 9)"
    )
    old.close()
    with closing(connection.open_reader(path)) as db:
        reader = Reader(db, path)
        assert reader.unfinished(("main",), None) == [1]
        row = reader.run_row(1)
        assert (row.id, row.durability, row.python, row.history_rows) == ("r", None, None, 1)
        assert [event.kind for event in reader.history(1)] == ["start"]
        assert [(one.name, one.asked) for one in reader.workers()] == [("w", 0)]
        assert reader.pragma("user_version") == version


def test_what_users_have_called_their_own_tables_is_in_nobodys_way(tmp_path: Path) -> None:
    path = str(tmp_path / "old.db")
    old = old_file(path, 6)
    names = [
        name.removeprefix("perdure_")
        for version in range(7, connection.SCHEMA_VERSION + 1)
        for name in re.findall(
            r"CREATE (?:TABLE|(?:UNIQUE )?INDEX) (\w+)",
            sql.text_of(f"migrations/{version:04}.sql", PACKAGE),
        )
    ]
    assert {"queue", "place", "schedule", "request"} <= set(names)
    for name in names:
        old.execute(f"CREATE TABLE {name} (mine)")
    old.close()
    with closing(SqliteStore(path, limits=Limits())) as store:
        assert store._db.pragma("user_version") == connection.SCHEMA_VERSION
        assert not any(is_reserved(name) for name in names)


def test_a_file_from_before_requests_shows_none(tmp_path: Path) -> None:
    path = str(tmp_path / "old.db")
    old_file(path, 8).close()
    with closing(connection.open_reader(path)) as db:
        reader = Reader(db, path)
        assert reader.exposed(1) == []
        assert reader.open_requests(1, 10) == []


def test_a_file_from_before_schedules_has_none(tmp_path: Path) -> None:
    path = str(tmp_path / "old.db")
    old_file(path, 7).close()
    with closing(connection.open_reader(path)) as db:
        reader = Reader(db, path)
        assert reader.schedule_rows("", 10) == []
        with pytest.raises(ScheduleNotFound):
            reader.schedule_row("nightly")

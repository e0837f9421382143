"""What the campaign of queues takes for a place with room, and what its triggers log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from campaigns import queue_checks
from perdure import Engine, Queue
from tests.runtime.support import awaited

WAITING = """
INSERT INTO perdure_place (queue, key, run, seq, root, priority, weight, asked_ms, line)
SELECT queue, ?1, 1, ?2, 1, 0, 1, 5, 9 FROM perdure_queue WHERE name = 'q'
"""


@pytest.fixture
def db(tmp_path: Path) -> Iterator[apsw.Connection]:
    """A file with queue q and a run, and the campaign's triggers."""
    path = str(tmp_path / "kill.db")

    @awaited
    async def made() -> None:
        limits = Queue("q", concurrency=2, key_concurrency=1)
        async with Engine(path, queues=[limits], execute=False):
            pass

    made()
    connection = apsw.Connection(path)
    for name, text in queue_checks.Q.items():
        if name.startswith(("make_", "see_")):
            connection.execute(text)
    connection.execute(
        "INSERT INTO run (id, workflow, status, args, seed, created_ms) "
        "VALUES ('r', 'w', 'waiting', '{}', 1, 1)"
    )
    yield connection
    connection.close()


def could(db: apsw.Connection) -> list[int]:
    return [row[0] for row in db.execute(queue_checks.Q["could_be_admitted"], (10,))]


def admit(db: apsw.Connection, place: int) -> None:
    db.execute(
        "UPDATE perdure_place SET admitted_ms = 7, line = NULL, worker = 3 WHERE place = ?",
        (place,),
    )


def test_a_place_could_be_admitted_where_its_queue_and_its_key_have_room(
    db: apsw.Connection,
) -> None:
    for seq, key in enumerate("aab", 1):
        db.execute(WAITING, (key, seq))
    assert could(db) == [1, 2, 3]
    admit(db, 1)
    assert could(db) == [3]
    admit(db, 3)
    assert could(db) == []
    db.execute("DELETE FROM perdure_place WHERE place = 1")
    assert could(db) == [2]
    db.execute("UPDATE perdure_queue SET held_ms = 11")
    assert could(db) == []
    db.execute("UPDATE perdure_queue SET held_ms = NULL, paused = 1")
    assert could(db) == []


def test_each_ask_admission_and_release_is_logged_in_its_transaction(db: apsw.Connection) -> None:
    db.execute(WAITING, ("a", 1))
    admit(db, 1)
    db.execute("UPDATE perdure_place SET worker = 4")
    db.execute("UPDATE perdure_place SET admitted_ms = NULL, line = 8")
    db.execute("DELETE FROM perdure_place")
    db.execute("BEGIN")
    db.execute(WAITING, ("b", 2))
    db.execute("ROLLBACK")
    seen = [(one.what, one.place) for one in queue_checks.rows(db)]
    steps = ["asked", "admitted", "moved", "released", "asked", "released"]
    assert seen == [(what, 1) for what in steps]


def test_a_run_that_gives_its_own_place_back_is_named(db: apsw.Connection) -> None:
    for seq in (0, 2):
        db.execute(WAITING, ("a", seq))
    admit(db, 2)
    db.execute("UPDATE perdure_place SET admitted_ms = NULL, line = 8 WHERE place = 2")
    assert queue_checks.parted(queue_checks.rows(db))[1] == set()
    admit(db, 1)
    db.execute("UPDATE perdure_place SET admitted_ms = NULL, line = 8 WHERE place = 1")
    log, let_go = queue_checks.parted(queue_checks.rows(db))
    assert let_go == {"r"}
    assert [one.what for one in log].count("released") == 2


def test_times_that_buckets_have_seen_are_logged(db: apsw.Connection) -> None:
    for level_ms in (5, 9, 7):
        db.execute("UPDATE perdure_queue SET level_ms = ?", (level_ms,))
    db.execute(
        "INSERT INTO perdure_queue_key (queue, key, level_ns, level_ms, full_ms) "
        "SELECT queue, 'a', 3, 6, 12 FROM perdure_queue"
    )
    db.execute("UPDATE perdure_queue_key SET level_ms = 8")
    db.execute("DELETE FROM perdure_queue_key")
    seen = [(one.what, one.key, one.at_ms) for one in queue_checks.rows(db)]
    assert seen == [("filled", key, ms) for key, ms in (("", 5), ("", 9), ("a", 8), ("a", 12))]


def test_a_row_is_as_late_as_the_clock_says(db: apsw.Connection) -> None:
    before_ms = time.time_ns() // 1_000_000
    db.execute(WAITING, ("a", 1))
    [seen] = queue_checks.rows(db)
    assert before_ms <= seen.real_ms <= time.time_ns() // 1_000_000

"""Connections and threads of a reader; stores in memory, of earlier schemas, and as copies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import DefinitionError, Engine, EngineClosed, StoreCorrupt, StoreNotFound
from perdure.reader import StoreReader
from perdure.reader.values import RunQuery
from perdure.store.sqlite import connection
from tests.reader.conftest import Read, plain, reader_of
from tests.store.support import old_file

READS = {
    "activity": (), "at": ("a", 1), "compare": ("a", "b"), "counts": (), "doctor": (),
    "entry": ("a", 1), "exposed": ("a",), "family": ("a",), "find": ("a",), "history": ("a",),
    "inbox": (), "inbox_count": (), "infos": (["a"],), "outline": ("a",), "queues": (),
    "requests": ("a",), "run": ("a",), "schedules": (), "sql": ("SELECT * FROM perdure_runs",),
    "standings": (["a"],), "stream": ("a", "x"), "streams": ("a",), "summary": ("a",),
    "system": (), "version": (), "waterfall": ("a",), "why": ("b",), "workers": (),
    "workflows": (),
}  # fmt: skip


@pytest.mark.parametrize("schema", [1, 3, 6, 9, 10, 12])
def test_files_of_earlier_schemas_are_read_as_they_are(tmp_path: Path, schema: int) -> None:
    path = str(tmp_path / "old.db")
    old = old_file(path, schema)
    old.execute(
        "INSERT INTO run (run, id, workflow, status, args, seed, created_ms) VALUES "
        "(1, 'a', 'w', 'completed', '{}', 1, 1), (2, 'b', 'w', 'waiting', '{}', 1, 2)"
    )
    old.execute("INSERT INTO event (key, kind, at_ms) VALUES (1 << 24 | 1, 'start', 1)")
    old.close()

    async def all_reads() -> int:
        async with StoreReader(path) as reader:
            for name, given in READS.items():
                await getattr(reader, name)(*given)
            asked = RunQuery(workflow="w", text="a", in_=("id",))
            assert [run.id for run in (await reader.runs(asked)).runs] == ["a"]
            assert (await reader.counts(RunQuery(workflow="w")))["waiting"].number == 1
            return (await reader.system()).schema_version

    assert asyncio.run(all_reads()) == schema


def test_a_store_in_memory_is_read_where_it_is_open() -> None:
    async def main() -> None:
        async with Engine(":memory:", workflows=[plain]) as engine:
            reader = engine.reader()
            before = await reader.version()
            await engine.run(plain(1), id="one")
            assert [run.id for run in (await reader.runs(RunQuery())).runs] == ["one"]
            assert await reader.version() != before
            table = await reader.sql("SELECT id FROM perdure_runs")
            assert (table.columns, table.rows) == (["id"], [["one"]])
            assert engine.reader() is reader
        with pytest.raises(EngineClosed):
            await reader.counts()

    asyncio.run(main())


def test_a_copy_without_its_wal_is_read(tmp_path: Path, path: str) -> None:
    (copy := tmp_path / "c.db").write_bytes(Path(path).read_bytes())
    copy.chmod(0o400)
    found = reader_of(str(copy))("counts")
    assert found["completed"].number == 9


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        reader_of(str(tmp_path / "none.db"))("counts")
    (tmp_path / "text.db").write_text("hello " * 1_000)
    with pytest.raises(StoreCorrupt):
        reader_of(str(tmp_path / "text.db"))("counts")


def test_facts_of_the_store(read: Read, path: str) -> None:
    found = read("system")
    assert (found.path, found.schema_version) == (path, connection.SCHEMA_VERSION)
    assert found.file_bytes == Path(path).stat().st_size
    assert (found.runs["failed"].number, found.replica, found.commits) == (1, None, None)
    assert found.versions.keys() == {"perdure", "python", "sqlite", "apsw"}
    queue = read("queue", "slow")
    assert ([place.run for place in queue.waiting], queue.queue.running) == (["in-2"], 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DELETE FROM run", "Only what reads"),
        ("CREATE TEMP TABLE t (a)", "Only what reads"),
        ("ATTACH 'x.db' AS x", "Only what reads"),
        ("PRAGMA user_version = 1", "Only what reads"),
        ("SELECT * FROM perdure_secret", "perdure_secret"),
        ("SELECT 1; SELECT 2", "One statement"),
        ("SELECT ?", "parameters"),
        ("SELECT nope", "no such column"),
        ("SELECT '\ud800'", "surrogates"),
        ("SELECT zeroblob(100000000)", "too large"),
        ("SELECT " + ", ".join(["printf('%15000000d', 1)"] * 40), "too large"),
        ("SELECT load_extension('x')", "not authorized"),
        ("x" * 20_001, "at most"),
    ],
)
def test_sql_only_reads(read: Read, text: str, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        read("sql", text)


def test_sql_is_bounded(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    table = read("sql", numbers, 3)
    assert (table.rows, table.truncated) == ([[1], [2], [3]], True)
    none = read("sql", "SELECT id, status FROM perdure_runs WHERE 0")
    assert (none.columns, none.rows, none.truncated) == (["id", "status"], [], False)
    monkeypatch.setattr("perdure.store.sqlite.own_query.SECONDS_MAX", 0.01)
    with pytest.raises(DefinitionError, match="took longer"):
        read("sql", f"SELECT max(i) FROM ({numbers})")
    assert read("sql", "SELECT 1").rows == [[1]]

"""Files that are none of ours: nothing of theirs is executed, and no store is harmed by them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import Engine, ImportRefused, RunExists, StoreError, receive, workflow
from perdure.runtime import transfer
from perdure.store.sqlite import connection
from tests.runtime.support import reached
from tests.store.support import old_file

Spoil = Callable[[Path], object]


@workflow
async def waits(n: int) -> int:
    await receive("go")
    return n


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")

    async def main() -> None:
        async with Engine(folder / "1.db", workflows=[waits]) as engine:
            await reached(await engine.start(waits(1), id="a"), "waiting")
            await reached(await engine.start(waits(2), id="b"), "waiting")
            await engine.export(["a", "b"], folder / "a.db")
            await engine.export(["a", "b"], folder / "a.json")

    asyncio.run(main())
    return folder


def sql(*statements: str) -> Spoil:
    def write(path: Path) -> None:
        db = apsw.Connection(str(path))
        for statement in statements:
            db.execute(statement)
        db.close()

    return write


def schema(statement: str, version: int = connection.SCHEMA_VERSION) -> Spoil:
    """Change what `sqlite_schema` says, which SQLite allows those who insist."""
    return sql(
        "PRAGMA writable_schema = 1", statement, f"PRAGMA user_version = {version}",
        "PRAGMA writable_schema = RESET",
    )  # fmt: skip


def edit(**changes: Any) -> Spoil:
    """Change members of the first run."""
    return rows("run", lambda there: there[0].update(changes))


def rows(table: str, change: Callable[[list[dict[str, Any]]], object]) -> Spoil:
    def write(path: Path) -> None:
        document = json.loads(path.read_text())
        change(document["tables"][table])
        path.write_text(json.dumps(document))

    return write


def text(content: str) -> Spoil:
    return lambda path: path.write_text(content)


def sparse(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(transfer.JSON_BYTES_MAX + 2)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/no/such/file")


def foreign(path: Path) -> None:
    path.unlink()
    sql("CREATE TABLE run (id)", "CREATE TABLE event (id)")(path)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def second_half_later(path: Path) -> None:
    """As a copy that is being made: it has its length already."""
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2))


def empty(path: Path) -> None:
    path.write_bytes(b"")


TRIGGER = "CREATE TRIGGER evil BEFORE UPDATE ON run BEGIN DELETE FROM event; END"
EARLIER = "PRAGMA user_version = 12"
LOOP = "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n FROM s) SELECT n FROM s"
DEEP = '{"perdure_export":1,"schema":13,"tables":{"run":' + "[" * 100_000
BOOM = "SELECT run, 'boom', 1 FROM run"
BY_ID = "WHERE id = 'a'"
FILES: list[tuple[str, Spoil, str]] = [
    ("a.db", folder, "it is a folder"),
    ("a.db", pipe, "a pipe or a device"),
    ("a.db", device, "a pipe or a device"),
    ("a.db", nowhere, "does not exist|no store|is no file"),
    ("a.db", foreign, "belongs to another program"),
    ("a.db", half, "truncated"),
    ("a.db", second_half_later, "damaged|not an SQLite"),
    ("a.db", empty, "it is empty"),
    ("a.db", text("{}"), "not an SQLite database"),
    ("a.db", sql(TRIGGER), "'evil' is a trigger"),
    ("a.db", sql(TRIGGER, EARLIER), "'evil' is a trigger"),
    ("a.db", sql("DROP TABLE stream", f"CREATE VIEW stream AS {LOOP}"), "is no table"),
    ("a.db", sql("DROP TABLE stream", f"CREATE VIEW stream AS {LOOP}", EARLIER), "is no table"),
    ("a.db", sql("ALTER TABLE run ADD COLUMN x BLOB AS (zeroblob(9e8))"), "'run.x' is computed"),
    ("a.db", sql("DROP TABLE inbox"), "no such table|tables"),
    ("a.db", sql("DROP TABLE inbox", EARLIER), "are not those of a store"),
    ("a.db", sql("PRAGMA user_version = 1"), "are not those of a store"),
    ("a.db", sql("PRAGMA user_version = -7"), "version is -7"),
    ("a.db", schema("UPDATE sqlite_schema SET rootpage = 3 WHERE name = 'event'"), "a.db"),
    ("a.db", schema("UPDATE sqlite_schema SET sql = 'CREATE TABLE run (x)' WHERE name = 'run'"),
     "a.db"),
    ("a.db", sql("UPDATE run SET created_ms = 9e18 " + BY_ID), "'created_ms' is no time"),
    ("a.db", sql("UPDATE run SET parent = run " + BY_ID), "below itself"),
    ("a.db", sql("UPDATE run SET ended_ms = 5 " + BY_ID), "its end is said otherwise"),
    ("a.db", sql("UPDATE run SET id = '' " + BY_ID), "which is none"),
    ("a.db", sql("UPDATE event SET kind = 'boom'"), "its kind is 'boom'"),
    ("a.db", sql(f"INSERT INTO inbox (run, kind, at_ms) {BOOM}"), "'boom'"),
    ("a.db", sql("UPDATE event SET name = printf('%.*c', 5000, 'x')"), "5,000 characters"),
    ("a.db", sql("UPDATE run SET workflow = CAST(x'ff' AS TEXT)"), "not what was recorded"),
    ("a.json", pipe, "a pipe or a device"),
    ("a.json", folder, "it is a folder"),
    ("a.json", empty, "no export"),
    ("a.json", half, "no export"),
    ("a.json", sparse, "256 MiB"),
    ("a.json", text(DEEP), "no export"),
    ("a.json", text("\x00" * 100), "no export"),
    ("a.json", text('{"perdure_export":1,"schema":13,"tables":[]}'), "no export"),
    ("a.json", text('{"perdure_export":1,"schema":13,"tables":{}}'), "no run"),
    ("a.json", edit(run=2**70), "run that is not there"),
    ("a.json", edit(run="1"), "row 0 of 'run'"),
    ("a.json", edit(seed=None), "row 0 of 'run'"),
    ("a.json", edit(priority=2**63), "row 0 of 'run'"),
    ("a.json", edit(created_ms=10**17), "'created_ms' is no time"),
    ("a.json", edit(id="b"), "two runs with the id 'b'"),
    ("a.json", edit(id="a\nb"), "which is none"),
    ("a.json", edit(id=".."), "which is none"),
    ("a.json", edit(successor=1), "comes after itself"),
    ("a.json", edit(status="completed"), "its end is said otherwise"),
    ("a.json", edit(workflow="w" * 2_000), "2,000 characters"),
    ("a.json", rows("run", lambda there: there.append(there[0])), "two runs with"),
    ("a.json", rows("run", lambda there: [one.update(parent=3 - one["run"]) for one in there]),
     "below itself"),
    ("a.json", rows("event", lambda there: there.append(there[0])), "fit together"),
    ("a.json", rows("event", lambda there: there[0].update(seq=0)), "number in the history is 0"),
    ("a.json", rows("event", lambda there: there[0].update(run=77)), "run that is not there"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil", "said"), FILES)
def test_a_file_that_is_none_of_ours_is_refused(
    exports: Path, tmp_path: Path, name: str, spoil: Spoil, said: str
) -> None:
    path = tmp_path / name
    shutil.copyfile(exports / name, path)
    spoil(path)
    before = contents(path)

    async def main() -> None:
        async with Engine(tmp_path / "2.db", workflows=[waits]) as engine:
            run = await engine.start(waits(5), id="own")
            with pytest.raises(StoreError, match=said) as caught:
                await asyncio.wait_for(engine.import_(path, go_on=True), 60)
            assert str(path) in str(caught.value)
            assert [one.id for one in await engine.summaries()] == ["own"]
            await engine.send("own", None, channel="go")
            assert await run.result() == 5
            assert (await engine.import_(exports / name)).open == 2

    asyncio.run(main())
    assert contents(path) == before


def contents(path: Path) -> bytes | None:
    """Of a file of a moderate size."""
    return path.read_bytes() if path.is_file() and path.stat().st_size < 2**24 else None


def test_a_link_to_an_export_is_one(exports: Path, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(exports / "a.db")

    async def main() -> None:
        async with Engine(tmp_path / "2.db", workflows=[waits]) as engine:
            assert (await engine.import_(tmp_path / "link.db")).ids == ["a", "b"]
            (tmp_path / "self.db").symlink_to(tmp_path / "2.db")
            with pytest.raises(ImportRefused, match="the store itself"):
                await engine.import_(tmp_path / "self.db", runs="a")

    asyncio.run(main())


def test_a_store_that_is_executed_is_read_as_of_one_moment_and_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Engine(tmp_path / "1.db", workflows=[waits]) as engine,
            Engine(tmp_path / "2.db", workflows=[waits]) as other,
        ):
            for name in "abc":
                await reached(await engine.start(waits(1), id=name), "waiting")
            with pytest.raises(ImportRefused, match="--run ID"):
                await other.import_(tmp_path / "1.db")
            with pytest.raises(ImportRefused, match="no run 'nope'"):
                await other.import_(tmp_path / "1.db", runs=["a", "nope"])
            assert (await other.import_(tmp_path / "1.db", runs=["a", "c"])).ids == ["a", "c"]
            again = await other.import_(tmp_path / "1.db", runs=["b", "c"])
            assert (again.ids, again.already) == (["b"], ["c"])
            await engine.send("a", None, channel="go")
            assert await (await engine.get("a")).result() == 1
            with pytest.raises(RunExists, match="gone on to row"):
                await other.import_(tmp_path / "1.db", runs="a")
            await other.resume("a")
            await other.send("a", None, channel="go")
            await (await other.get("a")).result()
            with pytest.raises(RunExists, match="gone on otherwise"):
                await other.import_(tmp_path / "1.db", runs="a")

    asyncio.run(main())


def test_a_file_of_an_earlier_schema_is_imported_and_not_changed(tmp_path: Path) -> None:
    old = old_file(str(tmp_path / "old.db"), 4)
    old.execute(
        "INSERT INTO run (run, id, workflow, status, args, seed, created_ms) "
        "VALUES (3, 'r', 'waits', 'waiting', '{\"n\":4}', 1, 1)"
    )
    old.execute("INSERT INTO event (key, kind, at_ms) VALUES (3 << 24 | 1, 'start', 1)")
    old.close()
    there = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    async def main() -> None:
        async with Engine(tmp_path / "2.db", workflows=[waits]) as engine:
            assert (await engine.import_(tmp_path / "old.db", runs="r", go_on=True)).ids == ["r"]
            await engine.send("r", None, channel="go")
            assert await (await engine.get("r")).result() == 4

    asyncio.run(main())
    assert {name: (tmp_path / name).read_bytes() for name in there} == there

"""Runs in files of their own: what an export has, and what an import makes of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import (
    DefinitionError,
    Engine,
    ExportRefused,
    ImportRefused,
    Request,
    RunExists,
    RunNotFound,
    Secret,
    SecretsMissing,
    StoreError,
    StoreTooNew,
    connect,
    continue_as,
    current_step,
    emit,
    expose,
    receive,
    receive_request,
    step,
    workflow,
)
from perdure.store.import_writes import TABLES
from perdure.store.sqlite.connection import new_pages
from perdure.store.sqlite.export_file import ExportFile
from tests.runtime.support import awaited, reached

KEY = "sk-THE-TEXT"


@step
def double(n: int, text: str) -> dict[str, Any]:
    current_step().heartbeat(n)
    return {"n": 2 * n, "text": text}


@workflow
async def child(n: int) -> int:
    await receive("go")
    return int((await double(n, "t" * 2_000))["n"])


@workflow
async def order(n: int, more: int) -> int:
    if more:
        continue_as(order(n + 1, more - 1))
    emit("log", {"text": "l" * 1_500})
    expose(stage="begun")
    request: Request[int] = await receive_request("ask", int)
    request.reply(request.value + 1)
    return sum(await asyncio.gather(child(n), child.options(id="named")(n)))


@workflow
async def guarded(key: Secret) -> Secret:
    await receive("go")
    return key


ALL: list[Any] = [order, child, guarded]


async def under_way(engine: Engine) -> list[str]:
    """A run with generations, a request with its reply, and two children that wait."""
    await engine.start(order(1, 2), id="a", tags={"of": "me"})
    assert await engine.ask("a", 1, channel="ask", key="k", timeout=10) == 2
    ids: list[str] = []
    while len(ids) < 2:
        await asyncio.sleep(0.003)
        ids = [one.id for one in await engine.summaries(workflow="child", status="waiting")]
    await reached(await engine.get("a"), "waiting")
    return ids


async def seen(engine: Engine) -> list[Any]:
    """All that people see of the run and its family."""
    runs = [one for one in reversed(await engine.runs()) if one.id != "another"]
    return [
        *[(one.id, one.workflow, one.args, one.tags, one.created_at, one.parent) for one in runs],
        *[(one.id, await engine.history(one.id)) for one in runs],
        await engine.exposed("a"),
    ]


@pytest.mark.parametrize("file", ["a.db", "a.json"])
@awaited
async def test_a_family_goes_on_in_another_store(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    async with Engine(tmp_path / "1.db", workflows=ALL) as engine:
        children = await under_way(engine)
        exported = await engine.export("a", path)
        assert exported.runs == 5
        before = await seen(engine)
    async with Engine(tmp_path / "2.db", workflows=ALL) as engine:
        await engine.start(child(1), id="another")
        imported = await engine.import_(path)
        assert (len(imported.ids), imported.open) == (5, 3)
        assert await seen(engine) == before
        assert {await (await engine.get(one)).status() for one in ("a", *children)} == {"paused"}
        for one in ("a", *children):
            await engine.resume(one)
        assert await engine.ask("a", 1, channel="ask", key="k", timeout=10) == 2
        for one in children:
            await engine.send(one, None, channel="go")
        assert await (await engine.get("a")).result() == 12
        stream = (await engine.get("a")).stream("log")
        assert [item async for item in stream] == [{"text": "l" * 1_500}]


@awaited
async def test_what_is_there_already_is_refused_and_nothing_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Engine(tmp_path / "1.db", workflows=ALL) as engine:
        await under_way(engine)
        await engine.export("a", path)
        await engine.export("a", tmp_path / "alone.db", family=False)
        with pytest.raises(ExportRefused, match="there is a file"):
            await engine.export("a", path)
        with pytest.raises(RunNotFound):
            await engine.export(["a", "b"], tmp_path / "b.db")
        with pytest.raises(DefinitionError):
            await engine.export([], tmp_path / "b.db")
        with pytest.raises(ExportRefused, match="ends neither"):
            await engine.export("a", tmp_path / "b.txt")
        with pytest.raises(ExportRefused, match="No such file"):
            await engine.export("a", tmp_path / "no" / "b.db")
    async with Engine(tmp_path / "2.db", workflows=ALL) as engine:
        await engine.start(child(1), id="named")
        with pytest.raises(RunExists, match="named"):
            await engine.import_(path)
        with pytest.raises(ImportRefused, match="children"):
            await engine.import_(tmp_path / "alone.db", go_on=True)
        assert [one.id for one in await engine.summaries()] == ["named"]
        assert (await engine.import_(tmp_path / "alone.db")).ids == ["a"]
    async with Engine(":memory:") as engine:
        await engine.start(child(1), id="m")
        with pytest.raises(StoreError, match="in memory"):
            await engine.export("m", tmp_path / "m.db")
    assert sorted(one.name for one in tmp_path.iterdir() if one.suffix != ".db-wal") >= ["1.db"]
    assert not list(tmp_path.glob(".perdure-export-*"))


@awaited
async def test_secrets_stay_unless_they_are_asked_for(tmp_path: Path) -> None:
    async with Engine(tmp_path / "1.db", workflows=ALL) as engine:
        await reached(await engine.start(guarded(Secret(KEY)), id="a"), "waiting")
        done = await engine.start(guarded(Secret(KEY)), id="b")
        await engine.send("b", None, channel="go")
        await done.result()
        for name, secrets in (("no.db", False), ("no.json", False), ("with.db", True)):
            await engine.export(["a", "b"], tmp_path / name, secrets=secrets)
        with pytest.raises(ExportRefused, match=r"\.db file only"):
            await engine.export("a", tmp_path / "with.json", secrets=True)
    assert KEY.encode() not in (tmp_path / "no.db").read_bytes()
    assert KEY.encode() not in (tmp_path / "no.json").read_bytes()
    for name in ("no.db", "no.json"):
        async with Engine(tmp_path / f"{name}.2.db", workflows=ALL) as engine:
            with pytest.raises(ImportRefused, match="without its secrets"):
                await engine.import_(tmp_path / name, go_on=True)
            assert await engine.summaries() == []
            await engine.import_(tmp_path / name)
            assert (await engine.info("b")).result == "•••"
            with pytest.raises(SecretsMissing):
                await (await engine.get("b")).result()
    async with Engine(tmp_path / "3.db", workflows=ALL) as engine:
        await engine.import_(tmp_path / "with.db", go_on=True)
        await engine.send("a", None, channel="go")
        assert await (await engine.get("a")).result() == Secret(KEY)
        assert await (await engine.get("b")).result() == Secret(KEY)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5_000])


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 20_000] = b"\xff" * 20_000
    path.write_bytes(raw)


def changed(statement: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        db = apsw.Connection(str(path))
        db.execute(statement)
        db.close()

    return write


def newer(path: Path) -> None:
    db = apsw.Connection(str(path))
    db.pragma("user_version", 99)
    db.close()


def empty(path: Path) -> None:
    path.write_bytes(new_pages())


def replaced(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text)

    return write


def edited(old: str, new: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return write


RUBBISH: list[tuple[str, Callable[[Path], None], type[Exception], str]] = [
    ("a.db", cut, StoreError, "truncated"),
    ("a.db", damage, StoreError, "can't be"),
    ("a.db", newer, StoreTooNew, "99"),
    ("a.db", changed(f"UPDATE run SET args = '@{'0' * 32}[[9,9]]'"), ImportRefused, "payload"),
    ("a.db", changed("UPDATE run SET args = '{nope'"), ImportRefused, "payload"),
    ("a.db", changed("UPDATE run SET tags = '[]'"), ImportRefused, "payload"),
    ("a.db", changed("DROP TABLE event; CREATE VIEW event AS SELECT 1"), ImportRefused, "no table"),
    ("a.db", replaced("hello " * 100), StoreError, "not an SQLite database"),
    ("a.db", empty, ImportRefused, "no export has chosen"),
    ("a.db", changed("DELETE FROM event; DELETE FROM run"), ImportRefused, "no run"),
    ("a.json", replaced("{"), ImportRefused, "no export"),
    ("a.json", replaced("[]"), ImportRefused, "no export"),
    ("a.json", edited('"perdure_export":1', '"perdure_export":2'), ImportRefused, "newer"),
    ("a.json", edited('"kind":"start"', '"kind":7'), ImportRefused, "row 0 of 'event'"),
    ("a.json", edited('"kind":"start"', '"kinds":"start"'), ImportRefused, "kinds"),
    ("a.json", edited('"tags":{', '"waiting":{},"tags":{'), ImportRefused, "row 0 of 'run'"),
    ("a.json", edited('"status":"waiting"', '"status":"odd"'), ImportRefused, "odd"),
    ("a.db", changed("UPDATE event SET key = key + (84 << 24)"), ImportRefused, "without its run"),
    ("a.json", edited('"seq":1,"kind"', '"seq":99999999999,"kind"'), ImportRefused, "99999999999"),
]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")

    async def main() -> None:
        async with Engine(folder / "1.db", workflows=ALL) as engine:
            run = await engine.start(child(1), id="a", tags={"text": "x" * 30_000})
            await reached(run, "waiting")
            await engine.export("a", folder / "a.db")
            await engine.export("a", folder / "a.json")

    asyncio.run(main())
    return folder


@pytest.mark.parametrize(("name", "spoil", "error", "text"), RUBBISH)
def test_rubbish_is_refused_and_nothing_changed(
    exports: Path,
    tmp_path: Path,
    name: str,
    spoil: Callable[[Path], None],
    error: type[Exception],
    text: str,
) -> None:
    path = tmp_path / name
    shutil.copyfile(exports / name, path)
    spoil(path)

    async def main() -> None:
        async with Engine(tmp_path / "2.db", workflows=ALL) as engine:
            with pytest.raises(error, match=text):
                await engine.import_(path, go_on=True)
            assert await engine.summaries() == []
            assert await engine.run(double_of(4)) == 8

    asyncio.run(main())


@workflow
async def double_of(n: int) -> int:
    return n * 2


@awaited
async def test_the_store_is_free_while_a_file_is_read(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, read, rows_of = threading.Event(), threading.Event(), ExportFile.rows_of

    def slow(self: ExportFile, table: str, run: int) -> Iterator[tuple[Any, ...]]:
        read.set()
        goes_on.wait()
        return rows_of(self, table, run)

    monkeypatch.setattr(ExportFile, "rows_of", slow)
    async with Engine(tmp_path / "2.db", workflows=[*ALL, double_of]) as engine:
        imported = asyncio.create_task(engine.import_(exports / "a.db"))
        await asyncio.to_thread(read.wait)
        assert await engine.run(double_of(4)) == 8
        assert not imported.done()
        goes_on.set()
        assert (await imported).ids == ["a"]


@awaited
async def test_an_import_that_is_given_up_leaves_nothing_open(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, goes_on = threading.Event(), threading.Event()

    def slow(self: ExportFile) -> list[Any]:
        read.set()
        goes_on.wait()
        return []

    monkeypatch.setattr(ExportFile, "heads", slow)
    async with Engine(tmp_path / "2.db", workflows=ALL) as engine:
        imported = asyncio.create_task(engine.import_(exports / "a.db"))
        await asyncio.to_thread(read.wait)
        imported.cancel()
        with pytest.raises(asyncio.CancelledError):
            await imported
        goes_on.set()
        monkeypatch.undo()
        assert (await engine.import_(exports / "a.db")).ids == ["a"]


@awaited
async def test_a_start_that_is_ahead_stays_ahead_after_a_resume(tmp_path: Path) -> None:
    file, at = tmp_path / "a.db", datetime(2100, 1, 1, tzinfo=UTC)
    async with Engine(tmp_path / "one.db", workflows=[child]) as engine:
        await engine.start(child(1), id="a", at=at)
        await engine.export("a", file)
    async with Engine(tmp_path / "two.db", workflows=[child]) as engine:
        await engine.import_(file)
        await engine.resume("a")
        run = await engine.info("a")
    assert (run.status, run.due_at) == ("pending", at)


@awaited
async def test_a_child_alone_has_no_parent_and_goes_on(tmp_path: Path) -> None:
    async with Engine(tmp_path / "1.db", workflows=ALL) as engine:
        (one, _) = await under_way(engine)
        await engine.export(one, tmp_path / "child.db", family=False)
        await engine.export(one, tmp_path / "child.json", family=False)
    for name in ("child.db", "child.json"):
        async with Engine(tmp_path / f"of-{name}", workflows=ALL) as engine:
            assert (await engine.import_(tmp_path / name, go_on=True)).ids == [one]
            assert (await engine.info(one)).parent is None
            await engine.send(one, None, channel="go")
            assert await (await engine.get(one)).result() == 6


def test_every_column_is_carried() -> None:
    names = {"request": "perdure_request", "message": "inbox", "exposed": "perdure_exposed_value"}
    names["secret"] = "perdure_secret"
    left_out = {
        "run": {"owner", "debounce_until_ms"},
        "event": {"key"},
        "message": {"id"},
        "stream": {"id"},
        "chunk": {"id"},
    }
    db = apsw.Connection(":memory:")
    db.deserialize("main", new_pages()[:18] + b"\x01\x01" + new_pages()[20:])
    for table, columns in TABLES.items():
        there = {
            name
            for (name,) in db.execute(
                "SELECT name FROM pragma_table_xinfo(?)", (names.get(table, table),)
            )
        }
        assert there - set(columns) == left_out.get(table, set()), table


def test_json_is_readable(exports: Path) -> None:
    found = json.loads((exports / "a.json").read_text())
    assert found["tables"]["run"][0]["args"] == {"n": 1}
    assert [row["kind"] for row in found["tables"]["event"]] == ["start"]


def test_an_exported_file_is_a_store(exports: Path) -> None:
    db = connect(exports / "a.db")
    assert db.execute("SELECT id, status, worker FROM perdure_runs").fetchall() == [
        ("a", "waiting", None)
    ]
    db.close()

"""Databases in a real bucket: listed, opened, followed and searched, and never written to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from campaigns.faulty_proxy import Proxy
from campaigns.s3_servers import BucketServer
from perdure.errors import (
    BucketUnusable,
    DatabaseNotFound,
    EngineClosed,
    ReplicaUnavailable,
)
from perdure.observe import databases as databases_module
from perdure.observe import pages as pages_module
from perdure.observe.databases import Databases
from perdure.reader.values import RunQuery
from perdure.replica import summary
from tests.observe.support import all_pages, engine_at, notes, pages_at, restored, some_runs
from tests.runtime.support import awaited, until

NAMES = ("acme/agents", "acme/billing", "initech")


@pytest.fixture(scope="module")
def fleet(bucket: BucketServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The prefix of three databases, each with a summary beside it."""
    folder = tmp_path_factory.mktemp("fleet")

    async def one(name: str) -> None:
        store = folder / f"{name.replace('/', '-')}.db"
        async with engine_at(store, bucket.url(f"fleet/{name}")) as engine:
            await some_runs(engine, name.partition("/")[0], n=4)

    async def all_of_them() -> None:
        await asyncio.gather(*map(one, NAMES))

    asyncio.run(all_of_them())
    return "fleet"


@awaited
async def test_a_list_costs_no_restore_and_a_second_one_a_single_request(
    bucket: BucketServer, fleet: str, wire: Proxy
) -> None:
    async with Databases([bucket.url("fleet/acme", port=wire.port)]) as databases:
        entries = await databases.entries()
        assert [one.name for one in entries] == ["agents", "billing"]
        for one in entries:
            assert one.summary is not None and one.state(one.seen_ms) == "ended"
            assert one.summary.counts == {"completed": 4, "failed": 1, "waiting": 1}
            assert len(summary.encode(one.summary)) <= summary.BYTES_MAX
        first = dict(wire.kinds)
        assert first == {"list": 2, "read": 2}
        databases._listed_s = None
        await databases.entries()
        assert wire.kinds["list"] == 3 and wire.kinds["read"] == 2
    async with Databases([bucket.url(fleet, port=wire.port)]) as databases:
        assert [one.name for one in await databases.entries()] == list(NAMES)


@awaited
async def test_a_database_is_read_page_by_page_as_a_restore_has_it(
    bucket: BucketServer, fleet: str, wire: Proxy, tmp_path: Path
) -> None:
    async with Databases([bucket.url(fleet, port=wire.port)]) as databases:
        opened = await databases.open("acme/billing")
        assert opened.pages is not None and "from the replica" in opened.about
        page = await opened.reader.runs(RunQuery(status=("failed",)))
        assert [one.id for one in page.runs] == ["acme-bad"]
        assert (await opened.reader.history("acme-3", 0, 3))[0].args == {"n": 13}
        with pytest.raises(DatabaseNotFound):
            await databases.open("acme/nothing")
        await databases.open("initech")
        found = await databases.search("bank")
        assert [one.name for one in found if one.runs] == ["acme/billing", "initech"]
    address = bucket.url(f"{fleet}/acme/billing")
    copy = restored(bucket.url(f"{fleet}/acme/billing/000001"), tmp_path / "r.db")
    assert await asyncio.to_thread(all_pages, pages_at(address)) == copy


@awaited
async def test_what_an_engine_writes_is_followed_while_it_runs(
    bucket: BucketServer, wire: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "FOLLOW_S", 0.0)
    monkeypatch.setattr(databases_module, "LOOK_S", 0.0)
    monkeypatch.setattr(summary, "EVERY_S", 0.05)
    monkeypatch.setattr("perdure.replica.replicate.WATCH_S", 0.05)
    async with (
        engine_at(tmp_path / "a.db", bucket.url("live/one"), lease_ttl=3.0) as engine,
        Databases([bucket.url("live", port=wire.port)]) as databases,
    ):
        await engine.run(notes(3), id="first")
        while not await databases.entries():
            pass
        reader = (await databases.open("one")).reader
        await in_time(reader, 1)
        version = await reader.version()
        await engine.run(notes(40), id="second")
        await in_time(reader, 2)
        assert await reader.version() != version
        while (entry := (await databases.entries())[0]).summary is None or (
            entry.summary.counts != {"completed": 2}
        ):
            pass
        assert entry.state(entry.seen_ms) == "replicating" and entry.summary.pid > 0
    entry = (await databases.entries())[0]
    assert entry.state(entry.seen_ms) == "ended"


async def in_time(reader: object, runs: int) -> None:
    while len((await reader.runs(RunQuery())).runs) < runs:  # type: ignore[attr-defined]
        pass


@awaited
async def test_rubbish_for_a_summary_is_said_and_the_database_opens(
    bucket: BucketServer, fleet: str, wire: Proxy
) -> None:
    name = f"{fleet}/.summaries/initech.json"
    good = bucket.request("GET", name)[2]
    try:
        for rubbish in (b"", b"{}", b'{"name": 7}', b"x" * 100_000):
            bucket.request("PUT", name, rubbish)
            async with Databases([bucket.url(fleet, port=wire.port)]) as databases:
                entries = {one.name: one for one in await databases.entries()}
                assert "can't be read" in entries["initech"].problem
                assert entries["acme/agents"].summary is not None
                assert (await databases.open("initech")).pages is not None
    finally:
        bucket.request("PUT", name, good)


@awaited
async def test_few_are_open_at_a_time_and_none_that_nobody_looks_at(
    bucket: BucketServer, fleet: str, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases_module, "OPENED_MAX", 2)
    async with Databases([bucket.url(fleet, port=wire.port)]) as databases:
        first, same = await asyncio.gather(databases.open("initech"), databases.open("initech"))
        assert first is same
        for name in NAMES[:2]:
            await databases.open(name)
        assert sorted(one.name for one in databases.opened) == sorted(NAMES[:2])
        with pytest.raises(EngineClosed):
            await first.reader.runs(RunQuery())
    monkeypatch.setattr(databases_module, "IDLE_S", 0.05)
    async with Databases([bucket.url(fleet, port=wire.port)]) as databases:
        with (await databases.open("initech")).in_use():
            await databases.open("acme/agents")
            await until(lambda: [one.name for one in databases.opened] == ["initech"])
        await until(lambda: databases.opened == [])
        assert (await (await databases.open("initech")).reader.runs(RunQuery())).runs


@awaited
async def test_an_outage_leaves_what_is_known_and_says_so(
    bucket: BucketServer, fleet: str, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "FOLLOW_S", 0.0)
    monkeypatch.setattr(databases_module, "LOOK_S", 0.0)
    async with Databases([bucket.url(fleet, port=wire.port)]) as databases:
        opened = await databases.open("initech")
        before = await opened.reader.runs(RunQuery())
        wire.set("503", deny=("write", "delete"))
        assert await opened.reader.runs(RunQuery()) == before
        assert "can't be read now" in opened.about
        assert len(await databases.entries()) == 3 and len(databases.problems) == 1
        async with Databases([bucket.url(fleet, port=wire.port)]) as other:
            with pytest.raises(ReplicaUnavailable):
                await other.entries()
        wire.set(deny=("write", "delete"))
        await opened.reader.runs(RunQuery())
        assert "can't be read now" not in opened.about
        await databases.entries()
        assert databases.problems == []


@awaited
async def test_a_bucket_that_is_missing_or_forbids_lists_is_said(
    bucket: BucketServer, fleet: str, wire: Proxy
) -> None:
    wire.set(deny=("write", "delete", "list"))
    async with Databases([bucket.url(fleet, port=wire.port)]) as databases:
        with pytest.raises(BucketUnusable, match="list"):
            await databases.entries()
    async with Databases([bucket.url(f"{fleet}/initech", port=wire.port)]) as databases:
        (entry,) = await databases.entries()
        assert entry.name == "initech" and entry.state(entry.seen_ms) == "ended"
        with pytest.raises(BucketUnusable, match="list"):
            await databases.open("initech")
    wire.set(deny=("write", "delete"))
    gone = bucket.url("x", port=wire.port).replace("perdure/x", "nobody-has-this/x")
    async with Databases([gone]) as databases:
        with pytest.raises(BucketUnusable, match="bucket"):
            await databases.entries()
    async with Databases([bucket.url("empty-prefix", port=wire.port)]) as databases:
        assert await databases.entries() == []


@awaited
async def test_an_engine_that_may_write_in_its_own_prefix_only_puts_its_summary_there(
    bucket: BucketServer, tmp_path: Path, wire: Proxy
) -> None:
    with Proxy(bucket.port) as narrow:
        narrow.set(deny=("write",), deny_in="/.summaries/")
        url = bucket.url("private/one", port=narrow.port)
        async with engine_at(tmp_path / "a.db", url) as engine:
            await engine.run(notes(2), id="a")
    async with Databases([bucket.url("private", port=wire.port)]) as databases:
        (entry,) = await databases.entries()
        assert entry.name == "one" and entry.summary is not None
        assert entry.summary.counts == {"completed": 1}

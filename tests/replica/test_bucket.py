"""What is done with a bucket: one suite over a folder and a real S3 server, races and crashes
included.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from campaigns.faulty_proxy import Proxy
from campaigns.forking import Forked
from campaigns.s3_servers import BucketServer, CarelessBucketServer
from perdure.errors import (
    BucketUnusable,
    ReplicaUnavailable,
)
from perdure.replica.address import parse
from perdure.replica.buckets import open_bucket, probe
from perdure.replica.folder_bucket import FolderBucket
from tests.replica.support import address, nothing_seen, proxy
from tests.runtime.support import awaited, environment

__all__ = ["address", "nothing_seen", "proxy"]  # fixtures


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"file://{tmp_path}/bucket"
        if request.param == "folder"
        else str(request.getfixturevalue("address"))
    )


@awaited
async def test_objects_and_conditions(place: str) -> None:
    store = open_bucket(parse(place))
    assert await store.get("a.json") is None
    assert await store.names("") == []
    first = await store.put_new("a.json", b"1")
    assert first is not None
    assert await store.put_new("a.json", b"2") is None
    second = await store.put_if("a.json", b"3", first)
    assert second not in (None, first)
    assert await store.put_if("a.json", b"4", first) is None
    found = await store.get("a.json")
    assert found is not None
    assert (found.data, found.tag) == (b"3", second)
    third = await store.put("a.json", b"5")
    assert await store.put_if("a.json", b"6", third) is not None
    assert await store.put_if("nothing", b"7", third) is None or place.startswith("file")


@awaited
async def test_names_folders_and_deletes(place: str) -> None:
    store = open_bucket(parse(place))
    for name in ("000001/0000/a.ltx", "000001/0000/b.ltx", "000002/x.ltx", "lease.json"):
        await store.put(name, b"data")
    assert await store.folders() == ["000001", "000002"]
    assert [(found.name, found.size_bytes) for found in await store.names("000001")] == [
        ("000001/0000/a.ltx", 4),
        ("000001/0000/b.ltx", 4),
    ]
    assert "lease.json" in {found.name for found in await store.names("")}
    await store.delete(["000001/0000/a.ltx", "000001/0000/b.ltx", "never"])
    assert await store.names("000001") == []


@awaited
async def test_of_many_writes_under_one_condition_one_succeeds(place: str) -> None:
    stores = [open_bucket(parse(place)) for _ in range(4)]
    tag = None
    for number in range(5):
        body = f"{number}-".encode()
        if tag is None:
            tags = await asyncio.gather(
                *(one.put_new("a", body + bytes([65 + n])) for n, one in enumerate(stores))
            )
        else:
            tags = await asyncio.gather(
                *(one.put_if("a", body + bytes([65 + n]), tag) for n, one in enumerate(stores))
            )
        won = [n for n, one in enumerate(tags) if one is not None]
        assert len(won) == 1
        found = await stores[0].get("a")
        assert found is not None
        assert found.data == body + bytes([65 + won[0]])
        tag = found.tag


@awaited
async def test_a_probe_leaves_nothing_behind(place: str) -> None:
    store = open_bucket(parse(place))
    await probe(store, place, fencing=True)
    await probe(store, place, fencing=False)
    assert await store.names("") == []


@awaited
async def test_an_old_version_of_a_folder_s_object_never_wins(tmp_path: Path) -> None:
    """Its file is gone by then, so that the name is free again."""
    store = FolderBucket(str(tmp_path))
    tags = [await store.put("a", str(n).encode()) for n in range(6)]
    assert len(list(tmp_path.iterdir())) == 2
    for tag in ["0", *tags[:-1]]:
        assert await store.put_if("a", b"zombie", tag) is None
    found = await store.get("a")
    assert found is not None
    assert found.data == b"5"


@awaited
async def test_what_is_being_written_is_not_listed_and_so_not_deleted(tmp_path: Path) -> None:
    """A clean-up of old claims deletes all that it finds listed, while another process writes a new
    one.
    """
    store = FolderBucket(str(tmp_path))
    await store.put("taken/1", b"x")
    draft = tmp_path / "taken" / ".being-written"
    draft.write_bytes(b"half")
    found = [one.name for one in await store.names("taken")]
    assert found == ["taken/1"]
    await store.delete(found)
    assert draft.exists()


@awaited
async def test_a_write_and_the_removal_of_its_folder_do_not_meet(tmp_path: Path) -> None:
    writer, cleaner = FolderBucket(str(tmp_path)), FolderBucket(str(tmp_path))
    for _ in range(150):
        await asyncio.gather(writer.put("a/b", b"x"), cleaner.delete(["a/b"]))


_WRITER = """
import asyncio, sys
from perdure.replica.folder_bucket import FolderBucket

async def main():
    store = FolderBucket(sys.argv[1])
    for n in range(10**9):
        await store.put("a", str(n).encode() * 500)
        if n == 20:
            print("writing", flush=True)

asyncio.run(main())
"""


def test_a_folder_survives_a_kill_in_the_middle_of_a_write(tmp_path: Path) -> None:
    for number in itertools.count():
        writer = Forked(
            [sys.executable, "-c", _WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            env=environment(),
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.kill()
        writer.communicate()
        found = asyncio.run(FolderBucket(str(tmp_path)).get("a"))
        assert found is not None
        assert len(set(found.data[: len(found.data) // 500 * 500])) >= 1
        assert len(found.data) % 500 == 0
        if number == 4:
            return


# --- errors ---------------------------------------------------------------------------------------


@awaited
async def test_a_missing_bucket_and_a_wrong_key(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BucketUnusable, match="there is no such bucket"):
        await open_bucket(parse(address.replace("//perdure/", "//missing/"))).put("a", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = open_bucket(parse(address))
    for work in (store.get("a"), store.put_new("a", b"1"), store.names(""), store.delete(["a"])):
        with pytest.raises(BucketUnusable, match=r"does not let us (read|write|list|delete)"):
            await work


@pytest.mark.parametrize("fault", ["refuse", "cut", "500", "503"])
def test_what_time_may_resolve_is_unavailable(address: str, proxy: Proxy, fault: str) -> None:
    @awaited
    async def main() -> None:
        store = open_bucket(parse(address))
        await store.put("a", b"1")
        proxy.set(fault)  # type: ignore[arg-type]
        for work in (store.get("a"), store.put_new("b", b"1"), store.names("")):
            with pytest.raises(ReplicaUnavailable, match="does not answer"):
                await work
        proxy.set()
        assert await store.get("a") is not None

    main()


@awaited
async def test_a_folder_that_may_not_be_written_or_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((BucketUnusable, ReplicaUnavailable)):
        await FolderBucket(str(tmp_path / "file")).put("a", b"1")
    with pytest.raises((BucketUnusable, BucketUnusable, ReplicaUnavailable)):
        await FolderBucket("/proc/nowhere").put("a", b"1")


@awaited
async def test_a_careless_bucket_is_found_out(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CarelessBucketServer(tmp_path_factory.mktemp("careless")) as careless:
        for name, value in careless.environment().items():
            monkeypatch.setenv(name, value)
        store = open_bucket(parse(careless.url("p")))
        with pytest.raises(BucketUnusable, match=r"If-None-Match is ignored.*fencing=False"):
            await probe(store, careless.url("p"), fencing=True)
        await probe(store, careless.url("p"), fencing=False)
        assert await store.names("") == []


@awaited
async def test_no_credentials_at_all(
    address: str, monkeypatch: pytest.MonkeyPatch, bucket: BucketServer
) -> None:
    for name in bucket.environment():
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises((BucketUnusable, ReplicaUnavailable)):
        await open_bucket(parse(address)).get("a")

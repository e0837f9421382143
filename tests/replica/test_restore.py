"""What is in a replica, seen from outside: moments are found in the epoch that was the
base then."""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path

import msgspec
import pytest

import perdure
from perdure.errors import ReplicaDamaged, ReplicaEmpty, StoreUnavailable
from perdure.replica import litestream_binary, restore
from perdure.replica.address import parse
from perdure.replica.buckets import open_bucket
from tests.replica.support import engine_of, gone, long_text, nothing_seen, two_effects
from tests.runtime.support import awaited

__all__ = ["nothing_seen"]  # a fixture

RETRIED = """#!/bin/sh
if [ "$1" = restore ] && [ ! -e {0} ]; then
    touch {0}
    echo 'level=ERROR msg="failed to run" error="file does not exist"' >&2
    exit 1
fi
exec {1} "$@"
"""

HEARD = """#!/bin/sh
[ "$1" = restore ] || exec {1} "$@"
{1} "$@"
code=$?
until [ -e {0} ]; do sleep 0.02; done
exit $code
"""


def runs_of(store: Path) -> set[str]:
    return {row[0] for row in perdure.connect(store).execute("SELECT id FROM perdure_runs")}


@awaited
async def test_a_moment_is_restored_from_the_epoch_of_that_time(tmp_path: Path) -> None:
    """Also where merging has left no object that is as old as its epoch, as far as the lease knows
    when that began.
    """
    address, store, moments = parse(f"file://{tmp_path}/bucket"), tmp_path / "a.db", []
    for name in ("a", "b", "c"):
        async with engine_of(store, str(address)) as engine:
            await engine.run(two_effects(name), id=name)
        moments.append(dt.datetime.now(dt.UTC))
        gone(store)  # on the same disk the next one would continue the epoch
    await restore.restore(address, tmp_path / "then.db", at=moments[1])
    assert runs_of(tmp_path / "then.db") == {"a", "b"}

    row, bucket = (await restore.look(address)).lease, open_bucket(address)
    assert list(row.begun_ms) == [1, 2, 3]
    forgetful = msgspec.structs.replace(row, begun_ms={})
    assert [await restore._epoch_at(bucket, at, forgetful) for at in moments] == [1, 2, 3]
    for path in (tmp_path / "bucket" / "000002").rglob("*.ltx"):
        os.utime(path)
    assert [await restore._epoch_at(bucket, at, row) for at in moments] == [1, 2, 3]
    assert [await restore._epoch_at(bucket, at, forgetful) for at in moments] == [1, 1, 3]
    assert await restore._epoch_at(bucket, moments[0] - dt.timedelta(days=1), row) is None


@awaited
async def test_a_restore_that_fails_once_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address, store = f"file://{tmp_path}/bucket", tmp_path / "a.db"
    async with engine_of(store, address) as engine:
        await engine.run(two_effects("a"), id="a")
    once = tmp_path / "litestream"
    once.write_text(RETRIED.format(tmp_path / "failed", litestream_binary.find()))
    once.chmod(0o755)
    monkeypatch.setenv("PERDURE_LITESTREAM", str(once))
    await restore.restore(parse(address), tmp_path / "copy.db")
    assert runs_of(tmp_path / "copy.db") == {"a"}
    assert "a restore is tried again: " in caplog.text
    assert "file does not exist" in caplog.text


@awaited
async def test_a_long_copy_reports_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.replica.litestream_binary.LOOK_S", 0.01)
    slow, heard = tmp_path / "litestream", tmp_path / "heard"
    slow.write_text(HEARD.format(heard, litestream_binary.find()))
    slow.chmod(0o755)
    monkeypatch.setenv("PERDURE_LITESTREAM", str(slow))
    address, store = f"file://{tmp_path}/bucket", tmp_path / "a.db"
    texts: list[str] = []
    found: list[int] = []

    def on_bytes(size: int) -> None:
        found.append(size)
        if size > 1_000_000:
            heard.touch()

    def on_progress(text: str) -> None:
        texts.append(text)
        if re.fullmatch(f"Restoring .*other.db from {address}/000001: [0-9]+,[0-9,]+ bytes", text):
            heard.touch()

    first = engine_of(store, address, on_progress=on_progress)
    second = engine_of(tmp_path / "other.db", address, on_progress=on_progress)
    async with first:
        assert re.fullmatch(f"Copying {store}, [0-9,]+ bytes, to {address}", texts[0])
        await first.run(long_text(1_000_000), id="long")
    await restore.restore(parse(address), tmp_path / "copy.db", on_bytes=on_bytes)
    assert found == sorted(found)
    heard.unlink()
    async with second:
        assert heard.exists()


@awaited
@pytest.mark.parametrize("how", ["noise", "hole", "nothing"])
async def test_a_copy_that_litestream_cannot_read_is_damaged_and_not_away(
    tmp_path: Path, how: str
) -> None:
    address, store = f"file://{tmp_path}/bucket", tmp_path / "a.db"
    async with engine_of(store, address) as engine:
        for n in range(3):
            await engine.run(two_effects(f"{n}"), id=f"{n}")
    objects = sorted((tmp_path / "bucket").rglob("ltx/0/*.ltx"))
    if how == "noise":
        for path in (tmp_path / "bucket").rglob("*.ltx"):
            raw = bytearray(path.read_bytes())
            raw[150:158] = b"\xff" * 8
            path.write_bytes(raw)
    elif how == "nothing":
        for path in (tmp_path / "bucket").rglob("*.ltx"):
            path.unlink()
    else:
        lost = objects[len(objects) // 2].name[:16]
        for path in (tmp_path / "bucket").rglob(
            "*.ltx"
        ):  # it may have been merged into another one by now
            if path.name[:16] <= lost <= path.name[17:33]:
                path.unlink()
    with pytest.raises(ReplicaDamaged, match="can't be trusted"):
        await restore.restore(parse(address), tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


@awaited
@pytest.mark.parametrize("epoch", [None, 9])
async def test_a_transaction_that_the_replica_does_not_have(
    tmp_path: Path, epoch: int | None
) -> None:
    address = f"file://{tmp_path}/bucket"
    async with engine_of(tmp_path / "a.db", address) as engine:
        await engine.run(two_effects("x"), id="x")
    with pytest.raises(ReplicaEmpty, match="has nothing of transaction 9999 that could be"):
        await restore.restore(parse(address), tmp_path / "copy.db", txid=9999, epoch=epoch)
    assert not (tmp_path / "copy.db").exists()


@awaited
async def test_a_restore_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"its folder .*nowhere.* does not exist"):
        await restore.restore(parse(f"file://{tmp_path}/bucket"), tmp_path / "nowhere" / "copy.db")

"""Epochs in a bucket: claims are given once, and what is old is swept."""

from __future__ import annotations

from pathlib import Path

from perdure.replica.address import parse
from perdure.replica.bucket import Bucket
from perdure.replica.buckets import open_bucket
from perdure.replica.epochs import Epochs, epochs_in
from tests.runtime.support import awaited


def bucket_in(folder: Path) -> Bucket:
    return open_bucket(parse(f"file://{folder}/bucket"))


@awaited
async def test_a_claim_is_given_once_and_the_next_one_is_above_it(tmp_path: Path) -> None:
    bucket = bucket_in(tmp_path)
    ours, theirs = Epochs(bucket, "ours", fencing=True), Epochs(bucket, "theirs", fencing=True)
    assert await ours.newest() == 0
    assert await ours.claim(1)
    assert await ours.claim(1)  # the answer may have got lost
    assert not await theirs.claim(1)
    assert await theirs.claim_after(0) == 2
    assert await ours.is_ours(1)
    assert not await ours.is_ours(2)
    assert await ours.newest() == 2


@awaited
async def test_the_newest_that_holds_anything_is_the_base_of_a_replica_without_a_lease(
    tmp_path: Path,
) -> None:
    bucket = bucket_in(tmp_path)
    epochs = Epochs(bucket, "ours", fencing=True)
    assert await epochs.newest_filled() is None
    for name in ("000003/ltx/0/1-1.ltx", "000005/ltx/0/1-1.ltx", "000007/notes.txt"):
        await bucket.put(name, b"1")
    await epochs.claim(9)
    assert await epochs.newest_filled() == 5
    assert await epochs.newest() == 9
    assert await epochs_in(bucket) == [3, 5, 7]


@awaited
async def test_a_sweep_keeps_what_is_young_and_what_is_needed(tmp_path: Path) -> None:
    bucket = bucket_in(tmp_path)
    epochs = Epochs(bucket, "ours", fencing=True)
    for epoch in (1, 2, 3):
        await epochs.claim(epoch)
        await bucket.put(f"00000{epoch}/ltx/0/1-1.ltx", b"1")
    now_ms = max(found.modified_ms for found in await bucket.names(""))
    assert await epochs.sweep(3, now_ms - 1_000_000) == []
    assert await epochs.sweep(3, now_ms + 1_000_000) == [1, 2]
    assert await epochs_in(bucket) == [3]
    assert await epochs.newest() == 3

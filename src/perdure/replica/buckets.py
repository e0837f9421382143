"""Opens the bucket at an address, and probes what it can do.

Rules: a probe tries all that will be needed before anything else is written, and leaves nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from perdure.errors import BucketUnusable, ReplicaUnavailable
from perdure.replica.address import Address
from perdure.replica.bucket import Bucket
from perdure.replica.folder_bucket import FolderBucket
from perdure.replica.s3_bucket import S3Bucket


def open_bucket(address: Address) -> Bucket:
    """The bucket or folder at an address. Raises as `with_library` does."""
    with with_library(address):
        return S3Bucket(address) if address.folder is None else FolderBucket(address.folder)


@contextmanager
def with_library(address: Address) -> Iterator[None]:
    """Open a bucket in here.

    Raises `BucketUnusable` where the library for buckets is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise BucketUnusable.without_library(str(address)) from error


async def probe(bucket: Bucket, where: str, *, fencing: bool) -> None:
    """Try all that will be needed, before anything else is written, and leave nothing behind.

    Raises `BucketUnusable`, also for a server that takes a conditional write and ignores the
    condition.
    """
    name = f".perdure-probe/{uuid.uuid4().hex}.json"
    tag = await bucket.put_new(name, b"1") if fencing else await bucket.put(name, b"1")
    try:
        read = await bucket.get(name)
        if read is None or read.data != b"1":
            raise ReplicaUnavailable(where, "what was written a moment ago can't be read")
        if not any(found.name == name for found in await bucket.names(".perdure-probe")):
            raise ReplicaUnavailable(where, "what was written a moment ago is not listed")
        if fencing:
            await _probe_conditions(bucket, where, name, tag or "")
    finally:
        await bucket.delete([name])


async def _probe_conditions(bucket: Bucket, where: str, name: str, tag: str) -> None:
    if await bucket.put_new(name, b"2") is not None:
        replaced = "a write that must create an object replaced one (If-None-Match is ignored)"
        raise BucketUnusable.without_conditions(where, replaced)
    changed = await bucket.put_if(name, b"3", tag)
    if changed is None or await bucket.put_if(name, b"4", tag) is not None:
        ignored = "a write that must find an object unchanged did not look (If-Match is ignored)"
        raise BucketUnusable.without_conditions(where, ignored)

"""Object storage as a replica needs it: read, conditional write, list, delete.

Rules: a condition that is not met is None and never an error; errors say whether time may resolve
them (`ReplicaUnavailable`) or only a person can (`ReplicaRefused`); nothing is tried again in here,
because a second try of a conditional write can't distinguish its first one from another engine's.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec

TIMEOUT_S = 5.0
THREADS_MAX = 8
NAMES_MAX = 100_000


class Stored(msgspec.Struct, frozen=True):
    """An object and the mark of this version of it."""

    data: bytes
    tag: str


class Found(msgspec.Struct, frozen=True):
    """An object in a listing; `modified_ms` is by the bucket's clock, `tag` marks its content."""

    name: str
    size_bytes: int
    modified_ms: int
    tag: str = ""


class Bucket(Protocol):
    """Objects by name, below one address."""

    async def get(self, name: str) -> Stored | None: ...

    async def put(self, name: str, data: bytes) -> str: ...

    async def put_new(self, name: str, data: bytes) -> str | None: ...

    async def put_if(self, name: str, data: bytes, tag: str) -> str | None: ...

    async def names(self, under: str) -> list[Found]: ...

    async def folders(self) -> list[str]: ...

    async def delete(self, names: Iterable[str]) -> None: ...


def request_threads() -> ThreadPoolExecutor:
    """Threads for one bucket's requests.

    The event loop's default executor may be full of the user's calls, and some requests may hang.
    """
    return ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="perdure-bucket")

"""Stores that commands read: without an engine, so that a file that can't be written is read, too.

Rules: nothing is written, migrated or executed; what is read is closed when the command ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from perdure.cli.common import ADDRESSES, run_async
from perdure.reader import StoreReader
from perdure.store.sqlite import connection

T = TypeVar("T")


def reader_of(store: str) -> StoreReader:
    """The reader of what `--store` names."""
    return StoreReader(connection.path_of(store))


def with_reader(store: str, act: Callable[[StoreReader], Awaitable[T]]) -> T:
    """Open what `--store` names, a file or the address of a replica, and read something of it."""

    async def main() -> T:
        if store.startswith(ADDRESSES):
            from perdure.observe.databases import Databases  # with what reads buckets

            async with Databases([store]) as databases:
                return await act((await databases.only()).reader)
        async with reader_of(store) as reader:
            return await act(reader)

    return run_async(main())


def with_run_read(store: str, prefix: str, act: Callable[[StoreReader, str], Awaitable[T]]) -> T:
    """The same for one run, named by its id or the beginning of it."""

    async def main(reader: StoreReader) -> T:
        return await act(reader, await reader.find(prefix))

    return with_reader(store, main)

"""Backends of the conformance suite: one entry each.

A backend makes empty databases and opens stores on them; tests know nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.core.limits import Limits
from perdure.store.base import Store
from perdure.store.sqlite.driver import SqliteStore


@dataclass(frozen=True)
class Backend:
    """How the suite gets stores of one kind."""

    name: str
    new_database: Callable[[Path], str]
    """The name of an empty database, made in or for this folder, which is of one test."""
    open: Callable[[str, Limits], Store]
    """A store on the database; where it is `shared`, several may be open at once."""
    shared: bool = True
    """Whether other processes can open the database. Tests that need a second store are skipped
    where they can not.
    """
    begin_checksum: Callable[[Any], None] | None = None
    """Start the checksum over all histories; None where the backend keeps none."""
    checksum: Callable[[Any], tuple[int, int, int]] | None = None
    """Its rows, digest and commits as of the last commit."""


def _sqlite_checksum(store: SqliteStore) -> tuple[int, int, int]:
    found = store.checksum()
    assert found is not None
    return found.rows, found.digest, found.commits


SQLITE = Backend(
    "sqlite",
    new_database=lambda folder: str(folder / "store.db"),
    open=lambda database, limits: SqliteStore(database, limits=limits),
    begin_checksum=lambda store: store.begin_epoch("store-1", "file:///replica", 1),
    checksum=_sqlite_checksum,
)
IN_MEMORY = Backend(
    "memory",
    new_database=lambda folder: ":memory:",
    open=lambda database, limits: SqliteStore(database, limits=limits),
    shared=False,
)

BACKENDS = [SQLITE, IN_MEMORY]

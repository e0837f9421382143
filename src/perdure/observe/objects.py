"""Objects of a bucket or a folder, only ever read: whole, in parts, and by their names.

Rules: there is no method that writes; every request is counted; an object that a list has shown may
be gone by the time it is read, because Litestream merges and removes files (`Gone`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from perdure.errors import BucketUnusable, ReplicaUnavailable, ReplicaUnreadable
from perdure.replica.address import Address
from perdure.replica.bucket import NAMES_MAX, Found
from perdure.replica.buckets import with_library
from perdure.replica.folder_bucket import text_of

T = TypeVar("T")
RETRIES = 2
LIST_PAGE = 1_000


class Gone(Exception):
    """An object is not there any more."""


class Read(msgspec.Struct, frozen=True):
    """A whole object, and when it was written, by the bucket's clock."""

    data: bytes
    modified_ms: int


class Objects(Protocol):
    """Objects below one address. `counts` has how many requests were made, by method."""

    where: str
    counts: Counter[str]

    def get(self, name: str) -> Read | None: ...

    def part(self, name: str, start: int, end: int) -> bytes: ...

    def names(self, under: str, after: str = "") -> list[Found]: ...

    def level(self, under: str) -> tuple[list[str], list[Found]]: ...


def open_objects(address: Address) -> Objects:
    """The objects at an address. Raises as `with_library` does."""
    with with_library(address):
        return S3Objects(address) if address.folder is None else FolderObjects(address.folder)


class S3Objects:
    """See `Objects`. May be used from several threads; each call waits for its answer."""

    def __init__(self, address: Address) -> None:
        import obstore
        from obstore import exceptions

        from perdure.replica import s3_bucket

        self.where, self.counts = str(address), Counter[str]()
        self._do, self._error, self._meaning = obstore, exceptions.BaseError, s3_bucket.error_for
        self._store = s3_bucket.client(address, retries=RETRIES)
        self._lock = threading.Lock()

    def get(self, name: str) -> Read | None:
        """A whole object; None where there is none."""
        try:
            found = self._ask("GET", self._do.get, self._store, name)
            return Read(bytes(found.bytes()), _ms(found.meta["last_modified"]))
        except Gone:
            return None

    def part(self, name: str, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`. Raises `Gone`."""
        return self._ask(
            "GET", lambda: bytes(self._do.get_range(self._store, name, start=start, end=end))
        )

    def names(self, under: str, after: str = "") -> list[Found]:
        """The objects below a folder in the order of their names, those behind `after` only."""
        return self._ask("LIST", self._names, under, after)

    def _names(self, under: str, after: str) -> list[Found]:
        found: list[Found] = []
        offset = f"{under}/{after}" if after else None
        for page in self._do.list(self._store, under, offset=offset, chunk_size=LIST_PAGE):
            found += map(_found, page)
            if len(found) >= NAMES_MAX:
                break
        return found

    def level(self, under: str) -> tuple[list[str], list[Found]]:
        """The names of the folders directly in a folder, and the objects there."""
        found = self._ask("LIST", self._do.list_with_delimiter, self._store, under or None)
        folders = [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]
        return sorted(folders), [_found(one) for one in found["objects"]]

    def _ask(self, method: str, work: Callable[..., T], *args: Any) -> T:
        with self._lock:
            self.counts[method] += 1
        what = "list" if method == "LIST" else "read"
        try:
            return work(*args)
        except (FileNotFoundError, self._error) as error:
            raise self._ours(what, error) from error

    def _ours(self, what: str, error: Exception) -> Exception:
        match self._meaning(self.where, what, error):
            case None:
                return Gone()
            case ReplicaUnavailable(detail=detail):
                return ReplicaUnreadable(self.where.partition("?")[0], detail)
            case other:
                return other


def _found(one: Any) -> Found:
    return Found(one["path"], one["size"], _ms(one["last_modified"]), str(one["e_tag"]))


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)


class FolderObjects:
    """See `Objects`: a folder that replicas lie in; of an object's versions the newest one counts
    (see `replica.folder_bucket`).
    """

    def __init__(self, folder: str) -> None:
        self._folder, self.where, self.counts = Path(folder), f"file://{folder}", Counter[str]()

    def get(self, name: str) -> Read | None:
        """A whole object; None where there is none."""
        return self._ask("GET", lambda: self._get(name))

    def _get(self, name: str) -> Read | None:
        path = self._folder / name
        for _ in range(3):  # a newer version may come, and this one go, at any time
            versions = sorted(path.parent.glob(f"{path.name}#*"))
            try:
                newest = versions[-1] if versions else path
                return Read(newest.read_bytes(), newest.stat().st_mtime_ns // 1_000_000)
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None

    def part(self, name: str, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`. Raises `Gone`."""
        return self._ask("GET", lambda: self._part(name, start, end))

    def _part(self, name: str, start: int, end: int) -> bytes:
        try:
            with open(self._folder / name, "rb") as file:
                file.seek(start)
                return file.read(end - start)
        except FileNotFoundError:
            raise Gone from None

    def names(self, under: str, after: str = "") -> list[Found]:
        """The objects in a folder in the order of their names, those behind `after` only."""
        folder = f"{under}/" if under else ""
        found = self.level(under)[1]
        return [one for one in found if one.name.removeprefix(folder) > after]

    def level(self, under: str) -> tuple[list[str], list[Found]]:
        """The names of the folders directly in a folder, and the objects there."""
        return self._ask("LIST", lambda: self._level(under))

    def _level(self, under: str) -> tuple[list[str], list[Found]]:
        folders: list[str] = []
        objects: dict[str, Found] = {}
        try:
            paths = sorted((self._folder / under).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            if under:
                return [], []
            raise
        for path in paths:
            if path.is_dir():
                folders.append(path.name)
            elif not path.name.startswith("."):
                name = str((Path(under) / path.name).as_posix()).partition("#")[0]
                try:
                    about = path.stat()
                except FileNotFoundError:
                    continue
                objects[name] = Found(name, about.st_size, about.st_mtime_ns // 1_000_000)
        return folders, list(objects.values())

    def _ask(self, method: str, work: Callable[[], T]) -> T:
        self.counts[method] += 1
        what = "list" if method == "LIST" else "read"
        try:
            return work()
        except PermissionError as error:
            raise BucketUnusable.denied(self.where, what, text_of(error)) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BucketUnusable.missing(self.where) from error
        except OSError as error:
            raise ReplicaUnreadable(self.where, text_of(error)) from error

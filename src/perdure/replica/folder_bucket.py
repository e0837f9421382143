"""A folder with a bucket's meanings, for replicas on another disk and for tests.

Rules: an object is its newest version, a file `name#000000012`, made by a link that must be new; a
tag has the version's number and what it holds, because numbers begin anew where all versions were
deleted; there are no locks, so that no process can freeze while holding one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable, Iterable
from hashlib import blake2b
from io import BufferedWriter
from pathlib import Path
from typing import Any, TypeVar

from perdure.errors import BucketUnusable, ReplicaUnavailable
from perdure.replica.bucket import Found, Stored, request_threads
from perdure.store.sqlite import files

DRAFT_TRIES = 10
T = TypeVar("T")


class FolderBucket:
    """See `Bucket`."""

    def __init__(self, folder: str) -> None:
        self._folder, self._where = Path(folder), f"file://{folder}"
        self._threads = request_threads()

    async def get(self, name: str) -> Stored | None:
        return await self._ask("read", self._get, name)

    async def put(self, name: str, data: bytes) -> str:
        while True:
            known = await self._ask("read", self._newest, name)
            tag = await self._ask("write", self._put_version, name, data, known + 1, None)
            if tag is not None:
                return str(tag)

    async def put_new(self, name: str, data: bytes) -> str | None:
        return await self._ask("write", self._put_version, name, data, 1, None)

    async def put_if(self, name: str, data: bytes, tag: str) -> str | None:
        number = tag.partition("-")[0]
        if not number.isdecimal():
            return None
        return await self._ask("write", self._put_version, name, data, int(number) + 1, tag)

    async def names(self, under: str) -> list[Found]:
        return await self._ask("list", self._names, under)

    async def folders(self) -> list[str]:
        return await self._ask("list", self._folders)

    async def delete(self, names: Iterable[str]) -> None:
        await self._ask("delete", self._delete, list(names))

    async def _ask(self, what: str, work: Callable[..., T], *args: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        except PermissionError as error:
            raise BucketUnusable.denied(self._where, what, text_of(error)) from error
        except FileNotFoundError as error:
            raise BucketUnusable.missing(self._where) from error
        except OSError as error:
            raise ReplicaUnavailable(self._where, text_of(error)) from error

    def _get(self, name: str) -> Stored | None:
        while (newest := self._newest(name)) > 0:
            try:
                data = self._version(name, newest).read_bytes()
                return Stored(data, _tag(newest, data))
            except FileNotFoundError:
                continue  # a newer one has come, and this one is gone
        return None

    def _version(self, name: str, number: int) -> Path:
        return self._folder / f"{name}#{number:09}"

    def _newest(self, name: str) -> int:
        return max(map(_number_of, self._versions(name)), default=0)

    def _versions(self, name: str) -> list[Path]:
        path = self._folder / name
        try:
            return list(path.parent.glob(path.name + "#*"))
        except FileNotFoundError:  # the folder was removed in this moment
            return []

    def _put_version(self, name: str, data: bytes, number: int, old_tag: str | None) -> str | None:
        path = self._version(name, number)
        file = _draft(path.parent)
        draft = Path(file.name)
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if self._newest(name) != number - 1:  # changed or deleted since the number was given
                return None
            before = self._get(name) if old_tag is not None else None
            if old_tag is not None and (before is None or before.tag != old_tag):
                return None
            try:
                os.link(draft, path)
            except FileExistsError:
                return None
        finally:
            draft.unlink(missing_ok=True)
        if self._newest(name) > number:  # an old number, removed already: it was never the newest
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(
            FileNotFoundError
        ):  # another writer has deleted it, and its folder
            files.sync(path.parent)
        for old in self._versions(name):
            if _number_of(old) < number - 1:
                old.unlink(missing_ok=True)
        return _tag(number, data)

    def _folders(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if path.is_dir())

    def _names(self, under: str) -> list[Found]:
        found: dict[str, Found] = {}  # by name: of two versions the newer one stays
        tree = os.walk(self._folder / under)
        for path in sorted(Path(folder, file) for folder, _, inside in tree for file in inside):
            if path.name.startswith("."):  # a draft is not to be listed, or deleted, yet
                continue
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    about, full = path.stat(), str(path.relative_to(self._folder))
                    name = full.rpartition("#")[0] or full
                    found[name] = Found(name, about.st_size, about.st_mtime_ns // 1_000_000)
        return list(found.values())

    def _delete(self, names: list[str]) -> None:
        for name in names:
            path = self._folder / name
            for one in [path, *self._versions(name)]:
                one.unlink(missing_ok=True)
            folder = path.parent
            with contextlib.suppress(
                OSError
            ):  # another writer has used it meanwhile, or removed it
                while folder != self._folder and folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
                    folder = folder.parent


def _number_of(version: Path) -> int:
    return int(version.name.rpartition("#")[2])


def text_of(error: OSError) -> str:
    """What the system says, and of which file."""
    return f"{error.strerror}: {error.filename}"


def _tag(number: int, data: bytes) -> str:
    return f"{number}-{blake2b(data, digest_size=8).hexdigest()}"


def _draft(folder: Path) -> BufferedWriter:
    """A new file that no list shows.

    A folder that a delete has just emptied and removed is made again.
    """
    tries_left = DRAFT_TRIES
    while True:
        tries_left -= 1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return open(folder / f".{uuid.uuid4().hex}", "xb")
        except (FileNotFoundError, FileExistsError):
            if not tries_left:
                raise

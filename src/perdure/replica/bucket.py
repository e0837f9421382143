"""The few things that we do with a bucket ourselves: read, write under a condition, list, delete;
and the test whether it can.

Rules: a condition that is not met is None and never an error; errors say whether time may mend them
(`ReplicaUnavailable`) or only a person can (`ReplicaRefused`); nothing is tried again in here,
because a second try of a conditional write can't tell its own first one from somebody else's; a
folder has the same meanings as a bucket, without locks, so that nobody can freeze while holding
one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import blake2b
from io import BufferedWriter
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from perdure.errors import (
    BucketDenied,
    BucketMissing,
    FencingUnsupported,
    ReplicaRefused,
    ReplicaUnavailable,
)
from perdure.replica.address import Address

TIMEOUT_S = 5.0
THREADS_MAX = 8
NAMES_MAX = 100_000
DRAFT_TRIES = 10
T = TypeVar("T")


class Stored(msgspec.Struct, frozen=True):
    """An object and the mark of this version of it."""

    data: bytes
    tag: str


class Found(msgspec.Struct, frozen=True):
    """An object in a listing; `modified_ms` is by the bucket's clock."""

    name: str
    size_bytes: int
    modified_ms: int


class Bucket(Protocol):
    """Objects by name, below one address."""

    async def get(self, name: str) -> Stored | None: ...

    async def put(self, name: str, data: bytes) -> str: ...

    async def put_new(self, name: str, data: bytes) -> str | None: ...

    async def put_if(self, name: str, data: bytes, tag: str) -> str | None: ...

    async def names(self, under: str) -> list[Found]: ...

    async def folders(self) -> list[str]: ...

    async def delete(self, names: Iterable[str]) -> None: ...


def open_bucket(address: Address) -> Bucket:
    """The bucket or folder at an address. Raises `ReplicaRefused` where the library for buckets is
    not installed.
    """
    if address.folder is not None:
        return FolderBucket(address.folder)
    try:
        return S3Bucket(address)
    except ImportError as error:
        raise ReplicaRefused(
            "A replica in a bucket needs one more library: pip install 'perdure[replica]'."
        ) from error


async def probe(bucket: Bucket, where: str, *, fencing: bool) -> None:
    """Try all that will be needed, before anything else is written, and leave nothing behind.

    Raises `FencingUnsupported` for a server that takes a conditional write and ignores the
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
            if await bucket.put_new(name, b"2") is not None:
                raise FencingUnsupported(
                    where,
                    "a write that must create an object replaced one (If-None-Match is ignored)",
                )
            changed = await bucket.put_if(name, b"3", tag or "")
            if changed is None or await bucket.put_if(name, b"4", tag or "") is not None:
                raise FencingUnsupported(
                    where,
                    "a write that must find an object unchanged did not look (If-Match is ignored)",
                )
    finally:
        await bucket.delete([name])


def _threads() -> ThreadPoolExecutor:
    """For one bucket's requests. The event loop's default executor may be full of the user's calls;
    and some requests may hang.
    """
    return ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="perdure-bucket")


# --- S3 -------------------------------------------------------------------------------------------


class S3Bucket:
    """A bucket over obstore; credentials come from the usual AWS variables, or from the machine's
    role.
    """

    def __init__(self, address: Address) -> None:
        import obstore
        from obstore import exceptions
        from obstore.store import S3Store

        self._where, self._do, self._errors = str(address), obstore, exceptions
        self._threads = _threads()
        options: dict[str, Any] = {"virtual_hosted_style_request": address.endpoint is None}
        if address.endpoint:
            options["endpoint"] = address.endpoint
        if (
            region := address.region
            or os.environ.get("AWS_REGION")
            or os.environ.get("AWS_DEFAULT_REGION")
            or "us-east-1"
        ):
            options["region"] = region
        self._store = S3Store(
            address.bucket,
            prefix=address.prefix or None,
            client_options={
                "timeout": timedelta(seconds=TIMEOUT_S),
                "connect_timeout": timedelta(seconds=TIMEOUT_S),
                "allow_http": (address.endpoint or "").startswith("http:"),
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=TIMEOUT_S)},
            **options,
        )

    async def get(self, name: str) -> Stored | None:
        return await self._ask("read", self._get, name)

    async def put(self, name: str, data: bytes) -> str:
        return str(await self._ask("write", self._put, name, data, "overwrite"))

    async def put_new(self, name: str, data: bytes) -> str | None:
        return await self._ask("write", self._put, name, data, "create")

    async def put_if(self, name: str, data: bytes, tag: str) -> str | None:
        return await self._ask("write", self._put, name, data, {"e_tag": tag})

    async def names(self, under: str) -> list[Found]:
        return await self._ask("list", self._names, under) or []

    async def folders(self) -> list[str]:
        return await self._ask("list", self._folders) or []

    async def delete(self, names: Iterable[str]) -> None:
        await self._ask("delete", lambda: [self._do.delete(self._store, name) for name in names])

    def _get(self, name: str) -> Stored:
        found = self._do.get(self._store, name)
        return Stored(bytes(found.bytes()), str(found.meta["e_tag"]))

    def _put(self, name: str, data: bytes, mode: Any) -> str:
        return str(self._do.put(self._store, name, data, mode=mode, use_multipart=False)["e_tag"])

    def _names(self, under: str) -> list[Found]:
        found: list[Found] = []
        for page in self._do.list(self._store, under, chunk_size=1_000):
            found += [
                Found(one["path"], one["size"], int(one["last_modified"].timestamp() * 1000))
                for one in page
            ]
            if len(found) >= NAMES_MAX:
                break
        return found

    def _folders(self) -> list[str]:
        found = self._do.list_with_delimiter(self._store, "")
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    async def _ask(self, what: str, work: Callable[..., T], *args: Any) -> T | None:
        """The answer, or None for what is not there and for a condition that is not met.

        In a thread: the library's own futures are told from its threads, and one that is told while
        Python ends aborts the process.
        """
        errors = self._errors
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        except (errors.PreconditionError, errors.AlreadyExistsError):
            return None
        except (errors.NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise BucketMissing(self._where) from error
            return None
        except (errors.PermissionDeniedError, errors.UnauthenticatedError) as error:
            raise BucketDenied(self._where, what, _brief(error)) from error
        except errors.NotSupportedError as error:
            raise FencingUnsupported(self._where, _brief(error)) from error
        except errors.BaseError as error:
            raise _meaning(self._where, what, str(error)) from error


def _meaning(where: str, what: str, text: str) -> Exception:
    """Our error for one that the library has no class for."""
    if "NoSuchBucket" in text:
        return BucketMissing(where)
    if any(
        word in text
        for word in (
            "AccessDenied",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "403 Forbidden",
            "401 Unauthorized",
        )
    ):
        return BucketDenied(where, what, _first_line(text))
    if any(word in text for word in ("NotImplemented", "501 Not Implemented")):
        return FencingUnsupported(where, _first_line(text))
    return ReplicaUnavailable(where, _first_line(text))


def _brief(error: Exception) -> str:
    return _first_line(str(error))


def _first_line(text: str) -> str:
    """What happened, without the library's own workings below it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [text]
    return lines[0].removesuffix(":")[:300]


# --- a folder -------------------------------------------------------------------------------------


class FolderBucket:
    """A folder with a bucket's meanings. An object is its newest version, a file `name#000012`,
    made by a link that must be new.

    A tag has the number and what the version holds: numbers begin anew where all versions were
    deleted.
    """

    def __init__(self, folder: str) -> None:
        self._folder, self._where = Path(folder), f"file://{folder}"
        self._threads = _threads()

    async def get(self, name: str) -> Stored | None:
        return await self._ask("read", self._get, name)

    async def put(self, name: str, data: bytes) -> str:
        while True:
            known = await self._ask("read", self._newest, name)
            if (
                tag := await self._ask("write", self._put_version, name, data, known + 1, None)
            ) is not None:
                return str(tag)

    async def put_new(self, name: str, data: bytes) -> str | None:
        return await self._ask("write", self._put_version, name, data, 1, None)

    async def put_if(self, name: str, data: bytes, tag: str) -> str | None:
        number = tag.partition("-")[0]
        return (
            await self._ask("write", self._put_version, name, data, int(number) + 1, tag)
            if number.isdecimal()
            else None
        )

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
            raise BucketDenied(self._where, what, f"{error.strerror}: {error.filename}") from error
        except FileNotFoundError as error:
            raise BucketMissing(self._where) from error
        except OSError as error:
            raise ReplicaUnavailable(self._where, f"{error.strerror}: {error.filename}") from error

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
        return max(
            (int(found.name.rpartition("#")[2]) for found in self._versions(name)), default=0
        )

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
            if (
                self._newest(name) != number - 1
            ):  # changed, or deleted, since the number was given out
                return None
            if old_tag is not None and (
                (before := self._get(name)) is None or before.tag != old_tag
            ):
                return None
            try:
                os.link(draft, path)
            except FileExistsError:
                return None
        finally:
            draft.unlink(missing_ok=True)
        if (
            self._newest(name) > number
        ):  # ours is an old number that had been removed already: it was never the newest
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(
            FileNotFoundError
        ):  # deleted at once by another writer, and its folder with it
            _sync_folder(path.parent)
        for old in self._versions(name):
            if int(old.name.rpartition("#")[2]) < number - 1:
                old.unlink(missing_ok=True)
        return _tag(number, data)

    def _folders(self) -> list[str]:
        return (
            sorted(path.name for path in self._folder.iterdir() if path.is_dir())
            if self._folder.is_dir()
            else []
        )

    def _names(self, under: str) -> list[Found]:
        found: dict[str, Found] = {}  # by name: of two versions the newer one stays
        for path in sorted(
            Path(folder, file)
            for folder, _, files in os.walk(self._folder / under)
            for file in files
        ):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.name.startswith(
                    "."
                ):  # a draft is nothing to be listed, or deleted, yet
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
            ):  # another writer has put something there in the meantime, or has removed it
                while folder != self._folder and folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
                    folder = folder.parent


def _tag(number: int, data: bytes) -> str:
    return f"{number}-{blake2b(data, digest_size=8).hexdigest()}"


def _draft(folder: Path) -> BufferedWriter:
    """A new file that no list shows. A folder that a delete has just emptied and removed is made
    again.
    """
    for tries_left in reversed(range(DRAFT_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return open(folder / f".{uuid.uuid4().hex}", "xb")
        except (FileNotFoundError, FileExistsError):
            if not tries_left:
                raise
    raise AssertionError


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

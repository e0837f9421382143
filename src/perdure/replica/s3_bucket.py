"""A bucket in S3-compatible storage, over obstore.

Rules: those of `bucket`; the library's errors become ours, with the first line of their text.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.errors import BucketUnusable, ReplicaUnavailable
from perdure.replica.address import Address
from perdure.replica.bucket import NAMES_MAX, TIMEOUT_S, Found, Stored, request_threads

if TYPE_CHECKING:
    from obstore.store import S3Store

T = TypeVar("T")


class S3Bucket:
    """A bucket over obstore.

    Credentials come from the usual AWS variables, or from the machine's role.
    """

    def __init__(self, address: Address, *, timeout_s: float = TIMEOUT_S) -> None:
        import obstore
        from obstore import exceptions

        self._where, self._do, self._errors = str(address), obstore, exceptions
        self._threads = request_threads()
        self._store = client(address, timeout_s=timeout_s)

    async def get(self, name: str) -> Stored | None:
        return await self._ask("read", self._get, name)

    async def put(self, name: str, data: bytes) -> str:
        return str(await self._ask("write", self._put, name, data, "overwrite"))

    async def put_new(self, name: str, data: bytes) -> str | None:
        return await self._ask("write", self._put, name, data, "create")

    async def put_if(self, name: str, data: bytes, tag: str) -> str | None:
        return await self._ask("write", self._put, name, data, {"e_tag": tag})

    async def put_file(self, name: str, file: Path) -> None:
        """Write an object from a file of any size, in parts."""
        await self._ask("write", self._put_file, name, file)

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

    def _put_file(self, name: str, file: Path) -> None:
        self._do.put(self._store, name, file, use_multipart=True)

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

        In a thread: the library's own futures are set from its threads, and one that is set while
        Python ends aborts the process.
        """
        errors = self._errors
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        except (errors.PreconditionError, errors.AlreadyExistsError):
            return None
        except (errors.BaseError, FileNotFoundError) as error:
            if (ours := error_for(self._where, what, error)) is None:
                return None
            raise ours from error


def client(address: Address, *, timeout_s: float = TIMEOUT_S, retries: int = 0) -> S3Store:
    """The library's client for an address; a request is tried again `retries` times."""
    from obstore.store import S3Store

    regions = (address.region, os.environ.get("AWS_REGION"), os.environ.get("AWS_DEFAULT_REGION"))
    options: dict[str, Any] = {"virtual_hosted_style_request": address.endpoint is None}
    if address.endpoint:
        options["endpoint"] = address.endpoint
    return S3Store(
        address.bucket,
        prefix=address.prefix or None,
        region=next((region for region in regions if region), "us-east-1"),
        client_options={
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=TIMEOUT_S),
            "allow_http": (address.endpoint or "").startswith("http:"),
        },
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=TIMEOUT_S)},
        **options,
    )


def error_for(where: str, what: str, error: Exception) -> Exception | None:
    """Our error for one of the library's, or None where only an object is missing."""
    from obstore import exceptions

    match error:
        case exceptions.NotFoundError() | FileNotFoundError():
            return _absence(where, error)
        case exceptions.PermissionDeniedError() | exceptions.UnauthenticatedError():
            return BucketUnusable.denied(where, what, _first_line(error))
        case exceptions.NotSupportedError():
            return BucketUnusable.without_conditions(where, _first_line(error))
        case _:
            return _meaning(where, what, error)


def _absence(where: str, error: Exception) -> Exception | None:
    return BucketUnusable.missing(where) if "NoSuchBucket" in str(error) else None


DENIED = (
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "403 Forbidden", "401 Unauthorized",
)  # fmt: skip


def _meaning(where: str, what: str, error: Exception) -> Exception:
    """Our error for one that the library has no class for."""
    text = str(error)
    if "NoSuchBucket" in text:
        return BucketUnusable.missing(where)
    if any(word in text for word in DENIED):
        return BucketUnusable.denied(where, what, _first_line(error))
    if any(word in text for word in ("NotImplemented", "501 Not Implemented")):
        return BucketUnusable.without_conditions(where, _first_line(error))
    return ReplicaUnavailable(where, _first_line(error))


def _first_line(error: Exception) -> str:
    """What happened, without the library's own workings below it."""
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [text]
    return lines[0].removesuffix(":")[:300]

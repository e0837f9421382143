"""The `litestream` program: finds it, checks its version, and runs its restore.

Rules: `PERDURE_LITESTREAM` wins, then the PATH, then what `perdure[replica]` installed; one that is
too old is refused by name; credentials reach it by the environment only, so no file and no command
line holds one; a restore ends with its engine, and writes into a temporary folder of its own, so
that it can't write into a file that is in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from perdure.errors import LitestreamUnusable, ReplicaDamaged, ReplicaEmpty, ReplicaUnavailable
from perdure.replica.address import Address

log = logging.getLogger("perdure")

OLDEST = (0, 5, 17)
_OF_A_DAMAGED_COPY = re.compile(
    r"decode|contiguous|checksum|lz4|corrupt|malformed|unexpected EOF|invalid (page|file|magic)"
    r"|no matching backup files",
    re.IGNORECASE,
)
_HAS_NOT_THAT_ONE = "no matching backup files"
TRIES = 3
VERSION_S_MAX, STANDSTILL_S, LOOK_S = 10.0, 30.0, 1.0

# It asks the kernel to end Litestream with this process, which may have ended before it could ask.
_LAUNCH = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.setpgid(0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def find() -> str:
    """The program's path. Raises `LitestreamUnusable`."""
    named = os.environ.get("PERDURE_LITESTREAM")
    if named:
        if not os.access(named, os.X_OK) or os.path.isdir(named):
            missing = f"PERDURE_LITESTREAM names {named!r}, and there is no program of that name"
            raise LitestreamUnusable(missing)
        return named
    beside = Path(sysconfig.get_path("scripts")) / "litestream"
    found = shutil.which("litestream") or (str(beside) if os.access(beside, os.X_OK) else None)
    if found is None:
        raise LitestreamUnusable("there is none on the PATH")
    return found


async def check(binary: str) -> str:
    """Its version. Raises `LitestreamUnusable` for one that is too old, or another program."""
    try:
        code, out, err = await _run(binary, "version")
    except (OSError, TimeoutError) as error:
        raise LitestreamUnusable(f"{binary!r} can't be executed: {error}") from error
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", out.strip())
    if code or found is None:
        answer = (out or err).strip()[:80]
        raise LitestreamUnusable(f"{binary!r} does not print its version, but {answer!r}")
    if tuple(map(int, found.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise LitestreamUnusable(f"{binary!r} is version {found[0]}; {oldest} is the oldest usable")
    return found[0]


def replica_settings(address: Address) -> dict[str, Any]:
    """How Litestream's configuration names a replica."""
    if address.scheme == "file":
        return {"type": "file", "path": address.folder}
    settings: dict[str, Any] = {"type": "s3", "bucket": address.bucket, "path": address.prefix}
    if address.region:
        settings["region"] = address.region
    if address.endpoint:
        settings |= {"endpoint": address.endpoint, "force-path-style": True}
    return settings


def restore_settings(to: Path, address: Address) -> bytes:
    """Litestream's configuration for a restore of what lies at the address."""
    replica = replica_settings(address)
    return msgspec.json.encode({"dbs": [{"path": str(to), "replica": replica}]})  # JSON is YAML


def environment() -> dict[str, str]:
    """The environment for Litestream.

    Its S3 client fails where AWS_CA_BUNDLE is set, and takes the same by another name.
    """
    variables = dict(os.environ)
    bundle = variables.pop("AWS_CA_BUNDLE", None)
    if bundle:
        variables.setdefault("SSL_CERT_FILE", bundle)
    return variables


def tied(binary: str, *arguments: str) -> list[str]:
    """The command that runs it so that it ends with the thread that started it.

    On Linux also when this process is killed. It is in a process group of its own: Ctrl-C in a
    terminal is for the engine, which needs it for the last sync.
    """
    return [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), binary, *arguments]


async def restore(
    binary: str,
    address: Address,
    to: Path,
    *,
    txid: int | None = None,
    at: str | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> int:
    """Restore the newest copy below `address`, or that of a transaction or a time (RFC 3339).

    `to` is a new file in a `TempFolder`. `on_bytes` is called every second with the bytes so far.
    Returns the number of the last transaction in it. A failure is tried again, because objects may
    be merged meanwhile. Raises `ReplicaUnavailable` with Litestream's own message, or
    `ReplicaDamaged` where that is about what it has read, and `ReplicaEmpty` where there is nothing
    of the transaction or the time that was asked for.
    """
    for _ in range(TRIES - 1):
        try:
            return await _restore_once(binary, address, to, txid, at, on_bytes)
        except (ReplicaDamaged, ReplicaUnavailable) as error:
            log.warning("a restore is tried again: %s", error)
    return await _restore_once(binary, address, to, txid, at, on_bytes)


async def _restore_once(
    binary: str,
    address: Address,
    to: Path,
    txid: int | None,
    at: str | None,
    on_bytes: Callable[[int], None] | None,
) -> int:
    config = to.with_name(to.name + ".litestream.yml")
    config.write_bytes(restore_settings(to, address))
    which: list[str] = []
    if txid is not None:
        which = ["-txid", f"{txid:016x}"]
    elif at is not None:
        which = ["-timestamp", at]
    options = ["-no-expand-env", "-json", "-config", str(config), "-o", str(to), *which, str(to)]
    try:
        command = tied(binary, "restore", *options)
        code, out, err = await _run(*command, grows=to, on_bytes=on_bytes)
    except TimeoutError:
        still = f"nothing has been restored for {STANDSTILL_S:g} s"
        raise ReplicaUnavailable(str(address), still) from None
    finally:
        config.unlink(missing_ok=True)
    if code:
        why = last_message(err) or f"litestream restore ended with {code}"
        if (txid or at) and _HAS_NOT_THAT_ONE in why:
            raise ReplicaEmpty(str(address), at or f"transaction {txid}")
        damaged = _OF_A_DAMAGED_COPY.search(why)
        raise (ReplicaDamaged if damaged else ReplicaUnavailable)(str(address), why)
    return int(msgspec.json.decode(out)["txid"], 16)


def last_message(text: str) -> str:
    """The last line that a program printed, without the date in front of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    found = re.match(r'time=\S+ level=\S+ msg="?(.*?)"?( error="?(.*?)"?)?$', lines[-1])
    if found is None:
        return lines[-1]
    return ": ".join(part for part in (found[1], found[3]) if part)


async def _run(
    *command: str, grows: Path | None = None, on_bytes: Callable[[int], None] | None = None
) -> tuple[int, str, str]:
    """Exit code, output and errors.

    Raises `TimeoutError` where it takes too long, or where nothing beside `grows` grows for too
    long.
    """
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, size, most, still_s = asyncio.ensure_future(process.communicate()), -1, 0, 0.0
    try:
        while not (await asyncio.wait([output], timeout=LOOK_S))[0]:
            still_s = still_s + LOOK_S if size == (size := _size_beside(grows)) else 0.0
            if still_s >= (VERSION_S_MAX if grows is None else STANDSTILL_S):
                raise TimeoutError
            if on_bytes is not None:
                most = max(most, size)  # a file that is being renamed has no name for a moment
                on_bytes(most)
        out, err = output.result()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait([output])
        raise
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


def _size_beside(path: Path | None) -> int:
    """Of all files whose names begin with this one's; -1 without a path."""
    if path is None:
        return -1
    total = 0
    for one in path.parent.glob(path.name + "*"):
        with contextlib.suppress(FileNotFoundError):  # renamed since
            total += one.stat().st_size
    return total

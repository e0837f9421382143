"""The hand-over between two engines on one disk: proof that the file has everything, and that its
copy can be continued.

Rules: an engine that ends in order writes a random token into the lease and beside the file. The
lease has it for the next holder only, so one engine at most finds both. The token proves what this
disk held at that moment; the marks of the files prove that only clients have added to it since
(docs/adr/0019).
"""

from __future__ import annotations

import contextlib
import os
import struct
import uuid
from pathlib import Path

import msgspec

from perdure.process import identity
from perdure.replica.transaction_files import head_of
from perdure.store.sqlite.checksum import HistoryChecksum
from perdure.store.sqlite.forked import Identity

_WAL_HEAD_BYTES = 32


class Copied(msgspec.Struct, frozen=True):
    """A copy that has everything: the file's checksum, and the last transaction of the epoch.

    `file` is the one that the engine had open.
    """

    checksum: HistoryChecksum
    epoch: int
    txid: int
    file: Identity


class Handover(msgspec.Struct, frozen=True):
    """What an engine has left.

    `folder` is the epoch that its copy lies below, `txid` the last transaction there. `epoch`,
    `rows` and `commits` are of the file's checksum. `file` and `wal` are marks of the main file and
    its WAL as they were when no process had them open.
    """

    token: str
    folder: int
    txid: int
    epoch: int
    rows: int
    commits: int
    boot: str
    file: tuple[int, ...]
    wal: bytes


def leave(side: Path, path: str, copied: Copied) -> str | None:
    """Write down what this engine leaves, after its last write.

    Returns the token for the lease, or None where it can't be written.
    """
    checksum, token = copied.checksum, uuid.uuid4().hex
    try:
        left = Handover(
            token, copied.epoch, copied.txid, checksum.epoch, checksum.rows, checksum.commits,
            _boot(), _mark(path), _wal_head(path),
        )  # fmt: skip
        draft = _file_in(side).with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(left))
        draft.replace(_file_in(side))
    except OSError:
        return None
    return token


def found(
    side: Path, path: str, checksum: HistoryChecksum | None, token: str | None
) -> Handover | None:
    """What the last holder of the lease has left here; None unless the file still has all of it.

    It is found once: a second engine must not believe it.
    """
    try:
        left = msgspec.json.decode(_file_in(side).read_bytes(), type=Handover)
        _file_in(side).unlink()
        same = token is not None and left.token == token and left.file == _mark(path)
    except (OSError, msgspec.DecodeError):
        return None
    if not same or checksum is None:
        return None
    whole = (
        checksum.epoch == left.epoch
        and checksum.commits >= left.commits
        and checksum.rows >= left.rows
    )
    return left if whole else None


def can_continue(left: Handover, side: Path, path: str) -> bool:
    """Whether Litestream can continue where it ended.

    Its files are here, and the WAL is the one that it has read, with more at its end.
    """
    with contextlib.suppress(OSError, struct.error):
        head_of(last_file(side, left.txid))
        same_wal = left.wal == _wal_head(path) != b""
        return bool(left.boot) and left.boot == _boot() and left.file == _mark(path) and same_wal
    return False


def last_file(side: Path, txid: int) -> Path:
    """Where Litestream keeps a transaction on this disk."""
    return side / "litestream" / "ltx" / "0" / f"{txid:016x}-{txid:016x}.ltx"


def _file_in(side: Path) -> Path:
    return side / "left"


def _boot() -> str:
    """The machine's boot: files that were not synced, as Litestream's, are whole until it ends."""
    return identity.host().split("/")[1]


def _mark(path: str) -> tuple[int, ...]:
    """Which file this is, and when it was last changed in any way.

    The system sets that time, and no program can set it back.
    """
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _wal_head(path: str) -> bytes:
    """The beginning of the WAL, which changes when the WAL begins anew.

    Without a lock of SQLite's on it, it may be read like any file.
    """
    try:
        with open(path + "-wal", "rb") as file:
            return file.read(_WAL_HEAD_BYTES)
    except OSError:
        return b""

"""The advertisement: a file beside the store by which clients find the engine that copies it.

Rules: it names the socket to ask at, how durable an answer is, and up to which commit of which
epoch all is confirmed for good; it is written durably, so that after a power cut the old one is
there or the new one, whole; a replicated file whose advertisement is missing, damaged or of another
epoch counts as one of level "replica".
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from perdure.store.sqlite import files
from perdure.store.sqlite.forked import Identity

Level = Literal["disk", "replica"]


class Advertisement(msgspec.Struct):
    """`full` is the size in bytes of what waits, and its limit, where nothing new can be begun."""

    durability: Level
    epoch: int
    socket: str = ""
    full: tuple[int, int] | None = None
    commits: int = -1


class Question(msgspec.Struct):
    """Whether all is confirmed that was committed before.

    `file` is what the asking process has open, `s_max` how many seconds it wants to wait.
    """

    file: Identity
    s_max: float | None


class Answer(msgspec.Struct):
    """All that was committed before the question is in the replica; or `error` says why not."""

    error: str | None = None


def read(folder: Path) -> Advertisement | None:
    """The advertisement in the folder beside a store; None where it is missing or damaged."""
    try:
        return msgspec.json.decode(_file_in(folder).read_bytes(), type=Advertisement)
    except (OSError, msgspec.DecodeError):
        return None


def write(folder: Path, advertisement: Advertisement) -> None:
    """Replace it durably. Raises `OSError`."""
    draft = _file_in(folder).with_suffix(".new")
    with open(draft, "wb") as file:
        file.write(msgspec.json.encode(advertisement))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(_file_in(folder))
    files.sync(folder)


def _file_in(folder: Path) -> Path:
    return folder / "advertisement"

"""A place of its own for a Unix socket: its path must be short, and nobody else may come to it.

Rules: what is removed is the socket and its empty folder, no more than that, whatever a file beside the store says of it.
"""

from __future__ import annotations

import contextlib
import os


def place(name: str) -> str:
    """The path of a socket to be, in a new folder that is ours alone."""
    import tempfile  # for those who make one: clients of the door only remember where it is

    return os.path.join(tempfile.mkdtemp(prefix="perdure-"), name)


def remove(path: str) -> None:
    """The socket, if it is there, and its folder, if that holds nothing else."""
    with contextlib.suppress(OSError):
        os.unlink(path)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))

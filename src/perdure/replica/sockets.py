"""A place of its own for a Unix socket: its path must be short, and nobody else may come to it.

Rules: it lies beside the store, or where the system keeps what belongs to a user's session, because folders for temporary files are
swept; only where such a path is too long, or takes no sockets, it lies there; what is removed is the socket and its empty folder, no
more than that, whatever a file beside the store says of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

PATH_BYTES_MAX = 100  # a Unix socket's path has room for 108 bytes on Linux, for 104 on macOS


def place(name: str, *, beside: Path) -> str:
    """The path of a socket to be, in a new folder that is ours alone. Raises `OSError` where none can be made."""
    import tempfile  # for those who make one: clients of the door only remember where it is

    for base in (str(beside), os.environ.get("XDG_RUNTIME_DIR", "")):
        if base and len(os.fsencode(os.path.join(base, "perdure-12345678", name))) <= PATH_BYTES_MAX:
            with contextlib.suppress(OSError):
                path = os.path.join(tempfile.mkdtemp(prefix="perdure-", dir=base), name)
                if _takes_sockets(path):
                    return path
                remove(path)
    return os.path.join(tempfile.mkdtemp(prefix="perdure-"), name)


def _takes_sockets(path: str) -> bool:
    """Not every file system does: shared folders of virtual machines do not."""
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            tried.bind(path)
        os.unlink(path)
    except OSError:
        return False
    return True


def remove(path: str) -> None:
    """The socket, if it is there, and its folder, if that holds nothing else."""
    with contextlib.suppress(OSError):
        os.unlink(path)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))

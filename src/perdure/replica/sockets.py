"""Places for Unix sockets: a short path, in a folder that is open to this user only.

Rules: it lies beside the store, or where the system keeps what belongs to a user's session, because
folders for temporary files are swept; only where such a path is too long, or takes no sockets, it
lies there; what is removed is the socket and its folder, if that is ours or was left by a process
that has ended, whatever a file beside the store says of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from perdure.replica.temporary_folders import TempFolder, remove_if_left, sweep

PATH_BYTES_MAX = 100  # a Unix socket's path has room for 108 bytes on Linux, for 104 on macOS

_folders: dict[str, TempFolder] = {}


def place(name: str, *, beside: Path) -> str:
    """The path for a new socket, in a new folder that is ours alone.

    Raises `OSError` where none can be made.
    """
    for base in _bases(beside):
        if len(os.fsencode(base / "perdure-12345678" / name)) <= PATH_BYTES_MAX:
            with contextlib.suppress(OSError):
                path = _new(base, name)
                if _takes_sockets(path):
                    return path
                remove(path)
    return _new(None, name)


def sweep_left(beside: Path) -> None:
    """Remove the folders of sockets that killed processes have left, wherever `place` puts them."""
    for base in (*_bases(beside), None):
        sweep(base)


def _bases(beside: Path) -> list[Path]:
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    return [beside, *([Path(session)] if session else [])]


def _new(base: Path | None, name: str) -> str:
    folder = TempFolder(base)
    path = str(folder.path / name)
    _folders[path] = folder
    return path


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
    """Remove a socket with its folder."""
    with contextlib.suppress(OSError):
        os.unlink(path)
    folder = _folders.pop(path, None)
    if folder is not None:
        folder.remove()
    elif path:
        remove_if_left(Path(path).parent)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))

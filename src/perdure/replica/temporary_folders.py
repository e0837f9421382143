"""Temporary folders of this process, and the removal of those that killed processes have left.

Rules: a folder belongs to the process that holds the lock on its `lock` file, which the kernel
releases when that process ends; a folder without such a file is left alone; files are removed by
name, never as a tree.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from pathlib import Path
from typing import Self

from perdure.store.sqlite import forked

LOCK = "lock"
_OURS = re.compile(r"lock(\.new)?|control|confirm|copy\.db.*|copy\.log")


class TempFolder:
    """A new folder, open to this user only, below `parent` or where temporary files belong.

    >>> with TempFolder() as folder:
    ...     (folder.path / "copy.db").exists()
    False
    """

    def __init__(self, parent: Path | None = None, prefix: str = "perdure-") -> None:
        import tempfile  # late, because clients only remember a path

        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock: int | None = _locked(self.path)
        forked.watch(self)

    def remove(self) -> None:
        """Remove the folder with the files that belong there. A second call does nothing."""
        lock, self._lock = self._lock, None
        forked.unwatch(self)
        if lock is not None:
            _remove_files(self.path)
            os.close(lock)

    def in_child(self) -> None:
        """See `store.sqlite.forked`: the folder stays the parent's.

        With a copy of its lock in a child it would outlive the parent.
        """
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)  # releases nothing, as long as the parent has it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def sweep(parent: Path | None = None, prefix: str = "perdure-") -> list[Path]:
    """Remove the folders of processes that have ended, and return them."""
    if parent is None:
        import tempfile

        parent = Path(tempfile.gettempdir())
    try:
        names = [name for name in os.listdir(parent) if name.startswith(prefix)]
    except OSError:
        return []
    return [parent / name for name in names if remove_if_left(parent / name)]


def remove_if_left(folder: Path) -> bool:
    """Remove a folder of this module's if its process has ended; whether it was removed."""
    try:
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # its process is alive
    else:
        return _remove_files(folder)
    finally:
        os.close(lock)


def _locked(folder: Path) -> int:
    """Lock a new folder.

    The lock gets its name only when it is held, so that no other process takes the folder for one
    that was left.
    """
    draft = folder / f"{LOCK}.new"
    lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with contextlib.suppress(OSError):  # a file system without locks: no other process removes it
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(folder / LOCK)
    return lock


def _remove_files(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder), key=lambda name: name == LOCK):  # the lock goes last
            if _OURS.fullmatch(name):
                os.unlink(folder / name)
    with contextlib.suppress(OSError):
        os.rmdir(folder)
    return not folder.exists()

"""Identity of this process, and whether another one is still alive.

Rules: a process is identified by machine, boot, process namespace, pid and start time of the pid,
so a pid that is used again is not taken for the old process; a process of another machine is known
by its lease only.
"""

from __future__ import annotations

import functools
import os
import socket


@functools.cache
def host() -> str:
    """This machine since its last boot, within this process namespace."""
    boot = _read("/proc/sys/kernel/random/boot_id")
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{boot}/{namespace}"


def born(pid: int) -> str:
    """When a process started, in the kernel's ticks; "" where that is not known."""
    return _birth(_stat(pid))


def is_dead(its_host: str, pid: int, its_birth: str) -> bool:
    """Whether a process of this machine has certainly ended; False for another machine's."""
    if its_host != host():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # alive, of another user
    fields = _stat(pid)
    if not fields:
        return False
    birth = _birth(fields)
    return fields[0] in ("Z", "X") or (bool(its_birth and birth) and birth != its_birth)


def _birth(fields: list[str]) -> str:
    return fields[19] if len(fields) > 19 else ""


def _stat(pid: int) -> list[str]:
    """The fields behind the command name, which may itself hold spaces and brackets."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""

"""The outside log of work in queues: what began and ended where, on one clock for all processes.

Rules: a line is one write to a file that is opened for appending, so it survives the death of its
process and is not mixed with others. Its time is CLOCK_MONOTONIC, which all processes of a machine
share and which no change of the date moves; the date stands beside it, because stores have dates.
Nothing here imports Perdure: systems that are compared with it write the same log.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from campaigns.queue_judge import NO_KEY

BEGUN, ENDED, FAILED = "B", "E", "F"
KILLED, FROZEN = "K", "S"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: an attempt (`work`) of a `holder` began, ended or failed; or a process was hit.

    `holder` names what has the place in the queue: a step's row, or a whole run. `worker` is 0
    where a system has no number for its processes but the pid.
    """

    mark: str
    at_ns: int
    at_ms: int
    pid: int
    worker: int = 0
    queue: str = ""
    key: str = NO_KEY
    holder: str = ""
    work: str = ""


def open_log(path: str | Path) -> int:
    """A descriptor whose writes append, also beside other writers."""
    return os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)


def note(log: int, mark: str, *facts: object, pid: int | None = None) -> None:
    """Append one line: the mark, both times, the pid, and these facts, none with a blank."""
    line = [mark, time.monotonic_ns(), time.time_ns() // 1_000_000, pid or os.getpid(), *facts]
    os.write(log, (" ".join(map(str, line)) + "\n").encode())


def read_log(path: str | Path) -> list[Line]:
    """The lines of a log in the order in which they were written."""
    with open(path) as file:
        return [_line(text.split()) for text in file]


def _line(words: list[str]) -> Line:
    mark, *numbers = words[:4]
    at_ns, at_ms, pid = map(int, numbers)
    if mark in (KILLED, FROZEN):
        return Line(mark, at_ns, at_ms, pid)
    worker, queue, key, holder, work = words[4:9]
    return Line(mark, at_ns, at_ms, pid, int(worker), queue, key, holder, work)

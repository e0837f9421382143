"""The systems that have a queue, as they can be started: Perdure on a file, DBOS on Postgres."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from driving import HERE, PERDURE, Failed, Kind
from postgres import postgres
from queueing import LOG, POLL_S, URL

ROOT = HERE.parent
OURS = replace(PERDURE, program="perdure_queue.py")


def queueing(kind: Kind, log: Path, **settings: str) -> Kind:
    """A system whose processes have the queue and write to this log."""
    places = [str(HERE), str(ROOT)]
    if not kind.peer:
        places += [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, places))
    return replace(kind, settings={"PYTHONPATH": path, LOG: str(log), **settings})


@contextmanager
def dbos(kind: Kind, poll_s: float, log: Path) -> Iterator[Kind]:
    """DBOS on a Postgres that is started for it. Raises `Failed`."""
    if kind.why_not:
        raise Failed(kind.why_not)
    named = replace(kind, name=f"DBOS, polls each {poll_s:g} s", program="dbos_queue.py")
    with postgres(kind.python) as url:
        yield queueing(named, log, **{URL: url, POLL_S: str(poll_s)})

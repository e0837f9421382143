"""The campaign `pythons`: random programs executed by another Python, continued by this one.

Rules: the other interpreter needs Perdure as it is here. A program counts as broken if this Python
blocks after any of its inputs, or continues in another way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence

import msgspec

from campaigns import environment
from campaigns.kernel_sim import World
from campaigns.main import CannotBegin, Count
from campaigns.random_workflows import program
from perdure.core import events as ev
from perdure.core.events import Event
from perdure.errors import RunBlocked
from perdure.process.interpreter import PYTHON
from perdure.testing import invariants

VARIABLE = "PERDURE_PYTHONS"
KNOWN = ("python3.11", "python3.12", "python3.13", "python3.14")
CUTS_MAX = 10


class NoSuchPython(CannotBegin):
    """What the variable names is no Python, or has no Perdure."""

    def __init__(self, command: str) -> None:
        super().__init__(
            f"{command}, which {VARIABLE} names, can't import perdure.testing. Make a virtual "
            f"environment for that Python, install this "
            "Perdure in it, and name the python in its folder bin."
        )


Row = tuple[int, str, int, int | None, str | None, str | None]
Recorded = dict[int, list[Row]]


def pythons(seeds: range) -> Iterator[Count]:
    """Random programs recorded by other Pythons (those of PERDURE_PYTHONS, or on the PATH) and gone
    on with by this one.
    """
    if not (others := _others()):
        sys.stderr.write(
            f"pythons: left out. It needs another Python that has this Perdure; name it in "
            f"{VARIABLE}.\n"
        )
    for version, command in others.items():
        for seed, rows in record_by(command, seeds).items():
            found = Count(f"program {seed}, recorded by Python {version}")
            found.checks, found.broken = gone_on_with(seed, events_of(rows))
            yield found


def gone_on_with(seed: int, rows: Sequence[Event]) -> tuple[int, str | None]:
    """Cut a history before inputs and go on; gives the number of cuts, and what is wrong with the
    first that is.
    """
    cuts = [end for end, row in enumerate(rows) if end and row.kind in ev.INPUTS]
    cuts = cuts[:: 1 + len(cuts) // CUTS_MAX]
    for number, end in enumerate(cuts):
        try:
            world = World(program(seed), seed, rows=list(rows[:end]))
            world.run()
        except RunBlocked as error:
            return number, f"cut before row {rows[end].seq} it blocks: {error.reason}"
        if invariants.facts(world.rows) != invariants.facts(rows):
            return number, f"cut before row {rows[end].seq} it goes another way, without an error"
    return len(cuts), None


def record(seeds: range) -> Recorded:
    """The histories of random programs under this Python."""
    found = {}
    for seed in seeds:
        world = World(program(seed), seed)
        world.run()
        found[seed] = [
            (row.seq, row.kind, row.at_ms, row.ref, row.name, _text(row)) for row in world.rows
        ]
    return found


def events_of(rows: Sequence[Row]) -> list[Event]:
    """Rows as they were before they were passed on."""
    return [Event(*row[:5], None if row[5] is None else row[5].encode()) for row in rows]


def _text(row: Event) -> str | None:
    return row.data.decode() if isinstance(row.data, bytes) else None


def record_by(command: str, seeds: range) -> Recorded:
    """The same under another Python."""
    words = [command, "-m", "campaigns.pythons", str(seeds.start), str(seeds.stop)]
    done = subprocess.run(words, capture_output=True, check=True, env=environment())
    return msgspec.json.decode(done.stdout, type=Recorded)


def _others() -> dict[str, str]:
    """Commands of other Pythons that have Perdure, by their version."""
    named = os.environ.get(VARIABLE)
    commands = (
        named.split(os.pathsep)
        if named
        else [found for name in KNOWN if (found := shutil.which(name))]
    )
    others = {}
    for command in commands:
        asked = (
            "from perdure.process.interpreter import PYTHON; import "
            "campaigns.pythons; print(PYTHON)"
        )
        try:
            done = subprocess.run(
                [command, "-c", asked],
                capture_output=True,
                text=True,
                check=bool(named),
                env=environment(),
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise NoSuchPython(command) from error
        if done.returncode == 0 and done.stdout.strip() != PYTHON:
            others[done.stdout.strip()] = command
    return others


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(record(range(int(sys.argv[1]), int(sys.argv[2])))))

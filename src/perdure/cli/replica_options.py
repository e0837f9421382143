"""Options of commands that execute with a replica, and the messages while they wait for it.

Rules: an address is given in the environment or on the command line, a key never on the command
line; a wait says for which engine it waits, and how long at most.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from perdure.cli.common import F, misuse, run_async
from perdure.cli.output import live, say, say_anew
from perdure.errors import PerdureError
from perdure.replica import restore
from perdure.replica.address import parse
from perdure.replica.options import Replica
from perdure.runtime.engine import Engine
from perdure.views import format

SAY_EVERY_S = 5.0

address_option = click.option(
    "--replica", envvar="PERDURE_REPLICA", show_envvar=True, metavar="ADDRESS",
    help="Where the store is copied to: s3://bucket/prefix?endpoint=URL&region=NAME, or file:///folder.",
)  # fmt: skip


def replica_options(command: F) -> F:
    """--replica, --durability, --fencing and --no-fencing for a command."""
    for option in (
        click.option(
            "--no-fencing",
            is_flag=True,
            help=(
                "Do without a lease: for a bucket that can't keep one, where you make "
                "sure that there is never a second engine."
            ),
        ),
        click.option(
            "--fencing",
            type=click.Choice(["bucket", "clock"]),
            help="What proves that the lease is still held when a write is confirmed: "
            "reading it from the bucket each time, or "
            "this machine's clock, which is faster, and wrong on a virtual machine "
            "that is paused. Default: bucket.",
        ),
        click.option(
            "--durability",
            type=click.Choice(["disk", "replica"]),
            help=(
                "What an answer or an effect waits for. Default: the replica where "
                "there is one, else the disk."
            ),
        ),
        address_option,
    ):
        command = option(command)
    return command


def engine_options(
    replica: str | None,
    durability: str | None,
    fencing: str | None,
    no_fencing: bool,
    quiet: bool,
    *,
    standby: bool = False,
) -> dict[str, Any]:
    """What `Engine` gets for the options of a command."""
    found: dict[str, Any] = {"durability": durability or ("replica" if replica else "disk")}
    if not replica and durability == "replica":
        raise misuse(
            "--durability replica needs a replica: name it with --replica ADDRESS, or "
            "PERDURE_REPLICA."
        )
    if not replica and (fencing or no_fencing):
        raise misuse(
            f"{'--no-fencing' if no_fencing else '--fencing'} is about a replica: name it with "
            "--replica ADDRESS, or PERDURE_REPLICA."
        )
    if fencing and no_fencing:
        raise misuse("--no-fencing keeps no lease, so --fencing has nothing to prove: give one.")
    if standby and no_fencing:
        raise misuse("--standby waits for a lease, and --no-fencing keeps none: give one of them.")
    if not replica:
        return found
    options = Replica(
        replica,
        fencing=False if no_fencing else "clock" if fencing == "clock" else True,
        standby=standby,
        on_wait=None if quiet else countdown(),
        on_progress=None if quiet else one_line(first_after_s=SAY_EVERY_S),
    )
    return {**found, "replica": options}


def seen_from_outside(address: str) -> dict[str, Any]:
    """What the lease says of a replica, for `doctor`; one that can't be reached is a fact, too."""
    try:
        seen = run_async(restore.look(parse(address)))
    except PerdureError as error:
        return {"state": "unknown", "reason": str(error)}
    found = {
        name: seen.lease.notes.get(name)
        for name in ("state", "reason", "lag_s", "lag_transactions", "local_bytes", "drill")
    }
    return {
        "held_by": seen.lease.who if seen.held else None,
        **{name: value for name, value in found.items() if value not in (None, "")},
    }


def one_line(first_after_s: float = 0.0) -> Callable[..., None]:
    """Says how a wait goes: on a terminal in one line that is written anew, else now and then, and
    then as it is said in full.
    """
    due_s = time.monotonic() + first_after_s

    def show(text: str, in_full: str | None = None) -> None:
        nonlocal due_s
        if live():  # one line of the screen, which what is logged meanwhile overwrites
            say_anew(text)
        elif time.monotonic() >= due_s:
            due_s = time.monotonic() + SAY_EVERY_S
            say(in_full or text)

    return show


def countdown() -> Callable[[Any, float], None]:
    """The callback that says which engine holds the lease."""
    show = one_line()

    def on_wait(row: Any, seconds: float) -> None:
        show(
            f"Held by {row.who}: free when that ends, or after {seconds:.0f} s of silence.",
            (
                f"The replica is held by {row.who}; it is free when that engine ends, or "
                f"{seconds:.0f} s after its last sign of life."
            ),
        )

    return on_wait


@contextlib.contextmanager
def restoring(address: object) -> Iterator[Callable[[int], None]]:
    """Says how much is restored so far."""
    show = one_line(first_after_s=SAY_EVERY_S)
    try:
        yield lambda size: show(f"Restoring {address}: {size:,} bytes")
    finally:
        end_line()


def end_line() -> None:
    """Clear the line that is written anew, if there is one, before other output."""
    if live():
        say_anew("")


def tell_beginning(engine: Engine, quiet: bool, *, logged: bool = False) -> None:
    """Where the file came from, once the engine is open; not again where the log has said it."""
    if engine.replica is None or quiet:
        return
    for line in [] if logged else engine.replica.began:
        say(format.sentence(line))
    say(f"Replicating to {engine.replica.address}, in epoch {engine.replica.status().epoch}.")

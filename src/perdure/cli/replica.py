"""`replica status`, `verify`, `restore` and `detach`: the copy of a store in a bucket.

Rules: nothing here takes the lease or overwrites a file; a copy is verified before it is used.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import time
from pathlib import Path
from typing import Any

import click

from perdure.cli.common import Commands, Exit, json_option, misuse, run_async, store_option
from perdure.cli.output import as_lines, confirmed, echo, echo_json, say
from perdure.cli.replica_options import address_option, restoring
from perdure.errors import ReplicaDamaged, ReplicaEmpty, ReplicaUnavailable
from perdure.process import identity
from perdure.replica.address import Address, parse
from perdure.replica.restore import Seen, fetch, look
from perdure.replica.restore import restore as restore_to
from perdure.replica.temporary_folders import TempFolder, sweep
from perdure.replica.verify import contents, differs, missing_rows, standing_at
from perdure.store.sqlite import checksum, connection
from perdure.store.sqlite.connection import connect
from perdure.store.sqlite.reader import Reader
from perdure.views import times


@click.group(cls=Commands, short_help="Inspect, verify and restore the copy in a bucket.")
def replica() -> None:
    """The copy of a store in a bucket: its status, whether it is good, and a store of any moment
    made from it.

    The address is that of --replica or PERDURE_REPLICA, or the one that the store itself names.
    Credentials come from the usual AWS variables.

    \b
    Examples:
      perdure replica status
      perdure replica restore -o yesterday.db --at "1 day ago"
    """


def _address(given: str | None, store: str) -> Address:
    if given is None and os.path.exists(store):
        own = checksum.read(connect(store))
        given = own.address if own is not None else None
    if given is None:
        raise misuse(
            f"No replica is named: {store!r} is not replicated, or not here. Give "
            f"--replica ADDRESS, or set PERDURE_REPLICA."
        )
    return parse(given)


@click.command(short_help="Show which engine holds it, its lag and its last drill.")
@store_option
@address_option
@json_option
def status(store: str, replica: str | None, as_json: bool) -> None:
    """Show the status of a replica: which engine holds its lease, its lag, what it needs of the
    disk, the last drill.

    Exit code 4 if the bucket can't be reached, or the engine that holds it says that copying fails
    or has fallen silent.

    \b
    Examples:
      perdure replica status
      perdure replica status --replica s3://agents/prod --json
    """
    address = _address(replica, store)
    seen = run_async(look(address))
    notes = seen.lease.notes
    facts = {
        "address": str(address),
        "held_by": seen.lease.who if seen.lease.holder else None,
        "held": seen.held,
        "renewed_s_ago": round(seen.renewed_s, 1),
        "epoch": seen.lease.epoch,
        "restores_from": seen.lease.base,
        "epochs": seen.epochs,
        "history_rows": seen.lease.rows,
        "txid": seen.lease.txid,
        **{key: notes.get(key) for key in _NOTES},
    }
    if as_json:
        echo_json(facts)
    else:
        _print_status(facts, seen)
    silent = seen.lease.holder is not None and not seen.held
    if silent or (seen.held and notes.get("state") == "failing"):
        raise click.exceptions.Exit(Exit.STORE)


_NOTES = (
    "state",
    "reason",
    "lag_s",
    "lag_transactions",
    "lag_bytes",
    "local_bytes",
    "restarts",
    "drill",
)


def _print_status(facts: dict[str, Any], seen: Seen) -> None:
    row, notes = seen.lease, seen.lease.notes
    if row.holder is None:
        holder = "no engine: the last one released it in order"
    elif seen.held:
        holder = f"{row.who}, renewed {seen.renewed_s:.1f} s ago"
    else:
        holder = (
            f"{row.who}, but silent for {seen.renewed_s:.0f} s: it is dead, frozen or cut off, "
            f"and the next engine takes over"
        )
    drill = notes.get("drill")
    lines = [
        ("replica", facts["address"]),
        ("held by", holder),
        ("epoch", f"{row.epoch}, a restore begins from {row.base or 'nothing yet'}"),
        (
            "state",
            " ".join(
                filter(
                    None,
                    [
                        notes.get("state", "unknown"),
                        f"({notes['reason']})" if notes.get("reason") else "",
                    ],
                )
            ),
        ),
        (
            "lag",
            (
                f"{notes.get('lag_s', 0):g} s, {notes.get('lag_transactions', 0)} transactions, "
                f"{notes.get('lag_bytes', 0):,} bytes"
            ),
        ),
        ("confirmed", f"{row.rows:,} rows of history, transaction {row.txid}"),
        ("disk", f"{notes.get('local_bytes', 0):,} bytes beside the store"),
        (
            "last drill",
            _drill(drill)
            if drill
            else "none; Replica(drill_every=...) and `perdure replica verify` make one",
        ),
    ]
    for name, text in lines:
        echo(f"{name.ljust(10)}  {text}")


def _drill(drill: dict[str, Any]) -> str:
    at = dt.datetime.fromtimestamp(drill["at_ms"] / 1000, dt.UTC)
    what = (
        f"good, {drill.get('rows', 0):,} rows"
        if drill.get("ok")
        else f"FAILED: {drill.get('error')}"
    )
    return f"{at:%Y-%m-%d %H:%M:%S} UTC, {what}, took {drill.get('took_ms', 0) / 1000:.1f} s"


@click.command(short_help="Restore it to a temporary place and check whether it is whole.")
@store_option
@address_option
@json_option
def verify(store: str, replica: str | None, as_json: bool) -> None:
    """Restore the newest copy to a temporary place, check it, and compare it with the store if that
    is here.

    The copy must be intact for SQLite, its history must give its own checksum (a count and a sum
    over all rows), it must have all that was confirmed, and every row of it must be in the store as
    it is. Exit code 1 if it can't be trusted.

    \b
    Examples:
      perdure replica verify
      perdure replica verify --replica s3://agents/prod
    """
    address = _address(replica, store)
    begin_s = time.monotonic()
    sweep()
    with TempFolder() as folder:
        copy = folder.path / "copy.db"
        say(f"Restoring {address} ...")
        try:
            with restoring(address) as on_bytes:
                copied = run_async(fetch(address, copy, on_bytes=on_bytes))
            missing = None
            if (
                os.path.exists(store)
                and (ours := checksum.read(connect(store))) is not None
                and ours.store_id == copied.store_id
            ):
                missing = missing_rows(store, copy)
                if missing:
                    raise differs(address, missing)
        except ReplicaDamaged as error:
            say(*as_lines(str(error)))
            raise click.exceptions.Exit(Exit.FAILED) from error
        size = copy.stat().st_size
    facts = {
        "ok": True,
        "rows": copied.rows,
        "epoch": copied.epoch,
        "bytes": size,
        "compared_with": store if missing is not None else None,
        "took_s": round(time.monotonic() - begin_s, 2),
    }
    if as_json:
        echo_json(facts)
    else:
        beside = (
            f", all of them in {store} as they are"
            if missing is not None
            else "; there is no local store of it to compare with"
        )
        echo(
            f"The copy is good: {copied.rows:,} rows of history{beside}. {size:,} bytes, "
            f"{facts['took_s']} s."
        )


@click.command(short_help="Make a store from the copy, as of now or of any moment.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The store to make.",
)
@click.option(
    "--at",
    "at",
    metavar="TIME|TXID",
    help=(
        '"2026-11-23T12:00:00Z" (without a zone: local time), "10 minutes ago", 133, or 7/133: '
        "of an earlier epoch."
    ),
)
@store_option
@address_option
@json_option
def restore(output: Path, at: str | None, store: str, replica: str | None, as_json: bool) -> None:
    """Make a store from the copy in the bucket, as of now or of any moment of the last week.

    The result is a store of its own, checked and no longer tied to the replica: inspect it, fork
    runs of it, or go on with it elsewhere.

    \b
    Examples:
      perdure replica restore -o copy.db
      perdure replica restore -o yesterday.db --at "1 day ago" --replica s3://agents/prod
    """
    if there := standing_at(output):
        what = (
            ""
            if there[0] == str(output)
            else ", which SQLite would take for a part of what is restored"
        )
        raise misuse(f"{there[0]!r} exists{what}, and nothing is overwritten. Name another file.")
    address = _address(replica, store)
    with restoring(address) as on_bytes:
        copied = run_async(restore_to(address, output, on_bytes=on_bytes, **_moment(at)))
    runs, last_ms = contents(output)
    until = dt.datetime.fromtimestamp(last_ms / 1000, dt.UTC) if copied.rows else None
    if as_json:
        echo_json(
            {
                "file": str(output),
                "runs": runs,
                "rows": copied.rows,
                "epoch": copied.epoch,
                "last_event": until and until.isoformat(),
            }
        )
    else:
        echo(
            f"Restored {output}: {runs:,} runs, {copied.rows:,} rows of history"
            f"{f', the last one of {until:%Y-%m-%d %H:%M:%S} UTC' if until else ''}."
        )


def _moment(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if found := re.fullmatch(r"(?:(\d+)/)?(\d+)", text):
        return {"txid": int(found[2]), "epoch": int(found[1]) if found[1] else None}
    try:
        return {"at": times.since(text, dt.datetime.now(dt.UTC))}
    except ValueError:
        raise misuse(
            f'--at {text!r} is no moment: "2026-11-23T12:00:00Z", "10 minutes ago" '
            f"(seconds to weeks), or a number of a transaction."
        ) from None


@click.command(short_help="Let the store go on without its replica.")
@store_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def detach(store: str, yes: bool) -> None:
    """Let a store go on as a plain one, without its replica. What is in the bucket stays there.

    \b
    Example:
      perdure replica detach --store agents.db
    """
    own = checksum.read(connect(store))
    if own is None:
        say(f"{store} is not replicated.")
        return
    try:
        held = run_async(look(parse(own.address))).held
    except (ReplicaUnavailable, ReplicaEmpty):
        held = False
    if held:
        raise misuse(f"An engine holds the replica {own.address} at this moment. Stop it first.")
    if pid := _executing_here(store):  # it may be cut off from its bucket
        raise misuse(f"Process {pid} has {store} open at this moment. Stop it first.")
    if not yes and not confirmed(
        f"{store} will go on without {own.address}, which gets nothing more. Go on?"
    ):
        raise misuse(
            f"Nothing was changed: {store} is still tied to its replica. Answer y, or give "
            f"--yes in a script."
        )
    connection.detach(store)
    say(f"{store} is a plain store now. The copy in {own.address} stays as it is.")


def _executing_here(store: str) -> int | None:
    """The process of this machine that has the store open for work."""
    here = (one for one in Reader(connect(store), store).workers() if one.host == identity.host())
    return next(
        (one.pid for one in here if not identity.is_dead(one.host, one.pid, one.born)), None
    )


for command in (status, verify, restore, detach):
    replica.add_command(command)
replica.sections["Commands"] = [status, verify, restore, detach]

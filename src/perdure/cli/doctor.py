"""`doctor`: facts about the store, and what in it stands still.

Rules: nothing is written or executed; what needs a person is listed with the reason and the command
that helps; with --json nothing is cut.
"""

from __future__ import annotations

import contextlib
from typing import Any

import click

from perdure.cli.common import Exit, json_option, store_option
from perdure.cli.format import status
from perdure.cli.output import as_lines, echo, echo_json, say
from perdure.cli.reading import with_reader
from perdure.cli.replica_options import seen_from_outside
from perdure.views import format

LISTS = ("workers", "stuck", "stuck_queues", "stuck_schedules", "unanswered")


@click.command(short_help="Check the store, and say what stands still and why.")
@store_option
@json_option
def doctor(store: str, as_json: bool) -> None:
    """Check the store itself: file, versions, integrity, workers; and list what stands still, with
    the reason: runs, queues, schedules, requests without a reply.

    \b
    Examples:
      perdure doctor
      perdure doctor --store /var/lib/app/perdure.db --json
    """
    facts = with_reader(store, lambda reader: reader.doctor())
    if "replica" in facts:
        facts["replica"] |= seen_from_outside(facts["replica"]["address"])
    if as_json:
        echo_json(facts)
    else:
        _print_facts(facts)
    if facts.get("integrity", "ok") != "ok":
        say("The file is damaged. Copy it before anything else, then restore a good copy.")
        raise click.exceptions.Exit(Exit.STORE)


def _print_facts(facts: dict[str, Any]) -> None:
    first = [name for name in ("path", "file_bytes", "wal_bytes") if name in facts]
    facts = {name: facts[name] for name in [*first, *facts]}
    no_worker = facts.pop("no_worker", None)
    lists = {name: facts.pop(name) for name in LISTS if name in facts}
    width = max(len(name) for name in [*facts, *lists])
    for name, fact in facts.items():
        echo(f"{_title(name).ljust(width)}  {_fact(name, fact)}")
    for name, entries in lists.items():
        alive = [one for one in entries if one.get("lease_left_ms", 1) > 0]
        echo(f"{_title(name).ljust(width)}  {len(alive) or 'none'}")
        for entry in entries:
            echo(*as_lines(f"  {_entry(entry)}"))
        if name == "workers" and no_worker:
            echo(f"  {no_worker}")


def _title(name: str) -> str:
    return name.replace("_", " ")


def _fact(name: str, fact: Any) -> str:
    if fact == []:
        return "none"
    if isinstance(fact, dict):
        return ", ".join(f"{key} {_fact(key, item)}" for key, item in fact.items()) or "none"
    if name.endswith("bytes") and isinstance(fact, int):
        return f"{fact:,}"
    return str(fact) if isinstance(fact, str | int | float) else format.value(fact)


def _entry(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    if entry.get("lease_left_ms", 1) <= 0:
        gone = format.duration(-entry["lease_left_ms"])
        return f"{entry['name']}, pid {entry['pid']}: its lease ran out {gone} ago"
    with contextlib.suppress(KeyError):
        left = format.duration(entry["lease_left_ms"])
        return f"{entry['name']}, pid {entry['pid']}: alive, its lease runs for another {left}"
    with contextlib.suppress(KeyError):
        return f"{entry['id']}  {status(entry['status'])}  {entry['reason']}"
    with contextlib.suppress(KeyError):
        return f"{entry['name']}  {entry['reason']}"
    return ", ".join(f"{key} {_fact(key, item)}" for key, item in entry.items())

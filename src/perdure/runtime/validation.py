"""What an engine is given, checked before anything is opened or written.

Rules: an argument that can't be right is a `DefinitionError` that says which would be; what few
engines need is loaded for those only.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from perdure.api.definitions import Definition
from perdure.api.options import to_ms
from perdure.core import names, numbers
from perdure.core.lifecycle import STATUSES
from perdure.core.limits import Limits
from perdure.errors import BadName, DefinitionError, ReplicaRequired, RunNotFound
from perdure.runtime.durability import AnswerGate
from perdure.store.sqlite.driver import SqliteStore

if TYPE_CHECKING:
    from perdure.replica.options import Replica

LEASE_MS_MIN = 1_000
"""A beat may be late by half a second on a disk that is written to all the time, and others wait
for three quarters of a lease; a bucket
has what the margin and a quarter of the lease leave for a round trip."""


def findable(run_id: str) -> str:
    """The id, if a run can have it. Raises `RunNotFound` for a text that none can have, and
    `BadName` for what is no text.
    """
    if not isinstance(run_id, str):
        raise BadName("run id", f"it is {type(run_id).__name__}, not str")
    try:
        run_id.encode()
    except UnicodeEncodeError:
        raise RunNotFound(run_id) from None
    return run_id


def several_ids(ids: Any) -> list[str]:
    """Ids of runs. Raises `DefinitionError` for what are none."""
    found = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str | bytes) else None
    if found is None or not all(isinstance(id, str) for id in found):
        raise DefinitionError(f"ids are ids of runs, as in ['a', 'b'], not {numbers.shown(ids)}.")
    return found


def check_filters(status: Any, workflow: Any, tags: Any, limit: Any) -> None:
    """Raise what is wrong with a question for runs."""
    if status is not None and status not in STATUSES:
        raise DefinitionError(
            f"status is one of {', '.join(STATUSES)}, not {numbers.shown(status)}."
        )
    if workflow is not None:
        names.checked("name of a workflow", workflow)
    if tags is not None:
        names.checked_tags(tags)
    numbers.count(limit, "limit")


def check_resolution(seq: Any, error: Any, retry: Any) -> None:
    """Raise what is wrong with a decision about a step."""
    if seq is not None:
        numbers.count(seq, "seq")
    if not isinstance(error, str | None):
        raise DefinitionError(
            f'error is a text, such as error="the charge was refused", not {numbers.shown(error)}.'
        )
    numbers.flag(retry, "retry")


def check_edit(at: Any, args: Any) -> None:
    """Raise what is wrong with the row and the arguments of a fork."""
    numbers.count(at, "at, the number of a row,")
    if args is not None and not (
        isinstance(args, dict) and all(isinstance(name, str) for name in args)
    ):
        raise DefinitionError(
            f'args is a dict of arguments by their names, such as args={{"amount": 5}}, '
            f"not {numbers.shown(args)}."
        )


def checked_priority(priority: int) -> int:
    """Raise `DefinitionError` for what SQLite can't store as an integer."""
    if (
        not isinstance(priority, int)
        or isinstance(priority, bool)
        or not -(2**63) <= priority < 2**63
    ):
        raise DefinitionError(
            f"priority is an integer of at most 64 bits, not {numbers.shown(priority)}."
        )
    return priority


def at_ms(at: datetime) -> int:
    """A moment with its time zone as milliseconds."""
    if not isinstance(at, datetime):
        raise DefinitionError(
            f"at is an aware datetime, such as datetime.now(timezone.utc), not {numbers.shown(at)}."
        )
    if at.tzinfo is None:
        raise DefinitionError(
            f"at={at!r} has no time zone; use an aware datetime, such as "
            f"datetime.now(timezone.utc)."
        )
    return round(at.timestamp() * 1000)


def check_options(
    store: str,
    durability: str,
    replica: Replica | None,
    lease_ttl: float | timedelta,
    execute: bool | str,
) -> None:
    """Raise what is wrong with an engine's options, each alone or together."""
    if not isinstance(execute, bool) and execute != "asked":
        asked = '"asked" (only what is started or waited for here)'
        raise DefinitionError(
            f"execute is True, False (a client) or {asked}, not {numbers.shown(execute)}."
        )
    if store.startswith(("postgresql://", "postgres://")):
        raise DefinitionError(
            "This version of Perdure keeps its state in SQLite; Postgres is on the roadmap. "
            "Name a file instead."
        )
    if durability not in ("disk", "replica"):
        raise DefinitionError(
            f'durability is "disk" or "replica", not {numbers.shown(durability)}.'
        )
    if durability == "replica" and replica is None and execute:
        raise DefinitionError(
            'durability="replica" needs to know where the replica is: '
            'replica="s3://bucket/prefix" or "file:///folder".'
        )
    if replica is not None and (store == ":memory:" or not execute):
        raise DefinitionError(
            "A replica is kept by the engine that executes, and of a file: not of :memory:, "
            "and not with execute=False."
        )
    lease_ms(lease_ttl, execute)


def lease_ms(lease_ttl: float | timedelta, execute: bool | str) -> int:
    """A lease in ms. Raises `DefinitionError` for one that can't be kept; a client has none, and
    looks at its file four times in that.
    """
    found = to_ms(lease_ttl, "lease_ttl")
    if found is None:
        raise DefinitionError(
            "lease_ttl must be a positive number of seconds or a timedelta, not None."
        )
    if execute and found < LEASE_MS_MIN:
        raise DefinitionError(
            f"lease_ttl={numbers.shown(lease_ttl)} is too short: a busy disk or a slow bucket "
            f"would lose it again and again. "
            f"The smallest that can be kept is {LEASE_MS_MIN / 1000:g} s; the default is 10 s."
        )
    return found


def check_engine(workflows: Any, limits: Any, **flags: Any) -> None:
    """Raise what is wrong with the things that an engine is given."""
    if isinstance(workflows, str | Definition) or not isinstance(workflows, Iterable):
        raise DefinitionError(
            f"workflows is a list of workflows, as in Engine(..., workflows=[agent]), not "
            f"{numbers.shown(workflows)}."
        )
    if limits is not None and not isinstance(limits, Limits):
        raise DefinitionError(
            f"limits is a Limits, as in Engine(..., limits=Limits(threads_max=4)), not "
            f"{numbers.shown(limits)}."
        )
    for flag, value in flags.items():
        numbers.flag(value, flag)


def check_times(close_grace: Any, replica_timeout: Any) -> None:
    """Raise what is wrong with an engine's numbers of seconds."""
    numbers.seconds(close_grace, "close_grace")
    numbers.seconds(replica_timeout, "replica_timeout", above=True)


def check_level(durability: str | None, gate: AnswerGate | None) -> None:
    """Raise that no engine could confirm what is asked for."""
    if durability == "replica" and gate is None:
        raise DefinitionError(
            'durability="replica" needs a replica, and this engine has none: Engine(..., replica="s3://bucket/prefix").'
        )


def client_gate(store: SqliteStore, durability: str) -> AnswerGate:
    """What an engine that executes nothing waits for before it answers."""
    from perdure.replica.confirm_client import ConfirmClient

    return ConfirmClient(store.path, durability, store.checksum, store.file)


def check_replica(store: SqliteStore, acquired: object, execute: bool | str) -> None:
    """Raise `ReplicaRequired` where a replicated file would go on without its replica."""
    checksum = store.checksum()
    if checksum is not None and acquired is None and execute:
        raise ReplicaRequired(store.path, checksum.address)


def checked_sender(sender: str | None) -> str | None:
    """The name of a sender, if it can be stored. Raises `BadName`."""
    if sender == "":
        raise BadName("sender", "it is empty")
    return None if sender is None else names.checked("sender", sender)

"""Options of an engine as one checked value, and how a run is to be started.

Rules: an option that can't be right is a `DefinitionError` before anything is opened; an option
that has moved says where it is now.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from perdure.api.queues import Queue, checked_queues
from perdure.api.retention import Retention
from perdure.codec.secrets import Redaction, Says, redaction
from perdure.core import names
from perdure.core.limits import Limits
from perdure.core.numbers import shown
from perdure.errors import DefinitionError
from perdure.replica.options import Replica
from perdure.runtime import retention as retentions
from perdure.runtime import validation
from perdure.runtime.observer import Notifier, Observer, notifier
from perdure.store.sqlite.connection import path_of

if TYPE_CHECKING:
    from perdure.api.schedules import Schedule

OF_THE_REPLICA = frozenset({"fencing", "standby", "drill_every", "on_wait"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What an engine was made with. `answer_s` is how long a verb waits for the replica."""

    path: str
    durability: str
    replica: Replica | None
    lease_ms: int
    execute: bool | Literal["asked"]
    create: bool
    answer_s: float
    limits: Limits
    observer: Notifier | None
    close_grace_s: float
    name: str
    queues: tuple[Queue, ...] = ()
    retention: Retention | None = None
    schedules: tuple[Schedule, ...] = ()
    redaction: Redaction | None = None
    step_logs: int | None = None
    """The lowest level of lines that are kept; None: none are."""


def checked(
    store: str | os.PathLike[str],
    *,
    workflows: object,
    durability: str,
    replica: str | Replica | None,
    lease_ttl: float | timedelta,
    execute: bool | Literal["asked"],
    create: bool,
    replica_timeout: float,
    limits: Limits | None,
    observer: Observer | Iterable[Observer] | None,
    close_grace: float,
    name: str | None,
    queues: object,
    retention: Retention | None,
    schedules: object,
    redact: Iterable[str] | Says | None,
    step_logs: str | int | None,
    moved: Mapping[str, Any],
) -> EngineOptions:
    """The options of an engine, from its arguments. Raises `DefinitionError`."""
    check_moved(moved)
    if replica is not None and not isinstance(replica, Replica):
        replica = Replica(replica)
    path = path_of(store)
    validation.check_options(path, durability, replica, lease_ttl, execute)
    validation.check_engine(workflows, limits, create=create)
    validation.check_times(close_grace, replica_timeout)
    return EngineOptions(
        path=path,
        durability=durability,
        replica=replica,
        lease_ms=validation.lease_ms(lease_ttl, execute),
        execute=execute,
        create=create,
        answer_s=replica_timeout,
        limits=limits or Limits(),
        observer=notifier(observer),
        close_grace_s=close_grace,
        name=names.checked("name of an engine", f"pid-{os.getpid()}" if name is None else name),
        queues=checked_queues(queues),
        retention=None if retention is None else retentions.checked(retention, path),
        schedules=_schedules(schedules),
        redaction=redaction(redact),
        step_logs=_level(step_logs),
    )


def _level(given: object) -> int | None:
    """A level of `logging` as a number."""
    known = logging.getLevelNamesMapping()
    if isinstance(given, str) and given.upper() in known:
        return known[given.upper()]
    if given is None or (isinstance(given, int) and not isinstance(given, bool)):
        return given
    raise DefinitionError(
        'step_logs is the lowest level of the lines of steps that are kept, such as "INFO" or '
        f"logging.DEBUG, or None for none of them, not {shown(given)}."
    )


def _schedules(given: object) -> tuple[Schedule, ...]:
    """Schedules, checked. Where there are none, nothing is loaded."""
    if given == ():
        return ()
    from perdure.api.schedules import checked_list

    return checked_list(given)


def check_moved(given: Mapping[str, Any]) -> None:
    """Raise where an option is now, or that there is none of this name."""
    for name in given:
        if name in OF_THE_REPLICA:
            raise DefinitionError(
                f"{name} is an option of the replica: "
                f'Engine(..., replica=Replica("s3://bucket/prefix", {name}=...)).'
            )
        raise TypeError(f"Engine() got an unexpected keyword argument {name!r}")

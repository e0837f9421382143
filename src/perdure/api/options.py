"""Options of steps and workflows, checked at the line that gives them.

Rules: an unknown option, or two that can't work together, is an error at the decorator; times
become whole milliseconds here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

import msgspec

from perdure.api import queues
from perdure.core import names, numbers
from perdure.core.retry import NO_RETRY, Retry
from perdure.errors import DefinitionError

OnCrash = Literal["retry", "ask", "fail"]
Durability = Literal["disk", "replica"]
_OF_QUEUES = frozenset({"queue", "key", "weight"})
_KNOWN = _OF_QUEUES | {
    "retry", "timeout", "readonly", "transactional", "on_crash", "id", "durability",
}  # fmt: skip


class Options(msgspec.Struct, frozen=True):
    """The options of a definition or of one call; see `step` and `workflow`. Times are
    milliseconds.
    """

    retry: Retry = Retry()
    timeout_ms: int | None = None
    readonly: bool = False
    transactional: bool = False
    on_crash: OnCrash = "retry"
    id: str | None = None
    queue: str | None = None
    durability: Durability | None = None
    key: str | Callable[..., str | None] | None = None
    weight: int | Callable[..., int] = 1


class StartOptions(TypedDict, total=False):
    """The options of a start; see `Engine.start`."""

    id: str | None
    queue: str | None
    key: str | None
    priority: int
    weight: int | None
    at: datetime | None
    debounce: float | timedelta | None
    debounce_max: float | timedelta | None
    tags: dict[str, Any] | None
    timeout: float | timedelta | None
    durability: Durability | None


def to_ms(value: float | timedelta | None, what: str) -> int | None:
    """Seconds or a timedelta as whole milliseconds; None stays None."""
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not numbers.is_number(seconds) or not 0 < seconds < 3.2e11:
        raise DefinitionError(
            f"{what} must be a positive number of seconds or a timedelta, up to 10,000 years, not "
            f"{numbers.shown(value)}."
        )
    return max(1, round(seconds * 1000))


def changed(options: Options, given: dict[str, Any], what: str) -> Options:
    """The options with changes by name. `what` names their owner in errors. Raises
    `DefinitionError`.
    """
    if unknown := set(given) - _KNOWN:
        raise DefinitionError(
            f"{what}: no option is called {', '.join(sorted(unknown))}. Options: "
            f"{', '.join(sorted(_KNOWN))}."
        )
    changes = dict(given)
    if "timeout" in changes:
        changes["timeout_ms"] = to_ms(changes.pop("timeout"), f"{what}: timeout")
    if "retry" in changes:
        changes["retry"] = _as_retry(changes["retry"], what)
    for name in {"readonly", "transactional"} & set(changes):
        numbers.flag(changes[name], f"{what}: {name}")
    if changes.get("id") is not None:
        names.checked_id(changes["id"])
    if not _OF_QUEUES.isdisjoint(changes):
        queues.check_options(changes, what)
    if changes.get("on_crash", "retry") not in ("retry", "ask", "fail"):
        raise DefinitionError(
            f'{what}: on_crash is "retry", "ask" or "fail", not '
            f"{numbers.shown(changes['on_crash'])}."
        )
    if changes.get("durability") not in (None, "disk", "replica"):
        raise DefinitionError(
            f'{what}: durability is "disk" or "replica", not '
            f"{numbers.shown(changes['durability'])}."
        )
    found = msgspec.structs.replace(options, **changes)
    if found.transactional and found.queue is not None:
        raise DefinitionError(
            f"{what}: a transactional step can't have a queue: it runs in the store's writer, one "
            f"at a time. Give the queue to the step before it, or to the run."
        )
    return found


def _as_retry(value: Any, what: str) -> Retry:
    match value:
        case None | False:
            return NO_RETRY
        case Retry():
            return value
        case bool():
            return Retry()
        case int():
            return Retry(attempts=value)
        case _:
            raise DefinitionError(
                f"{what}: retry is a Retry, a number of attempts, or None, not "
                f"{numbers.shown(value)}."
            )


def check_step(fn: Callable[..., Any], options: Options) -> None:
    """Raise `DefinitionError` for options of a step that contradict each other."""
    if not options.transactional:
        return
    if inspect.iscoroutinefunction(fn):
        raise DefinitionError(
            f"Transactional step {fn.__name__} must be a plain `def`: it runs inside one "
            f"database transaction."
        )
    if options.readonly or options.timeout_ms is not None:
        raise DefinitionError(
            f"Transactional step {fn.__name__} can't be readonly or have a timeout: it "
            f"holds the write lock."
        )

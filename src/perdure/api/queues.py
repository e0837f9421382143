"""Queues: how many runs or steps may be under way at once, and how many may begin in a time.

Rules: a value that can't be right, and limits that contradict each other, are an error at the line
that gives them; a key or a weight is a value, or a function of the arguments of the step or the
workflow that it is given for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from perdure.api import functions
from perdure.core import names, numbers
from perdure.errors import DefinitionError

LIMIT_MAX = 1_000_000_000
PER_S_MIN, PER_S_MAX = 0.001, 366 * 86_400
_Choose = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class Rate(msgspec.Struct, frozen=True):
    """At most `limit` in each time of `per` (seconds or a timedelta), evenly: a token bucket.

    A pause saves up to `burst` tokens (default: `limit`), which may then be spent at once. What is
    admitted takes as many tokens as its weight, one by default; a weight above the burst could
    never be admitted, so it is an error. Raises `DefinitionError`.

    >>> Rate(500, per=60)
    Rate(limit=500, per=60, burst=500)
    """

    limit: int
    per: float | timedelta
    burst: int | None = None

    def __post_init__(self) -> None:
        numbers.count(self.limit, "Rate: limit", high=LIMIT_MAX)
        per = self.per
        seconds = per.total_seconds() if isinstance(per, timedelta) else per
        if not numbers.is_number(seconds) or not PER_S_MIN <= seconds <= PER_S_MAX:
            right = f"per is seconds or a timedelta, from {PER_S_MIN} s to a year"
            raise DefinitionError(f"Rate: {right}, not {numbers.shown(per)}.")
        if isinstance(per, timedelta):
            msgspec.structs.force_setattr(self, "per", seconds)
        if self.burst is None:
            msgspec.structs.force_setattr(self, "burst", self.limit)
        numbers.count(self.burst, "Rate: burst", high=LIMIT_MAX)

    @property
    def per_ms(self) -> int:
        """`per` in whole milliseconds."""
        per = self.per
        return max(1, round(1000 * (per.total_seconds() if isinstance(per, timedelta) else per)))

    def is_above(self, other: Rate) -> bool:
        """Whether it allows more than another one at any time, and at once."""
        more = self.limit * other.per_ms > other.limit * self.per_ms
        return more and self.tokens_max >= other.tokens_max

    @property
    def tokens_max(self) -> int:
        """The burst, which is the limit where none was given."""
        return self.limit if self.burst is None else self.burst


class _Named(msgspec.Struct, frozen=True):
    name: str


class Queue(_Named, frozen=True, kw_only=True):
    """A name with limits, for runs (`start(queue=...)`) and for steps (`@step(queue=...)`).

    `concurrency` is how many may be under way at once over all processes, `per_worker` in each
    process; `rate` is a `Rate` of how many may begin; `key_concurrency` and `key_rate` are the same
    for each key, which is whom a run or a step is for. `waiting_max` is how many may wait:
    `QueueFull` is raised for more. Without a limit there is none. While it is `paused` nothing is
    admitted; what is under way goes on.

    Higher priority is admitted first; among equals keys take turns, the least served first; then
    the oldest. Given as `Engine(queues=[...])`, or changed with `engine.queue(...)`; every process
    on the store goes by what is stored.

    Raises `DefinitionError` for a limit below 1, and for limits that contradict each other.

    >>> Queue("openai", concurrency=20, rate=Rate(500, per=60), key_concurrency=5).concurrency
    20
    """

    concurrency: int | None = None
    per_worker: int | None = None
    rate: Rate | None = None
    key_concurrency: int | None = None
    key_rate: Rate | None = None
    waiting_max: int | None = None
    paused: bool = False

    def __post_init__(self) -> None:
        what = f"Queue {checked_name(self.name)!r}"
        for limit in ("concurrency", "per_worker", "key_concurrency", "waiting_max"):
            if getattr(self, limit) is not None:
                numbers.count(getattr(self, limit), f"{what}: {limit}", high=LIMIT_MAX)
        for limit in ("rate", "key_rate"):
            if not isinstance(getattr(self, limit), Rate | None):
                shown = numbers.shown(getattr(self, limit))
                right = f"{limit} is a Rate, such as {limit}=Rate(500, per=60)"
                raise DefinitionError(f"{what}: {right}, not {shown}.")
        numbers.flag(self.paused, f"{what}: paused")
        if self.rate and self.key_rate and self.key_rate.is_above(self.rate):
            raise DefinitionError(
                f"{what}: key_rate allows more than rate, so it would limit nothing. Lower "
                "key_rate, leave it out, or raise rate."
            )
        for part in ("per_worker", "key_concurrency"):
            most, limit_of_part = self.concurrency, getattr(self, part)
            if most is not None and limit_of_part is not None and limit_of_part > most:
                raise DefinitionError(
                    f"{what}: {part}={limit_of_part} is more than concurrency={most}, so it would "
                    f"limit nothing. Lower {part}, leave it out, or raise concurrency."
                )

    def changed(self, given: Mapping[str, Any]) -> Queue:
        """The queue with changes by name. Raises `DefinitionError`."""
        checked_fields(self.name, given)
        return msgspec.structs.replace(self, **given)


QUEUE_FIELDS = tuple(name for name in Queue.__struct_fields__ if name != "name")
"""The names of all that can be given for a queue."""


def checked_name(name: Any) -> str:
    """The name of a queue, if it can be one. Raises `BadName`, and `DefinitionError` for ''."""
    if names.checked("queue", name) == "":
        raise DefinitionError("A queue needs a name that is not empty, such as queue='openai'.")
    return str(name)


def checked_fields(name: Any, given: Mapping[str, Any]) -> None:
    """Raise what is wrong with changes of a queue, as far as they say by themselves."""
    if unknown := sorted(set(given) - set(QUEUE_FIELDS)):
        raise DefinitionError(
            f"Queue {name!r}: no limit is called {', '.join(unknown)}. Limits: "
            f"{', '.join(QUEUE_FIELDS)}."
        )
    for field, value in given.items():  # each alone: the others are in the store
        Queue(name, **{field: value})


def checked_queues(queues: Any) -> tuple[Queue, ...]:
    """The queues of an engine. Raises `DefinitionError`."""
    iterable = isinstance(queues, Iterable) and not isinstance(queues, str | Mapping)
    found = tuple(queues) if iterable else ()
    if not iterable or not all(isinstance(queue, Queue) for queue in found):
        raise DefinitionError(
            f"queues is a list of queues, as in Engine(..., queues=[Queue('openai', "
            f"concurrency=5)]), not {numbers.shown(queues)}."
        )
    seen: set[str] = set()
    for queue in found:
        if queue.name in seen:
            raise DefinitionError(f"Queue {queue.name!r} is given twice; put its limits into one.")
        seen.add(queue.name)
    return found


# --- keys and weights -----------------------------------------------------------------------------


def checked_key(key: Any, what: str = "key") -> str | None:
    """A key, if it can be one. Raises `DefinitionError` for what is no text."""
    if key is not None and not isinstance(key, str):
        raise DefinitionError(
            f"{what} is a text that says whom it is for, such as 'tenant-7', or None, not "
            f"{numbers.shown(key)}."
        )
    if key == "":
        raise DefinitionError(f"{what} is empty; None is for what has no key.")
    return key if key is None else names.checked(what, key)


def checked_weight(weight: Any, what: str = "weight") -> int:
    """A weight, if it can be one. Raises `DefinitionError`."""
    return numbers.count(weight, what, low=0, high=LIMIT_MAX)


def checked_amount(amount: Any) -> int:
    """What a step has used, if it can be that. Raises `DefinitionError`."""
    return numbers.count(amount, "The amount that spend() takes", low=0, high=LIMIT_MAX)


def check_options(options: Mapping[str, Any], what: str) -> None:
    """Raise what is wrong with the queue, the key or the weight among options of a definition."""
    if options.get("queue") is not None:
        checked_name(options["queue"])
    if not callable(options.get("key")):
        checked_key(options.get("key"), f"{what}: key")
    if not callable(weight := options.get("weight", 1)):
        checked_weight(weight, f"{what}: weight")


def chosen(given: Any, definition: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A key or a weight for one call: the value that was given, or what its function returns."""
    if not callable(given):
        return given
    if (known := definition.choices.get(id(given))) is None:
        known = definition.choices[id(given)] = (given, _compiled(given, definition))
    return known[1](args, kwargs)


def check_choices(definition: Any) -> None:
    """Raise `DefinitionError` for a function of key or weight that does not take the arguments."""
    options = definition.call_options
    for name in ("key", "weight"):
        if callable(given := getattr(options, name)) and id(given) not in definition.choices:
            try:
                definition.choices[id(given)] = (given, _compiled(given, definition))
            except _NoSuchArgument as error:
                raise DefinitionError(
                    f"{definition.kind} {definition.name}: the function {name} takes {error}, and "
                    f"the {definition.kind} has {', '.join(definition.signature.parameters)}. Name "
                    f"its parameters so, and add **_ for those that it does not need."
                ) from None


class _NoSuchArgument(Exception):
    pass


def _compiled(given: Callable[..., Any], definition: Any) -> _Choose:
    """How a function is called with the arguments of a call: by name, or in their order."""
    signature: inspect.Signature = definition.signature
    try:
        parameters = functions.signature_of(given).parameters.values()
    except (TypeError, ValueError):  # one that is written in C
        return lambda args, kwargs: given(*args, **kwargs)
    kinds = {one.name: one.kind for one in parameters}
    by_name = [name for name, kind in kinds.items() if kind in functions.BY_NAME]
    in_order = [name for name, kind in kinds.items() if kind in functions.POSITIONAL]
    single = {*by_name, *in_order}
    needed = [one.name for one in parameters if one.name in single and one.default is one.empty]
    known, several = signature.parameters, inspect.Parameter.VAR_POSITIONAL in kinds.values()
    if set(needed) <= set(known) & set(by_name) and not several:
        takes_all = inspect.Parameter.VAR_KEYWORD in kinds.values()
        wanted = None if takes_all else [name for name in by_name if name in known]
        return _by_name(given, signature, wanted)
    if len(needed) <= len(known) and (several or len(in_order) >= len(known)):
        return lambda args, kwargs: given(*_bound(signature, args, kwargs).values())
    raise _NoSuchArgument(", ".join(needed))


def _by_name(
    given: Callable[..., Any], signature: inspect.Signature, wanted: list[str] | None
) -> _Choose:
    order = list(signature.parameters)
    plain = all(one.kind is one.POSITIONAL_OR_KEYWORD for one in signature.parameters.values())

    def choose(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if plain and not kwargs and len(args) == len(order):
            named = dict(zip(order, args, strict=True))
        else:
            named = _bound(signature, args, kwargs)
        if wanted is not None:
            named = {name: named[name] for name in wanted if name in named}
        return given(**named)

    return choose


def _bound(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments

"""Retry policy: whether and when a failed attempt is tried again.

Rules: no clock and no global randomness; jitter comes from the caller's key, so that one attempt of
one step always waits equally long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from perdure.core import numbers
from perdure.errors import DefinitionError

FACTOR_MAX = 1_000.0

Classes = type[BaseException] | Collection[type[BaseException]]
"""One exception class, or a tuple, list or set of them."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, how far apart and for which errors a step is tried again.

    `attempts` counts all tries, the first included; `delay` and `max_delay` are seconds; attempt
    *n* waits `delay * factor ** (n - 1)`, at most `max_delay`; `jitter` takes off up to half of
    that, so that many steps that failed together do not come back together. `on` and `never_on` are
    exception classes, one or a tuple, list or set of them; `never_on` wins.

    Raises `DefinitionError` for a value that can't be right: a delay that is no number of seconds
    up to ten years or more than `max_delay`, an `on` that holds something else than exception
    classes.

    >>> Retry(attempts=5, delay=0.5, jitter=False).wait_ms(2, "any key")
    1000
    """

    attempts: int = 3
    delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 60.0
    jitter: bool = True
    on: Classes = (Exception,)
    never_on: Classes = ()

    def __post_init__(self) -> None:
        numbers.count(self.attempts, "Retry: attempts")
        numbers.seconds(self.delay, "Retry: delay")
        numbers.seconds(self.max_delay, "Retry: max_delay")
        if self.delay > self.max_delay:  # cut in silence, an hour would be a minute
            text = f"delay is {self.delay:,} s, more than max_delay, {self.max_delay:,} s"
            raise DefinitionError(f"Retry: {text}: pass a larger max_delay, too.")
        if not numbers.is_number(self.factor) or not 1 <= self.factor <= FACTOR_MAX:
            right = f"factor is a number from 1 to {FACTOR_MAX:,.0f}"
            raise DefinitionError(f"Retry: {right}, not {numbers.shown(self.factor)}.")
        numbers.flag(self.jitter, "Retry: jitter")
        object.__setattr__(self, "on", _classes(self.on, "on"))
        object.__setattr__(self, "never_on", _classes(self.never_on, "never_on"))

    def again(self, attempt: int, error: BaseException) -> bool:
        """Whether a next attempt follows after attempt number `attempt` ended with `error`."""
        on, never_on = cast("tuple[tuple[type, ...], tuple[type, ...]]", (self.on, self.never_on))
        return attempt < self.attempts and isinstance(error, on) and not isinstance(error, never_on)

    def wait_ms(self, attempt: int, key: str) -> int:
        """Milliseconds from the end of attempt number `attempt` to the start of the next one."""
        wait = min(self.delay * self.factor ** min(attempt - 1, 64), self.max_delay)
        if self.jitter:
            digest = hashlib.blake2b(f"{key}#{attempt}".encode(), digest_size=8).digest()
            wait *= 1 - int.from_bytes(digest, "big") / 2**65
        return round(wait * 1000)


def _classes(given: Any, field: str) -> tuple[type[BaseException], ...]:
    """Exception classes as `isinstance` takes them."""
    found = tuple(given) if isinstance(given, tuple | list | set | frozenset) else (given,)
    for item in found:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            right = f"{field} is exception classes, such as {field}=(ConnectionError, TimeoutError)"
            raise DefinitionError(f"Retry: {right}, not {numbers.shown(item)}.")
    return found


NO_RETRY = Retry(attempts=1)

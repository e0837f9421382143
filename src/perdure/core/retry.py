"""When a failed attempt is tried again, as a pure policy.

Rules: no clock and no global randomness; the jitter comes from the caller's key, so that the same
attempt of the same step always waits equally long.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from perdure.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, how far apart and for which errors a step is tried again.

    `attempts` counts all tries, the first included; `delay` and `max_delay` are seconds; attempt *n*
    waits `delay * factor ** (n - 1)`, at most `max_delay`; `jitter` takes off up to half of that, so
    that many steps that failed together do not come back together. `on` and `never_on` are exception
    classes; `never_on` wins.

    >>> Retry(attempts=5, delay=0.5, jitter=False).wait_ms(2, "any key")
    1000
    """

    attempts: int = 3
    delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 60.0
    jitter: bool = True
    on: tuple[type[BaseException], ...] = (Exception,)
    never_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise DefinitionError(f"Retry(attempts={self.attempts}): a step needs at least 1 attempt.")
        if self.delay < 0 or self.max_delay < 0 or self.factor < 1:
            raise DefinitionError("Retry: delay and max_delay are 0 or more seconds, and factor is 1 or more.")
        for field in ("on", "never_on"):
            value = getattr(self, field)
            if isinstance(value, type):
                object.__setattr__(self, field, (value,))

    def again(self, attempt: int, error: BaseException) -> bool:
        """Whether a next attempt follows after attempt number `attempt` ended with `error`."""
        return attempt < self.attempts and isinstance(error, self.on) and not isinstance(error, self.never_on)

    def wait_ms(self, attempt: int, key: str) -> int:
        """Milliseconds between the end of attempt number `attempt` and the start of the next one."""
        wait = min(self.delay * self.factor ** min(attempt - 1, 64), self.max_delay)
        if self.jitter:
            digest = hashlib.blake2b(f"{key}#{attempt}".encode(), digest_size=8).digest()
            wait *= 1 - int.from_bytes(digest, "big") / 2**65
        return round(wait * 1000)


NO_RETRY = Retry(attempts=1)

"""Limits of the engine and their defaults; an error names the limit that was reached."""

from __future__ import annotations

from dataclasses import dataclass, fields

from perdure.core import numbers

TURN_CALLBACKS_MAX = 1_000_000
"""Callbacks in one turn: code that never waits would otherwise hang the engine."""

TURN_CALLBACKS_QUICK = 10_000
"""Callbacks until a turn is looked at more closely."""

NAME_CHARS_MAX = 1_000
"""Characters of a channel, a stream, a queue, a tag, a message key: an index holds them."""

EXPOSED_NAMES_MAX = 1_000
"""Names of exposed values of one run: a reader gets all of them at once."""

INLINE_BYTES_MAX = 1024
"""Payloads up to this size are stored in their row; larger ones in shared chunks."""

CHUNK_BYTES_MIN = 256
"""Smaller chunks are not worth a row of their own."""

WHOLE_BYTES_MAX = 8192
"""Objects up to this size are one chunk; larger ones are divided."""

HISTORY_ROWS_MAX = 16_000_000
"""A row's key holds 24 bits of its number, so no engine may allow more."""

NEVER_MS = 253_402_300_800_000
"""The year 10000. A timer from then on is never due, as with a delay of `math.inf`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one engine allows; the names end in the units.

    Each is a whole number of at least 1; `runs_parked_max` and `threads_hung_max` may be 0. Raises
    `DefinitionError` for others.

    >>> Limits(threads_max=4).threads_max
    4
    """

    payload_bytes_max: int = 8 * 1024 * 1024
    history_rows_max: int = 50_000
    inbox_rows_max: int = 10_000
    runs_loaded_max: int = 2_000
    runs_parked_max: int = 500
    steps_max: int = 1_000
    threads_max: int = 16
    threads_hung_max: int = 16
    batch_writes_max: int = 2_000
    crashes_max: int = 3
    replica_bytes_max: int = 4 * 1024**3
    attempt_log_lines_max: int = 1_000
    run_log_lines_max: int = 10_000
    log_line_bytes_max: int = 8 * 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            low = 0 if field.name in _FROM_ZERO else 1
            high = HISTORY_ROWS_MAX if field.name == "history_rows_max" else 2**53
            numbers.count(getattr(self, field.name), f"Limits: {field.name}", low=low, high=high)


_FROM_ZERO = frozenset({"runs_parked_max", "threads_hung_max"})

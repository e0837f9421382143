"""System clock: the one place that reads the time.

Rules: everything else gets the time as an argument, in whole milliseconds UTC.
"""

from __future__ import annotations

import time


class SystemClock:
    """The machine's wall clock."""

    idle_s_max = 60.0
    """How long a loop may sleep before it looks again: a wall clock can be set while it does."""

    passes = True
    """Whether time passes by itself, for every thread and process alike."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

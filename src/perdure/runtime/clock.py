"""The one place that reads a clock. Everything else is given the time, in whole milliseconds UTC."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's wall clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

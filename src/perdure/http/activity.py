"""Activity of the last hour, for the pages of a site: read at most once in some seconds.

Rules: many open lists cost one read; what is shown is a few seconds old at most.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from perdure.reader import StoreReader
from perdure.reader.values import Activity

SECONDS = 5.0

_kept: WeakKeyDictionary[StoreReader, tuple[float, Activity]] = WeakKeyDictionary()


async def last_hour(reader: StoreReader) -> Activity:
    """Runs that started and ended in each minute of the last hour, at most 5 s old."""
    now = asyncio.get_running_loop().time()
    at, found = _kept.get(reader, (0.0, None))
    if found is None or now - at > SECONDS:
        found = await reader.activity()
        _kept[reader] = now, found
    return found

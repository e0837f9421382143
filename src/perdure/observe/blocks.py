"""Cache of parts of objects, which are never changed once they are written.

Rules: parts are blocks of one size, kept up to a number of bytes, the least recently used go first;
what is missing side by side is one request; reading on makes the next request larger.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from perdure.observe.objects import Objects

BLOCK_BYTES = 256 * 1024
"""Takes less to transfer than the wait for its first byte."""
BYTES_MAX = 64 * 1024 * 1024
AHEAD_MAX = 8
"""How many blocks one request may ask for beyond what is needed."""


class Blocks:
    """The cache of one place. Threads may share it; two of them may ask for the same part."""

    def __init__(self, objects: Objects, bytes_max: int = BYTES_MAX) -> None:
        self._objects, self._bytes_max = objects, bytes_max
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._ahead: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def read(self, name: str, size: int, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end` of an object of this size.

        Raises `Gone` where it is not there any more, and what a request fails with.
        """
        first, last = start // BLOCK_BYTES, (end - 1) // BLOCK_BYTES
        with self._lock:
            parts = {number: self._known(name, number) for number in range(first, last + 1)}
        missing = [number for number, part in parts.items() if part is None]
        if missing:
            parts |= self._fetch(name, size, missing[0], missing[-1])
        joined = b"".join(parts[number] or b"" for number in range(first, last + 1))
        return joined[start - first * BLOCK_BYTES : end - first * BLOCK_BYTES]

    def _known(self, name: str, number: int) -> bytes | None:
        part = self._kept.get((name, number))
        if part is not None:
            self._kept.move_to_end((name, number))
        return part

    def _fetch(self, name: str, size: int, first: int, last: int) -> dict[int, bytes | None]:
        with self._lock:
            expected, ahead = self._ahead.get(name, (-1, 0))
            ahead = min(2 * ahead + 1, AHEAD_MAX) if first == expected else 0
            last = min(last + ahead, (size - 1) // BLOCK_BYTES)
            self._ahead[name] = last + 1, ahead
        start = first * BLOCK_BYTES
        data = self._objects.part(name, start, min(size, (last + 1) * BLOCK_BYTES))
        cut = range(0, len(data), BLOCK_BYTES)
        parts = {first + n: data[at : at + BLOCK_BYTES] for n, at in enumerate(cut)}
        with self._lock:
            for number, part in parts.items():
                self._keep((name, number), part)
        return dict(parts)

    def _keep(self, key: tuple[str, int], part: bytes) -> None:
        self._bytes += len(part) - len(self._kept.pop(key, b""))
        self._kept[key] = part
        while self._bytes > self._bytes_max:
            (name, _), old = self._kept.popitem(last=False)
            self._bytes -= len(old)
            self._ahead.pop(name, None)

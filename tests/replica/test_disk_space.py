"""Disk space beside a store: what counts against the limit."""

from __future__ import annotations

import asyncio
from pathlib import Path

from perdure.replica.disk_space import DiskSpace


def test_what_a_reader_keeps_in_the_wal_is_counted_once(tmp_path: Path) -> None:
    wal = tmp_path / "a.db-wal"
    wal.write_bytes(b"x" * 1_000)
    disk = DiskSpace(str(tmp_path / "a.db"), tmp_path / "litestream", 10_000)
    for _ in range(3):
        asyncio.run(disk.measure(0, in_trouble=False, lacks_room=False))
        disk.folded()
    assert disk.waiting_bytes + disk.folded_bytes == 1_000
    wal.write_bytes(b"")
    disk.folded()
    assert (disk.waiting_bytes, disk.folded_bytes) == (0, 1_000)

"""File watcher: writes are reported to each engine, and nothing is left of an ended watch."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from perdure.process.file_watcher import FileWatcher
from tests.runtime.support import PATIENCE_S, awaited, until

both_ways = pytest.mark.parametrize("kernel", [True, False])


@awaited
@both_ways
async def test_a_write_is_reported_to_each_that_watches_the_file(
    tmp_path: Path, kernel: bool
) -> None:
    watcher, file, seen = FileWatcher(kernel=kernel), tmp_path / "a", list[str]()
    file.write_text("")
    watches = [
        watcher.watch([str(file)], lambda name=name: seen.append(name), lambda: None)  # type: ignore[misc]
        for name in ("one", "two")
    ]
    await until(lambda: watcher._thread is not None)
    seen.clear()
    file.write_text("news")
    await until(lambda: {"one", "two"} <= set(seen))
    for watch in watches:
        watch.cancel()
    await until(lambda: watcher._thread is None and watcher._inotify is None)


@awaited
async def test_a_write_is_looked_for_again_because_a_commit_follows_it(tmp_path: Path) -> None:
    """SQLite writes, syncs, and only then lets others see the commit."""
    watcher, file, looks = FileWatcher(), tmp_path / "a", asyncio.Semaphore(0)
    file.write_text("")
    watch = watcher.watch([str(file)], looks.release, lambda: None)
    file.write_text("news")
    for _ in range(4):
        await looks.acquire()
    watch.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="only the kernel's reports are held back")
@awaited
async def test_a_file_that_is_written_all_the_time_is_looked_at_without_reports(
    tmp_path: Path,
) -> None:
    watcher, file, looks = FileWatcher(), tmp_path / "a", asyncio.Semaphore(0)
    file.write_text("")
    watch = watcher.watch([str(file)], looks.release, lambda: None)

    def muted() -> bool:
        file.write_text("news")
        return bool(watcher._muted())

    await until(muted)
    for _ in range(4):  # nothing is written any more, and it is looked at all the same
        await looks.acquire()
    await until(lambda: not watcher._muted())
    while not looks.locked():
        await looks.acquire()
    file.write_text("news")  # is reported as before
    await looks.acquire()
    watch.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel reports names on Linux only")
@awaited
async def test_the_name_of_a_file_that_is_written_all_the_time_is_still_reported(
    tmp_path: Path,
) -> None:
    watcher, file, moved = FileWatcher(), tmp_path / "a", asyncio.Event()
    file.write_text("")
    watch = watcher.watch([str(file)], lambda: None, moved.set)

    def muted() -> bool:
        file.write_text("news")
        return bool(watcher._muted())

    await until(muted)
    moved.clear()
    file.unlink()
    await moved.wait()
    await until(lambda: not watcher._muted())
    watch.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel reports names on Linux only")
@awaited
async def test_a_file_that_was_deleted_or_replaced_is_reported(tmp_path: Path) -> None:
    for change in (os.unlink, lambda path: os.replace(tmp_path / "other", path)):
        watcher, file, moved = FileWatcher(), tmp_path / "a", asyncio.Event()
        file.write_text("")
        (tmp_path / "other").write_text("")
        watch = watcher.watch([str(file)], lambda: None, moved.set)
        change(str(file))
        await moved.wait()
        watch.cancel()


@awaited
async def test_a_file_that_can_not_be_watched_is_looked_at_by_time(tmp_path: Path) -> None:
    watcher, looks = FileWatcher(), asyncio.Semaphore(0)
    watch = watcher.watch([str(tmp_path / "missing")], looks.release, lambda: None)
    for _ in range(3):
        await looks.acquire()
    watch.cancel()


@awaited
async def test_nothing_is_called_after_the_end(tmp_path: Path) -> None:
    watcher, file, seen = FileWatcher(), tmp_path / "a", list[int]()
    file.write_text("")
    ended = watcher.watch([str(file)], lambda: seen.append(1), lambda: None)
    later = asyncio.Event()
    ended.cancel()
    other = watcher.watch([str(file)], later.set, lambda: None)
    file.write_text("news")
    await later.wait()
    other.cancel()
    assert seen == []


@both_ways
def test_the_watch_of_a_loop_that_was_closed_ends_with_the_next_report(
    tmp_path: Path, kernel: bool
) -> None:
    watcher, file = FileWatcher(kernel=kernel), tmp_path / "a"
    file.write_text("")

    async def abandon() -> None:
        watcher.watch([str(file)], lambda: None, lambda: None)

    asyncio.run(abandon())
    thread = watcher._thread
    assert thread is not None
    file.write_text("news")
    thread.join(PATIENCE_S)
    assert watcher._thread is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel reports writes on Linux only")
@awaited
async def test_where_the_reports_of_the_kernel_are_lost_files_are_looked_at_by_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a program closes all descriptors: an engine that heard nothing would hang."""
    watcher, file, looks = FileWatcher(), tmp_path / "a", asyncio.Semaphore(0)
    file.write_text("")
    watch = watcher.watch([str(file)], looks.release, lambda: None)
    assert watcher._inotify is not None
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, watcher._inotify.descriptor)  # the number is given to another file
    os.close(nothing)
    file.write_text("news")
    await until(lambda: watcher._ticked == {watch})
    for _ in range(3):
        await looks.acquire()
    assert "looked at by time" in caplog.text
    watch.cancel()
    await until(lambda: watcher._thread is None)

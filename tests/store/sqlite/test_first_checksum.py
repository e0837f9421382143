"""The first seal of a file with history: others write while it is computed, and it is exact all the
same.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import Engine, RunFailed, receive, workflow
from perdure.errors import StoreUnavailable
from perdure.store.sqlite import checksum, connection
from perdure.store.sqlite.first_checksum import FirstChecksum
from perdure.store.sqlite.queries import Q
from tests.store.support import add_one, count_up


@workflow
async def waits(steps: int) -> int:
    while await receive("go", int):
        steps += await add_one(0)
    return steps


def written(path: Path, *work: Callable[[Engine], Any]) -> None:
    async def main() -> None:
        async with Engine(path, workflows=[count_up, waits, fails]) as engine:
            for one in work:
                await one(engine)

    asyncio.run(main())


def sealed_and_counted(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    with closing(connection.open_reader(str(path))) as db:
        seal = checksum.read(db)
        assert seal is not None
        return (seal.rows, seal.digest), checksum.total(db.execute(Q["history_of_all"]))


@workflow
async def fails(steps: int) -> int:
    raise OSError(await add_one(steps))


class Held:
    """The sum of a row's hash waits, at every nth row, until somebody has written."""

    def __init__(self, every: int, write: Callable[[], None]) -> None:
        self._every, self._write, self._rows, self._digest = every, write, 0, checksum.digest

    def __call__(self, *row: Any) -> int:
        self._rows += 1
        if self._rows % self._every == 0 and self._rows < 20 * self._every:
            thread = threading.Thread(target=self._write)
            thread.start()
            thread.join(60)
            assert not thread.is_alive(), "the writer was kept out"
        return self._digest(*row)


def test_others_write_while_it_is_computed_and_nothing_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that wait go on, new ones begin and end, failed ones are retried; by a law over what is
    written when.
    """
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice, path, made = random.Random(seed), tmp_path / "a.db", 0

    async def parked(engine: Engine) -> None:
        for n in range(5):
            await engine.start(waits(n), id=f"w{n}")
        await engine.start(fails(1), id="f")

    written(path, parked, lambda engine: engine.run(count_up(30)))

    def write() -> None:
        nonlocal made
        made += 1
        n, kind = made, dice.randrange(4)

        async def some(engine: Engine) -> None:
            if kind == 0:
                await engine.run(count_up(7), id=f"new{n}")
            elif kind == 1:
                await engine.send(f"w{n % 5}", 1, channel="go")
            elif kind == 2:
                for _ in range(2):
                    with pytest.raises(RunFailed):
                        await (await engine.get("f")).result()
                    await engine.retry("f")
            else:
                await engine.cancel((await engine.start(waits(n), id=f"c{n}")).id)

        written(path, some)

    monkeypatch.setattr(
        "perdure.store.sqlite.first_checksum.LOOKS_MAX", 1_000
    )  # the last one would keep the writers out
    monkeypatch.setattr(checksum, "digest", Held(9, write))
    FirstChecksum(str(path)).put("an id", "file:///there", 1)
    monkeypatch.undo()
    assert made > 5
    sealed, counted = sealed_and_counted(path)
    assert sealed == counted


def test_where_others_never_stop_writing_it_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    written(path, lambda engine: engine.run(count_up(30)))
    monkeypatch.setattr("perdure.store.sqlite.first_checksum.LOOKS_MAX", 2)
    looks = 0
    catch_up = FirstChecksum._catch_up

    def looked(self: FirstChecksum, db: apsw.Connection) -> int:
        nonlocal looks
        version, looks = catch_up(self, db), looks + 1
        if looks <= 2:
            written(path, lambda engine: engine.run(count_up(3)))
        return version

    monkeypatch.setattr(FirstChecksum, "_catch_up", looked)
    FirstChecksum(str(path)).put("an id", "file:///there", 1)
    assert looks == 3
    sealed, counted = sealed_and_counted(path)
    assert sealed == counted


def test_one_that_is_stopped_seals_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    written(path, lambda engine: engine.run(count_up(30)))
    first = FirstChecksum(str(path))
    first.stopped = True
    with pytest.raises(StoreUnavailable, match="ended while it read the history"):
        first.put("an id", "file:///there", 1)
    assert checksum.read(connection.open_reader(str(path))) is None

"""The seal of a replicated file counts every row of history, whoever writes it and however, and
tells a copy with a hole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from pathlib import Path

import apsw

import perdure
from perdure import Engine
from perdure.errors import RunExists, RunFinished
from perdure.store.sqlite import checksum, connection
from perdure.store.sqlite.connection import SCHEMA_VERSION
from perdure.store.sqlite.queries import Q
from tests.store.support import count_up, make_older


def seal_of(path: Path) -> tuple[checksum.HistoryChecksum, tuple[int, int]]:
    """What the file says of itself, and what its history gives."""
    db = perdure.connect(path)
    seal = checksum.read(db)
    assert seal is not None
    return seal, checksum.total(db.execute(Q["history_of_all"]))


def test_rows_from_before_the_seal_and_from_all_that_writes_later_are_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def main() -> None:
        async with Engine(path, workflows=[count_up]) as engine:
            await engine.run(count_up(3), id="before")
            engine._store.begin_epoch("an id", "file:///there", 1)
            await asyncio.gather(*(engine.run(count_up(4), id=f"after-{i}") for i in range(20)))
            await (await engine.fork("after-0", at=4)).result()
            await engine.fork("after-1", at=2, args={"n": 7}, new_id="edited")

    asyncio.run(main())
    seal, found = seal_of(path)
    assert (seal.rows, seal.digest) == found
    assert seal.rows > 20 * 9


def test_a_process_that_had_the_file_open_before_adds_to_the_seal_too(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def main() -> None:
        async with (
            Engine(path, workflows=[count_up]) as first,
            Engine(path, workflows=[count_up]) as second,
        ):
            await first.run(count_up(2))
            first._store.begin_epoch("an id", "file:///there", 1)
            await second.run(count_up(2))
            assert second._store._db.pragma("wal_autocheckpoint") == 0
            assert second._store._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, -1)

    asyncio.run(main())
    seal, found = seal_of(path)
    assert (seal.rows, seal.digest) == found


def test_a_row_that_is_missing_or_another_one_breaks_the_seal(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def main() -> None:
        async with Engine(path, workflows=[count_up]) as engine:
            engine._store.begin_epoch("an id", "file:///there", 1)
            await engine.run(count_up(5), id="a")

    asyncio.run(main())
    seal, _ = seal_of(path)
    for damage in (
        "UPDATE event SET data = '99' WHERE key & 16777215 = 3",
        "DELETE FROM event WHERE key & 16777215 = 3",
    ):
        db = apsw.Connection(str(path))
        db.execute(damage)
        db.close()
        again, found = seal_of(path)
        assert again == seal
        assert (again.rows, again.digest) != found


def test_nothing_of_ours_checkpoints_a_sealed_file(tmp_path: Path) -> None:
    """Neither a commit after a thousand pages nor the last connection that closes."""
    path = tmp_path / "a.db"

    async def main() -> None:
        async with Engine(path, workflows=[count_up]) as engine:
            engine._store.begin_epoch("an id", "file:///there", 1)
            await asyncio.gather(*(engine.run(count_up(40)) for _ in range(100)))

    asyncio.run(main())
    size = path.stat().st_size
    wal = Path(f"{path}-wal").read_bytes()
    assert len(wal) > 1_000 * 4096
    perdure.connect(path).close()
    connection.open_writer(str(path)).close()
    assert path.stat().st_size == size
    assert Path(f"{path}-wal").read_bytes() == wal


def test_a_file_of_schema_version_1_is_brought_up_to_date_with_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def run(run_id: str) -> int:
        async with Engine(path, workflows=[count_up]) as engine:
            return await engine.run(count_up(3), id=run_id)

    assert asyncio.run(run("old")) == 3
    make_older(str(path), 1)
    assert checksum.read(perdure.connect(path)) is None  # a reader takes it as it is
    assert asyncio.run(run("old")) == 3
    assert asyncio.run(run("new")) == 3
    assert perdure.connect(path).pragma("user_version") == SCHEMA_VERSION


def test_what_changes_the_file_is_counted_and_a_refusal_is_not(tmp_path: Path) -> None:
    """Clients may be told what is in a copy while no engine runs, and what changes nothing must not
    end that.
    """
    path = tmp_path / "a.db"

    async def main() -> None:
        async with Engine(path, execute=False) as client:
            client._store.begin_epoch("an id", "file:///there", 1)

            async def counts(verb: Awaitable[object]) -> int:
                before, after = client._store.checksum(), None
                with contextlib.suppress(RunExists, RunFinished):
                    await verb
                after = client._store.checksum()
                assert before is not None
                assert after is not None
                return after.commits - before.commits

            options = {"execute": False, "durability": "disk"}
            async with Engine(path, **options) as other:  # type: ignore[arg-type]
                assert await counts(other.start(count_up(1), id="a", durability="disk")) == 1
            assert await counts(client.start(count_up(1), id="a", durability="disk")) == 0
            assert await counts(client.start(count_up(2), id="a", durability="disk")) == 0
            assert await counts(client.send("a", 1, channel="c", key="k")) == 1
            assert await counts(client.send("a", 1, channel="c", key="k")) == 0
            assert await counts(client.cancel("a")) == 1
            assert await counts(client.cancel("a")) == 0

    asyncio.run(main())

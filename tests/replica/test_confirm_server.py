"""A client, in a process that executes nothing, gets only what the engine that holds the replica
has had confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import cast

import msgspec
import pytest

import perdure
from campaigns.faulty_proxy import Proxy
from campaigns.forking import Forked
from perdure import DefinitionError, Engine, ReplicaUnavailable, receive, workflow
from perdure.errors import NoReplicaEngine, ReplicaFull, ReplicaLeaseLost, StoreReplaced
from perdure.replica import advertisement, confirm_client
from perdure.replica.advertisement import Advertisement, Question
from perdure.replica.confirm_client import ConfirmClient
from perdure.replica.confirm_server import ConfirmServer
from perdure.replica.supervisor import Litestream, Position
from perdure.store.sqlite.checksum import HistoryChecksum
from tests.replica.support import (
    SHORT_LEASE_S,
    address,
    engine_of,
    hasty,
    looks_often,
    lookups,
    nothing_seen,
    proxy,
    two_effects,
)
from tests.runtime.support import PATIENCE_S, awaited, environment, until

__all__ = ["address", "looks_often", "nothing_seen", "proxy"]  # fixtures


@workflow
async def echo() -> str:
    return await receive("word", str)


def client_of(store: Path, **options: object) -> Engine:
    return Engine(
        store,
        **{  # type: ignore[arg-type]
            "execute": False,
            "workflows": [echo, two_effects, lookups],
            "replica_timeout": PATIENCE_S,
            **options,
        },
    )


@awaited
async def test_a_message_is_acknowledged_when_the_bucket_has_it(
    tmp_path: Path, address: str, proxy: Proxy
) -> None:
    store = tmp_path / "a.db"
    short = {"workflows": [echo], "lease_ttl": SHORT_LEASE_S}
    async with engine_of(store, address, **short) as engine, client_of(store) as client:
        run = await client.start(echo(), id="a")
        proxy.set("503")
        word = asyncio.create_task(client.send("a", "hello", channel="word"))
        await until(lambda: engine.replica is not None and not engine.replica.lease.held())
        assert not word.done()
        proxy.set()
        await word
        assert await run.result() == "hello"


@awaited
async def test_a_result_that_is_on_the_disk_alone_is_not_returned(
    tmp_path: Path, address: str, proxy: Proxy
) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, address) as engine, client_of(store) as client:
        proxy.set("refuse")
        with hasty(engine), pytest.raises(ReplicaUnavailable):
            await engine.start(lookups("a", 3), id="a")
        run = await client.get("a")
        while await run.status() != "completed":  # noqa: ASYNC110
            await asyncio.sleep(0.003)
        with pytest.raises(TimeoutError):
            await run.result(timeout=0.3)
        proxy.set()
        assert await run.result() == 3


@awaited
async def test_a_client_gets_the_reason_of_its_wait(
    tmp_path: Path, address: str, proxy: Proxy
) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, address, workflows=[echo]), client_of(store) as client:
        proxy.set("refuse")
        unanswered = pytest.raises(ReplicaUnavailable, match=r"does not answer: .*is on this disk")
        with hasty(client, seconds=0.5), unanswered:
            await client.start(echo(), id="a")
        proxy.set()
        await client.start(echo(), id="a")  # the same start finds it


@awaited
async def test_after_an_engine_has_ended_only_what_it_confirmed_is_acknowledged(
    tmp_path: Path, address: str
) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, address, workflows=[echo, two_effects]) as engine:
        await engine.start(echo(), id="open")
        await engine.run(two_effects("a"), id="a")
    async with client_of(store, replica_timeout=0.2) as client:
        assert await (await client.get("a")).result() == "a-1a-2"
        with pytest.raises(
            ReplicaUnavailable, match=r"No engine that copies this store.*is on this disk, once"
        ):
            await client.send("open", "hello", channel="word")
    async with client_of(store) as client:
        result = asyncio.create_task((await client.get("open")).result())
        async with engine_of(store, address, workflows=[echo]):
            assert await result == "hello"


@awaited
async def test_a_deploy_between_two_engines_is_waited_for(tmp_path: Path, address: str) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, address, workflows=[echo]):
        pass
    async with client_of(store) as client:
        start = asyncio.create_task(client.start(echo(), id="a"))
        async with engine_of(store, address, workflows=[echo]):
            await start


ENGINE = """
import asyncio, sys
from tests.replica.support import engine_of
from tests.replica.test_confirm_server import echo, two_effects

async def main():
    async with engine_of(sys.argv[1], sys.argv[2], workflows=[echo, two_effects]) as engine:
        await engine.run(two_effects("a"), id="a")
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@awaited
async def test_an_engine_that_is_frozen_or_killed_confirms_nothing(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("perdure.replica.confirm_client.FROZEN_S", 0.1)
    monkeypatch.setattr("perdure.replica.confirm_client.LOG_AFTER_S", 0.2)
    store = tmp_path / "a.db"
    process = Forked(
        [sys.executable, "-c", ENGINE, store, address], env=environment(), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
    async with client_of(store) as client:
        assert await (await client.get("a")).result() == "a-1a-2"
        process.send_signal(signal.SIGSTOP)
        frozen = pytest.raises(ReplicaUnavailable, match="gives no answer; is it frozen")
        with hasty(client), frozen:
            await client.start(echo(), id="b")
        process.kill()
        process.wait()
        process.stdout.close()
        assert "waiting for one" not in caplog.text
        # "b" is on this disk alone, and so may be what came before it
        result = asyncio.create_task((await client.get("a")).result())
        await until(lambda: "runs here; waiting for one" in caplog.text)
        assert not result.done()
        async with engine_of(store, address, workflows=[echo, two_effects]):
            assert await result == "a-1a-2"
            await client.start(echo(), id="b")


@awaited
async def test_what_was_confirmed_before_an_engine_was_killed_is_acknowledged_after_it(
    tmp_path: Path, address: str
) -> None:
    store = tmp_path / "a.db"
    process = Forked(
        [sys.executable, "-c", ENGINE, store, address], env=environment(), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
    async with client_of(store) as client:

        def known() -> bool:
            found, seal = advertisement.read(tmp_path / "a.db-replica"), client._store.checksum()
            return found is not None and seal is not None and found.commits == seal.commits

        await until(known)
        process.kill()
        process.wait()
        process.stdout.close()
        assert await (await client.get("a")).result() == "a-1a-2"


@awaited
async def test_a_client_of_a_file_that_was_set_aside_gets_no_confirmation(
    tmp_path: Path, address: str
) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, address, workflows=[echo]) as engine:
        await engine.start(echo(), id="a")
    async with client_of(store, replica_timeout=0.3) as client:
        with pytest.raises(ReplicaUnavailable, match="No engine that copies this store"):
            await client.send("a", "hello", channel="word")
        os.rename(store, tmp_path / "old.db")
        for end in ("-wal", "-shm"):
            os.rename(f"{store}{end}", f"{tmp_path}/old.db{end}")
        async with engine_of(store, address, workflows=[echo]):
            with pytest.raises((ReplicaUnavailable, StoreReplaced), match=r"moved,? .*replaced"):
                await client.send("a", "hello", channel="word")


@awaited
async def test_a_question_about_another_file_is_answered_with_an_error(tmp_path: Path) -> None:
    async def confirm() -> None: ...

    one = ConfirmServer(
        tmp_path, "replica", (1, 2), confirm, lambda: ReplicaUnavailable("there", "slow")
    )
    await one.open(7)
    (tmp_path / "a.db-replica").symlink_to(tmp_path)
    client = ConfirmClient(str(tmp_path / "a.db"), "replica", lambda: PRESENT, (3, 4))
    with pytest.raises(ReplicaUnavailable, match="this one was moved, replaced or set aside"):
        await client.answer()
    await one.close()


@awaited
async def test_the_level_of_the_engine_decides_unless_the_client_or_the_run_asks_for_more(
    tmp_path: Path, address: str, proxy: Proxy
) -> None:
    store = tmp_path / "a.db"
    async with (
        engine_of(store, address, workflows=[echo], durability="disk"),
        client_of(store) as client,
        client_of(store, durability="replica") as strict,
    ):
        await strict.start(echo(), id="a")
        proxy.set("refuse")
        await client.start(echo(), id="b")
        await strict.start(echo(), id="c", durability="disk")
        with hasty(client), pytest.raises(ReplicaUnavailable):
            await client.start(echo(), id="d", durability="replica")
        start = asyncio.create_task(strict.start(echo(), id="e"))
        proxy.set()
        await start


@awaited
async def test_a_store_without_a_replica_confirms_nothing_and_raises(tmp_path: Path) -> None:
    store = tmp_path / "a.db"
    async with Engine(store, workflows=[echo]) as engine:
        with pytest.raises(DefinitionError, match="needs a replica"):
            await engine.start(echo(), durability="replica")
        async with client_of(store) as client:
            await client.start(echo(), id="a")
        async with client_of(store, durability="replica", replica_timeout=0.2) as strict:
            with pytest.raises(ReplicaUnavailable, match="no engine has begun to copy it"):
                await strict.start(echo(), id="b")


@awaited
async def test_what_a_client_wrote_counts_in_the_lag(
    tmp_path: Path, address: str, proxy: Proxy
) -> None:
    store = tmp_path / "a.db"
    async with (
        engine_of(store, address, workflows=[], durability="disk") as engine,
        client_of(store) as client,
    ):
        replica = engine.replica
        assert replica is not None
        proxy.set("refuse")
        await client.start(echo(), id="a")  # of a workflow that no engine executes here
        await until(lambda: replica.status().lag_s > 0.2)
        proxy.set()
        await until(lambda: replica.status().lag_s == 0)


@awaited
async def test_rubbish_from_a_client(tmp_path: Path, address: str) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, address, workflows=[echo]), client_of(store) as client:
        where = msgspec.json.decode(
            (tmp_path / "a.db-replica" / "advertisement").read_bytes(), type=Advertisement
        ).socket
        assert os.stat(os.path.dirname(where)).st_mode & 0o777 == 0o700
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000, b'{"file": 3}\n', b""):
            client_socket = socket.socket(socket.AF_UNIX)
            client_socket.connect(where)
            client_socket.sendall(words)
            client_socket.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):  # where not all of it was read
                assert await asyncio.to_thread(client_socket.recv, 1) == b""
            client_socket.close()
        await client.start(echo(), id="a")
        (tmp_path / "a.db-replica" / "advertisement").write_bytes(b"rubbish")
        await client.start(echo(), id="b")  # as if there were none
    assert not os.path.exists(os.path.dirname(where))


@awaited
async def test_a_client_begins_nothing_where_the_disk_fills(
    tmp_path: Path, address: str, proxy: Proxy, looks_often: None
) -> None:
    store, limits = tmp_path / "a.db", perdure.Limits(replica_bytes_max=1_000_000)
    async with (
        engine_of(store, address, workflows=[echo], limits=limits, durability="disk") as engine,
        client_of(store) as client,
    ):
        proxy.set("refuse")
        replica, number = engine.replica, 0
        assert replica is not None
        while replica.barrier.full is None:
            await client.send(
                (await engine.start(echo(), id=f"{number}")).id, "x" * 300_000, channel="word"
            )
            number += 1
        with pytest.raises(ReplicaFull, match="nothing new is begun"):
            await client.start(echo(), id="late")
        proxy.set()
        await until(lambda: replica.barrier.full is None)
        await client.start(echo(), id="late")


@awaited
async def test_an_engine_that_ends_with_everything_copied_advertises_no_full_disk(
    tmp_path: Path,
) -> None:
    store = tmp_path / "a.db"
    async with engine_of(store, f"file://{tmp_path}/bucket", workflows=[echo]) as engine:
        assert engine.replica is not None
        await engine.replica.maintenance.set_full(ReplicaFull("there", 5, 4))
    async with client_of(store) as client:
        await client.start(echo(), id="a", durability="disk")


PRESENT, OLDER = (
    HistoryChecksum("id", "there", 7, 0, 0, 5),
    HistoryChecksum("id", "there", 6, 0, 0, 5),
)
DISK, SOME, ALL = (
    Advertisement("disk", 7),
    Advertisement("replica", 7, commits=4),
    Advertisement("replica", 7, commits=5),
)
RUBBISH = b'{"durability":"fsync","epoch":7}'


@pytest.mark.parametrize(
    ("seal", "found", "of_client", "asked", "passes"),
    [
        # not replicated, or not yet: there is nothing but the disk
        (None, None, "disk", None, True),
        (None, None, "disk", "replica", False),
        (None, None, "replica", None, False),
        (None, None, "replica", "disk", True),
        (None, DISK, "disk", None, True),
        (None, ALL, "replica", None, False),
        # replicated: the level of the engine counts where it can be known, and else "replica"
        (PRESENT, None, "disk", None, False),
        (PRESENT, RUBBISH, "disk", None, False),
        (PRESENT, DISK, "disk", None, True),
        (PRESENT, DISK, "replica", None, False),
        (PRESENT, DISK, "disk", "replica", False),
        (PRESENT, SOME, "disk", None, False),
        (PRESENT, ALL, "disk", None, True),
        (PRESENT, ALL, "replica", None, True),
        # what another epoch has left says nothing
        (OLDER, DISK, "disk", None, False),
        (OLDER, ALL, "disk", None, False),
        # the run's own level is nearest
        (PRESENT, None, "disk", "disk", True),
        (PRESENT, SOME, "replica", "disk", True),
    ],
)
def test_what_a_client_may_acknowledge_where_no_engine_answers(
    tmp_path: Path,
    seal: HistoryChecksum | None,
    found: Advertisement | bytes | None,
    of_client: str,
    asked: str | None,
    passes: bool,
) -> None:
    @awaited
    async def main() -> None:
        if found is not None:
            (tmp_path / "a.db-replica").mkdir()
            (tmp_path / "a.db-replica" / "advertisement").write_bytes(
                found if isinstance(found, bytes) else msgspec.json.encode(found)
            )
        gate = ConfirmClient(str(tmp_path / "a.db"), of_client, lambda: seal, (1, 2))
        if passes:
            await gate.answer(asked, 0)
        else:
            with pytest.raises(ReplicaUnavailable):
                await gate.answer(asked, 0)

    main()


@pytest.mark.parametrize("level", ["replica", "disk"])
def test_before_the_first_copy_a_client_waits_for_what_the_engine_promises(
    tmp_path: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @awaited
    async def main() -> None:
        store, replica, copied, over = (
            tmp_path / "a.db",
            f"file://{tmp_path}/bucket",
            asyncio.Event(),
            asyncio.Event(),
        )
        async with engine_of(store, replica, workflows=[echo], durability=level) as engine:
            await engine.start(echo(), id="a")
        shutil.rmtree(f"{store}-replica")
        asked, sync = asyncio.Event(), Litestream.sync

        async def late(self: Litestream) -> Position:
            asked.set()
            await copied.wait()
            return await sync(self)

        monkeypatch.setattr(Litestream, "sync", late)

        async def engine_lives() -> None:
            async with engine_of(store, replica, workflows=[echo], durability=level):
                await over.wait()

        async with client_of(store) as client:
            run = await client.get("a")
            with hasty(client), pytest.raises(NoReplicaEngine):  # no advertisement at all
                await client.send("a", "hello", channel="other")
            life = asyncio.create_task(engine_lives())
            await asked.wait()
            if level == "disk":
                await client.send("a", "hello", channel="word", key="k")
            else:
                unconfirmed = pytest.raises(ReplicaUnavailable, match="has not confirmed yet")
                with hasty(client), unconfirmed:
                    await client.send("a", "hello", channel="word", key="k")
            copied.set()
            await client.send("a", "hello", channel="word", key="k")
            assert await run.result() == "hello"
            over.set()
            await life

    main()


@awaited
async def test_a_client_that_asks_for_a_copy_waits_for_an_engine_that_begins_one(
    tmp_path: Path, address: str
) -> None:
    store = tmp_path / "a.db"
    async with client_of(store, durability="replica") as client:
        start = asyncio.create_task(client.start(echo(), id="a"))
        await until(lambda: client._store.has_run("a"))
        async with engine_of(store, address, workflows=[echo]):
            await start


@awaited
async def test_clients_get_confirmations_although_a_claimed_epoch_did_not_begin(
    tmp_path: Path,
) -> None:
    store, replica = tmp_path / "a.db", f"file://{tmp_path}/bucket"
    async with engine_of(store, replica) as engine:
        assert engine.replica is not None
        await engine.replica.lease.advance()
        await engine.run(two_effects("a"), id="a")
    async with client_of(store, durability="replica", replica_timeout=0.1) as client:
        assert await (await client.get("a")).result() == "a-1a-2"


@awaited
async def test_changes_of_the_advertisement_at_the_same_moment_are_all_written(
    tmp_path: Path,
) -> None:
    async def confirm() -> None: ...

    one = ConfirmServer(
        tmp_path, "replica", (1, 2), confirm, lambda: ReplicaUnavailable("there", "slow")
    )
    await one.open(7)
    for n in range(20):
        await asyncio.gather(one.advertise(full=(n, 9)), one.advertise(epoch=8, commits=n))
        found = advertisement.read(tmp_path)
        assert found is not None
        assert (found.full, found.epoch, found.commits) == ((n, 9), 8, n)
    await one.close()


@pytest.mark.parametrize("damage", [None, b"", b"rubbish", b'{"durability":"disk","epoch":0}'])
def test_an_advertisement_that_is_missing_or_damaged_is_made_anew(
    tmp_path: Path, damage: bytes | None, looks_often: None
) -> None:
    @awaited
    async def main() -> None:
        store = tmp_path / "a.db"
        async with (
            engine_of(store, f"file://{tmp_path}/bucket", workflows=[echo]) as engine,
            client_of(store) as client,
        ):
            await client.start(echo(), id="a")
            found = tmp_path / "a.db-replica" / "advertisement"
            found.unlink() if damage is None else found.write_bytes(damage)
            await client.send("a", "hello", channel="word")
            assert await (await client.get("a")).result() == "hello"
            assert engine.replica is not None
            await until(
                lambda: (now := advertisement.read(found.parent)) is not None and now.epoch == 1
            )

    main()


async def with_a_client(
    side: Path,
) -> tuple[ConfirmServer, asyncio.StreamReader, asyncio.StreamWriter]:
    """A server that never confirms, and a client that has asked it."""
    asked = asyncio.Event()

    async def confirm() -> None:
        asked.set()
        await asyncio.Event().wait()

    one = ConfirmServer(side, "replica", (1, 2), confirm, lambda: ReplicaUnavailable("x", "y"))
    await one.open(1)
    found = advertisement.read(side)
    assert found is not None
    reader, writer = await asyncio.open_unix_connection(found.socket)
    writer.write(msgspec.json.encode(Question((1, 2), None)) + b"\n")
    await asked.wait()
    return one, reader, writer


def test_a_client_whose_server_closes_gets_no_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @awaited
    async def main() -> None:
        one, reader, writer = await with_a_client(tmp_path)
        await one.close()
        assert await reader.readline() == b""
        writer.close()

    main()
    assert caplog.text == ""


@pytest.mark.parametrize("turns", range(16))
def test_whenever_an_engine_ends_a_client_is_answered_by_the_next_one(
    tmp_path: Path, turns: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An engine that had accepted its connection, but not read it, said that it had closed, or left
    it without an answer.
    """
    monkeypatch.setattr(confirm_client, "ASK_EVERY_S", 0)
    side, answered = tmp_path / "a.db-replica", asyncio.Event()
    side.mkdir()

    @awaited
    async def main() -> None:
        ended = False

        async def confirm() -> None:
            if ended:
                raise ReplicaLeaseLost("there", "the engine has closed")
            await asyncio.Event().wait()

        async def confirm_at_once() -> None:
            answered.set()

        first = ConfirmServer(
            side, "replica", (1, 2), confirm, lambda: ReplicaUnavailable("x", "y")
        )
        await first.open(7)
        asking = asyncio.create_task(
            ConfirmClient(str(tmp_path / "a.db"), "replica", lambda: PRESENT, (1, 2)).answer()
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        await first.close()
        ended = True
        second = ConfirmServer(
            side, "replica", (1, 2), confirm_at_once, lambda: ReplicaUnavailable("x", "y")
        )
        await second.open(8)
        await asking
        await second.close()

    main()
    assert answered.is_set()
    assert caplog.text == ""


@awaited
async def test_clients_that_come_while_an_engine_loses_its_lease_get_no_answer(
    tmp_path: Path,
) -> None:
    """Its barrier refuses before its server closes."""

    async def confirm() -> None:
        raise ReplicaLeaseLost("there", "another machine has taken it")

    one = ConfirmServer(tmp_path, "replica", (1, 2), confirm, lambda: ReplicaUnavailable("x", "y"))
    await one.open(7)
    gate = ConfirmClient(str(tmp_path / "a.db"), "replica", lambda: PRESENT, (1, 2))
    (tmp_path / "a.db-replica").symlink_to(tmp_path)
    with pytest.raises(NoReplicaEngine):
        await gate.answer(None, 0.05)
    await one.close()


@awaited
async def test_a_server_waits_for_a_descriptor_and_answers_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def confirm() -> None: ...

    one = ConfirmServer(tmp_path, "replica", (1, 2), confirm, lambda: ReplicaUnavailable("x", "y"))
    await one.open(7)
    listening, refused = cast("socket.socket", one._listening), asyncio.Event()

    class Short:
        """A listening socket in a process that has no descriptor left, once."""

        def __getattr__(self, name: str) -> object:
            return getattr(listening, name)

        def accept(self) -> object:
            if refused.is_set():
                return listening.accept()
            refused.set()
            raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(one, "_listening", Short())
    (tmp_path / "a.db-replica").symlink_to(tmp_path)
    await ConfirmClient(str(tmp_path / "a.db"), "replica", lambda: PRESENT, (1, 2)).answer()
    assert refused.is_set()
    await one.close()


def test_the_folder_of_a_killed_engine_is_removed(tmp_path: Path) -> None:
    @awaited
    async def main() -> None:
        async def confirm() -> None: ...

        first = ConfirmServer(
            tmp_path, "replica", (1, 2), confirm, lambda: ReplicaUnavailable("x", "y")
        )
        await first.open(1)
        found = advertisement.read(tmp_path)
        assert found is not None
        folder = os.path.dirname(found.socket)
        second = ConfirmServer(
            tmp_path, "replica", (1, 2), confirm, lambda: ReplicaUnavailable("x", "y")
        )
        await second.open(2)
        assert not os.path.exists(folder)
        await first.close()
        await second.close()

    main()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_holds_no_socket_of_the_server(tmp_path: Path) -> None:
    """It kept the socket of a killed engine open: a client's connection was neither accepted nor
    refused.
    """

    @awaited
    async def main() -> None:
        one, reader, writer = await with_a_client(tmp_path)
        assert one._listening is not None
        numbers = [one._listening.fileno(), *(other.fileno() for other in one._clients.values())]
        assert len(numbers) == 2
        pid = os.fork()
        if pid == 0:
            os._exit(sum(stat.S_ISSOCK(os.fstat(number).st_mode) for number in numbers))
        assert os.waitpid(pid, 0)[1] == 0  # noqa: ASYNC222
        assert all(stat.S_ISSOCK(os.fstat(number).st_mode) for number in numbers)
        await one.close()
        assert await reader.readline() == b""
        writer.close()

    main()

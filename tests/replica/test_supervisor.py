"""The supervisor of Litestream: it is found, started privately, read, restarted, and gone when we
are gone.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest

from perdure.errors import LitestreamUnusable, ReplicaDamaged, ReplicaUnavailable
from perdure.replica import litestream_binary, sockets
from perdure.replica.address import parse
from perdure.replica.supervisor import Litestream
from tests.runtime.support import awaited, environment, until


def database(path: Path) -> apsw.Connection:
    db = apsw.Connection(str(path))
    for name, value in (("journal_mode", "wal"), ("wal_autocheckpoint", 0)):
        db.pragma(name, value)
    db.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER)")
    return db


def litestream_of(tmp_path: Path) -> Litestream:
    (tmp_path / "side").mkdir(mode=0o700, exist_ok=True)
    return Litestream(
        str(tmp_path / "a.db"),
        parse(f"file://{tmp_path}/replica/000001"),
        tmp_path / "side",
        litestream_binary.find(),
    )


def test_a_signal_to_the_group_of_this_process_does_not_end_it() -> None:
    """Ctrl-C in a terminal: the engine needs Litestream for the last sync."""
    says = "import os; print(os.getpgrp())"
    command = litestream_binary.tied(sys.executable, "-c", says)
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(ran.stdout) != os.getpgrp()


@awaited
async def test_it_copies_what_is_committed_and_can_be_restored_at_any_transaction(
    tmp_path: Path,
) -> None:
    db = database(tmp_path / "a.db")
    litestream = litestream_of(tmp_path)
    await litestream.start()
    positions = []
    for n in range(5):
        db.execute("INSERT INTO t VALUES (?)", (n,))
        positions.append(await litestream.sync())
    assert all(one.replicated >= one.txid for one in positions)
    assert litestream.state == "replicating"
    await litestream.stop()
    assert litestream.state == "stopped"
    address = parse(f"file://{tmp_path}/replica/000001")
    for name, txid, rows in (("all.db", None, 5), ("some.db", positions[2].txid, 3)):
        found = await litestream_binary.restore(
            litestream_binary.find(), address, tmp_path / name, txid=txid
        )
        assert found == (txid or positions[-1].txid)
        assert apsw.Connection(str(tmp_path / name)).execute("SELECT count(*) FROM t").get == rows
    with pytest.raises(ReplicaDamaged, match="no matching backup files"):
        await litestream_binary.restore(
            litestream_binary.find(), parse(f"file://{tmp_path}/nothing"), tmp_path / "none.db"
        )


@awaited
async def test_its_socket_is_private_and_its_configuration_knows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    database(tmp_path / "a.db")
    litestream = litestream_of(tmp_path)
    await litestream.start()
    folder = Path(litestream._folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "control").stat().st_mode) == 0o600
    shown = [
        path.read_text(errors="replace")
        for path in (tmp_path / "side").rglob("*")
        if path.is_file()
    ]
    shown.append(Path(f"/proc/{litestream.pid}/cmdline").read_text())
    shown += litestream.lines
    assert "hush-hush" not in "".join(shown)
    await litestream.stop()
    assert not folder.exists()


@awaited
async def test_it_is_restarted_with_a_reason(tmp_path: Path) -> None:
    db = database(tmp_path / "a.db")
    litestream = litestream_of(tmp_path)
    await litestream.start()
    await litestream.sync()
    for n in range(3):
        assert litestream.pid is not None
        os.kill(litestream.pid, signal.SIGKILL)
        await until(lambda: litestream.state == "failing")
        assert "litestream ended; it is started again" in litestream.reason
        db.execute("INSERT INTO t VALUES (?)", (n,))
        position = await litestream.sync()
        assert position.replicated >= position.txid
        assert litestream.restarts == n + 1
    assert any("control socket listening" in line for line in litestream.lines)
    await litestream.stop()


@awaited
async def test_a_start_that_fails_raises_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick = tmp_path / "sick"
    sick.write_text("#!/bin/sh\necho 'the disk has gone' >&2\nexit 1\n")
    sick.chmod(0o755)
    database(tmp_path / "a.db")
    (tmp_path / "side").mkdir()
    said = ""
    for start_s in (0.5, 5.0, 30.0):  # a slow machine may not have begun the program by then
        monkeypatch.setattr("perdure.replica.supervisor.START_S_MAX", start_s)
        litestream = Litestream(
            str(tmp_path / "a.db"), parse(f"file://{tmp_path}/r"), tmp_path / "side", str(sick)
        )
        with pytest.raises(ReplicaUnavailable, match="litestream does not start") as raised:
            await litestream.start()
        said = str(raised.value)
        if "the disk has gone" in said:
            break
    assert "the disk has gone" in said


_PARENT = """
import asyncio, sys
from pathlib import Path
from perdure.replica import sockets
from perdure.replica import litestream_binary
from perdure.replica.address import parse
from perdure.replica.supervisor import Litestream

async def main():
    side = Path(sys.argv[1])
    address = parse(f"file://{side.parent}/replica")
    litestream = Litestream(str(side.parent / "a.db"), address, side, litestream_binary.find())
    await litestream.start()
    print(litestream.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_it_dies_with_us(tmp_path: Path) -> None:
    database(tmp_path / "a.db")
    (tmp_path / "side").mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path / "side")],
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    handle = os.pidfd_open(pid)
    parent.kill()
    parent.communicate()
    import select

    assert select.select([handle], [], [], 20)[0], "it still runs"
    os.close(handle)


@awaited
async def test_one_that_was_left_over_is_ended_before_another_begins(tmp_path: Path) -> None:
    """As after a kill of the engine on a system that does not end children with their parents."""
    database(tmp_path / "a.db")
    first, second = litestream_of(tmp_path), litestream_of(tmp_path)
    await first.start()
    await first.sync()
    first._stopping = True  # it is not supervised any more
    folder, pid = first._folder, first.pid
    await second.start()
    assert second.pid != pid
    assert not Path(folder).exists()
    assert first._task is not None
    await asyncio.wait([first._task])
    assert (await second.sync()).replicated > 0
    await second.stop()
    first._control.close()
    first._thread.shutdown()


# --- what goes wrong with it ----------------------------------------------------------------------


def wrapped(tmp_path: Path, text: str) -> str:
    """Litestream, after what a shell does first."""
    return script(tmp_path / "wrapped", f'{text}\nexec {litestream_binary.find()} "$@"')


async def started_again(litestream: Litestream, times: int) -> None:
    await until(lambda: litestream.restarts == times)


@awaited
async def test_whatever_it_prints_it_is_supervised(tmp_path: Path) -> None:
    """An error may hold the whole page of a proxy, and a line need not be an object."""
    odd = [
        "[1]",
        '{"level": "INFO", "msg": "compaction", "level": 5}',
        '{"level": {}}',
        '"text"',
        '{"level": "ERROR", "msg": "PUT", "error": {"page": [1]}}',
        "\\377",
        "",
    ]
    said = "".join(f"printf '%b\\n' '{line}' >&2\n" for line in odd)
    long = "head -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2"
    db = database(tmp_path / "a.db")
    (tmp_path / "side").mkdir()
    name = wrapped(tmp_path, f"{said}{long}")
    litestream = Litestream(
        str(tmp_path / "a.db"), parse(f"file://{tmp_path}/r"), tmp_path / "side", name
    )
    await litestream.start()
    for n in range(2):
        db.execute("INSERT INTO t VALUES (?)", (n,))
        position = await litestream.sync()
        assert position.replicated >= position.txid
        assert litestream.pid is not None
        os.kill(litestream.pid, signal.SIGKILL)
        await started_again(litestream, n + 1)
    assert max(map(len, litestream.lines)) == 2_000
    await litestream.stop()


@awaited
async def test_its_reason_does_not_grow_with_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.replica.supervisor.RESTART_S_MAX", 0.01)
    monkeypatch.setattr("perdure.replica.supervisor.RESTART_S_MIN", 0.01)
    database(tmp_path / "a.db")
    (tmp_path / "side").mkdir()
    sick = script(tmp_path / "sick", "head -c 3000 /dev/zero | tr '\\0' x >&2; exit 1")
    litestream = Litestream(
        str(tmp_path / "a.db"), parse(f"file://{tmp_path}/r"), tmp_path / "side", sick
    )
    starting = asyncio.create_task(litestream.start())
    await until(lambda: litestream.restarts >= 5)
    assert litestream.reason.count("litestream ended") == 1
    assert len(litestream.reason) < 400
    await litestream.stop()
    starting.cancel()
    await asyncio.wait([starting])


@awaited
async def test_one_that_is_frozen_is_replaced_long_before_a_sync_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a sync waits for it, and while none does."""
    monkeypatch.setattr("perdure.replica.supervisor.SYNC_S_MIN", 1_000.0)
    await asyncio.gather(
        *(is_replaced(tmp_path / name, name == "waits") for name in ("waits", "idle"))
    )


async def is_replaced(place: Path, somebody_waits: bool) -> None:
    place.mkdir()
    db, litestream = database(place / "a.db"), litestream_of(place)
    await litestream.start()
    await litestream.sync()
    db.execute("INSERT INTO t VALUES (1)")
    assert litestream.pid is not None
    os.kill(litestream.pid, signal.SIGSTOP)
    if somebody_waits:
        asking = asyncio.create_task(litestream.sync())
        await until(lambda: litestream.copying)
        with pytest.raises(ReplicaUnavailable):
            await asking
        assert not litestream.copying
    await started_again(litestream, 1)
    position = await litestream.sync()
    assert position.replicated >= position.txid
    await litestream.stop()


@pytest.mark.parametrize("what", ["socket", "folder"])
def test_its_socket_may_be_swept_away(tmp_path: Path, what: str) -> None:
    @awaited
    async def main() -> None:
        db = database(tmp_path / "a.db")
        litestream = litestream_of(tmp_path)
        await litestream.start()
        await litestream.sync()
        for n in range(2):
            folder = Path(litestream._folder)
            (folder / "control").unlink()
            if what == "folder":
                shutil.rmtree(folder)
            db.execute("INSERT INTO t VALUES (1)")
            close = litestream._control.close  # an open connection outlives the name
            litestream._thread.submit(close)
            if n == 0:
                with pytest.raises(ReplicaUnavailable):
                    await litestream.sync()
            await started_again(litestream, n + 1)
            position = await litestream.sync()
            assert position.replicated >= position.txid
        await litestream.stop()

    main()


def test_a_socket_lies_where_nothing_is_swept_if_its_path_is_short_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, session = tmp_path / "side", tmp_path / "run"
    deep = tmp_path / ("x" * 80)
    for folder in (short, session, deep):
        folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    with monkeypatch.context() as roomy:
        roomy.setattr(sockets, "PATH_BYTES_MAX", len(str(short)) + 30)
        found = [
            Path(sockets.place("control", beside=beside)).parent.parent for beside in (short, deep)
        ]
        roomy.delenv("XDG_RUNTIME_DIR")
        found.append(Path(sockets.place("control", beside=deep)).parent.parent)
    assert found == [short, session, tmp_path]
    assert not list(short.glob("*/control"))  # it was tried, and is free


def checkpoint(path: Path, mode: str) -> None:
    """By another program, as SQLite's own shell does it."""
    subprocess.run(
        ["sqlite3", str(path), f"PRAGMA wal_checkpoint({mode})"], check=True, capture_output=True
    )


async def with_rows(tmp_path: Path) -> tuple[apsw.Connection, Litestream]:
    """A Litestream that has copied a WAL of some length."""
    db = database(tmp_path / "a.db")
    litestream = litestream_of(tmp_path)
    await litestream.start()
    db.execute("CREATE TABLE u (text)")
    for n in range(30):
        db.execute("INSERT INTO u VALUES (?)", (f"{n}" * 3_000,))
    await litestream.sync()
    return db, litestream


def kill_at_once(litestream: Litestream) -> None:
    """It is gone, and the event loop does not know it yet."""
    pid = litestream.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while not has_ended(pid):
        time.sleep(0.001)


def has_ended(pid: int) -> bool:
    """Whether a process is a zombie, or was awaited by asyncio's thread already."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@awaited
async def test_while_it_is_away_the_wal_can_not_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.replica.supervisor.RESTART_S_MIN", 0.5)
    db, litestream = await with_rows(tmp_path)
    db.execute("INSERT INTO u VALUES ('not read yet')")
    kill_at_once(litestream)
    await until(lambda: litestream.restarts == 1)
    await asyncio.get_running_loop().run_in_executor(
        litestream._thread, lambda: None
    )  # it has been seen to
    checkpoint(tmp_path / "a.db", "RESTART")
    db.execute("INSERT INTO t VALUES (1)")
    await litestream.sync()
    assert litestream.broken == ""
    await litestream.stop()
    await litestream_binary.restore(
        litestream_binary.find(), parse(f"file://{tmp_path}/replica/000001"), tmp_path / "copy.db"
    )
    copy = apsw.Connection(str(tmp_path / "copy.db"))
    assert copy.execute("SELECT count(*) FROM u").get == 31
    assert copy.execute("SELECT count(*) FROM t").get == 1
    checkpoint(tmp_path / "a.db", "RESTART")  # it is let go again
    assert db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE) == (0, 0)


@awaited
async def test_all_that_was_moved_before_anybody_could_prevent_it_is_noticed(
    tmp_path: Path,
) -> None:
    db, litestream = await with_rows(tmp_path)
    kill_at_once(litestream)
    db.execute("INSERT INTO u VALUES ('lost')")
    checkpoint(tmp_path / "a.db", "PASSIVE")
    with pytest.raises(ReplicaUnavailable):
        await litestream.sync()
    await until(lambda: litestream.broken)
    with pytest.raises(ReplicaUnavailable, match="another program has checkpointed the file"):
        await litestream.sync()
    await litestream.stop()


@awaited
async def test_a_wal_that_has_begun_anew_while_it_was_away_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Litestream had not read of the old one would be in no copy."""
    monkeypatch.setattr("perdure.replica.wal_hold.WalHold.take", lambda hold: True)  # too late
    db, litestream = await with_rows(tmp_path)
    kill_at_once(litestream)
    db.execute("INSERT INTO u VALUES ('lost')")
    checkpoint(tmp_path / "a.db", "RESTART")
    db.execute("INSERT INTO t VALUES (1)")
    await until(lambda: litestream.restarts == 1)
    for _ in range(2):
        with pytest.raises(ReplicaUnavailable, match="another program has checkpointed the file"):
            await litestream.sync()
    await litestream.stop()


# --- the program ----------------------------------------------------------------------------------


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_named_program_wins_then_the_path_then_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERDURE_LITESTREAM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert litestream_binary.find() == str(Path(sys.executable).parent / "litestream")
    (tmp_path / "bin").mkdir()
    on_path = script(tmp_path / "litestream", "echo 0.5.17")
    assert litestream_binary.find() == on_path
    named = script(tmp_path / "bin" / "mine", "echo 0.5.17")
    monkeypatch.setenv("PERDURE_LITESTREAM", named)
    assert litestream_binary.find() == named
    for wrong in (tmp_path / "none", tmp_path / "bin"):
        monkeypatch.setenv("PERDURE_LITESTREAM", str(wrong))
        with pytest.raises(LitestreamUnusable, match="PERDURE_LITESTREAM names"):
            litestream_binary.find()


@awaited
async def test_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await litestream_binary.check(script(tmp_path / "new", "echo v0.6.0")) == "v0.6.0"
    for number, text in enumerate(("echo 0.5.16", "echo v0.3.13")):
        with pytest.raises(LitestreamUnusable, match=r"0\.5\.17 is the oldest usable"):
            await litestream_binary.check(script(tmp_path / f"old{number}", text))
    for number, text in enumerate(("echo hello", "exit 1", "echo 0.5.17; exit 1")):
        with pytest.raises(LitestreamUnusable, match="does not print its version"):
            await litestream_binary.check(script(tmp_path / f"odd{number}", text))
    monkeypatch.setattr(litestream_binary, "VERSION_S_MAX", 0.2)
    with pytest.raises(LitestreamUnusable, match="can't be executed"):
        await litestream_binary.check(script(tmp_path / "hangs", "exec sleep 60"))


def test_a_bundle_of_certificates_reaches_it_by_the_name_that_it_understands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/bundle.pem")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    found = litestream_binary.environment()
    assert "AWS_CA_BUNDLE" not in found
    assert found["SSL_CERT_FILE"] == "/etc/bundle.pem"


def test_last_message() -> None:
    assert litestream_binary.last_message("") == ""
    assert litestream_binary.last_message("a\n b \n\n") == "b"
    assert (
        litestream_binary.last_message(
            'time=2026-11-23T11:31:13.784Z level=ERROR msg="no way" error="it is gone"\n'
        )
        == "no way: it is gone"
    )

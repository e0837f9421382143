"""The lease: laws over thousands of seeds with clocks that differ and answers that get lost, and
the real thing on a real bucket.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from campaigns.faulty_proxy import Proxy
from campaigns.forking import Forked
from perdure.errors import (
    ReplicaDamaged,
    ReplicaLeaseLost,
    ReplicaMismatch,
    ReplicaUnavailable,
)
from perdure.replica.address import parse
from perdure.replica.bucket import Bucket, Found, Stored
from perdure.replica.buckets import open_bucket
from perdure.replica.epochs import folder_of
from perdure.replica.lease import RENEWALS_PER_TTL, Lease
from perdure.replica.lease_rules import Hold, LeaseRow, Patience
from perdure.testing.virtual_time import VirtualLoop
from tests.replica.support import address, nothing_seen, proxy
from tests.runtime.support import PATIENCE_S, awaited, environment, until

__all__ = ["address", "nothing_seen", "proxy"]  # fixtures

TTL_MS = 1_000  # of the laws, and of what waits for the end of a lease
LONG_MS = 60_000
"""A request has a third of the lease for its answer: a slow disk must not be late with it."""


# --- laws -----------------------------------------------------------------------------------------


class World:
    """The lease object of a bucket that honours conditions, and the true time in milliseconds,
    which no machine in it knows.
    """

    def __init__(self) -> None:
        self.now_ms = 0
        self.row, self.tag = LeaseRow(), 0

    def put_if(self, row: LeaseRow, tag: int) -> int | None:
        if tag != self.tag:
            return None
        self.row, self.tag = row, self.tag + 1
        return self.tag


class Machine:
    """One that wants the lease: its requests take their time each way, answers get lost, it
    freezes, and its clock began anywhere.
    """

    def __init__(self, name: str, world: World, dice: random.Random) -> None:
        self.name, self.world, self.dice = name, world, dice
        self.offset_ms = dice.randrange(10**9)
        self.row: LeaseRow | None = None  # what it believes to have written last
        self.hold = Hold(TTL_MS)
        self.tag = self.sent_ms = 0

    def clock_ms(self) -> int:
        return self.offset_ms + self.world.now_ms

    def held(self) -> bool:
        return self.row is not None and self.hold.left_ms(self.clock_ms()) > 0

    def live(self) -> Iterator[int]:
        """What it does, for ever; it yields the milliseconds until it goes on."""
        while True:
            yield from self._wait_for_it()
            while self.row is not None:
                yield self.dice.choice(
                    [TTL_MS // 4] * 8 + [3 * TTL_MS]
                )  # the last one: it was frozen
                yield from self._renew()

    def _wait_for_it(self) -> Iterator[int]:
        patience = Patience()
        while self.row is None:
            yield self._way()
            seen, tag = self.world.row, self.world.tag
            yield self._way()
            if seen.holder == self.name:  # our own write, whose answer had got lost
                self.row, self.tag = seen, tag
                self.hold.renewed(self.sent_ms)
            elif patience.left_ms(seen, self.clock_ms()) == 0:
                ours = msgspec.structs.replace(
                    seen,
                    holder=self.name,
                    epoch=seen.epoch + 1,
                    beats=seen.beats + 1,
                    ttl_ms=TTL_MS,
                )
                yield from self._write(ours, tag)
            else:
                yield self.dice.choice([50, 250])

    def _renew(self) -> Iterator[int]:
        assert self.row is not None
        written = yield from self._write(
            msgspec.structs.replace(self.row, beats=self.row.beats + 1), self.tag
        )
        if written is False:
            yield self._way()
            seen, tag = self.world.row, self.world.tag
            yield self._way()
            if seen.holder == self.name:
                self.row, self.tag = seen, tag
            else:
                self.row, self.hold = None, Hold(TTL_MS)

    def _write(self, row: LeaseRow, tag: int) -> Generator[int, None, bool | None]:
        """True: written, False: refused, None: not known."""
        self.sent_ms = self.clock_ms()
        yield self._way()
        written = self.world.put_if(row, tag)
        yield self._way()
        if self.dice.random() < 0.15:
            return None
        if written is not None:
            self.row, self.tag = row, written
            self.hold.renewed(self.sent_ms)
        return written is not None

    def _way(self) -> int:
        return self.dice.choice([1, 1, 5, 5, 100, 900])


@pytest.mark.parametrize("first_seed", range(0, 3_000, 500))
def test_there_are_never_two_holders_and_epochs_only_rise(first_seed: int) -> None:
    takings = 0
    for seed in range(first_seed, first_seed + 500):
        dice, world = random.Random(seed), World()
        machines = [Machine(f"machine {number}", world, dice) for number in range(3)]
        lives = [machine.live() for machine in machines]
        due = [(dice.randrange(500), number) for number in range(3)]
        heapq.heapify(due)
        while world.now_ms < 30_000:
            world.now_ms, number = heapq.heappop(due)
            epoch = world.row.epoch
            heapq.heappush(due, (world.now_ms + next(lives[number]), number))
            holders = [machine.name for machine in machines if machine.held()]
            assert len(holders) <= 1, f"seed {seed} at {world.now_ms} ms: {holders}"
            assert holders in ([], [world.row.holder]), (
                f"seed {seed} at {world.now_ms} ms: {holders} hold what is {world.row.holder}'s"
            )
            assert world.row.epoch in (epoch, epoch + 1), f"seed {seed}"
            takings += world.row.epoch - epoch
    assert takings > 1_000, "the law was not tried"


def test_a_hold_ends_before_anybody_else_may_take_it() -> None:
    hold, patience = Hold(TTL_MS), Patience()
    hold.renewed(100)
    row = LeaseRow(holder="a", beats=1, ttl_ms=TTL_MS)
    assert patience.left_ms(row, 100) == TTL_MS
    assert hold.left_ms(100) == TTL_MS - 200
    assert hold.left_ms(100 + TTL_MS - 200) == 0
    assert patience.left_ms(row, 100 + TTL_MS - 1) == 1
    assert patience.left_ms(msgspec.structs.replace(row, beats=2), 100 + TTL_MS) == TTL_MS
    assert patience.left_ms(LeaseRow(), 0) == 0


# --- laws of the lease itself, in virtual time, where its object is deleted -----------------------


class Objects:
    """A bucket as one machine sees it: requests take their time each way, and answers get lost,
    until the world is calm.
    """

    def __init__(self, world: Deletions) -> None:
        self.world, self.shared, self.dice = world, world.shared, world.dice

    def _way_s(self) -> float:
        return self.dice.choice([1, 1, 5, 5] if self.world.calm else [1, 1, 5, 5, 100, 900]) / 1000

    async def _asked(self, act: Callable[[], Any]) -> Any:
        await asyncio.sleep(self._way_s())
        answer = act()
        await asyncio.sleep(self._way_s())
        if self.dice.random() < 0.1 and not self.world.calm:
            raise ReplicaUnavailable("here", "the answer got lost")
        return answer

    def _put(self, name: str, data: bytes) -> str:
        self.shared[name] = Stored(data, str(self.dice.random()))
        return self.shared[name].tag

    def _put_if(self, name: str, data: bytes, tag: str | None) -> str | None:
        found = self.shared.get(name)
        return self._put(name, data) if (found.tag if found else None) == tag else None

    async def get(self, name: str) -> Stored | None:
        return cast("Stored | None", await self._asked(lambda: self.shared.get(name)))

    async def put(self, name: str, data: bytes) -> str:
        return str(await self._asked(lambda: self._put(name, data)))

    async def put_new(self, name: str, data: bytes) -> str | None:
        return cast("str | None", await self._asked(lambda: self._put_if(name, data, None)))

    async def put_if(self, name: str, data: bytes, tag: str) -> str | None:
        return cast("str | None", await self._asked(lambda: self._put_if(name, data, tag)))

    async def names(self, under: str) -> list[Found]:
        return cast(
            "list[Found]",
            await self._asked(
                lambda: [Found(name, 1, 0) for name in self.shared if name.startswith(under)]
            ),
        )

    async def folders(self) -> list[str]:
        return sorted(
            {found.name.partition("/")[0] for found in await self.names("") if "/" in found.name}
        )

    async def delete(self, names: Iterable[str]) -> None:
        await self._asked(lambda: [self.shared.pop(name, None) for name in names])


class Holder:
    """A machine that takes the lease, makes a first copy, names it as the base, renews, freezes,
    and begins again when it has lost.
    """

    def __init__(self, world: Deletions, number: int) -> None:
        self.world, self.number, self.dice = world, number, world.dice
        self.offset_ms = self.dice.randrange(10**9)
        self.named, self.lease = False, cast("Lease | None", None)

    def confirms(self) -> bool:
        """Whether it may tell that something is in the replica."""
        return self.named and self.lease is not None and self.lease.held()

    async def live(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self.named = False
            objects = cast("Bucket", Objects(self.world))
            self.lease = Lease(
                objects,
                "here",
                ttl_ms=TTL_MS,
                clock_ms=lambda: self.offset_ms + round(loop.time() * 1000),
            )
            with contextlib.suppress(ReplicaUnavailable, ReplicaLeaseLost):
                await self._hold(self.lease)

    async def _hold(self, lease: Lease) -> None:
        row = await lease.take(store_id="s")
        self.world.taken(row, lease.held())
        while True:
            frozen = [] if self.world.calm else [3 * TTL_MS]
            await asyncio.sleep(self.dice.choice([TTL_MS // 4] * 8 + frozen) / 1000)
            try:
                if self.named:
                    await lease.renew()
                    if self.dice.random() < 0.02:
                        break
                else:
                    self.world.shared[f"{folder_of(row.epoch)}/1.ltx"] = Stored(b"", "")
                    await lease.name_base(lease.row.epoch, 1, "s", 0)
                    self.world.base, self.named = max(self.world.base, row.epoch), True
            except ReplicaUnavailable:
                await asyncio.sleep(0.05)
        await lease.release()


class Deletions:
    """Machines in one bucket whose lease object is deleted, now and then, often in a row, and from
    some moment on no more.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.dice = seed, random.Random(seed)
        self.shared: dict[str, Stored] = {}
        self.base, self.takings, self.deletions, self.calm = 0, 0, 0, False
        self.epochs: set[int] = set()
        self.machines = [Holder(self, number) for number in range(3)]

    def taken(self, row: LeaseRow, held: bool) -> None:
        """With `held` False the answer came too late to be of any use."""
        self.takings += 1
        if self.base and held:
            assert row.base is not None, (
                f"seed {self.seed}: a restore would find nothing, and epoch {self.base} was named"
            )
            assert row.base >= self.base, (
                f"seed {self.seed}: a restore would begin from {row.base}, and {self.base} "
                f"was named"
            )
        assert row.epoch not in self.epochs, f"seed {self.seed}: epoch {row.epoch} was taken twice"
        self.epochs.add(row.epoch)

    async def _delete(self, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until_s:
            await asyncio.sleep(self.dice.choice([0.002, 0.02, 0.2, 1.0, 3.0]))
            self.deletions += self.shared.pop("lease.json", None) is not None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            lives = [tasks.create_task(machine.live()) for machine in self.machines]
            lives.append(tasks.create_task(self._delete(15)))
            quiet = 0
            while loop.time() < 40:
                await asyncio.sleep(0.01)
                self.calm = loop.time() > 30
                holders = [machine.number for machine in self.machines if machine.confirms()]
                assert len(holders) <= 1, f"seed {self.seed} at {loop.time():.3f} s: {holders}"
                quiet += bool(holders) and self.calm
            assert quiet, f"seed {self.seed}: no engine holds the lease although all is well"
            for life in lives:
                life.cancel()


@pytest.mark.parametrize("first_seed", range(0, 80, 20))
def test_a_deleted_object_gives_the_lease_only_after_a_whole_wait(first_seed: int) -> None:
    takings = deletions = 0
    for seed in range(first_seed, first_seed + 20):
        world = Deletions(seed)
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(world.run())
        takings, deletions = takings + world.takings, deletions + world.deletions
    assert takings > 20, "the law was not tried"
    assert deletions > 20, "the law was not tried"


# --- on a bucket ----------------------------------------------------------------------------------


def lease_at(place: str, **options: object) -> Lease:
    return Lease(open_bucket(parse(place)), place, **{"ttl_ms": LONG_MS, **options})  # type: ignore[arg-type]


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a lease is tried: the same tests for both kinds of bucket."""
    return (
        f"file://{tmp_path}/bucket"
        if request.param == "folder"
        else str(request.getfixturevalue("address"))
    )


@awaited
async def test_it_is_taken_renewed_released_and_taken_again(place: str) -> None:
    lease = lease_at(place)
    assert await lease.look() is None
    row = await lease.take(store_id="mine")
    assert (row.epoch, row.base, row.store_id, lease.held()) == (1, None, "mine", True)
    lease.report(rows=12, txid=3, notes={"lag_s": 0.5})
    await lease.renew(base=1)
    await lease.release()
    assert not lease.held()
    other = lease_at(place)
    row = await other.take(store_id="mine")
    assert (row.epoch, row.base, row.rows, row.txid, row.notes) == (2, 1, 12, 3, {"lag_s": 0.5})
    with pytest.raises(ReplicaMismatch, match="is of store mine, and ours is another"):
        await lease_at(place).take(store_id="another")


@awaited
async def test_a_holder_that_renews_keeps_it_and_one_that_is_silent_loses_it(place: str) -> None:
    holder, waiter = lease_at(place, ttl_ms=3 * TTL_MS), lease_at(place)
    await holder.take(store_id=None)
    holder.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4.5 * TTL_MS / 1000):
            await waiter.take(store_id=None)
    assert holder.held()
    holder._end_thread()  # as if it were frozen
    row = await waiter.take(store_id=None)
    assert row.epoch == 2
    assert not holder.held()
    with pytest.raises(ReplicaLeaseLost, match="has taken it, in epoch 2"):
        await holder.renew()
    assert holder.lost.done()
    await holder.release()  # nothing to release, and nothing is written
    seen = await waiter.look()
    assert seen is not None
    assert seen.holder == row.holder


@awaited
async def test_renewals_at_the_same_time_do_not_meet(place: str) -> None:
    lease = lease_at(place)
    await lease.take(store_id=None)
    await asyncio.gather(*(lease.renew() for _ in range(5)), lease.renew(base=1), lease.advance())
    seen = await lease.look()
    assert seen is not None
    assert (seen.beats, seen.base, seen.epoch) == (8, 1, 2)


@awaited
async def test_a_lease_that_somebody_deletes_is_written_again(place: str) -> None:
    lease = lease_at(place)
    await lease.take(store_id="mine")
    await lease._bucket.delete(["lease.json"])
    await lease.renew(base=1)
    seen = await lease.look()
    assert seen is not None
    assert (seen.epoch, seen.base, seen.store_id) == (1, 1, "mine")


@awaited
async def test_a_deleted_object_is_not_free_and_its_holder_keeps_the_lease(
    place: str,
) -> None:
    holder, waiter = lease_at(place), lease_at(place, ttl_ms=LONG_MS // 2)
    await holder.take(store_id="mine")
    heard = asyncio.Queue[LeaseRow]()
    taking = asyncio.create_task(
        waiter.take(store_id="mine", on_wait=lambda row, _: heard.put_nowait(row))
    )
    await heard.get()
    await holder._bucket.delete(["lease.json"])
    while not (row := await heard.get()).deleted:
        pass
    assert row.ttl_ms == LONG_MS  # the holder's, not its own
    assert holder.held()
    await holder.renew(base=1)
    while (row := await heard.get()).deleted:
        pass
    assert (row.epoch, row.base, row.pid) == (1, 1, os.getpid())
    taking.cancel()


@awaited
async def test_a_holder_whose_time_had_run_out_waits_as_others_do_where_the_object_was_deleted(
    place: str,
) -> None:
    now_ms = 0
    lease = lease_at(place, clock_ms=lambda: now_ms)
    await lease.take(store_id="mine")
    now_ms = 10 * LONG_MS
    await lease._bucket.delete(["lease.json"])
    with pytest.raises(ReplicaUnavailable, match="was deleted, and may be taken again in 60000 ms"):
        await lease.renew()
    now_ms += LONG_MS
    await lease.renew()
    assert lease.held()
    now_ms += 10 * LONG_MS
    await lease._bucket.delete(["lease.json"])
    await lease._bucket.put("000002/0000/x.ltx", b"x")  # another machine has begun, and is gone
    with pytest.raises(ReplicaUnavailable):
        await lease.renew()
    now_ms += LONG_MS
    with pytest.raises(ReplicaLeaseLost, match="epoch 2 was begun while its object was missing"):
        await lease.renew()


@awaited
async def test_after_a_release_that_is_cancelled_nothing_renews(place: str) -> None:
    lease = lease_at(place, ttl_ms=3 * TTL_MS)
    await lease.take(store_id="mine")
    lease.start()
    thread = lease._thread
    assert thread is not None
    releasing = asyncio.create_task(lease.release())
    await asyncio.sleep(0)  # it has begun
    releasing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await releasing
    assert not thread.alive
    assert not lease.held()
    assert (await lease_at(place).take(store_id="mine")).epoch == 2


@awaited
async def test_a_holder_that_claims_an_epoch_keeps_its_lease_where_the_object_is_deleted(
    place: str,
) -> None:
    lease, other = lease_at(place), lease_at(place)
    await lease.take(store_id="mine")
    await lease._epochs.claim_after(
        1
    )  # its own, and the answer to the write that was to follow never came
    await lease._bucket.delete(["lease.json"])
    await lease.renew()
    assert lease.held()
    await lease.advance()
    assert lease.row.epoch == 2
    assert await other._epochs.claim_after(2) == 3
    assert await lease._epochs.claim_after(2) == 4
    await lease._bucket.delete(["lease.json"])
    with pytest.raises(ReplicaLeaseLost, match="epoch 3 was begun while its object was missing"):
        await lease.renew()


@awaited
async def test_without_an_object_it_goes_on_above_the_newest_epoch_from_one_that_holds_something(
    place: str,
) -> None:
    store = open_bucket(parse(place))
    await store.put("000007/0000/x.ltx", b"x")
    row = await lease_at(place, ttl_ms=3 * TTL_MS).take(store_id=None)
    assert (row.epoch, row.base) == (8, 7)


@awaited
async def test_rubbish_and_a_newer_format_are_left_alone(place: str) -> None:
    store = open_bucket(parse(place))
    for text in (b"no json", b'{"format": 2}', b'{"epoch": "seven"}'):
        await store.put("lease.json", text)
        with pytest.raises(ReplicaDamaged, match="can't be understood"):
            await lease_at(place).take(store_id=None)
        found = await store.get("lease.json")
        assert found is not None
        assert found.data == text


@awaited
async def test_without_fencing_it_is_the_same_object(place: str) -> None:
    lease = lease_at(place, fencing=False)
    await lease.take(store_id=None)
    await lease.renew(base=1)
    await lease.release()
    assert (await lease_at(place, fencing=False).take(store_id=None)).epoch == 2


class Losing:
    """A bucket whose answers to writes get lost, so many in a row; the writes are done."""

    def __init__(self, inner: Bucket, answers: Iterable[bool]) -> None:
        self._inner, self._lost = inner, iter(answers)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def put_new(self, name: str, data: bytes) -> str | None:
        return self._maybe(await self._inner.put_new(name, data))

    async def put_if(self, name: str, data: bytes, tag: str) -> str | None:
        return self._maybe(await self._inner.put_if(name, data, tag))

    def _maybe(self, answer: str | None) -> str | None:
        if next(self._lost, False):
            raise ReplicaUnavailable("here", "the answer got lost")
        return answer


@awaited
async def test_a_write_whose_answer_got_lost_is_known_as_our_own(place: str) -> None:
    losing: Any = Losing(open_bucket(parse(place)), [True, False, True, False, True, False])
    lease = Lease(losing, "here", ttl_ms=LONG_MS)
    row = await lease.take(store_id=None)
    assert row.epoch == 1
    await lease.renew(base=1)
    with pytest.raises(ReplicaUnavailable):
        await lease.renew()
    await lease.renew()
    assert lease.held()
    assert not lease.lost.done()


class Hanging:
    """A bucket that never answers the first request of each kind that changes an object."""

    def __init__(self, inner: Bucket) -> None:
        self._inner, self.hung = inner, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def put_if(self, name: str, data: bytes, tag: str) -> str | None:
        self.hung += 1
        if self.hung == 1:
            await asyncio.Event().wait()
        return await self._inner.put_if(name, data, tag)


@awaited
async def test_a_renewal_that_is_never_answered_is_followed_by_another(place: str) -> None:
    lease = lease_at(place, ttl_ms=3 * TTL_MS)
    row = await lease.take(store_id=None)
    lease._bucket = hanging = Hanging(lease._bucket)  # type: ignore[assignment]
    lease.start()
    await until(lambda: lease.row.beats > row.beats)
    assert hanging.hung > 1
    await lease.release()


@awaited
async def test_it_is_renewed_while_the_event_loop_stands_still_and_its_default_executor_is_full(
    place: str,
) -> None:
    """A second process waits for the lease meanwhile, and gets it only when it is released."""
    lease = lease_at(place, ttl_ms=3 * TTL_MS)
    row = await lease.take(store_id=None)
    lease.start()
    loop, end = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    full = loop.run_in_executor(None, end.wait)
    racer = Forked(
        [sys.executable, "-c", _RACER, place, "wait"],
        text=True,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with racer:
        assert racer.stdin is not None
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"  # blocks the loop, as all that follows
        racer.stdin.write("go\n")
        racer.stdin.flush()
        assert racer.stdout.readline() == "waits\n"
        while lease.row.beats < row.beats + 2 * RENEWALS_PER_TTL:
            time.sleep(0.01)  # noqa: ASYNC251
        assert lease.held()
        await lease.release()
        assert racer.stdout.readline() == "took 2\n"
        racer.communicate("")
    end.set()
    await full


@awaited
async def test_it_is_not_renewed_for_a_loop_that_never_comes_back(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.process.threads.STALL_S_MIN", 0.0)
    monkeypatch.setattr("perdure.process.threads.STALL_LEASES", 2)
    lease = lease_at(place, ttl_ms=3 * TTL_MS)
    await lease.take(store_id=None)
    lease.start()
    while lease.held():
        time.sleep(0.01)  # noqa: ASYNC251
    await until(lease.held)  # now it moves again, and no other engine has taken it
    await lease.release()


@awaited
async def test_a_renewal_that_hangs_does_not_keep_it(address: str, proxy: Proxy) -> None:
    lease = lease_at(address, ttl_ms=3 * TTL_MS)
    await lease.take(store_id=None)
    lease.start()
    proxy.set("drop")
    await until(lambda: not lease.held())
    proxy.set()
    await until(lease.held)  # no other engine had taken it meanwhile
    assert lease.row.epoch == 1
    await lease.release()


@awaited
async def test_old_epochs_are_swept_and_never_the_base_or_ours(place: str) -> None:
    store = open_bucket(parse(place))
    for epoch in (1, 2, 3, 4):
        await store.put(f"{epoch:06}/0000/x.ltx", b"x")
    lease = lease_at(place)
    await store.put(
        "lease.json", msgspec.json.encode(LeaseRow(epoch=4, base=3, begun_ms={1: 1, 3: 3}))
    )
    await lease.take(store_id=None)
    now_ms = time.time_ns() // 1_000_000
    assert await lease.sweep(3_600_000, now_ms) == []
    assert await lease.sweep(3_600_000, now_ms + 7_200_000) == [1, 2]
    assert {found.name[:6] for found in await store.names("")} == {
        "000003",
        "000004",
        "lease.",
        "taken/",
    }
    assert lease.row.begun_ms == {3: 3}


_RACER = """
import asyncio, sys
from perdure.replica.address import parse
from perdure.replica.buckets import open_bucket
from perdure.replica.lease import Lease

said = []

class Held(Exception): ...

def on_wait(row, seconds):
    if len(sys.argv) < 3:
        raise Held
    if not said:
        said.append(print("waits", flush=True))

async def main():
    lease = Lease(open_bucket(parse(sys.argv[1])), "here", ttl_ms=60_000)
    print("ready", flush=True)
    sys.stdin.readline()
    row = await lease.take(store_id=None, on_wait=on_wait)
    print("took", row.epoch, flush=True)
    sys.stdin.readline()

try:
    asyncio.run(main())
except Exception as error:
    print(type(error).__name__, flush=True)
"""


def test_of_processes_that_race_for_it_one_wins_and_the_dead_are_succeeded_at_once(
    place: str,
) -> None:
    racers = [
        Forked(
            [sys.executable, "-c", _RACER, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for _ in range(4)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdin is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("go\n")  # type: ignore[union-attr]
            racer.stdin.flush()  # type: ignore[union-attr]
        words = [racer.stdout.readline().strip() for racer in racers]  # type: ignore[union-attr]
        assert sorted(words) == ["Held"] * 3 + ["took 1"]
        winner = racers[words.index("took 1")]
        winner.kill()
        winner.wait()
        row = asyncio.run(_take_at_once(place))
        assert row.epoch == 2
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


async def _take_at_once(place: str) -> LeaseRow:
    async with asyncio.timeout(PATIENCE_S / 4):  # less than the lease of the dead one
        return await lease_at(place).take(store_id=None)

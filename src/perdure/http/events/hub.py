"""Hub: notices commits of a store and wakes those that follow topics of it.

Rules: a report of the file's watcher comes after a write; without a file to watch the version of
the store is asked for twice a second; what the time alone changes is read every two seconds, once
for all followers, and nothing is done without one; equal reads of several followers are one; after
a burst of commits a topic is read once; pages rest for many times as long as their last update took
of a processor, because the engine may share it; the first change after a rest is told at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from perdure.errors import EngineClosed, PerdureError, RunNotFound
from perdure.http.events.topics import GONE, LATER_S, SOON_S, State, Topic
from perdure.process import host
from perdure.reader.cost import Cost

if TYPE_CHECKING:
    from perdure.http.site import Site
    from perdure.process.file_watcher import Watch
    from perdure.reader import StoreReader
    from perdure.reader.values import Pulse

log = logging.getLogger("perdure")

POLL_S = 0.5
"""How often the version of a store is asked for that has no file to watch."""
PULSE_S = 2.0
"""How often it is looked for what no commit tells: a lease that runs out, a run that falls due."""
SHARE = 25
"""Pages rest for so many times what they have cost since their last update: 4 % of a core."""
REST_S_MAX = 5.0
FOLLOWERS_MAX = 2_000
READS_MAX = 2_000
"""Reads that are kept until the next commit."""


class TooManyFollowers(Exception):
    """The site has as many event streams as it may have."""


class Beat:
    """A number that grows after commits, at most once in `every_s`, and less often while what is
    done about it is dear; it wakes its followers. Without a `cost` nothing is too dear.
    """

    def __init__(self, every_s: float, cost: Cost | None = None) -> None:
        self.number, self._every_s = 0, every_s
        self._cost, self._spent_s = cost, 0.0
        self.followers: set[asyncio.Event] = set()
        self.reads: dict[tuple[str, str], asyncio.Task[State]] = {}
        self._last_s = -every_s
        self._timer: asyncio.TimerHandle | None = None

    @property
    def heedless(self) -> bool:
        """Whether one more commit means nothing: it beats soon anyway, or for no follower."""
        return self._timer is not None or not self.followers

    def changed(self) -> None:
        """Something was committed."""
        loop = asyncio.get_running_loop()
        if self._timer is None:
            due_s = max(loop.time(), self._last_s + self._every_s)
            self._timer = loop.call_at(due_s, self._beat)

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        if (due_s := self._last_s + self._rest_s()) > loop.time():
            self._timer = loop.call_at(due_s, self._beat)
            return
        self._last_s, self._timer = loop.time(), None
        self.number += 1
        if self._cost is not None:
            self._spent_s = self._cost.spent_s
        self.reads.clear()
        for event in self.followers:
            event.set()

    def _rest_s(self) -> float:
        if self._cost is None:
            return 0.0
        spent_s = self._cost.spent_s - self._spent_s
        return min(SHARE * spent_s, REST_S_MAX)

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Hub:
    """What the event streams of one site share. It works while it has followers. `cost` is that of
    pages which are open, apart from the first look at each.
    """

    def __init__(self, reader: StoreReader) -> None:
        self._reader, self.cost, self._heedless = reader, Cost(), Cost()
        self._beats = {SOON_S: Beat(SOON_S), LATER_S: Beat(LATER_S, self.cost)}
        self._followers: set[asyncio.Event] = set()
        self._seen: int | None = None
        self._watch: Watch | None = None
        self._looking: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None
        self._felt: Pulse | None = None
        self._pulsing: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether there is nothing to read any more."""
        return self._reader.closed

    @contextmanager
    def following(self, *topics: Topic) -> Iterator[asyncio.Event]:
        """An event that is set after commits, until the block is left: as often as these topics
        want it. Raises `TooManyFollowers`.

        A beat of `number` says which topics may have changed since.
        """
        if len(self._followers) >= FOLLOWERS_MAX:
            raise TooManyFollowers
        event = asyncio.Event()
        self._followers.add(event)
        for beat in {self._beats[topic.every_s] for topic in topics}:
            if not beat.followers:
                beat.reads.clear()  # nothing has looked after them
            beat.followers.add(event)
        try:
            if len(self._followers) == 1:
                self._start()
            yield event
        finally:
            self._followers.discard(event)
            for beat in self._beats.values():
                beat.followers.discard(event)
            if not self._followers:
                self._stop()

    def number(self, topic: Topic) -> int:
        """A number that grows when a topic may have changed."""
        return self._beats[topic.every_s].number

    def cost_of(self, topic: Topic) -> Cost:
        """What looks at a topic are added to. Items of streams and rows are for programs, which
        wait for them: they slow nothing down.
        """
        return self.cost if topic.every_s == LATER_S else self._heedless

    async def state(self, topic: Topic, cursor: str) -> State:
        """What a topic is now, for a client that has got to a cursor. Raises what readers do."""
        reads, key = self._beats[topic.every_s].reads, (topic.text, topic.behind(cursor))
        task = reads.get(key)
        if task is None:
            if len(reads) >= READS_MAX:
                reads.clear()  # nothing is committed, and others come and go
            task = reads[key] = asyncio.create_task(self._read(topic, key[1]))
            task.add_done_callback(_seen)
        return await asyncio.shield(task)

    async def _read(self, topic: Topic, behind: str) -> State:
        try:
            return await self.cost_of(topic).of(topic.state(self._reader, behind))
        except RunNotFound:
            return State(GONE, {"gone": True})

    # --- looking at the store ---------------------------------------------------------------------

    def _start(self) -> None:
        for beat in self._beats.values():  # what was read before may be old by now
            beat.reads.clear()
        watched = self._reader.watched
        if watched and all(map(os.path.exists, watched)):  # else it would be looked at all the time
            self._watch = host.files.watch(watched, self._look, self._moved)
        else:
            self._polling = asyncio.create_task(self._poll())
        self._pulsing = asyncio.create_task(self._pulse())

    def _moved(self) -> None:
        """A file has lost its name: the next one is not watched, so it is asked for."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch, self._polling = None, asyncio.create_task(self._poll())

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for task in (self._polling, self._looking, self._pulsing):
            if task is not None:
                task.cancel()
        for beat in self._beats.values():
            beat.stop()
        self._watch = self._polling = self._looking = self._pulsing = None

    def _look(self, *, pulse: bool = False) -> None:
        if all(beat.heedless for beat in self._beats.values()):
            return  # what it beats for is read behind this commit
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._compare(pulse=pulse))
        elif self._watch is not None:  # it may have read before this write
            self._watch.again(SOON_S)

    async def _compare(self, *, pulse: bool) -> None:
        felt = self._felt
        try:
            version = await self._reader.version()
            if pulse:
                felt = await self._reader.pulse()
        except EngineClosed:
            self._wake()
            return
        except PerdureError as error:
            log.warning("event streams can't see what changes: %s", error)
            return
        if (version, felt) != (self._seen, self._felt):
            self._seen, self._felt = version, felt
            for beat in self._beats.values():
                beat.changed()

    def _wake(self) -> None:
        for event in self._followers:
            event.set()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            self._look()

    async def _pulse(self) -> None:
        while True:
            self._look(pulse=True)
            await asyncio.sleep(PULSE_S)


def _seen(task: asyncio.Task[State]) -> None:
    """A read whose followers have all gone has an error that nobody asks for."""
    if not task.cancelled():
        task.exception()


_hubs: WeakKeyDictionary[StoreReader, Hub] = WeakKeyDictionary()


def hub_of(site: Site) -> Hub:
    """The hub of a site."""
    hub = _hubs.get(site.reader)
    if hub is None:
        hub = _hubs[site.reader] = Hub(site.reader)
    return hub

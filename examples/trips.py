"""Trips that are booked in full or not at all, killed in the middle, with a bank that takes two
payments at once.

`python examples/trips.py` starts a process that books 30 trips: a flight, a hotel, a payment. Every
third card is declined, and what was booked for it is released. In the middle of it the process is
killed with SIGKILL; a second one goes on. At the end nothing is booked for those that did not pay.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from perdure import (
    Engine,
    Queue,
    Retry,
    Saga,
    current_step,
    gather_limited,
    step,
    workflow,
)

TRIPS = 30
BANK = Queue("bank", concurrency=2)


def world() -> Path:
    """A folder that stands for the services: a file for each booking."""
    return Path(os.environ["WORLD"])


@step
def book(what: str) -> None:
    (world() / what).write_text(current_step().idempotency_key)


@step(retry=Retry(attempts=20, delay=0.1))
def release(what: str) -> None:
    (world() / what).unlink(missing_ok=True)  # it may never have been booked


@step(queue="bank", retry=None)
async def pay(number: int) -> str:
    await asyncio.sleep(0.05)
    if number % 3 == 0:
        raise ValueError("the card was declined")
    return f"receipt {number}"


@workflow
async def trip(number: int) -> str:
    async with Saga() as saga:
        for what in ("flight", "hotel"):
            saga.undo(release(f"{what}-{number}"))  # before it: a step may die half done
            await book(f"{what}-{number}")
        return await pay(number)


@workflow
async def all_trips(trips: int) -> list[str]:
    found = await gather_limited((trip(n) for n in range(trips)), limit=8, tolerate=1.0)
    return [one if isinstance(one, str) else "declined" for one in found]


async def travel_agency(db: str) -> None:
    async with Engine(db, workflows=[all_trips], queues=[BANK], lease_ttl=1.0) as engine:
        run = await engine.start(all_trips(TRIPS), id="summer")
        outcomes = await run.result()
        print(f"  {outcomes.count('declined')} declined, {len(set(outcomes)) - 1} receipts")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="perdure-trips-") as folder:
        os.environ["WORLD"] = str(Path(folder, "world"))
        world().mkdir()
        command = [sys.executable, __file__, str(Path(folder, "trips.db"))]
        print(f"A process begins to book {TRIPS} trips.")
        first = subprocess.Popen(command)
        while len(list(world().iterdir())) < TRIPS // 2 and first.poll() is None:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
        booked = len(list(world().iterdir()))
        print(f"It is killed; {booked} bookings stand. Another process goes on.")
        if subprocess.run(command, check=False).returncode:
            return 1
        left = {name.name for name in world().iterdir()}
        wanted = {f"{what}-{n}" for what in ("flight", "hotel") for n in range(TRIPS) if n % 3}
        print(f"Booked is what was paid, and nothing else: {left == wanted}.")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(travel_agency(sys.argv[1]))
    else:
        raise SystemExit(main())

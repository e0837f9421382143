"""A machine vanishes with its disk, and another one goes on: on your laptop, with no cloud account.

`python examples/drill.py` makes a folder with two "machines" and a "bucket" in it. The first
machine pays ten bills, one after the other, with `durability="replica"`. In the middle of it, it is
killed with SIGKILL and its disk is deleted. A second machine with an empty disk restores the
replica and goes on. At the end you see what the bank has seen.

Needs `pip install 'perdure[replica]'`.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from perdure import Engine, step, workflow

BILLS = 10


@step
def pay(bill: int) -> str:
    with open(os.environ["OUTSIDE"], "a") as file:  # what the bank sees
        file.write(f"{bill}\n")
    time.sleep(0.1)
    return f"receipt for bill {bill}"


@workflow
async def pay_all(bills: int) -> list[str]:
    return [await pay(bill) for bill in range(1, bills + 1)]


async def machine(disk: str, bucket: str) -> None:
    """One machine: a disk that may be lost, and the address of the bucket."""
    async with Engine(
        f"{disk}/bills.db", workflows=[pay_all], durability="replica", replica=f"file://{bucket}"
    ) as engine:
        for line in engine.replica.began if engine.replica else []:
            print(f"  {line}")
        run = await engine.start(pay_all(BILLS), id="november")
        receipts = await run.result()
        print(f"  november: {len(receipts)} receipts, the last one is {receipts[-1]!r}")


def start_machine(disk: Path, bucket: Path) -> subprocess.Popen[bytes]:
    disk.mkdir()
    return subprocess.Popen([sys.executable, __file__, str(disk), str(bucket)])


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="perdure-drill-"))
    outside, bucket = folder / "outside", folder / "bucket"
    outside.touch()
    os.environ["OUTSIDE"] = str(outside)
    print("Machine A begins to pay ten bills.")
    first = start_machine(folder / "machine-a", bucket)
    while len(outside.read_text().split()) < BILLS // 2:
        if first.poll() is not None:
            return first.returncode
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    shutil.rmtree(folder / "machine-a")
    paid = outside.read_text().split()
    print(
        f"Machine A is gone, with its disk. The bank has seen {len(paid)} payments: "
        f"{', '.join(paid)}."
    )
    print("Machine B begins with an empty disk.")
    if start_machine(folder / "machine-b", bucket).wait():
        return 1
    seen = outside.read_text().split()
    twice = sorted({bill for bill in seen if seen.count(bill) > 1}, key=int)
    print(f"The bank has seen every bill: {set(map(int, seen)) == set(range(1, BILLS + 1))}.")
    print(
        f"Bills that were tried twice, because it is unknown whether the last one had gone "
        f"through: {', '.join(twice) or 'none'}."
    )
    print(
        f"Everything is in {folder}; look at {folder / 'machine-b' / 'bills.db'} with "
        f"`perdure show november --store ...`."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main() if len(sys.argv) == 1 else asyncio.run(machine(*sys.argv[1:])))

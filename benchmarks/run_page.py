"""What the page of a run costs: until 10,000 events are drawn, beside a plain table of the same
rows, and how many frames are late while it is scrolled.

    python benchmarks/run_page.py

Needs a Chromium. Ratios are what to compare: milliseconds are those of this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from perdure import Engine, step, workflow
from perdure.http.pages import run_views

STEPS = 5_000
CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

DRAWN = """() => new Promise((done) => {
  const look = () => document.querySelector(%r)
    ? requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())))
    : setTimeout(look, 1);
  look();
})"""
SCROLL = """() => new Promise((done) => {
  const frames = [], high = document.documentElement.scrollHeight;
  let last = performance.now(), at = 0;
  const next = (now) => {
    frames.push(now - last);
    last = now;
    at += 1;
    scrollTo(0, (high * at) / 120);
    if (at < 120) requestAnimationFrame(next);
    else done(frames);
  };
  requestAnimationFrame(next);
})"""


@step
async def even(number: int) -> int:
    return number


@step
async def odd(number: int) -> int:
    return number


@workflow
async def large(steps: int) -> int:
    return len(await asyncio.gather(*((odd if n % 2 else even)(n) for n in range(steps))))


def serve(store: str, port: int) -> None:
    """Serve the pages of a store that others execute, with all rows of a table on one page."""
    run_views.TABLE_ROWS = STEPS

    async def served() -> None:
        async with Engine(store, execute=False) as engine:
            config = uvicorn.Config(engine.asgi(), port=port, log_level="warning", lifespan="off")
            await uvicorn.Server(config).serve()

    asyncio.run(served())


@contextlib.contextmanager
def serving(store: str) -> Iterator[str]:
    """A process that serves a store; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "--serve", store, "--port", str(port)]
    process = subprocess.Popen(
        command, env={k: v for k, v in os.environ.items() if k != "PERDURE_TOKEN"}
    )
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def drawn_ms(browser: Browser, url: str, selector: str) -> tuple[float, float]:
    """Milliseconds to the first contentful paint, and until this is drawn."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(url, wait_until="commit")
    until = page.evaluate(DRAWN % selector)
    first = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
    )
    page.close()
    return float(first), float(until)


def scrolled(page: Page) -> list[float]:
    """Milliseconds of each frame while the page is scrolled from its begin to its end."""
    return [float(one) for one in page.evaluate(SCROLL)]


async def filled(store: str) -> None:
    async with Engine(store, workflows=[large]) as engine:
        await engine.run(large(STEPS), id="large")
        await engine.run(large(10), id="small")


def measure(rounds: int) -> dict[str, Any]:
    """All figures by name."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        serving(filled_store(folder)) as url,
    ):
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        pairs = [
            (
                drawn_ms(browser, f"{url}/runs/large", ".wf-row"),
                drawn_ms(browser, f"{url}/runs/large?view=table", ".foot"),
                drawn_ms(browser, f"{url}/runs/small", ".wf-row"),
            )
            for _ in range(rounds + 1)
        ][1:]
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{url}/runs/large")
        page.wait_for_selector(".wf-row")
        frames = scrolled(page)
        page.close()
        browser.close()
    ours, table, small = (statistics.median(one[which][1] for one in pairs) for which in range(3))
    return {
        "first paint, ms": statistics.median(one[0][0] for one in pairs),
        "10,000 events drawn, ms": ours,
        "the same as a plain table, ms": table,
        "ratio to the plain table": ours / table,
        "ratio to the page of a run of ten steps": ours / small,
        "frames over 50 ms of 120 while scrolled": sum(one > 50 for one in frames),
    }


def filled_store(folder: str) -> str:
    """A store with one run of 10,000 events, made in a thread: Playwright has this loop."""
    store = str(Path(folder, "run.db"))
    made = threading.Thread(target=lambda: asyncio.run(filled(store)))
    made.start()
    made.join()
    return store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.port)
        return
    for name, figure in measure(given.rounds).items():
        print(f"{name:55} {figure:10.2f}")


if __name__ == "__main__":
    main()

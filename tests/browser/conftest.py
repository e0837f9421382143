"""Fixtures of the tests in a browser: real Chromium, real uvicorn, real engine.

Rules: a test fails on an error in the console, on an uncaught error of a script and on anything
that the content security policy refused; without a Chromium these tests say that they are skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Playwright,
    expect,
    sync_playwright,
)
from playwright.sync_api import Error as BrowserError

from tests.http.support import Serve, server
from tests.runtime.support import PATIENCE_S

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Every name below .example leads to this machine, as those of an attacker or of a network may.
ARGUMENTS = ["--no-sandbox", "--host-resolver-rules=MAP *.example 127.0.0.1"]
NewPage = Callable[..., Page]
PATIENCE_MS = PATIENCE_S * 1000 / 2
expect.set_options(timeout=PATIENCE_MS)  # its own limit of 5 s is soon over on a slow machine


def launched(playwright: Playwright) -> Browser:
    """The Chromium of this machine, else the one that Playwright has installed."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return playwright.chromium.launch(executable_path=found, args=ARGUMENTS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of a module's tests: Playwright keeps an event loop in this thread, in which
    `asyncio.run` of later tests fails.
    """
    with sync_playwright() as playwright:
        try:
            chromium = launched(playwright)
        except BrowserError as error:
            pytest.skip(
                "There is no Chromium on this machine that starts (`apt-get install chromium`, or "
                f"`playwright install chromium`), so no test in a browser is run: "
                f"{str(error).splitlines()[0]}"
            )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A function that serves engines until the module's tests have ended."""
    with server(tmp_path_factory.mktemp("served")) as serve:
        yield serve


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    """A function that opens a page with cookies of its own: `new_page(width=390, height=844,
    dark=True, javascript=False)`. The test fails on what its console reports as an error,
    apart from reports that have one of the texts `expected`.
    """
    contexts: list[Any] = []
    complaints: list[str] = []

    def new_page(
        *,
        width: int = 1280,
        height: int = 800,
        dark: bool = False,
        javascript: bool = True,
        expected: tuple[str, ...] = (),
        **options: Any,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            java_script_enabled=javascript,
            **options,
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()

        def heard(text: str) -> None:
            if not any(part in text for part in expected):
                complaints.append(text)

        def said(message: ConsoleMessage) -> None:
            place = str(message.location.get("url"))
            if message.type == "error" and not place.endswith("/favicon.ico"):  # the browser's wish
                heard(f"{message.text} ({place})")

        page.on("console", said)
        page.on("pageerror", lambda error: heard(f"uncaught: {error}"))
        return page

    yield new_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(new_page: NewPage) -> Page:
    """A page at 1280 × 800, in light colours."""
    return new_page()

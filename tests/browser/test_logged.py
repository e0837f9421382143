"""What a step logs, in its panel in a browser, while it runs."""

from __future__ import annotations

import asyncio
import logging

from playwright.sync_api import Page, expect

from perdure import Engine, step, workflow
from tests.http.support import Serve, Served

log = logging.getLogger("tests.browser")
said: asyncio.Queue[str | None] = asyncio.Queue()


@step
async def speaks() -> None:
    log.setLevel(logging.INFO)
    while (text := await said.get()) is not None:
        log.info(text)
    try:
        raise ValueError("at its end")
    except ValueError:
        log.exception("it failed")


@workflow
async def spoken() -> None:
    await speaks()


def say(site: Served, text: str | None) -> None:
    async def put(engine: Engine) -> None:
        said.put_nowait(text)

    site.do(put)


def test_lines_come_in_while_the_step_runs(serve: Serve, page: Page) -> None:
    site = serve(workflows=[spoken])
    site.do(lambda engine: engine.start(spoken(), id="s"))
    page.goto(site.url + "/runs/s?step=2")
    panel = page.get_by_role("complementary")
    expect(panel).to_contain_text("running")
    for text in ("the first line", "<b>the second</b>"):
        say(site, text)
        expect(panel.get_by_label("Lines that the step has logged")).to_contain_text(text)
    say(site, None)
    expect(panel.locator(".logged .bad")).to_contain_text("ValueError: at its end")
    expect(panel).to_contain_text("completed")

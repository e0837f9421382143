"""The lists in a browser: filters, live rows, many runs at once, keys, small screens, axe."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from perdure import Engine, Every, Queue, Retry, Schedule, receive, step, workflow
from tests.browser.axe import CONTRAST, faults
from tests.browser.conftest import NewPage
from tests.http.support import Serve, Served

PAGES = (
    "/", "/queues/model", "/schedules/nightly", "/system?check=all",
    "/sql?text=SELECT+id%2C+status%2C+tags+FROM+perdure_runs",
    "/?status=failed&q=nothing", "/queues", "/schedules", "/workers",
)  # fmt: skip


@step(retry=Retry(attempts=1))
async def parse(day: str) -> str:
    raise ValueError(f"{day} is no day")


@workflow
async def sync(day: str) -> str:
    return await parse(day)


@workflow
async def agent(goal: str) -> str:
    return goal if await receive("approval", bool) else ""


@step(queue="model", key=lambda customer: customer)
async def ask(customer: str) -> str:
    await asyncio.get_running_loop().create_future()  # until its run is cancelled
    return customer


@workflow
async def support(customer: str) -> str:
    return await ask(customer)


@workflow
async def digest() -> int:
    return 7


async def filled(engine: Engine) -> None:
    """Runs of several statuses."""
    for number in range(3):
        await engine.start(agent("write"), id=f"report-{number}", tags={"tenant": "acme"})
        await engine.start(sync("someday"), id=f"sync-{number}")
        await engine.start(support("acme"), id=f"ask-{number}")
    for number in range(3):
        run = await engine.get(f"sync-{number}")
        with pytest.raises(Exception, match="is no day"):
            await run.result()
    await engine.pause("report-2")


@pytest.fixture(scope="module")
def site(serve: Serve) -> Served:
    """A store with runs, queues and schedules."""
    served = serve(
        workflows=[agent, sync, support, digest],
        queues=[Queue("model", concurrency=2), Queue("night", paused=True)],
        schedules=[
            Schedule("nightly", "30 2 * * *", digest(), tz="Europe/Berlin"),
            Schedule("poll", Every(timedelta(days=300)), digest(), paused=True),
        ],
    )
    served.do(filled)
    return served


@pytest.fixture(scope="module")
def empty(serve: Serve) -> Served:
    """A store without anything, whose engine knows a workflow."""
    return serve(workflows=[agent, digest])


def rows(page: Page) -> Any:
    return page.locator("tr[data-run]")


def picked(page: Page, id: str) -> Any:
    return page.locator(f'tr[data-run="{id}"] input[name="id"]')


def test_filters_are_the_address(site: Served, page: Page) -> None:
    page.goto(site.url + "/")
    expect(rows(page)).to_have_count(9)
    page.get_by_role("link", name="failed 3").click()
    expect(rows(page)).to_have_count(3)
    page.keyboard.press("/")
    page.keyboard.type("sync-1 workflow:sync")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(1)
    expect(page).to_have_url(f"{site.url}/?status=failed&workflow=sync&q=sync-1")
    page.go_back()
    expect(rows(page)).to_have_count(3)
    page.go_forward()
    expect(page.locator("[data-filter]")).to_have_value("sync-1")
    page.get_by_label("Workflow Any workflow").select_option("agent")
    expect(page.get_by_role("heading", name="No run matches")).to_be_visible()
    page.get_by_role("link", name="Drop the filter text sync-1").click()
    page.get_by_role("link", name="drop status failed").click()
    expect(rows(page)).to_have_count(3)
    page.locator("tr[data-run]").first.get_by_role("link", name="tenant=acme").click()
    expect(page).to_have_url(site.url + "/?workflow=agent&tag=tenant%3Dacme")


def test_a_view_is_saved_and_columns_are_chosen(site: Served, page: Page) -> None:
    page.goto(site.url + "/?status=failed")
    page.get_by_text("Views", exact=True).click()
    page.get_by_placeholder("Name of this view").fill("what failed")
    page.get_by_role("button", name="Save").click()
    page.goto(site.url + "/?workflow=agent")
    page.get_by_text("Views", exact=True).click()
    page.get_by_role("link", name="what failed").click()
    expect(page).to_have_url(site.url + "/?status=failed")
    page.goto(site.url + "/?workflow=agent")
    page.get_by_text("Columns", exact=True).click()
    page.get_by_role("checkbox", name="Took").uncheck()
    page.get_by_label("Tags as columns").fill("tenant")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(site.url + "/?workflow=agent")
    heads = page.locator("table.runs th")
    expect(heads.filter(has_text="Took")).to_have_count(0)
    expect(heads.filter(has_text="tenant")).to_have_count(1)


def test_many_runs_are_cancelled_after_it_was_said_what_happens(serve: Serve, page: Page) -> None:
    served = serve(workflows=[agent, sync, digest])

    async def some(engine: Engine) -> None:
        for number in range(4):
            await engine.start(agent("write"), id=f"report-{number}")
        await (await engine.start(digest(), id="digest")).result()

    served.do(some)
    page.goto(served.url + "/")
    page.get_by_label("Select report-3").check()
    page.keyboard.press("Escape")
    page.get_by_label("Select report-1").click(modifiers=["Shift"])
    page.get_by_label("Select digest").check()
    expect(page.get_by_text("4 selected")).to_be_visible()
    page.keyboard.press("x")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Cancel 3 runs?")).to_be_visible()
    expect(page.get_by_text("it has ended")).to_be_visible()
    page.get_by_role("button", name="Cancel 3 runs").click()
    expect(page.get_by_role("heading", name="3 runs are asked to end")).to_be_visible()
    page.get_by_role("link", name="Back to the list").click()
    for number in (1, 2, 3):
        row = page.locator(f'tr[data-run="report-{number}"]')
        expect(row.get_by_text("cancelled")).to_be_visible()
    page.get_by_role("link", name="waiting 1").click()
    page.get_by_label("Select report-0").check()
    page.get_by_role("button", name="Pause…").click()
    page.get_by_role("button", name="Pause 1 run").click()
    page.get_by_role("link", name="Back to the list").click()
    expect(page).to_have_url(served.url + "/?status=waiting")
    expect(rows(page)).to_have_count(0)


def test_rows_are_live_and_new_ones_wait_for_a_key(serve: Serve, page: Page) -> None:
    served = serve(workflows=[agent, digest])
    page.goto(served.url + "/")
    expect(page.get_by_role("heading", name="No run yet")).to_be_visible()
    expect(page.locator("#live-state")).to_have_text("live")
    served.do(lambda engine: engine.start(agent("write"), id="first"))
    expect(rows(page)).to_have_count(1)  # where there was nothing, nothing can jump
    expect(rows(page)).to_contain_text("waiting")
    served.do(lambda engine: engine.send("first", True, channel="approval"))
    expect(rows(page)).to_contain_text("completed")
    expect(page.locator("#inbox-count")).to_be_hidden()
    served.do(lambda engine: engine.start(agent("write"), id="second"))
    newer = page.get_by_role("button", name="1 new, press")
    expect(newer).to_be_visible()
    expect(rows(page)).to_have_count(1)
    expect(page.get_by_role("link", name="waiting 1")).to_be_visible()
    page.keyboard.press(".")
    expect(rows(page)).to_have_count(2)
    expect(newer).to_be_hidden()
    expect(page.locator("#inbox-count")).to_have_text("1 waiting")
    page.get_by_role("link", name="waiting 1").click()
    expect(page.locator("#live-state")).to_have_text("live")
    served.do(lambda engine: engine.send("second", True, channel="approval"))
    expect(rows(page)).to_have_class("gone")  # and stays where it is
    page.keyboard.press(".")
    expect(rows(page)).to_have_count(0)


def test_keys_move_pick_and_open(site: Served, page: Page) -> None:
    page.goto(site.url + "/?status=failed")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    first = rows(page).first.get_attribute("data-run")
    assert first is not None
    expect(page.locator(f'tr[data-run="{first}"] a.run')).to_be_focused()
    page.keyboard.press("Space")
    expect(picked(page, first)).to_be_checked()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Select the run")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/runs/{first}")
    expect(page.locator("#live-state")).to_have_text("live")  # its scripts have begun
    page.keyboard.press("g")
    page.keyboard.press("q")
    expect(page).to_have_url(site.url + "/queues")


def test_a_queue_is_paused_and_limited_where_it_is_shown(site: Served, new_page: NewPage) -> None:
    page = new_page(expected=("status of 422",))
    page.goto(site.url + "/queues")
    page.get_by_role("row", name="night").get_by_role("button", name="Resume").click()
    page.get_by_text("Limits…").click()
    page.get_by_label("At once", exact=True).fill("many")
    page.get_by_role("button", name="Set the limits").click(no_wait_after=True)
    expect(page.get_by_role("alert")).to_contain_text("'many' is no limit")
    expect(page.get_by_label("At once", exact=True)).to_have_value("many")
    page.get_by_label("At once", exact=True).fill("5")
    page.get_by_label("Rate", exact=True).fill("30")
    page.get_by_label("Rate: seconds", exact=True).fill("60")
    page.get_by_role("button", name="Set the limits").click()
    expect(page.get_by_text("30 per 1 min")).to_be_visible()
    queue = next(one for one in site.do(lambda engine: engine.queues()) if one.name == "night")
    assert (queue.concurrency, queue.paused) == (5, False)


def test_a_schedule_is_steered(site: Served, page: Page) -> None:
    page.goto(site.url + "/schedules/nightly")
    expect(page.locator(".ticks li")).to_have_count(10)
    page.get_by_text("Backfill…").click()
    page.get_by_label("From").fill("2026-10-24T00:00")
    page.get_by_label("Until").fill("2026-10-27T00:00")
    page.get_by_role("button", name="Show the runs").click()
    expect(page.get_by_text("nightly@2026-10-25T02:30:00+02:00")).to_be_visible()
    page.get_by_role("button", name="Start them").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_text("Pause…").click()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("paused", exact=True)).to_be_visible()
    page.get_by_text("Trigger…").click()
    page.get_by_role("button", name="Start a run now").click()
    expect(page).to_have_url(re.compile("-trigger$"))


def test_sql_is_an_address(site: Served, new_page: NewPage) -> None:
    page = new_page(expected=("status of 422",))
    page.goto(site.url + "/sql")
    page.get_by_role("link", name="Runs of each workflow").click()
    expect(page.locator("table.data tbody tr").first).to_contain_text("agent")
    page.locator("textarea").fill("DELETE FROM run")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nobody_is_left_out(site: Served, empty: Served, new_page: NewPage, dark: bool) -> None:
    page = new_page(dark=dark)
    found = []
    pages = PAGES[:5] if dark else PAGES  # the others have nothing that these have not
    for address in (*(site.url + one for one in pages), empty.url + "/"):
        page.goto(address)
        found += faults(page, CONTRAST if dark else ())
    assert found == []


def test_nothing_scrolls_sideways_on_a_phone(
    site: Served, empty: Served, new_page: NewPage
) -> None:
    page = new_page(width=390, height=844)
    for address in (*(site.url + one for one in PAGES), empty.url + "/"):
        page.goto(address)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, address


def test_pages_are_read_without_javascript(site: Served, new_page: NewPage) -> None:
    page = new_page(javascript=False)
    page.goto(site.url + "/?status=failed")
    expect(rows(page)).to_have_count(3)
    page.get_by_label("Select sync-1").check()
    page.get_by_role("button", name="Retry…").click()
    page.get_by_role("button", name="Retry 1 run").click()
    expect(page.get_by_role("heading", name="1 run is being tried again")).to_be_visible()

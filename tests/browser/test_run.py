"""The page of a run in a browser: live, large, by keyboard, for screen readers, on a phone."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from perdure import Engine, Retry, RunFailed, current_step, emit, receive, step, workflow
from perdure.http.pages import run as run_pages
from tests.browser.axe import CONTRAST, faults
from tests.browser.conftest import NewPage
from tests.http.support import Serve, Served

TRIES = Retry(attempts=3, delay=0.001, jitter=False)
STEPS = 5_000
tried: dict[str, int] = {}


@step(retry=TRIES)
async def charge(order: str) -> str:
    tried[order] = tried.get(order, 0) + 1
    if order == "lost" or tried[order] < 3:
        raise ConnectionError("503 Service Unavailable")
    return f"receipt of {order}"


@step
async def check(item: int) -> int:
    return item


@step
async def weigh(item: int) -> int:
    return item


@workflow
async def pack(item: int) -> int:
    return await check(item)


@workflow
async def order(id: str) -> str:
    await asyncio.gather(*map(check, range(40)))
    receipt = await charge(id)
    await pack(7)
    return receipt


@workflow
async def large() -> int:
    found = await asyncio.gather(*(weigh(n) if n % 2 else check(n) for n in range(STEPS)))
    return len(found)


@step
async def think(messages: list[dict[str, str]]) -> dict[str, str]:
    for word in ("It", "will", "rain."):
        emit("words", word)
    return {"role": "assistant", "content": "It will rain."}


@workflow
async def agent(question: str) -> str:
    messages = [{"role": "user", "content": question}]
    while True:
        messages.append(await think(messages))
        messages.append({"role": "user", "content": await receive("question", str)})


@step(retry=TRIES)
async def write() -> None:
    attempt = current_step().attempt
    for text in ("Fi", "ne\n", "wea", "ther"):
        emit("words", {"attempt": attempt, "text": text})
    if attempt == 1:
        raise ConnectionError("503")


@workflow
async def writer() -> None:
    emit("words", {"text": "It:"})
    await receive("go", bool)
    await write()
    emit("words", {"done": True})


@workflow
async def folds() -> None:
    for n in range(7):
        await check(n)
    await weigh(1)
    await receive("go", bool)
    for n in range(6):
        await weigh(n)


async def filled(engine: Engine) -> None:
    await engine.run(order("17"), id="order-17")
    with pytest.raises(RunFailed):
        await engine.run(order("lost"), id="lost")
    await engine.run(large(), id="large")
    await engine.start(agent("Weather?"), id="agent")


@pytest.fixture(scope="module")
def site(serve: Serve) -> Served:
    served = serve(workflows=[order, large, agent, writer, folds])
    served.do(filled)
    return served


def rows(page: Page) -> list[str]:
    """The names of the bars in sight, as a screen reader says them."""
    return [
        str(one.get_attribute("aria-label"))
        for one in page.locator(".wf-row:not([hidden]) button").all()
    ]


def test_a_run_is_a_tree_of_named_bars_for_keys_and_screen_readers(
    site: Served, page: Page
) -> None:
    page.goto(site.url + "/runs/order-17")
    grid = page.get_by_role("treegrid")
    expect(grid).to_have_attribute("aria-rowcount", "4")  # 40 equal steps are one row
    names = rows(page)
    assert names[0].startswith("step check, 40 of them, folded, all ended well")
    assert names[1].startswith("step charge, attempt 3, completed, ")
    assert names[2].startswith("child pack, completed, ")
    page.locator(".wf-row").first.focus()
    page.keyboard.press("ArrowRight")
    expect(grid).to_have_attribute("aria-rowcount", "44")
    page.keyboard.press("ArrowLeft")
    expect(grid).to_have_attribute("aria-rowcount", "4")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    panel = page.get_by_role("complementary")
    expect(panel).to_contain_text("receipt of 17")
    expect(panel).to_contain_text("ConnectionError: 503 Service Unavailable")
    expect(page).to_have_url(site.url + "/runs/order-17?step=82")
    page.keyboard.press("]")
    expect(panel).to_contain_text("child, row")
    page.go_back()
    expect(panel).to_contain_text("receipt of 17")
    page.keyboard.press("Escape")
    expect(panel).to_contain_text("Output")
    expect(page).to_have_url(site.url + "/runs/order-17")
    page.goto(site.url + "/runs/order-17?step=20")  # inside what is folded
    expect(page.locator(".wf-row[aria-selected=true]")).to_be_visible()


def test_errors_alone_and_the_slowest_first(site: Served, page: Page) -> None:
    page.goto(site.url + "/runs/lost")
    expect(page.get_by_role("alert")).to_contain_text("Step charge failed after 3 attempts")
    expect(page.locator(".wf-row:not([hidden])")).to_have_count(2)
    page.keyboard.press("e")
    expect(page.locator(".wf-row:not([hidden])")).to_have_count(1)
    assert rows(page)[0].startswith("step charge, attempt 3, failed, ")
    page.keyboard.press("e")
    page.keyboard.press("s")
    expect(page.locator(".wf-row:not([hidden])")).to_have_count(41)
    page.keyboard.press("+")
    page.keyboard.press("f")
    page.keyboard.press("i")


def test_ten_thousand_events_are_a_few_elements(site: Served, page: Page) -> None:
    page.goto(site.url + "/runs/large")
    grid = page.get_by_role("treegrid")
    expect(grid).to_have_attribute("aria-rowcount", str(STEPS + 1))
    assert page.locator(".wf-row").count() < 80
    page.keyboard.press("End")  # of the page
    last = page.locator(f'.wf-row[aria-rowindex="{STEPS + 1}"]')
    expect(last).to_be_in_viewport()
    expect(last).to_contain_text(f"item={STEPS - 1}")
    assert page.locator(".wf-row").count() < 80
    last.locator("button").click()
    expect(page.get_by_role("complementary")).to_contain_text(str(STEPS - 1))


def test_steps_by_name_are_a_row_each_and_large_runs_come_in_parts(
    site: Served, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_pages, "COLUMNS_ROWS", 4_000)
    page.goto(site.url + "/runs/large")
    grid = page.get_by_role("treegrid")
    expect(grid).to_have_attribute("aria-rowcount", str(STEPS + 1))
    expect(page.locator(".wf-summary")).to_have_text("5,000 steps")
    page.keyboard.press("b")
    expect(grid).to_have_attribute("aria-rowcount", "3")
    assert [name.split(" of them")[0] for name in rows(page)] == [
        "step check, 2,500",
        "step weigh, 2,500",
    ]
    first = page.locator('.wf-row[aria-rowindex="2"]')
    expect(first).to_contain_text("×2,500")
    expect(first).to_contain_text("together")
    first.focus()
    page.keyboard.press("ArrowRight")
    expect(grid).to_have_attribute("aria-rowcount", "2503")
    page.get_by_role("button", name="By name").click()
    expect(grid).to_have_attribute("aria-rowcount", str(STEPS + 1))


def test_what_is_not_loaded_yet_is_neither_idle_nor_open(
    site: Served, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_pages, "COLUMNS_ROWS", 5_500)
    parts: list[Route] = []
    page.route(
        "**/waterfall.json?after=*", lambda part: parts.append(part)
    )  # the second part does not come yet

    def late(route: Route) -> None:
        """The first part, of a run that went on for an hour."""
        answer = route.fetch()
        run = answer.json()
        route.fulfill(response=answer, json=run | {"ended_ms": run["ended_ms"] + 3_600_000})

    page.route("**/waterfall.json", late)
    with page.expect_request("**/waterfall.json?after=*"):
        page.goto(site.url + "/runs/large")
    summary = page.locator(".wf-summary")
    expect(summary).to_have_text("5,000 steps · up to row 5,500 of 10,002")
    page.keyboard.press("b")
    first = page.locator('.wf-row[aria-rowindex="2"]')
    expect(first).to_contain_text("×2,500")
    expect(first).not_to_contain_text("open")
    parts[0].continue_()
    expect(summary).to_have_text("5,000 steps")


async def emitted(engine: Engine, id: str) -> None:
    """Wait until a run has emitted something: the page of an empty stream says so, and stays."""
    async for _ in (await engine.get(id)).stream("words"):
        return


def test_steps_words_and_messages_come_in_live(site: Served, new_page: NewPage) -> None:
    id, at = "a/b: ä %", site.url + "/runs/a%2Fb%3A%20%C3%A4%20%25"
    site.do(lambda engine: engine.start(agent("Weather?"), id=id))
    site.do(lambda engine: emitted(engine, id))
    waterfall, stream, chat = (new_page() for _ in range(3))
    waterfall.goto(at)
    stream.goto(at + "?view=stream")
    chat.goto(at + "?view=chat")
    expect(waterfall.locator(".wf-row:not([hidden])")).to_have_count(2)  # a step, and the wait
    assert rows(waterfall)[1].startswith("message question, waiting, ")
    expect(stream.locator("#stream span")).to_have_count(3)
    site.do(lambda engine: engine.send(id, "And tomorrow?", channel="question"))
    expect(waterfall.locator(".wf-row:not([hidden])")).to_have_count(4)
    expect(stream.locator("#stream span")).to_have_count(6)
    expect(chat.locator(".said.user")).to_have_count(2)
    waterfall.get_by_text("Cancel…").click()
    waterfall.get_by_role("button", name="Cancel this run").click()
    expect(waterfall.locator("#run-head")).to_contain_text("cancelled")


def test_texts_of_items_come_in_as_one_text_with_a_line_between_attempts(
    site: Served, page: Page
) -> None:
    site.do(lambda engine: engine.start(writer(), id="writer"))
    site.do(lambda engine: emitted(engine, "writer"))
    page.goto(site.url + "/runs/writer?view=stream")
    stream = page.locator("#stream")
    expect(stream.locator("span")).to_have_count(1)
    site.do(lambda engine: engine.send("writer", True, channel="go"))
    expect(stream.locator("code")).to_have_text('{"done":true}')
    expect(stream.locator(".again")).to_have_text("attempt 2")
    live = stream.inner_text()
    assert live.split() == [
        "It:Fine",
        "weather",
        "attempt",
        "2",
        "Fine",
        "weather",
        '{"done":true}',
    ]
    page.reload()
    assert stream.inner_text() == live
    page.get_by_role("link", name="each item").click()
    expect(stream.locator("code")).to_have_count(10)


WORKER = """
import asyncio, sys
from pathlib import Path
from perdure import Engine, step, workflow

@step
async def wait_for(file: str) -> str:
    while not Path(file).exists():
        await asyncio.sleep(0.01)
    return file

@workflow
async def patient(folder: str) -> int:
    return len([await wait_for(f"{folder}/{name}") for name in ("one", "two")])

async def main():
    async with Engine(sys.argv[1], workflows=[patient], lease_ttl=1) as engine:
        run = await engine.start(patient(sys.argv[2]), id="patient")
        print("working", flush=True)
        await run.result()

asyncio.run(main())
"""


def worker(store: str, folder: Path) -> subprocess.Popen[str]:
    """A process that executes a run which waits for files."""
    command = [sys.executable, "-c", WORKER, store, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


def test_a_killed_worker_is_seen_and_its_successor_too(
    serve: Serve, page: Page, tmp_path: Path
) -> None:
    store = str(tmp_path / "shared.db")
    served = serve(store=store, execute=False)
    first = worker(store, tmp_path)
    page.goto(served.url + "/runs/patient")
    bars, head = page.locator(".wf-row:not([hidden])"), page.locator("#run-head")
    expect(bars).to_have_count(1)
    expect(bars.locator("button")).to_have_attribute("aria-label", re.compile("running"))
    first.kill()
    first.communicate()
    expect(head).to_contain_text("has gone")  # nothing is written when a lease runs out
    expect(head).to_contain_text("No worker is running")
    (tmp_path / "one").touch()
    second = worker(store, tmp_path)
    expect(bars).to_have_count(2)  # the second step has begun, without a reload
    (tmp_path / "two").touch()
    expect(head).to_contain_text("completed")
    second.communicate()
    assert second.returncode == 0
    assert [name.split(", ")[0] for name in rows(page)] == ["step wait_for"] * 2
    assert "completed" in rows(page)[0]


def test_the_focus_stays_on_its_row_when_rows_above_are_folded(site: Served, page: Page) -> None:
    site.do(lambda engine: engine.start(folds(), id="folds"))
    page.goto(site.url + "/runs/folds")
    grid = page.get_by_role("treegrid")
    expect(grid).to_have_attribute("aria-rowcount", "10")  # with the head, and the wait
    page.locator('.wf-row[aria-rowindex="9"]').focus()
    focused = page.locator(".wf-row:focus")
    expect(focused).to_contain_text("weigh")
    site.do(lambda engine: engine.send("folds", True, channel="go"))
    expect(page.locator("#run-head")).to_contain_text("completed")
    expect(focused).to_have_attribute("aria-rowindex", "3")
    expect(focused).to_contain_text("weigh")
    page.keyboard.press("Enter")
    close = page.get_by_role("link", name="Close the panel")
    close.focus()
    close.press("Enter")
    expect(focused).to_contain_text("weigh")


def test_an_update_that_fails_is_asked_for_again(site: Served, new_page: NewPage) -> None:
    site.do(lambda engine: engine.start(agent("Weather?"), id="missed"))
    words, run, runs = (new_page(expected=("Failed to load", "htmx:error")) for _ in range(3))
    words.goto(site.url + "/runs/missed?view=stream")
    run.goto(site.url + "/runs/missed")
    runs.goto(site.url + "/?workflow=agent")
    said, bars = words.locator("#stream span"), run.locator(".wf-row:not([hidden])")
    listed = runs.locator('tr[data-run="missed"]')
    expect(said).to_have_count(3)
    expect(bars).to_have_count(2)
    expect(listed).to_contain_text("waiting")
    refused: set[str] = set()

    def once(route: Route) -> None:
        address, headers = route.request.url, route.request.headers
        if "hx-request" not in headers or address in refused:
            route.continue_()
            return
        refused.add(address)
        if "stream" in address:
            route.abort()  # as a server that begins again
        else:
            route.fulfill(status=503)

    for page in (words, run, runs):
        page.route(re.compile("missed|workflow"), once)
    site.do(lambda engine: engine.send("missed", "And tomorrow?", channel="question"))
    expect(said).to_have_count(6)
    expect(bars).to_have_count(4)
    site.do(lambda engine: engine.cancel("missed"))
    expect(run.locator("#run-head")).to_contain_text("cancelled")
    expect(listed).to_contain_text("cancelled")
    assert len(refused) >= 4, refused


ADDRESSES = (
    "/runs/order-17?step=82", "/runs/lost", "/runs/agent?view=chat", "/runs/lost?view=log",
    "/runs/order-17?view=table", "/runs/order-17?view=tree", "/runs/agent?view=stream",
)  # fmt: skip


def opened(page: Page, address: str) -> Page:
    page.goto(address)
    if "view" not in address:
        expect(page.locator(".wf-row").first).to_be_visible()
    return page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_finding_of_axe(site: Served, new_page: NewPage, dark: bool) -> None:
    page, rules = new_page(dark=dark), CONTRAST if dark else ()
    found = [faults(opened(page, site.url + address), rules) for address in ADDRESSES]
    assert [one for one in found if one] == []


def test_a_phone_scrolls_down_only(site: Served, new_page: NewPage) -> None:
    page = new_page(width=390)
    beside = "document.documentElement.scrollWidth - innerWidth"
    for address in ADDRESSES:
        assert opened(page, site.url + address).evaluate(beside) <= 0, address
    boxes = [opened(page, site.url + "/runs/large").locator(one).bounding_box()
             for one in (".wf-zoom", '.wf-tools [data-do="errors"]', ".wf-axis")]  # fmt: skip
    edges = [(one["y"], one["y"] + one["height"]) for one in boxes if one is not None]
    assert edges[0][1] <= edges[1][0] + 1 < edges[1][1] <= edges[2][0] + 1, "above each other"


def test_text_that_turns_its_direction_is_seen_as_that(site: Served, page: Page) -> None:
    site.do(lambda engine: engine.start(agent("evil \u202e 40"), id="turned"))
    page.goto(site.url + "/runs/turned")
    expect(page.locator(".wf-label").first).to_contain_text("evil \\u202e 40")


def test_without_javascript_there_is_a_table(site: Served, new_page: NewPage) -> None:
    page = new_page(javascript=False)
    page.goto(site.url + "/runs/lost")
    expect(page.get_by_role("alert")).to_contain_text("503 Service Unavailable")
    page.get_by_role("link", name="a table").click()
    page.get_by_role("link", name="failed or tried again").click()
    expect(page.locator("table.steps tbody tr")).to_have_count(1)
    page.get_by_role("link", name="charge").click()
    expect(page.get_by_role("complementary")).to_contain_text("Attempts")


def test_what_is_open_stays_open_while_the_run_goes_on(site: Served, page: Page) -> None:
    site.do(lambda engine: engine.start(agent("Weather?"), id="open"))
    page.goto(site.url + "/runs/open")
    facts = page.locator(".run-facts")
    expect(facts).to_contain_text(re.compile(r"rows\s*3"))
    page.get_by_text("Cancel…").click()
    site.do(lambda engine: engine.send("open", "And tomorrow?", channel="question"))
    expect(facts).to_contain_text(re.compile(r"rows\s*6"))
    expect(page.get_by_role("button", name="Cancel this run")).to_be_visible()

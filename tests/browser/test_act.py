"""What people do in the pages: start by a form, approve, travel in time, fork, compare, links."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from perdure import Engine, Retry, Secret, receive, step, workflow
from perdure.views import moment as moments
from tests.browser.axe import CONTRAST, faults
from tests.browser.conftest import NewPage
from tests.http.support import Serve, Served
from tests.runtime.support import reached


@dataclasses.dataclass
class Change:
    item: str
    count: int = 1


@dataclasses.dataclass
class Verdict:
    publish: bool
    tone: Literal["as it is", "softer"] = "as it is"
    changes: list[Change] = dataclasses.field(default_factory=list)
    more: Change | None = None


@step
async def search(topic: str, page: int) -> list[str]:
    return [f"{topic} {page}"]


@workflow
async def report(topic: str, pages: int = 2) -> str:
    """Write a report, and ask whether it may be published."""
    found = [one for n in range(pages) for one in await search(topic, n)]
    verdict = await receive("verdict", Verdict, prompt=f"Publish {', '.join(found)}?")
    return f"{verdict.publish} {verdict.tone} {[one.count for one in verdict.changes]}"


@workflow
async def refund(cents: int) -> bool:
    return await receive("approval", bool, prompt=f"Pay back {cents} cents?")


@workflow
async def login(user: str, password: Secret) -> int:
    return len(password.reveal())


@pytest.fixture(scope="module")
def served(serve: Serve) -> Served:
    served = serve(workflows=[report, refund, login])

    async def fill(engine: Engine) -> None:
        for run in (
            await engine.start(report("tea"), id="tea"),
            await engine.start(report("milk"), id="milk"),
            await engine.start(refund(500), id="refund"),
        ):
            await reached(run, "waiting")

    served.do(fill)
    return served


def ended(served: Served, id: str) -> Any:
    async def result(engine: Engine) -> Any:
        return await (await engine.get(id)).result()

    return served.do(result)


def test_a_run_is_started_by_a_form_which_shows_itself_as_code(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/start")
    page.get_by_role("link", name="report").click()
    page.get_by_label("topic").fill("coffee")
    page.get_by_text("Options").click()
    page.get_by_label("Id").fill("coffee-1")
    expect(page.locator("#code")).to_contain_text("report(topic='coffee', pages=2)")
    expect(page.locator("#code")).to_contain_text('"id":"coffee-1"')
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/runs/coffee-1")
    page.goto(f"{served.url}/start/report?again=coffee-1")
    assert page.get_by_label("topic").input_value() == "coffee"


def test_a_secret_that_is_typed_is_shown_nowhere_and_sent_only_with_the_start(
    served: Served, page: Page
) -> None:
    bodies: list[str] = []
    page.on("request", lambda one: bodies.append(one.post_data or ""))
    page.goto(f"{served.url}/start/login")
    page.get_by_label("password").fill("sk-zzzsecret")
    page.get_by_label("user").fill("ada")
    expect(page.locator("#code")).to_contain_text("login(user='ada', password=Secret(\"…\"))")
    expect(page.locator("#code")).to_contain_text("'\"$PASSWORD\"'")
    assert not any("zzz" in body for body in bodies)
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/runs/*")
    assert ended(served, page.url.rpartition("/")[2]) == len("sk-zzzsecret")


def test_approval_in_the_inbox(served: Served, new_page: NewPage) -> None:
    page = new_page(expected=("422",))
    page.goto(f"{served.url}/inbox")
    card = page.locator("article", has_text="Pay back 500 cents?")
    card.get_by_role("button", name="Yes").click()
    expect(page.get_by_role("status").filter(has_text="Answered")).to_be_visible()
    assert ended(served, "refund") is True

    card = page.locator("article", has_text="Publish milk 0, milk 1?")
    card.get_by_label("softer").check()
    card.get_by_role("button", name="Add an item").click()
    page.locator("[name='v/changes/0/item']").fill("title")
    page.locator("[name='v/changes/0/count']").fill("a few")
    page.get_by_label("No", exact=True).check()
    page.get_by_role("button", name="Send the answer").click()
    expect(page.get_by_text("This is a whole number.")).to_be_visible()
    page.locator("[name='v/changes/0/count']").fill("3")
    page.get_by_role("button", name="Send the answer").click()
    page.wait_for_url("**/inbox?done=milk&at=*")
    expect(page.get_by_text("Publish milk")).to_have_count(0)
    assert ended(served, "milk") == "False softer [3]"
    expect(page.get_by_role("cell", name="local").first).to_be_visible()


def test_nothing_that_is_typed_is_taken_away_by_what_arrives(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/inbox")
    card = page.locator("article", has_text="Publish tea")
    card.get_by_role("button", name="As JSON").click()
    page.goto(f"{served.url}/inbox")
    field = page.locator("article", has_text="Publish tea").get_by_label("softer")
    field.check()
    with page.expect_response(lambda one: "/nav" in one.url):  # the badge hears of the new run
        served.do(lambda engine: engine.start(refund(7), id="refund-7"))
    expect(page.get_by_role("button", name="Something changed")).to_be_visible()
    expect(field).to_be_checked()


def test_a_link_answers_once_in_a_browser_without_a_login(
    served: Served, new_page: NewPage
) -> None:
    served.do(lambda engine: engine.start(refund(9), id="linked"))
    page = new_page()
    page.goto(f"{served.url}/inbox/linked")
    page.get_by_text("Ask by a link").click()
    page.get_by_label("For whom").fill("ada@example.org")
    page.get_by_role("button", name="Make the link").click()
    address = page.locator(".alert pre").inner_text()
    stranger = new_page(width=390, height=844, javascript=False, expected=("410",))
    stranger.goto(address)
    assert stranger.evaluate("document.documentElement.scrollWidth") <= 390
    stranger.get_by_role("button", name="No").click()
    expect(stranger.get_by_role("heading", name="Thank you.")).to_be_visible()
    assert ended(served, "linked") is False
    stranger.goto(address)
    expect(stranger.get_by_text("It was used at")).to_be_visible()


def test_a_fork_by_the_slider_and_the_two_runs_side_by_side(served: Served, page: Page) -> None:
    page.goto(f"{served.url}/runs/tea/travel")
    slider = page.get_by_label("Moment", exact=True)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**/travel?at=3")
    expect(page.get_by_text("It knew 1 answer")).to_be_visible()
    page.keyboard.press("[")
    page.wait_for_url("**/travel?at=1")
    page.keyboard.press("]")
    page.wait_for_url("**/travel?at=3")
    page.get_by_role("link", name="Fork from here").click()
    page.get_by_label("With another result").first.check()
    page.locator("textarea[name=result]").fill('["lemonade"]')
    expect(page.locator("#changes .plus")).to_contain_text("lemonade")
    page.get_by_label("Id of the fork").fill("lemonade")
    page.get_by_role("button", name="Start the fork").click()
    page.wait_for_url("**/runs/lemonade")
    page.goto(f"{served.url}/inbox/lemonade")
    expect(page.get_by_role("heading", name="Publish lemonade, tea 1?")).to_be_visible()
    page.goto(f"{served.url}/compare?a=tea&b=lemonade")
    expect(page.get_by_text("Both are the same until row 2")).to_be_visible()
    expect(page.locator("#first")).to_contain_text("result")


def test_the_slider_of_a_long_history_reaches_all_of_it(
    served: Served, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a part of the moments, and a key goes to the next one of all."""
    monkeypatch.setattr(moments, "STOPS_MAX", 4)

    async def fill(engine: Engine) -> None:
        run = await engine.start(report("cake", 20), id="cake")
        await reached(run, "waiting")

    served.do(fill)
    page.goto(f"{served.url}/runs/cake/travel")
    expect(page.get_by_text("of its moments; the arrows go to each")).to_be_visible()
    slider = page.get_by_label("Moment", exact=True)
    slider.focus()
    for row in (39, 37, 35):
        page.keyboard.press("ArrowLeft")
        page.wait_for_url(f"**/travel?at={row}")
    page.keyboard.press("Home")
    page.wait_for_url("**/travel?at=1")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/travel?at=3")
    page.keyboard.press("End")
    page.wait_for_url("**/travel?at=41")


PAGES = [
    "/inbox", "/start", "/start/report", "/runs/tea/travel?at=3", "/runs/tea/fork?at=3&how=result",
    "/compare?a=tea&b=lemonade",
]  # fmt: skip


def test_pages_are_accessible_and_fit_a_phone(served: Served, new_page: NewPage) -> None:
    light, dark = new_page(), new_page(width=390, height=844, dark=True)
    for path in PAGES:
        light.goto(served.url + path)
        assert faults(light) == []
        dark.goto(served.url + path)
        assert faults(dark, CONTRAST) == []
        assert dark.evaluate("document.documentElement.scrollWidth") <= 390, path


# --- a step that waits for its next attempt -------------------------------------------------------

bank_is_up: list[bool] = []


@step(retry=Retry(attempts=3, delay=3_600, max_delay=3_600))
async def charge(card: str) -> str:
    if not bank_is_up:
        raise ConnectionError("503 Service Unavailable")
    return f"charged {card}"


@workflow
async def pays(card: str) -> str:
    return await charge(card)


def test_a_waiting_attempt_begins_by_a_button(serve: Serve, page: Page) -> None:
    bank_is_up.clear()
    site = serve(workflows=[pays])

    async def begin(engine: Engine) -> None:
        for id in ("from-the-head", "from-the-panel"):
            await reached(await engine.start(pays("4711"), id=id), "waiting")

    site.do(begin)
    bank_is_up.append(True)
    page.goto(site.url + "/runs/from-the-head")
    expect(page.locator(".why")).to_contain_text("Attempt 2 of 3 begins")
    page.locator("#run-head").get_by_role("button", name="Retry now").click()
    expect(page.locator("#run-head .pill").first).to_have_text("completed")
    page.goto(site.url + "/runs/from-the-panel?step=2")
    page.locator("#side").get_by_role("button", name="Retry now").click()
    expect(page.locator("#side")).to_contain_text("attempt 2 began early, as asked for by local")
    expect(page.locator("#side").get_by_role("button", name="Retry now")).to_have_count(0)
    expect(page.locator("#run-head .pill").first).to_have_text("completed")

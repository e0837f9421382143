"""Access in a real browser: logging in and out, roles, prefixes, pages of other sites."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect
from starlette.applications import Starlette
from starlette.routing import Mount

from perdure import Token, receive, workflow
from tests.browser.axe import faults
from tests.browser.conftest import NewPage
from tests.http.support import Serve, Served

TOKENS = [
    Token(name="ada", secret="Ada-secret-1"),
    Token(name="vic", secret="Vic-secret-2", role="view"),
]


@workflow
async def order() -> str:
    return await receive("paid", str)


async def begun(engine):
    await engine.start(order(), id="o/1")


async def second(engine):
    await engine.start(order(), id="o/2")


@pytest.fixture(scope="module")
def closed(serve: Serve) -> Served:
    served = serve(workflows=[order], token=TOKENS)
    served.do(begun)
    served.do(second)
    return served


OTHER = """<!doctype html><title>prizes</title><iframe src="{site}/"></iframe>
<form id="form" method="post" action="{site}/runs/o%2F1/cancel"><input name="csrf" value="x"></form>
<a href="{link}">look</a>"""


@pytest.fixture(scope="module")
def other() -> Iterator[str]:
    """The address of another site: its page frames `site`, posts to it, and links to `link`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            told = {name: asked.get(name, [""])[0] for name in ("site", "link")}
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(OTHER.format(**told).encode())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def log_in(page: Page, secret: str) -> None:
    page.get_by_label("Token").fill(secret)
    page.get_by_role("button", name="Log in").click()


def test_a_login_leads_to_the_page_that_was_wanted(closed: Served, new_page: NewPage) -> None:
    page = new_page(expected=("401",))
    page.goto(f"{closed.url}/runs/o%2F1?view=log")
    assert "/login?next=" in page.url
    assert "o/1" not in page.content()  # a stranger learns nothing
    assert faults(page) == []
    log_in(page, "wrong")
    expect(page.get_by_role("alert")).to_contain_text("not known")
    log_in(page, "Ada-secret-1")
    expect(page).to_have_url(f"{closed.url}/runs/o%2F1?view=log")
    page.get_by_role("button", name="Log out").first.click()
    expect(page).to_have_url(re.compile("/login$"))
    page.goto(f"{closed.url}/runs/o%2F1")
    assert "/login" in page.url


def test_a_link_of_another_site_leads_to_its_page(
    closed: Served, other: str, new_page: NewPage
) -> None:
    page = new_page()
    page.goto(f"{closed.url}/login")
    log_in(page, "Ada-secret-1")
    page.goto(f"{other}?link={closed.url}/runs/o%252F1")
    page.get_by_role("link", name="look").click()
    expect(page.get_by_role("heading", name="o/1").first).to_be_visible()
    stranger = new_page()
    stranger.goto(f"{other}?link={closed.url}/runs/o%252F1")
    stranger.get_by_role("link", name="look").click()
    expect(stranger.get_by_label("Token")).to_be_visible()


def test_the_role_view_sees_no_buttons_and_is_refused(closed: Served, new_page: NewPage) -> None:
    page = new_page(expected=("403",))
    page.goto(f"{closed.url}/login")
    log_in(page, "Vic-secret-2")
    page.goto(f"{closed.url}/runs/o%2F1")
    expect(page.get_by_role("heading", name="o/1").first).to_be_visible()
    assert page.locator("main form[method=post]").count() == 0
    answer = page.evaluate(
        """async () => {
            const key = document.querySelector("meta[name=csrf]").content;
            const headers = { "x-csrf-token": key };
            const post = path => fetch(path, { method: "POST", headers }).then(a => a.status);
            return [await post("/runs/o%2F1/cancel"), await post("/api/v1/runs/o%2F1/cancel")];
        }"""
    )
    assert answer == [403, 403]

    async def status(engine):
        return await (await engine.get("o/1")).status()

    assert closed.do(status) == "waiting"


def test_logging_in_works_without_javascript(closed: Served, new_page: NewPage) -> None:
    page = new_page(javascript=False, width=390, height=844)
    page.goto(f"{closed.url}/")
    log_in(page, "Ada-secret-1")
    expect(page.get_by_role("link", name="o/1").first).to_be_visible()


def test_pages_below_a_path_stay_below_it(serve: Serve, new_page: NewPage) -> None:
    served = serve(
        workflows=[order],
        app=lambda engine: Starlette(routes=[Mount("/in/side", engine.asgi(token=TOKENS))]),
        prefix="/in/side",
    )
    served.do(begun)
    page = new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{served.url}/")
    log_in(page, "Ada-secret-1")
    page.get_by_role("link", name="o/1").first.click()
    expect(page).to_have_url(f"{served.url}/runs/o%2F1")
    for name in ("Inbox", "System", "Runs"):  # test_links.py follows all, without scripts
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading").first).to_be_visible()
    outside = [url for url in asked if not url.startswith(f"{served.url}/")]
    assert outside == []
    assert not any("//" in url.removeprefix("http://") for url in asked)


# Pages of other sites -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local(serve: Serve) -> Served:
    served = serve(workflows=[order])
    served.do(begun)
    return served


def test_a_page_of_another_site_can_neither_frame_nor_post_nor_read(
    local: Served, other: str, new_page: NewPage
) -> None:
    page = new_page(expected=("frame", "Refused", "403", "CORS", "Failed", "Framing"))
    page.goto(f"{local.url}/")  # the browser has its cookies now
    page.goto(f"{other}?site={local.url}")
    read = "site => fetch(site, { credentials: 'include' }).then(a => a.text(), () => 'refused')"
    assert page.evaluate(read, f"{local.url}/api/v1/runs") == "refused"
    post = """site => fetch(site, { method: 'POST', mode: 'no-cors', credentials: 'include',
        headers: { 'content-type': 'text/plain' }, body: '{}' }).then(() => {}, () => {})"""
    page.evaluate(post, f"{local.url}/api/v1/runs/o%2F1/cancel")
    page.evaluate("document.querySelector('#form').submit()")
    expect(page.get_by_role("heading", name="Forbidden")).to_be_visible()

    async def status(engine):
        return await (await engine.get("o/1")).status()

    assert local.do(status) == "waiting"


def test_a_name_that_was_bent_to_this_machine_is_refused(local: Served, new_page: NewPage) -> None:
    page = new_page(expected=("403",))
    page.goto(f"{local.url.replace('127.0.0.1', 'evil.example')}/")
    expect(page.get_by_role("heading", name="Forbidden")).to_be_visible()
    assert "PERDURE_TOKEN" in page.inner_text("main")
    assert faults(page) == []


def test_a_network_without_tls_is_served_with_a_token(closed: Served, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{closed.url.replace('127.0.0.1', 'vm-3.example')}/runs/o%2F2")
    log_in(page, "Ada-secret-1")
    page.get_by_text("Cancel").first.click()
    page.locator("form[action$='/cancel'] button").last.click()
    expect(page.get_by_text("cancelled").first).to_be_visible()

    async def status(engine):
        return await (await engine.get("o/2")).status()

    assert closed.do(status) == "cancelled"

"""Links: every one on every page leads somewhere, below a path and with odd ids; those who may only
look are offered nothing that changes something.
"""

from __future__ import annotations

import asyncio
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount

from perdure import Queue, Retry, Schedule, Token, receive, step, workflow
from tests.http.support import Serve, Served
from tests.runtime.support import reached

TOKENS = [
    Token(name="ada", secret="Ada-secret-1"),
    Token(name="vic", secret="Vic-secret-2", role="view"),
]
PAGES_MAX = 150
ODD = ["a/b?c=1&d#e %41", "p.json", "'\"<i>é✓"]


@step
async def good(number: int) -> dict[str, Any]:
    return {"big": 2**63 - 1, "number": number}


@step(retry=Retry(attempts=1))
async def bad() -> None:
    raise ValueError("no <b>luck</b> \u202e04 \x00")


@workflow
async def parent(number: int) -> bool:
    await asyncio.gather(*(good(one) for one in range(number)))
    await child(number)
    return await receive("approval", bool)


@workflow
async def child(number: int) -> dict[str, Any]:
    return await good(number)


@workflow
async def fails() -> None:
    await bad()


class Links(HTMLParser):
    """The addresses of a page, and the forms on it that change something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.forms: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.found += [given[name] for name in ("href", "src", "hx-get") if name in given]
        if tag == "form" and given.get("method", "").lower() == "post":
            self.forms.append(given.get("action", ""))
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self.inline += ["style"] if tag == "style" else []
        if tag == "script" and not {"src", "type"} & set(given):
            self.inline.append("script")


async def fill(engine) -> None:
    for id in ODD:
        await engine.start(parent(3), id=id, queue="q/1", tags={"a/b": "c&d"})
    await engine.start(fails(), id="f")
    await reached(await engine.get("f"), "failed")
    for id in ODD:
        await reached(await engine.get(id), "waiting")


def site(serve: Serve) -> Served:
    served = serve(
        workflows=[parent, child, fails],
        queues=[Queue("q/1", concurrency=9)],
        schedules=[Schedule("s/1", "@daily", child(1))],
        app=lambda engine: Starlette(routes=[Mount("/in/side", engine.asgi(token=TOKENS))]),
        prefix="/in/side",
    )
    served.do(fill)
    return served


def crawl(client: httpx.Client, origin: str) -> tuple[list[str], list[str]]:
    """What is wrong with the pages that can be reached, and the forms on them."""
    todo, done = ["/in/side/"], set[str]()
    wrong: list[str] = []
    forms: list[str] = []
    while todo and len(done) < PAGES_MAX:
        here = todo.pop(0)
        done.add(here)
        answer = client.get(origin + here)
        if answer.status_code >= 400:
            wrong.append(f"{answer.status_code} {here}: {answer.text[-300:]}")
        if "text/html" not in answer.headers.get("content-type", ""):
            continue
        wrong += [f"{one!a} acts at {here}" for one in "\u202e\x00" if one in answer.text]
        links = Links()
        links.feed(answer.text)
        wrong += [f"inline {name} at {here}" for name in links.inline]
        forms += [form for form in links.forms if form not in forms]
        for link in links.found:
            there = urljoin(here, link).partition("#")[0]
            if "://" in there or there.startswith("data:"):
                continue
            if not there.startswith("/in/side/"):
                wrong.append(f"{link} at {here} leads out of the site")
            elif there not in {*done, *todo} and is_worth(there):
                todo.append(there)
    return wrong, forms


def is_worth(address: str) -> bool:
    """Whether a crawl takes it: no stream without end, no filters on top of filters, no file."""
    return (
        "/api/v1/events" not in address
        and "/static/" not in address
        and (not address.startswith("/in/side/?") or address.count("=") == 1)
    )


def test_every_link_leads_somewhere(serve: Serve) -> None:
    served = site(serve)
    client = served.client(authorization="Bearer Ada-secret-1", accept="text/html, */*")
    wrong, forms = crawl(client, served.origin)
    assert wrong == []
    assert len(forms) > 5 and all(form.startswith("/in/side/") for form in forms)
    client = served.client(authorization="Bearer Vic-secret-2", accept="text/html, */*")
    wrong, forms = crawl(client, served.origin)
    assert wrong == []
    assert forms == []

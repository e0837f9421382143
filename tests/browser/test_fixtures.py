"""Fixtures of the tests in a browser: what they show, and what they complain about."""

from __future__ import annotations

from perdure import workflow
from tests.browser.conftest import NewPage
from tests.http.support import Serve


@workflow
async def greet(name: str) -> str:
    return f"hello {name}"


def test_a_page_of_an_engine(serve: Serve, new_page: NewPage) -> None:
    page = new_page(expected=("/api/v1/events",))
    served = serve(workflows=[greet])
    served.do(lambda engine: engine.run(greet("you"), id="first"))
    page.goto(served.url + "/")
    assert "first" in page.inner_text("main")

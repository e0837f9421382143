"""An observer in a browser: from the list into a database and back, in light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.axe import CONTRAST, faults
from tests.browser.conftest import NewPage
from tests.http.observed import observed
from tests.http.support import Serve
from tests.observe.support import WORKFLOWS, notes, replicate


def test_from_the_list_into_a_run_and_back_by_hand(new_page: NewPage, tmp_path: Path) -> None:
    for name in ("acme/agents", "initech"):
        store = tmp_path / f"{name.partition('/')[0]}.db"
        replicate(store, f"file://{tmp_path}/fleet/{name}")
    with observed(f"file://{tmp_path}/fleet") as url:
        page = new_page()
        page.goto(f"{url}/")
        expect(page.get_by_role("heading", name="2 databases")).to_be_visible()
        assert faults(page) == []
        page.get_by_role("link", name="acme/agents").click()
        expect(page.get_by_text("Read-only, from the replica")).to_be_visible()
        page.get_by_role("link", name="run-waits").click()
        expect(page.get_by_text("approval").first).to_be_visible()
        assert page.get_by_role("button", name="Cancel").count() == 0
        page.get_by_role("link", name="All databases").click()
        page.get_by_role("searchbox").fill("init")
        page.get_by_role("searchbox").press("Enter")
        expect(page.get_by_role("row")).to_have_count(2)
        page.go_back()
        expect(page.get_by_role("row")).to_have_count(3)
        narrow = new_page(width=390, dark=True)
        narrow.goto(f"{url}/")
        assert narrow.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert faults(narrow, CONTRAST) == []
        narrow.goto(f"{url}/search?q=bank")
        assert faults(narrow, CONTRAST) == []
        page.goto("about:blank")


def test_a_page_of_a_replica_follows_what_its_engine_writes(
    new_page: NewPage, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.observe.pages.FOLLOW_S", 0.1)
    monkeypatch.setattr("perdure.replica.replicate.WATCH_S", 0.05)
    replica = f"file://{tmp_path}/live"
    served = serve(workflows=WORKFLOWS, replica=replica, lease_ttl=3.0)
    served.do(lambda engine: engine.run(notes(2), id="before"))
    with observed(replica) as url:
        page = new_page()
        page.goto(f"{url}/")
        expect(page.get_by_role("link", name="before")).to_be_visible()
        expect(page.locator("#live-state")).to_have_text("live")
        at_first = page.locator("#about").inner_text()
        assert "Transaction" in at_first
        served.do(lambda engine: engine.run(notes(2), id="afterwards"))
        expect(page.locator("#about")).not_to_have_text(at_first)
        expect(page.locator("#about")).to_contain_text("Transaction")
        page.get_by_role("button", name="press").click()
        expect(page.get_by_role("link", name="afterwards")).to_be_visible()
        page.goto("about:blank")  # the stream ends before its server

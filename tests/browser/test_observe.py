"""An observer in a browser: from the list into a database and back, in light and dark."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.axe import CONTRAST, faults
from tests.browser.conftest import NewPage
from tests.http.observed import observed
from tests.observe.support import replicate


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

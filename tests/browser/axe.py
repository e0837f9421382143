"""Accessibility of a page, as axe judges it."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page

CONTRAST = ("color-contrast",)


def faults(page: Page, rules: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    """What axe finds on the page as it is now: address, rule, the first element. With `rules`, by
    these alone, which is quicker.
    """
    options: dict[str, Any] = {"resultTypes": ["violations"]}  # says little of what is right
    if rules:
        options["runOnly"] = list(rules)
    found = Axe().run(page, options=options).response["violations"]
    return [(page.url, one["id"], one["nodes"][0]["html"][:200]) for one in found]

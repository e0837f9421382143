"""Addresses of a list with one filter more or less: what chips, facets and pagers link to.

Rules: another choice begins at the first page; filters are in one order, so that equal lists have
equal addresses.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from perdure.http.run_query import Pairs, filters


class Address:
    """The list at `path` with these parameters. Its methods give addresses as text."""

    def __init__(self, path: str, pairs: Iterable[tuple[str, str]]) -> None:
        self.path, self.filters = path, filters(pairs)

    def __str__(self) -> str:
        return self._of(self.filters)

    @property
    def query(self) -> str:
        """The filters as a query."""
        return urlencode(self.filters)

    def values(self, name: str) -> list[str]:
        """What is given for a parameter."""
        return [text for one, text in self.filters if one == name]

    def others(self, *names: str) -> Pairs:
        """The filters besides these."""
        return [pair for pair in self.filters if pair[0] not in names]

    def toggled(self, name: str, text: str) -> str:
        """With this filter, or without it where it is there."""
        if (name, text) in self.filters:
            return self.without(name, text)
        return self._of([*self.filters, (name, text)])

    def only(self, name: str, text: str) -> str:
        """With this filter in place of those of its name."""
        return self._of([*self.others(name), (name, text)])

    def without(self, name: str, text: str | None = None) -> str:
        """Without this filter, or without all of its name."""
        return self._of([
            (one, thing) for one, thing in self.filters if one != name or text not in (None, thing)
        ])  # fmt: skip

    def behind(self, cursor: str) -> str:
        """The page behind a cursor."""
        return self._of([*self.filters, ("after", cursor)], order=False)

    def _of(self, pairs: Pairs, order: bool = True) -> str:
        query = urlencode(filters(pairs) if order else pairs)
        return f"{self.path}?{query}" if query else self.path

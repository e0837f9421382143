"""Families of runs: from the first parent down to what a run has started, in bounded many reads.

Rules: the way from the top to the run is always there, and what is below the run comes next; others
are shown and not followed.
"""

from __future__ import annotations

from perdure.reader.parts import PageParts
from perdure.runtime.info import instant, moment
from perdure.store.page_reads import RelativeRow
from perdure.views.tree import Family, Relation, Relative

UP_MAX = 50
BELOW_MAX = 50
"""Children, forks and generations of one run each."""


class FamilyQueries(PageParts):
    """See the module's text."""

    def relatives(self, run_id: str, limit: int) -> Family:
        """See `StoreReader.family`."""
        own = self.key(run_id)
        way = self._way(own)
        return _Tree(self, own, way, limit).grown()

    def _way(self, run: int) -> list[tuple[RelativeRow, Relation]]:
        """The run and those above it, the top first, each with what it is of the one before."""
        found: list[tuple[RelativeRow, Relation]] = []
        row = self._pages.relative(run)
        while row is not None and len(found) < UP_MAX:
            above, relation = self._above(row)
            found.append((row, relation if above is not None else "root"))
            seen = {one.run for one, _ in found}
            row = above if above is None or above.run not in seen else None
        return found[::-1]

    def _above(self, row: RelativeRow) -> tuple[RelativeRow | None, Relation]:
        """The parent of a run, the run that follows it under its id, or the one it is forked
        from.
        """
        if row.parent is not None:
            return self._pages.relative(row.parent), "child"
        name, _, number = row.id.rpartition("~")
        if name and number.isdigit() and (found := self._by_id(name)) is not None:
            return found, "earlier"
        return (None if row.forked_from is None else self._by_id(row.forked_from)), "fork"

    def _by_id(self, run_id: str) -> RelativeRow | None:
        found = self._store.rows("run_of_id", run_id)
        return self._pages.relative(found[0][0]) if found else None

    def below(self, row: RelativeRow) -> tuple[list[tuple[RelativeRow, Relation]], bool]:
        """What is right below a run, and whether there is more of it."""
        pages, most = self._pages, BELOW_MAX + 1
        lists: list[tuple[Relation, list[RelativeRow]]] = [
            ("earlier", pages.generations(row.id, most)),
            ("child", pages.children(row.run, most)),
            ("fork", [one for one in pages.forks(row.id, most) if one.parent is None]),
        ]
        found = [(one, relation) for relation, rows in lists for one in rows[:BELOW_MAX]]
        return found, any(len(rows) > BELOW_MAX for _, rows in lists)


class _Tree:
    """A tree that is being grown from its top."""

    def __init__(
        self,
        queries: FamilyQueries,
        own: int,
        way: list[tuple[RelativeRow, Relation]],
        limit: int,
    ) -> None:
        self._queries, self._own, self._limit = queries, own, limit
        self._way = {row.run: place for place, (row, _) in enumerate(way)}
        self._chain = way
        self._found: list[Relative] = []
        self._seen: set[int] = set()
        self._more = False

    def grown(self) -> Family:
        """The whole tree, as far as it is shown."""
        top, relation = self._chain[0]
        self._add(top, relation, None, 0, follow=True)
        return Family(self._found, self._more)

    def _add(
        self, row: RelativeRow, relation: Relation, of: str | None, depth: int, *, follow: bool
    ) -> None:
        on_way = row.run in self._way
        if row.run in self._seen or (len(self._found) >= self._limit and not on_way):
            self._more = self._more or row.run not in self._seen
            return
        self._seen.add(row.run)
        at, ended = instant(row.created_ms), moment(row.ended_ms)
        below, cut = self._queries.below(row) if follow else ([], False)
        more = cut or (not follow and bool(self._queries.below(row)[0]))
        self._found.append(
            Relative(row.id, row.workflow, row.status, relation, of, depth, at, ended,
                     row.run == self._own, more)
        )  # fmt: skip
        for one, kind in self._with_way(row, below):
            # Below the run itself everything is followed, above it only the way to it.
            self._add(one, kind, row.id, depth + 1, follow=self._followed(one, row))

    def _followed(self, row: RelativeRow, above: RelativeRow) -> bool:
        on_way = above.run in self._way and above.run != self._own
        return row.run in self._way if on_way else len(self._found) < self._limit

    def _with_way(
        self, row: RelativeRow, below: list[tuple[RelativeRow, Relation]]
    ) -> list[tuple[RelativeRow, Relation]]:
        """These, and the next one on the way, where it is not among them."""
        place = self._way.get(row.run)
        if place is None or place + 1 == len(self._chain):
            return below
        following = self._chain[place + 1]
        if following[0].run in {one.run for one, _ in below}:
            return below
        return [*below, following]

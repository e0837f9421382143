"""Transaction protocol: what a driver gives the transitions inside an open write transaction.

Rules: the driver begins and ends the transaction and maps errors; queries have names, those of
`shared.sql` in its dialect and its own; a query that reads a row in order to decide says so by
`{{lock}}`, for databases that take several writers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Bindings = Sequence[Any]
"""The parameters of a named query, by position."""


class Transaction(Protocol):
    """Named queries; see the module's text. Errors of the database pass through."""

    def do(self, query: str, bindings: Bindings) -> None:
        """Execute a query without a result: a driver may send it together with the next one."""

    def change(self, query: str, bindings: Bindings) -> int:
        """Execute a query. Returns the number of rows that it changed."""

    def insert(self, query: str, bindings: Bindings) -> int | None:
        """The key of the row that a query inserts, which it names by `{{returning x}}`; None where
        there is one already. SQLite knows it without RETURNING, which makes a table there each
        time, and so costs more than the row.
        """

    def row(self, query: str, bindings: Bindings) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""

    def rows(self, query: str, bindings: Bindings) -> list[tuple[Any, ...]]:
        """All rows of a query."""

    def many(self, query: str, each: Sequence[Bindings]) -> None:
        """Execute a query once for each of these bindings."""

    def insert_history(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows of history.

        A row is (run << 24, seq, kind, at_ms, ref, name, data, took_ms, edited); its data is bytes
        or text.
        """

    def copy_history(
        self,
        run: int,
        source: int,
        before_seq: int,
        left_out: list[int],
        edits: Sequence[tuple[int, str | None]],
    ) -> None:
        """Copy the rows of `source` before `before_seq` to `run`, except those in `left_out`.

        `edits` are (seq, payload text): the row gets this data and is marked as edited.
        """

    def delete_history(self, up_to: int, rows_max: int) -> int:
        """Delete rows of history of the pruned runs up to a key, up to `rows_max`. Returns how many
        there were.
        """

    def give_back_pages(self, pages: int) -> tuple[int, int, int]:
        """Give up to `pages` free pages back to the file system. Returns how many are free then,
        how many there are, and the bytes of one; zeros where the database does that by itself, or
        can't do it.
        """

    def execute_step(self, work: Callable[[Any], Any]) -> tuple[Any, BaseException | None]:
        """Call a transactional step with the driver's connection.

        Returns its value, or its error with everything undone that it wrote.
        """

"""What can be asked about one store for pages and tools: values of the runtime and the views.

Rules: each read has a bound, in rows or in time, and says when it stopped there; the time is given.
"""

from __future__ import annotations

from perdure.errors import RunNotFound
from perdure.reader.answers import AnswerQueries
from perdure.reader.run_queries import RunQueries
from perdure.reader.store_queries import StoreQueries


class PageQueries(AnswerQueries, RunQueries, StoreQueries):
    """The reads of `StoreReader`, in its threads; see there."""

    def find_surely(self, prefix: str) -> str:
        """As `find`; a damaged file hides runs, so before one is said not to be there the file is
        looked at. Raises `StoreCorrupt`.
        """
        try:
            return self.find(prefix)
        except RunNotFound as error:
            if not error.candidates:
                self._store.check_runs()
            raise

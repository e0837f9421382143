"""What can be asked about one store for pages and tools: values of the runtime and the views.

Rules: each read has a bound, in rows or in time, and says when it stopped there; the time is given.
"""

from __future__ import annotations

from perdure.reader.answers import AnswerQueries
from perdure.reader.run_queries import RunQueries
from perdure.reader.store_queries import StoreQueries


class PageQueries(AnswerQueries, RunQueries, StoreQueries):
    """The reads of `StoreReader`, in its threads; see there."""

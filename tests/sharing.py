"""How the workers of pytest-xdist share the suite.

Rules: the tests of a module stay together, because they share a browser, a bucket or a served
engine, which every worker would start for itself; modules whose tests are long and share nothing
are given out test by test; what takes longest begins first, so that no worker idles at the end. No
test may need any of it.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

ONE_BY_ONE = (
    "tests/testing/test_survive.py",
    "tests/campaigns/test_faulty_disk.py",
    "tests/replica/test_chaos.py",
    "tests/invariants/test_programs.py",
    "tests/test_docs.py",
    "tests/test_examples.py",
    "tests/store/test_payloads.py",
    "tests/runtime/test_crashes.py",
    "tests/testing/test_plugin.py",
    "tests/test_benchmarks.py",
)
TOGETHER = (
    "tests/store/conformance/test_coverage.py",
    "tests/replica/test_confirm_server.py",
    "tests/replica/test_replicate.py",
    "tests/test_structure.py",
    "tests/browser/test_lists.py",
    "tests/browser/test_run.py",
    "tests/runtime/test_verbs.py",
    "tests/runtime/test_queues.py",
    "tests/replica/test_answers.py",
    "tests/replica/test_faults.py",
    "tests/replica/test_lease.py",
    "tests/replica/test_handover.py",
    "tests/runtime/test_queue_processes.py",
    "tests/replica/test_maintenance.py",
    "tests/browser/test_access.py",
    "tests/browser/test_act.py",
    "tests/browser/test_observe.py",
    "tests/cli/test_replica.py",
    "tests/invariants/test_kernel.py",
    "tests/errors/test_former.py",
    "tests/replica/test_takeover.py",
    "tests/campaigns/test_s3_servers.py",
    "tests/http/api/test_schemathesis.py",
    "tests/store/sqlite/test_damage.py",
    "tests/store/sqlite/test_files.py",
    "tests/runtime/test_queued_runs.py",
    "tests/runtime/test_found_once.py",
    "tests/store/conformance/test_queue_model.py",
    "tests/replica/test_bucket.py",
    "tests/campaigns/test_main.py",
    "tests/campaigns/test_kill.py",
    "tests/observe/test_pages.py",
)
RANK = {name: rank for rank, name in enumerate((*ONE_BY_ONE, *TOGETHER))}


class Sharing(LoadScopeScheduling):  # type: ignore[misc]
    """Units of work in the order of the tests: a module, or one test of `ONE_BY_ONE`."""

    def _split_scope(self, nodeid: str) -> str:
        module = module_of(nodeid)
        return nodeid if module in ONE_BY_ONE else module


def module_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def longest_first(items: list[pytest.Item]) -> None:
    """Sort tests by `RANK`; modules that have none stay in their order, behind."""
    items.sort(key=lambda item: RANK.get(module_of(item.nodeid), len(RANK)))


def import_part(worker: int, workers: int) -> None:
    """Import every `workers`-th module of tests, from that of this worker on. What does not import
    is left to the collection, which reports it.
    """
    folder = Path(__file__).resolve().parent
    for path in sorted(folder.rglob("test_*.py"))[worker::workers]:
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(name)

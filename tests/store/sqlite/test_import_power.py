"""Imports into a replicated file on a disk that loses its power: at a write, or at a sync."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from campaigns.faulty_disk import Disk, Fault
from perdure.core.limits import Limits
from perdure.errors import RunExists
from perdure.store import import_plan
from perdure.store.export_json import ExportJson
from perdure.store.import_plan import Survey, families_of, parcels
from perdure.store.import_writes import ImportedRuns, ImportRuns
from perdure.store.sqlite import checksum, connection
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.queries import Q
from tests.store.conformance.support import one, start

FAMILIES = 6
PLACES = 12
"""Places of each kind that are tried; a seed chooses them."""


def document() -> ExportJson:
    """Families of two runs, with rows in every table that a crash could leave alone."""
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("run", "event", "message", "stream", "exposed")
    }
    for n in range(FAMILIES):
        run, child = 10 * n + 1, 10 * n + 2
        more = {"workflow": "flow", "args": {}, "seed": n, "crashes": 0, "priority": 0,
                "created_ms": 1, "unread": 0, "weight": 1}  # fmt: skip
        tables["run"] += [
            {"run": run, "id": f"f{n}", "status": "waiting", "tags": {"n": n}, **more},
            {"run": child, "id": f"f{n}-c", "status": "pending", "parent": run, "parent_seq": 2,
             "root": run, **more},
        ]  # fmt: skip
        text = f"{n} " * 2_000
        tables["event"] += [
            {"run": run, "seq": seq, "kind": kind, "at_ms": seq, "data": {"text": text, "n": seq}}
            for seq, kind in [(1, "start"), (2, "child"), (3, "timer"), (4, "timer")]
        ]
        tables["message"].append(
            {"run": run, "kind": "message", "name": "c", "key": "k", "data": n, "at_ms": 1}
        )
        tables["stream"].append({"run": run, "name": "s", "seq": 3, "at_ms": 1})
        tables["exposed"].append({"run": run, "name": "x", "seq": 3})
    text = json.dumps({"perdure_export": 1, "schema": connection.SCHEMA_VERSION, "tables": tables})
    return ExportJson(text.encode(), "file.json", connection.SCHEMA_VERSION)


def imported(store: SqliteStore, ids: list[str]) -> list[str]:
    """Import all of the document. `ids` gets those that are new; returns those that were there."""
    source, already = document(), list[str]()
    Survey(source, source.heads())
    for parcel in parcels(source, families_of(source.heads())):
        done = one(store, ImportRuns("file.json", parcel, True, 5, before=len(ids)))
        assert isinstance(done, ImportedRuns), done
        ids += done.ids
        already += done.already
    return already


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A replicated store with a run of its own; each family is a transaction."""
    monkeypatch.setattr(import_plan, "PARCEL_ROWS", 1)
    path = tmp_path / "template.db"
    with contextlib.closing(SqliteStore(str(path), limits=Limits())) as store:
        store.begin_epoch("store-1", "file:///replica", 1)
        start(store, "own")
    return path


@contextlib.contextmanager
def on_disk(template: Path, fault: Fault | None) -> Iterator[tuple[Disk, str]]:
    path = template.with_name("store.db")
    for end in ("", "-wal", "-shm"):
        path.with_name(f"store.db{end}").unlink(missing_ok=True)
        if (there := template.with_name(f"template.db{end}")).exists() and end != "-shm":
            shutil.copy(there, f"{path}{end}")
    with contextlib.closing(Disk()) as disk:
        disk.fault = fault
        yield disk, str(path)


def of_whole_families(path: str) -> set[str]:
    """The runs that are there. Raises where a family is not whole, or the checksum is wrong."""
    with contextlib.closing(connection.open_reader(path)) as db:
        ids = {run_id for (run_id,) in db.execute("SELECT id FROM run WHERE id <> 'own'")}
        parents = {run_id for run_id in ids if "-" not in run_id}
        assert ids == parents | {f"{run_id}-c" for run_id in parents}
        for table, each in [("event", 4), ("inbox", 1), ("stream", 1), ("tag", 1), ("chunk", 4)]:
            ((count,),) = db.execute(f"SELECT count(*) FROM {table}")
            assert count == each * len(parents), table
        recorded = checksum.read(db)
        assert recorded is not None
        count, digest = checksum.total(db.execute(Q["history_of_all"]))
        assert (recorded.rows_there, recorded.digest) == (count, digest)
        assert db.pragma("quick_check") == "ok"
    return ids


def test_after_a_power_cut_families_are_whole_and_the_import_goes_on(template: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with on_disk(template, None) as (disk, path):
        with contextlib.closing(SqliteStore(path, limits=Limits(), vfs=disk.name)) as store:
            assert imported(store, []) == []
        places = [Fault("power", "write", dice.randint(1, disk.writes)) for _ in range(PLACES)]
        places += [Fault("power", "sync", dice.randint(1, disk.syncs)) for _ in range(PLACES)]
    for number, fault in enumerate(places):
        acknowledged: list[str] = []
        with on_disk(template, fault) as (disk, path):
            with contextlib.suppress(Exception):
                store = SqliteStore(path, limits=Limits(), vfs=disk.name)
                with contextlib.suppress(Exception):
                    imported(store, acknowledged)
                store.close()
            disk.restart(seed + number)
        there = of_whole_families(path)
        assert there >= set(acknowledged), fault
        with contextlib.closing(SqliteStore(path, limits=Limits())) as store:
            new: list[str] = []
            already = imported(store, new)
            assert (set(already), len(new)) == (there, 2 * FAMILIES - len(there)), fault
            refused = one(store, ImportRuns("f", other(), False, 5))
            assert isinstance(refused, RunExists)
        assert len(of_whole_families(path)) == 2 * FAMILIES


def other() -> Any:
    """A parcel with other runs under these ids."""
    source = document()
    source._heads = [
        type(head)(**{name: getattr(head, name) for name in head.__struct_fields__} | {"seed": 99})
        for head in source.heads()
    ]
    return next(parcels(source, families_of(source.heads())))

"""`perdure import` in a process that kills itself with -9 at the N-th query of the import.

Rules: N is the first argument, the words of the command follow; parcels are small, so that there
are many transactions.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from perdure.cli import main
from perdure.store import import_plan
from perdure.store.sqlite.transaction import SqliteTransaction

left = int(sys.argv[1])


def deadly(name: str) -> None:
    query = getattr(SqliteTransaction, name)

    def counted(self: SqliteTransaction, *args: Any) -> Any:
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return query(self, *args)

    setattr(SqliteTransaction, name, counted)


for each in ("insert", "many", "insert_history", "row"):
    deadly(each)
import_plan.PARCEL_ROWS = 300
main.main(["import", *sys.argv[2:]])

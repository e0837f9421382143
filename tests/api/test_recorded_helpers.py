"""Histories of runs that were under way with an earlier version of the helpers replay with this
one: the order in which a helper asks for steps is a part of every history.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perdure.testing import InvariantViolated, replay_recorded
from tests.api.helper_flows import FLOWS, FOLDER

every_flow = pytest.mark.parametrize("name", FLOWS)


@every_flow
def test_recorded_histories_replay(name: str) -> None:
    replay_recorded(FOLDER / f"{name}.json", [*FLOWS.values()])


@every_flow
def test_a_helper_that_asked_in_another_order_would_be_found(name: str, tmp_path: Path) -> None:
    recorded = json.loads((FOLDER / f"{name}.json").read_text())
    doubles = [
        row for row in recorded["rows"] if (row["kind"], row.get("name")) == ("step", "double")
    ]
    doubles[-1]["data"]["n"] += 100
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(recorded))
    with pytest.raises(InvariantViolated, match="double"):
        replay_recorded(changed, [*FLOWS.values()])

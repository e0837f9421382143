"""Campaigns: Perdure's guarantees tried under kills, power cuts, damage and bad networks.

Rules: nothing here is installed; a clone runs them with `python -m campaigns`.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment(**more: str) -> dict[str, str]:
    """Variables for a Python process that is to find this clone's campaigns and its Perdure."""
    places = (str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places)), **more}

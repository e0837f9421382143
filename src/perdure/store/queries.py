"""Loads named queries from a `.sql` file: `-- name: x` begins one, the next name or the end of file ends it."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources


@cache
def load(file: str) -> dict[str, str]:
    """Queries of a file in this package, by name."""
    text = (resources.files("perdure.store") / file).read_text()
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: body.strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)}

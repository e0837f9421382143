"""Loads named queries from a `.sql` file: `-- name: x` begins one, the next name or the end of file ends it."""

from __future__ import annotations

import pkgutil
import re
from functools import cache


def text_of(file: str) -> str:
    """A file of this package. Not by `importlib.resources`, which would load archives and temporary files: a tenth of our import."""
    return (pkgutil.get_data("perdure.store", file) or b"").decode()


@cache
def load(file: str) -> dict[str, str]:
    """Queries of a file in this package, by name."""
    parts = re.split(r"^-- name: (\w+)\n", text_of(file), flags=re.MULTILINE)
    return {name: body.strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)}

"""Loads named queries from a `.sql` file: `-- name: x` begins one, the next name or the end of file
ends it.
"""

from __future__ import annotations

import pkgutil
import re
from functools import cache


def text_of(file: str, package: str = "perdure.store.sqlite") -> str:
    """A file of a package. Not by `importlib.resources`, which would load archives and temporary
    files: a tenth of our import.
    """
    return (pkgutil.get_data(package, file) or b"").decode()


@cache
def load(file: str, package: str = "perdure.store.sqlite") -> dict[str, str]:
    """Queries of a file, by name."""
    parts = re.split(r"^-- name: (\w+)\n", text_of(file, package), flags=re.MULTILINE)
    return {
        name: body.strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }

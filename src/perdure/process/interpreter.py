"""Python version of a run: recorded, because the order of callbacks differs between versions in
rare cases.

Rules: a version is the major and minor number, with the implementation where that is not CPython; a
run of an earlier schema has none.
"""

from __future__ import annotations

import sys

PYTHON = (
    "" if sys.implementation.name == "cpython" else f"{sys.implementation.name} "
) + f"{sys.version_info[0]}.{sys.version_info[1]}"


def is_other(python: str | None) -> bool:
    """Whether a run was executed by another Python than this one."""
    return python is not None and python != PYTHON


def with_python(reason: str, python: str | None) -> str:
    """Why code and history differ, with the other Python where that may be the cause."""
    if not is_other(python):
        return reason
    return (
        f"{reason}\nThe run was executed by Python {python}, this is {PYTHON}: the order may "
        f"differ there, and not the code."
    )

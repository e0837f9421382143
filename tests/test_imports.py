"""What `import perdure` loads: the engine, and nothing that most programs do not use."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = (
    "click", "jinja2", "obstore", "perdure.check", "perdure.cli", "perdure.ext", "perdure.http",
    "perdure.observe", "perdure.reader", "perdure.runtime.archive", "perdure.runtime.pruning",
    "perdure.runtime.transfer", "perdure.store.sqlite.export", "perdure.testing", "perdure.views",
    "pydantic", "rich", "starlette", "uvicorn",
)  # fmt: skip


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    code = "import sys, perdure; perdure.Engine; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


@pytest.mark.parametrize("name", WITHOUT)
def test_an_import_leaves_out_what_few_programs_use(loaded: set[str], name: str) -> None:
    assert "perdure.runtime.engine" in loaded
    assert name not in loaded

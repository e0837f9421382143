"""The page of the API is what the docstrings say, and says everything that is exported."""

from __future__ import annotations

import inspect
import re

import perdure
from tests import api_reference


def test_the_page_is_what_the_docstrings_say() -> None:
    assert api_reference.PAGE.read_text() == api_reference.page(), "write it again: just api"


def test_every_exported_name_is_on_the_page_once() -> None:
    page = api_reference.page()
    said = re.findall(r"^### (\w+)$|^\| `(\w+)` \|", page, re.MULTILINE)
    names = [heading or error for heading, error in said]
    assert sorted(set(perdure.__all__) - set(names)) == []
    assert len(names) == len(set(names))


def test_every_verb_says_what_it_is_for() -> None:
    """A public method without a docstring would be missing without a word."""
    for owner in (
        perdure.Engine,
        perdure.Run,
        perdure.SyncEngine,
        perdure.SyncRun,
        perdure.Step,
        perdure.Workflow,
    ):
        public = {
            name
            for name, one in inspect.getmembers(owner)
            if not name.startswith("_") and (callable(one) or isinstance(one, property))
        }
        silent = {name for name in public if not inspect.getdoc(getattr(owner, name))}
        assert silent == set(), owner

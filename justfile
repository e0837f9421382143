# One command each way. `just` alone lists them; each line works pasted into a shell, too.

python := "python3"
bin := ".venv/bin"

_list:
    @just --list --unsorted

# A virtual environment with everything that development needs
setup:
    {{python}} -m venv --without-pip .venv
    {{python}} -m pip --python {{bin}}/python install --quiet --editable '.[dev]'

# The tests; arguments go to pytest: just test tests/core -k retry
test *args:
    {{bin}}/pytest -n 4 {{args}}

# Style
lint:
    {{bin}}/ruff check .
    {{bin}}/ruff format --check .

# Types, strictly
types:
    {{bin}}/mypy

# Puts style right where a machine can
format:
    {{bin}}/ruff check --fix .
    {{bin}}/ruff format .

# The main job, on the standard library of this interpreter or any folder
survey *args:
    {{bin}}/perdure run examples/survey.py {{args}}

# The measurements
bench *args:
    {{bin}}/python benchmarks/run.py {{args}}

# Perdure's laws under many seeds: just campaign --seeds 200 --only kernel
campaign *args:
    {{bin}}/python -m campaigns {{args}}

# README, docs and doctests do what they say
docs-check:
    {{bin}}/pytest tests/test_docs.py

# docs/reference/api.md, from the docstrings
api:
    {{bin}}/python -m tests.api_reference

# Diagram and table of docs/explain/life-cycle.md, from core/lifecycle.py
life-cycle:
    {{bin}}/python -m tests.life_cycle_page

# docs/explain/house.md, from the source
house:
    {{bin}}/python -m tests.house_page

# What a change must pass
all: lint types test

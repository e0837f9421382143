"""Lint of workflow code: clocks, random numbers, sets, I/O, threads, forgotten awaits.

Rules: code is parsed, never imported; a doubt is never an error.
"""

from __future__ import annotations

import ast
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

from perdure.check import rules as r
from perdure.check.module_names import ModuleNames
from perdure.check.visitor import visit

_ALLOW = re.compile(r"#\s*perdure:\s*allow\s+([\w-]+(?:\s*,\s*[\w-]+)*)")


@dataclass(frozen=True, slots=True)
class Finding:
    """Code of a workflow that replay can't repeat; `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    rule: str
    level: r.Level
    message: str

    def __str__(self) -> str:
        mark = "note: " if self.level == "note" else ""
        return f"{self.file}:{self.line}:{self.column}: {mark}{self.rule}: {self.message}"


def lint_file(path: Path, lines: frozenset[int] = frozenset()) -> list[Finding]:
    """The findings in a file. Functions that begin at `lines` are workflows, however decorated."""
    shown = _shown(path)
    try:
        with tokenize.open(path) as file:
            return lint_source(file.read(), shown, lines)
    except SyntaxError as error:
        return [
            Finding(
                shown,
                error.lineno or 1,
                error.offset or 1,
                "syntax",
                "error",
                f"this is not Python: {error.msg}.",
            )
        ]
    except (MemoryError, RecursionError):
        return [Finding(shown, 1, 1, "syntax", "error", "this is nested too deeply to be read.")]
    except (OSError, ValueError) as error:
        return [Finding(shown, 1, 1, "syntax", "error", f"this can't be read: {error}.")]


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def lint_source(text: str, file: str, lines: frozenset[int] = frozenset()) -> list[Finding]:
    """The findings in a program, in the order of its lines."""
    module = ModuleNames(ast.parse(text), lines)
    marked = ((number, _ALLOW.search(line)) for number, line in enumerate(text.splitlines(), 1))
    allowed = {number: set(re.split(r"\s*,\s*", mark[1])) for number, mark in marked if mark}
    findings: dict[tuple[int, int, str], Finding] = {}
    for node, rule, what, where in visit(module):
        if rule in set().union(
            *(
                allowed.get(line, ())
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
            )
        ):
            continue
        about = r.RULES[rule]
        message = f"{what} in {where} {about.why}. {about.instead}"
        finding = Finding(file, node.lineno, node.col_offset + 1, rule, about.level, message)
        findings.setdefault((node.lineno, node.col_offset, rule), finding)
    return [findings[key] for key in sorted(findings)]

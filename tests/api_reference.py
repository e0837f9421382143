"""docs/reference/api.md, made from the signatures and docstrings of what `perdure` exports: `python
-m tests.api_reference` writes it.

Rules: a name is said where a reader looks for it, each once; every name that is exported is in a
section, or in the table of errors; what is written depends on the source only, not on the version
of Python.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import perdure
from perdure import testing
from perdure.api import definitions, verbs

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "api.md"
WIDTH = 100

INTRO = """# API

Made from the docstrings by `just api`; a test fails where the two differ. The examples are run
as tests. Everything here is imported
from `perdure`, and what stands under [Tests](#tests) from `perdure.testing`.
"""
SECTIONS: dict[str, tuple[str, list[Any]]] = {
    "Define": (
        "",
        [
            definitions.step,
            definitions.workflow,
            definitions.Step,
            definitions.Workflow,
            definitions.Call,
            perdure.Retry,
        ],
    ),
    "Queues": (
        "What runs and steps share; see `Engine.start`, `step` and `current_step`.",
        [perdure.Queue, perdure.Rate, perdure.QueueInfo],
    ),
    "Retention": (
        "How long runs are kept that have ended, and what a prune has done.",
        [perdure.Retention, perdure.PruneReport],
    ),
    "Access": (
        "Secrets that open an engine over HTTP, each with a name and a role; see `Engine.asgi`.",
        [perdure.Token],
    ),
    "In workflows": (
        (
            "Inside a workflow asyncio is the vocabulary: see [what await does "
            "here](../explain/await.md). These are the verbs beside it."
        ),
        [
            verbs.receive,
            verbs.send,
            verbs.start,
            verbs.emit,
            verbs.tag,
            verbs.now,
            verbs.random,
            verbs.uuid4,
            verbs.patched,
            verbs.continue_as,
            verbs.current_run,
        ],
    ),
    "Requests and exposed values": (
        "What callers ask a run, and what it shows; see `Engine.ask` and `Engine.exposed`.",
        [perdure.receive_request, perdure.Request, perdure.expose],
    ),
    "Many calls, polls, sagas": (
        "Plain code over the rest, in workflows and elsewhere.",
        [perdure.gather_limited, perdure.poll_until, perdure.Saga],
    ),
    "In steps": ("", [verbs.current_step]),
    "Secrets": (
        "Text that a run works with and nothing shows; see `redact` of `Engine`.",
        [perdure.Secret],
    ),
    "Schedules": (
        "Workflows that start by themselves; see `Engine.schedule`.",
        [
            perdure.Schedule,
            perdure.Every,
            perdure.ScheduleHandle,
            perdure.TickTime,
            perdure.SyncScheduleHandle,
        ],
    ),
    "Engines": (
        "",
        [perdure.Engine, perdure.Replica, perdure.Run, perdure.Limits, perdure.connect],
    ),
    "Without an event loop": ("", [perdure.run, perdure.SyncEngine, perdure.SyncRun]),
    "What engines tell": (
        "Plain values, which `msgspec` can encode as JSON.",
        [
            perdure.RunInfo,
            perdure.RunSummary,
            perdure.ScheduleInfo,
            perdure.HistoryEvent,
            perdure.AnswerLink,
            perdure.LinkInfo,
            perdure.OpenRequest,
            perdure.ExposedValue,
            perdure.Standing,
            perdure.QueuePlace,
            perdure.QueueKey,
            perdure.Progress,
            perdure.ErrorHead,
        ],
    ),
    "Observers": ("See [observe an engine](../howto/observe.md).", [perdure.Observer]),
    "Logging": ("See [log lines](../howto/logging.md).", [perdure.RunContextFilter]),
    "Tests": (
        "From `perdure.testing`; see [test workflows](../howto/test-workflows.md).",
        [getattr(testing, name) for name in testing.__all__],
    ),
}
MADE_FOR_YOU = {
    perdure.Step,
    perdure.Workflow,
    perdure.Call,
    perdure.Run,
    perdure.SyncRun,
}  # by a decorator, a call or an engine
HIDDEN = {
    (perdure.Engine, "in_child"),
    *((perdure.Call, name) for name in ("used", "send", "throw", "close")),
}
TWINS = {perdure.SyncEngine: perdure.Engine, perdure.SyncRun: perdure.Run}


def page() -> str:
    """The whole page."""
    parts = [INTRO]
    for title, (text, things) in SECTIONS.items():
        parts += [
            f"## {title}\n",
            *([text + "\n"] if text else []),
            *(part for thing in things for part in described(thing)),
        ]
    return "\n".join([*parts, "## Errors\n", *errors()])


def described(thing: Any) -> Iterator[str]:
    """A function, or a class with its fields and methods."""
    yield f"### {thing.__name__}\n"
    if not isinstance(thing, type):
        yield signature_of(thing)
        yield text_of(thing)
        return
    if thing not in MADE_FOR_YOU and not issubclass(thing, BaseException):
        yield fields_of(thing) or signature_of(thing, "__init__")
    yield text_of(thing)
    if thing in TWINS:
        twin, shared = (
            TWINS[thing].__name__,
            ", ".join(f"`{name}`" for name, _ in methods_of(TWINS[thing]) if hasattr(thing, name)),
        )
        yield (
            f"Plain functions that take and give what those of [{twin}](#{twin.lower()}) do: "
            f"{shared}.\n"
        )
    for name, method in (
        () if thing is testing.VirtualLoop else methods_of(thing)
    ):  # whose methods are asyncio's
        if thing not in TWINS or not hasattr(TWINS[thing], name):
            yield f"#### {thing.__name__}.{name}\n"
            if not isinstance(method, property):
                yield signature_of(method, name)
            yield text_of(method)


def methods_of(owner: type) -> list[tuple[str, Any]]:
    """Public methods and properties that say what they are for, of the class, and then of those of
    ours that it extends.
    """
    spaces = [vars(one) for one in owner.__mro__ if one.__module__.startswith("perdure")]
    members: dict[str, Any] = {}
    for name, member in (item for space in spaces for item in space.items()):
        if not name.startswith("_"):
            members.setdefault(name, member)
    shown = (property, type(methods_of))
    return [
        (name, one)
        for name, one in members.items()
        if isinstance(one, shown) and one.__doc__ and (owner, name) not in HIDDEN
    ]


def signature_of(thing: Any, name: str | None = None) -> str:
    """The signature as a block of code; of a function with overloads the last one, which has the
    options.
    """
    function: Callable[..., Any] = (
        typing.cast("Any", thing).__init__ if name == "__init__" else thing
    )
    overloads = typing.get_overloads(function) if inspect.isfunction(function) else []
    signature = inspect.signature(overloads[-1] if overloads else function)
    parameters = [
        one.replace(kind=one.POSITIONAL_OR_KEYWORD) if one.name == "self" else one
        for one in signature.parameters.values()
        if (one.name != "self" or name == "__init__") and one.annotation != "Never"
    ]
    word = "async def " if inspect.iscoroutinefunction(function) else "def "
    result = annotation(signature.return_annotation)
    returns = "" if name == "__init__" or result.startswith("_") else f" -> {result}"
    text = wrapped(f"{word}{function.__name__}(", list(written(parameters)), returns)
    if name == "__init__":
        text = f"class {thing.__name__}:\n{textwrap.indent(text, '    ')}"
    return f"```python no-run\n{text}\n```\n"


def wrapped(start: str, parameters: list[str], returns: str) -> str:
    whole = f"{start}{', '.join(parameters)}){returns}: ..."
    if len(whole) <= WIDTH:
        return whole
    return "\n".join([start, *(f"    {one}," for one in parameters), f"){returns}: ..."])


def written(parameters: list[inspect.Parameter]) -> Iterator[str]:
    """Parameters as in source: `/` and `*` in their places, defaults that have no
    literal as `...`."""
    kinds = [one.kind for one in parameters]
    for place, one in enumerate(parameters):
        if (
            one.kind is one.KEYWORD_ONLY
            and one.VAR_POSITIONAL not in kinds
            and one.KEYWORD_ONLY not in kinds[:place]
        ):
            yield "*"
        stars = (
            "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        )
        hint = "" if one.annotation is one.empty else f": {annotation(one.annotation)}"
        yield f"{stars}{one.name}{hint}{default(one, bool(hint))}"
        if one.kind is one.POSITIONAL_ONLY and one.POSITIONAL_ONLY not in kinds[place + 1 :]:
            yield "/"


def default(parameter: inspect.Parameter, spaced: bool) -> str:
    if parameter.default is parameter.empty:
        return ""
    literal = isinstance(parameter.default, int | float | str | tuple | type(None))
    text = (
        repr(parameter.default).replace("'", '"')
        if literal and "<" not in repr(parameter.default)
        else "..."
    )
    return f" = {text}" if spaced else f"={text}"


def annotation(hint: Any) -> str:
    """As it is written in the source, where all of them are texts."""
    return (hint if isinstance(hint, str) else inspect.formatannotation(hint)).replace(
        "'", '"'
    )  # as ruff writes it


def fields_of(owner: type) -> str | None:
    """The fields of a record, which nobody makes by hand; None for other classes."""
    if not hasattr(owner, "__struct_fields__"):
        return None
    lines = [
        f"    {name}: {annotation(owner.__annotations__[name])}" for name in owner.__annotations__
    ]
    return "\n".join([f"```python no-run\nclass {owner.__name__}:", *lines, "```\n"])


def text_of(thing: Any) -> str:
    """A docstring as Markdown: its examples as blocks, its paths of pages as links."""
    blocks = []
    for paragraph in re.split(r"\n\s*\n", inspect.getdoc(thing) or ""):
        if paragraph.startswith(">>>"):
            blocks.append(f"```pycon\n{re.sub(r' +# doctest:.*', '', paragraph)}\n```")
        else:
            blocks.append(re.sub(r"docs/([\w/-]+\.md)", r"[\1](../\1)", paragraph))
    return "\n\n".join(blocks) + "\n"


def errors() -> Iterator[str]:
    """The tree of errors as a table: what each means, and what it is besides."""
    found = [getattr(perdure, name) for name in perdure.__all__ if is_error(getattr(perdure, name))]
    yield "| error | is a | means |\n|---|---|---|"
    for error in sorted(found, key=lambda one: (one is not perdure.PerdureError, one.__name__)):
        parents = ", ".join(f"`{one.__name__}`" for one in error.__bases__)
        meaning = " ".join((inspect.getdoc(error) or "").split("\n\n")[0].split()).replace(
            "|", r"\|"
        )
        yield f"| `{error.__name__}` | {parents} | {meaning} |"
    yield ""


def is_error(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseException)


if __name__ == "__main__":
    PAGE.write_text(page())

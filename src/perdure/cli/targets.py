"""Workflows and calls from the command line's `FILE[:WORKFLOW]` and arguments.

Rules: a file is imported once, as a module named by its stem, so that its classes have the same
names every time; what is wrong with the file or the arguments is a usage error that shows what
would be right.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import sys
import traceback
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from perdure.api.definitions import Call, Workflow
from perdure.cli.common import misuse
from perdure.codec import signature, values
from perdure.errors import NotSerializable, PerdureError

_DECLARATIONS = {
    "schedules": ("perdure.api.schedules", "Schedule"),
    "queues": ("perdure.api.queues", "Queue"),
}
_LIBRARY = Path(__file__).parents[1]
AnyWorkflow = Workflow[..., Any]


# --- files ----------------------------------------------------------------------------------------


def split_target(target: str) -> tuple[Path, str | None]:
    """`FILE[:WORKFLOW]` as a path and a name; a file whose own name has a colon wins."""
    file, colon, name = target.rpartition(":")
    if colon and all(part.isidentifier() for part in name.split(".")) and not Path(target).exists():
        return _existing(file), name
    return _existing(target), None


def load(path: Path) -> ModuleType:
    """Import a file as a module named by its stem, its folder first on the path, as `python FILE`
    would.
    """
    path = path.resolve()
    name = path.stem
    present = sys.modules.get(name)
    if present is not None and Path(getattr(present, "__file__", None) or "").resolve() == path:
        return present
    if present is not None or name in sys.stdlib_module_names:
        raise misuse(
            f"{path.name} has the name of another module, {name!r}, which it would hide. "
            f"Rename the file."
        )
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    return _import(name, path)


def _existing(text: str) -> Path:
    path = Path(text).expanduser()
    if path.is_dir():
        raise misuse(f"{text} is a folder; name the Python file in it that has the workflow.")
    if not path.is_file():
        raise misuse(f"There is no file {text}. `perdure init` writes one to start from.")
    return path


def _import(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise misuse(f"{path.name} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        del sys.modules[name]
        raise misuse(_import_failure(path, error)) from error
    return module


def _import_failure(path: Path, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return (
            f"{path.name} ends the interpreter while it is imported. Put what it runs under "
            f"`if __name__ == '__main__':`."
        )
    frames = traceback.extract_tb(error.__traceback__)
    first = next((i for i, frame in enumerate(frames) if Path(frame.filename) == path), len(frames))
    last = len(frames)
    if isinstance(error, PerdureError):  # its sentence says what the library's own lines would
        while last > first + 1 and _is_ours(frames[last - 1].filename):
            last -= 1
    where = "".join(traceback.format_list(frames[first:last]))
    what = "".join(traceback.format_exception_only(error)).rstrip()
    return f"{path.name} can't be imported:\n{where}{what}"


def _is_ours(file: str) -> bool:
    """Whether code is of this library, or made by it, as methods of dataclasses are."""
    return file == "<string>" or Path(file).is_relative_to(_LIBRARY)


# --- workflows ------------------------------------------------------------------------------------


def workflows_of(module: ModuleType) -> dict[str, AnyWorkflow]:
    """Every workflow that a module holds, its own and imported ones, also as static methods of its
    classes, by name.
    """
    found: dict[str, AnyWorkflow] = {}
    for thing in _things_in(module, module.__name__):
        if isinstance(thing, Workflow) and found.setdefault(thing.name, thing).fn is not thing.fn:
            raise misuse(
                f"{module.__name__}.py has two workflows called {thing.name!r}. Give one "
                f"of them @workflow(name=...)."
            )
    if not found:
        raise misuse(
            f"{module.__name__}.py has no workflow. Decorate an `async def` in it with @workflow."
        )
    return found


def _things_in(space: ModuleType | type, module: str) -> Iterator[Any]:
    """What a module and the classes that it defines hold."""
    around = getattr(space, "__qualname__", "")
    for thing in vars(space).values():
        if isinstance(thing, type) and (
            thing.__module__,
            thing.__qualname__.rpartition(".")[0],
        ) == (module, around):
            yield from _things_in(thing, module)
        else:
            yield thing.__func__ if isinstance(thing, staticmethod) else thing


def workflows_in(files: Iterable[str]) -> dict[str, AnyWorkflow]:
    """Every workflow of several files, by name."""
    found: dict[str, AnyWorkflow] = {}
    for file in files:
        path, _ = split_target(file)
        for name, definition in workflows_of(load(path)).items():
            if found.setdefault(name, definition).fn is not definition.fn:
                raise misuse(f"{file} has a workflow {name!r}, and so has another of these files.")
    return found


def declared_in(files: Iterable[str]) -> dict[str, Any]:
    """The schedules and the queues that the modules of these files hold, by themselves or in lists:
    as an engine takes them.
    """
    values = [
        one
        for file in files
        for thing in vars(load(split_target(file)[0])).values()
        for one in (thing if isinstance(thing, list | tuple) else [thing])
    ]
    found: dict[str, Any] = {}
    for option, (module, name) in _DECLARATIONS.items():
        if (loaded := sys.modules.get(module)) is not None:  # else no file can hold one
            kind = getattr(loaded, name)
            ours = [one for one in values if isinstance(one, kind)]
            found[option] = list({id(one): one for one in ours}.values())
    return found


def pick(module: ModuleType, workflows: dict[str, AnyWorkflow], name: str | None) -> AnyWorkflow:
    """The workflow that was named; else the one called like the file, or main; else the
    only one.
    """
    if name is not None:
        named = workflows.get(name) or getattr(module, name, None)
        if isinstance(named, Workflow):
            return named
        raise misuse(
            f"{module.__name__}.py has no workflow {name!r}. It has: {', '.join(workflows)}."
        )
    own = {
        key: one for key, one in workflows.items() if one.__module__ == module.__name__
    } or workflows
    for likely in (module.__name__, "main"):
        if likely in own:
            return own[likely]
    if len(own) == 1:
        return next(iter(own.values()))
    choices = "\n".join(f"  perdure run {module.__name__}.py:{shown(one)}" for one in own.values())
    raise misuse(f"{module.__name__}.py has several workflows. Say which:\n{choices}")


def shown(definition: AnyWorkflow) -> str:
    """A workflow with its parameters, as in its source."""
    parameters = [
        str(one.replace(annotation=_annotation_text(one)))
        for one in definition.signature.parameters.values()
    ]
    return (
        f"{definition.name}({', '.join(parameters)})".replace("'", "")
        if parameters
        else f"{definition.name}()"
    )


def _annotation_text(parameter: inspect.Parameter) -> Any:
    hint = parameter.annotation
    if hint is parameter.empty or isinstance(hint, str):
        return hint
    return inspect.formatannotation(hint)


# --- calls ----------------------------------------------------------------------------------------


def make_call(definition: AnyWorkflow, arguments: Iterable[str]) -> Call[Any]:
    """A call from arguments: positional, or `name=value` where the workflow has a parameter of that
    name.
    """
    positional, named = _by_position_and_name(definition.signature, arguments)
    try:
        bound = definition.signature.bind(*positional, **named)
    except TypeError as error:
        raise misuse(f"{shown(definition)}: {error}.") from error
    hints = _hints(definition)
    for name, given in bound.arguments.items():
        match definition.signature.parameters[name].kind:
            case inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(
                    _convert(definition, name, hints, text) for text in given
                )
            case inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {
                    key: _convert(definition, name, hints, text) for key, text in given.items()
                }
            case _:
                bound.arguments[name] = _convert(definition, name, hints, given)
    return definition(*bound.args, **bound.kwargs)


def default_id(call: Call[Any]) -> str:
    """Workflow name and a digest of the arguments: the same command means the same run."""
    digest = hashlib.blake2b(
        signature.signature_of(call.definition).encode_passed(call.args, call.kwargs), digest_size=4
    ).hexdigest()
    return f"{call.definition.name}-{digest}"


def _by_position_and_name(
    signature: inspect.Signature, arguments: Iterable[str]
) -> tuple[list[str], dict[str, str]]:
    by_name = {
        one.name
        for one in signature.parameters.values()
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    anything = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())
    positional: list[str] = []
    named: dict[str, str] = {}
    for text in arguments:
        name, equals, rest = text.partition("=")
        if equals and (name in by_name or (anything and name.isidentifier())):
            named[name] = rest
        else:
            positional.append(text)
    return positional, named


def _hints(definition: AnyWorkflow) -> dict[str, Any]:
    try:
        return typing.get_type_hints(definition.fn, localns=definition.scope, include_extras=True)
    except Exception as error:
        raise misuse(f"{shown(definition)}: its annotations can't be read: {error}.") from error


def _convert(definition: AnyWorkflow, name: str, hints: dict[str, Any], text: str) -> Any:
    """An argument as the parameter's type: JSON that fits it, else a string that fits it."""
    hint = hints.get(name, Any)
    if hint is str:
        return text
    detail = ""
    for raw in (text.encode(errors="surrogatepass"), json.dumps(text).encode()):
        try:
            return values.decode(raw, hint, name)
        except (
            NotSerializable
        ) as error:  # of a text that is no JSON, the second says what is wrong with it
            detail = (
                error.detail if detail.startswith("JSON is malformed") else detail or error.detail
            )
    raise misuse(f"{shown(definition)}: {text!r} is no value for {name}: {detail}.")

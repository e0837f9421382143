"""Signatures: the parameters and the result of a function, compiled to typed JSON.

Rules: arguments are recorded by parameter name; a signature is compiled at its first use and then
costs a few microseconds.
"""

from __future__ import annotations

import functools
import inspect
import typing
import weakref
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from perdure.api.definitions import Definition
from perdure.codec import marks
from perdure.codec.pydantic import Unsupported
from perdure.codec.secrets import MARK_BYTES
from perdure.codec.types import ENCODER, Slot, dec_hook, difference, same_plain, slot_of
from perdure.codec.values import dump, load, no_form, within
from perdure.errors import DefinitionError, DoesNotFit, NotSerializable

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_STAR, _STARSTAR = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
_WRAPPED: dict[Any, Callable[[Any], Any]] = {
    _STAR: lambda type_: list[type_],  # type: ignore[valid-type]
    _STARSTAR: lambda type_: dict[str, type_],  # type: ignore[valid-type]
}


_MEMBERS = slot_of(dict[str, Raw])


class _Never:
    """The type of no value."""


class Signature:
    """The parameters and the result of one function, compiled; `.options()` clones share it."""

    def __init__(self, definition: Definition[..., Any]) -> None:
        self.what = f"{definition.kind} {definition.name}"
        names = _Names(definition)
        parameters = list(definition.signature.parameters.values())
        self._names = [parameter.name for parameter in parameters]
        self._kinds = [parameter.kind for parameter in parameters]
        self._slots = [_parameter_slot(parameter, names, self.what) for parameter in parameters]
        self._positional = sum(kind in _POSITIONAL for kind in self._kinds)
        self._by_name = {
            name: i for i, name in enumerate(self._names) if self._kinds[i] in _BY_NAME
        }
        self._all_positional = self._positional == len(parameters)
        self._known = frozenset(self._names)
        self._required = [
            one.default is one.empty and one.kind not in _WRAPPED for one in parameters
        ]
        self._all_required = self._all_positional and all(self._required)
        self._needed = frozenset(
            name for name, required in zip(self._names, self._required, strict=True) if required
        )
        self.of_result, self.of_recorded = (
            f"the result of {self.what}",
            f"the recorded call of {self.what}",
        )
        self.result = names.slot(
            definition.signature.return_annotation, f"The result of {self.what}"
        )
        self._box: Any = self._box_type() if all(slot.native for slot in self._slots) else None
        self._read_box = (
            None if self._box is None else msgspec.json.Decoder(self._box, dec_hook=dec_hook).decode
        )
        self._plain = all(slot.plain for slot in self._slots)
        self._scalars = tuple(slot.scalar or _Never for slot in self._slots)
        self._defaults = [
            self._default(slot, parameter)
            for slot, parameter in zip(self._slots, parameters, strict=True)
        ]
        self._rest = functools.lru_cache(maxsize=64)(self._make_rest)
        self._rests = [
            self._make_rest(tuple(range(n, len(parameters)))) for n in range(self._positional + 1)
        ]
        self._nothing = b"{" + (self._rests[0][1:] or b"}")
        self._needs_none = not any(self._required)

    def parameters(self) -> list[tuple[str, Any, bool]]:
        """Name, type and whether it has to be given, of each parameter."""
        return [
            (name, slot.type, required)
            for name, slot, required in zip(self._names, self._slots, self._required, strict=True)
        ]

    def defaults(self) -> bytes:
        """The defaults that have a JSON form, as an object by parameter name."""
        return b"{" + b"".join(one or b"" for one in self._defaults).removeprefix(b", ") + b"}"

    def encode_args(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, limit_bytes: int | None = None
    ) -> bytes:
        """The arguments as a JSON object by parameter name: those that were passed, then the
        defaults of the others, marked.
        """
        if not args and not kwargs:
            raw = self._nothing
        elif self._all_positional and len(args) + len(kwargs) == len(self._names):
            values = self._arranged(args, kwargs) if kwargs else args
            raw = self._encode_box(values) or self._encode_each(values)
        elif kwargs or len(args) > self._positional:
            values = self._arranged(args, kwargs)
            raw = self._encode_values(
                values, self._rest(tuple([i for i, value in enumerate(values) if value is UNSET]))
            )
        else:
            raw = self._encode_values(args, self._rests[len(args)])
        return (
            raw
            if limit_bytes is None or len(raw) <= limit_bytes
            else within(raw, f"the arguments of {self.what}", limit_bytes)
        )

    def encode_passed(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """As `encode_args`, without defaults."""
        return self._encode_each(self._arranged(args, kwargs))

    def scalars_only(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether decoding would give these very values: they are immutable, so they are not
        copied.
        """
        return not kwargs and tuple(map(type, args)) == self._scalars

    def decode_args(self, raw: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Fresh, typed arguments: `fn(*args, **kwargs)`. Raises `DoesNotFit`, also where one that
        has no default was not recorded.
        """
        if raw == b"{}" and self._needs_none:
            return (), {}
        values = self._decode_each(raw) if self._read_box is None else self._decode_box(raw)
        if self._all_required or (
            self._all_positional and not any(value is UNSET for value in values)
        ):
            return values, {}
        return self._spread(values, raw)

    def encode_result(self, value: Any, *, limit_bytes: int | None = None) -> bytes:
        """The result of the function as JSON."""
        return dump(self.result, value, self.of_result, "the return type", limit_bytes)

    def decode_result(self, raw: bytes) -> Any:
        return load(self.result, raw, self.of_result)

    def _box_type(self) -> Any:
        """All arguments as one struct, so that they are written, read and compared by three calls
        into C.
        """
        fields = [
            (f"p{i}", slot.type) if self._all_required else (f"p{i}", slot.type, UNSET)
            for i, slot in enumerate(self._slots)
        ]
        return msgspec.defstruct(
            "Arguments",
            fields,
            rename={f"p{i}": n for i, n in enumerate(self._names)},
            forbid_unknown_fields=True,
        )

    def _encode_box(self, values: tuple[Any, ...]) -> bytes | None:
        """The fast way; None if it fails, and then `_encode_each` says why."""
        if self._read_box is None:
            return None
        try:
            raw = ENCODER.encode(self._box(*values))
            if tuple(map(type, values)) == self._scalars[: len(values)]:
                return raw
            back = msgspec.structs.astuple(self._read_box(raw))[: len(values)]
            found = same_plain(values, back) if self._plain else difference(values, back)
        except Exception:
            return None
        return raw if found is None else None

    def _default(self, slot: Slot, parameter: inspect.Parameter) -> bytes | None:
        """A default with its name, to follow the passed arguments; None if it would not come
        back the same.
        """
        if parameter.default is parameter.empty:
            return None
        try:
            return b", %s:%s" % (
                ENCODER.encode(parameter.name),
                dump(slot, parameter.default, "the default", "the parameter", None),
            )
        except (NotSerializable, DefinitionError):
            return None  # a client or a marker: whatever it is when the call is carried out

    def _make_rest(self, missing: tuple[int, ...]) -> bytes:
        """The end of the object: the defaults of the arguments that were not passed, if any."""
        found = b"".join(self._defaults[i] or b"" for i in missing)
        return found and found + b"}"

    def _encode_values(self, values: tuple[Any, ...], rest: bytes) -> bytes:
        raw = self._encode_box(values) or self._encode_each(values)
        if not rest:
            return raw
        return raw[:-1] + rest if len(raw) > 2 else b"{" + rest[1:]

    def _encode_each(self, values: tuple[Any, ...]) -> bytes:
        parts: list[bytes] = []
        for name, slot, value in zip(self._names, self._slots, values, strict=False):
            if value is not UNSET:
                raw = dump(slot, value, f"argument {name!r} of {self.what}", "the parameter", None)
                parts.append(b"%s:%s" % (ENCODER.encode(name), raw))
        return b"{%s}" % b",".join(parts)

    def _decode_box(self, raw: bytes) -> tuple[Any, ...]:
        assert self._read_box is not None
        if MARK_BYTES in raw:
            return self._decode_each(raw)  # places without a type give secrets as such
        try:
            return msgspec.structs.astuple(self._read_box(raw))
        except Exception:
            return self._decode_each(raw)  # names the argument that does not fit

    def _decode_each(self, raw: bytes) -> tuple[Any, ...]:
        given = load(_MEMBERS, raw, f"the arguments of {self.what}")
        if not self._known.issuperset(given) and (unknown := marks.given(raw) - self._known):
            names = ", ".join(sorted(unknown))
            raise DoesNotFit(
                self.of_recorded,
                f"the code has no parameter {names} any more; give it back, with a default",
            )
        if not self._needed.issubset(given):
            names = ", ".join(
                name for name in self._names if name in self._needed and name not in given
            )
            raise DoesNotFit(
                self.of_recorded,
                f"it is without {names}, which the code has got since; give it a default",
            )
        pairs = zip(self._names, self._slots, strict=True)
        return tuple(
            [
                load(slot, bytes(given[name]), f"argument {name!r} of {self.what}")
                if name in given
                else UNSET
                for name, slot in pairs
            ]
        )

    def _arranged(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """One value for every parameter, UNSET where nothing was passed."""
        values: list[Any] = [UNSET] * len(self._names)
        head = args[: self._positional]
        values[: len(head)] = head
        if len(args) > len(head):
            values[self._positional] = list(args[len(head) :])
        rest: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in self._by_name:
                values[self._by_name[name]] = value
            else:
                rest[name] = value
        if rest:
            values[-1] = rest
        return tuple(values)

    def _spread(
        self, values: tuple[Any, ...], raw: bytes
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The reverse of `_arranged`: behind a gap, positional parameters are passed by name."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        gap = False
        for name, kind, value in zip(self._names, self._kinds, values, strict=True):
            if value is UNSET:
                gap = True
            elif kind is _STAR:
                args.extend(value)
            elif kind is _STARSTAR:
                kwargs.update(value)
            elif gap or kind not in _POSITIONAL:
                kwargs[name] = value
            else:
                args.append(value)
        if gap and any(
            required and value is UNSET
            for required, value in zip(self._required, values, strict=True)
        ):
            self._decode_each(raw)  # raises what is missing
        return tuple(args), kwargs


class _Names:
    """Resolves the annotations of one function."""

    def __init__(self, definition: Definition[..., Any]) -> None:
        fn = inspect.unwrap(definition.fn)
        self._globals = getattr(fn, "__globals__", {})
        self._locals = {one.__name__: one for one in getattr(fn, "__type_params__", ())} | (
            definition.scope or {}
        )

    def slot(self, annotation: Any, what: str, wrap: Callable[[Any], Any] | None = None) -> Slot:
        type_ = self._resolved(annotation, what)
        try:
            return slot_of(type_ if wrap is None else wrap(type_))
        except Unsupported as error:
            raise DefinitionError(no_form(what, type_, str(error))) from None

    def _resolved(self, annotation: Any, what: str) -> Any:
        if annotation is inspect.Parameter.empty:
            return Any
        holder = SimpleNamespace(__annotations__={"it": annotation})
        try:
            return typing.get_type_hints(holder, self._globals, self._locals, include_extras=True)[
                "it"
            ]
        except Exception as error:
            raise DefinitionError(
                f"{what}: the annotation {annotation!r} can't be resolved ({error}). Import or "
                f"define what it names at "
                "module level, not only under TYPE_CHECKING, and before the first call."
            ) from None


def _parameter_slot(parameter: inspect.Parameter, names: _Names, what: str) -> Slot:
    """The slot of a parameter. A bad type of an optional one is an error at its first use."""
    try:
        return names.slot(
            parameter.annotation,
            f"Parameter {parameter.name!r} of {what}",
            _WRAPPED.get(parameter.kind),
        )
    except DefinitionError as error:
        if parameter.default is parameter.empty and parameter.kind not in _WRAPPED:
            raise
        refuse = functools.partial(_refuse, str(error))
        return Slot(Any, refuse, refuse)


def _refuse(text: str, _: Any) -> Any:
    raise DefinitionError(text)


_signatures: weakref.WeakKeyDictionary[Any, dict[tuple[str, bool], Signature]] = (
    weakref.WeakKeyDictionary()
)


def signature_of(definition: Definition[..., Any]) -> Signature:
    """The compiled signature of a definition; made at the first use, when annotations can be
    resolved.
    """
    found: Any = definition.compiled
    if found is None:
        of_function = _signatures.setdefault(definition.fn, {})
        key = (definition.name, definition.call_options.transactional)
        found = of_function.get(key)
        if found is None:
            found = of_function[key] = Signature(definition)
        definition.compiled = found
    return found  # type: ignore[no-any-return]

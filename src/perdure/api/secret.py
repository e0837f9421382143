"""Secrets: text that workflows and steps can use, and that nothing shows.

Rules: only `reveal` gives the text; what prints, logs or formats a secret gets the mask.
"""

from __future__ import annotations

from typing import Any, NoReturn

from perdure.core.numbers import shown
from perdure.errors import DefinitionError

MARK = "\U000f5ec7"
"""What the recorded text begins with, until it is hidden: a private character."""

MASK = "•••"

SCHEMA = {"type": "string", "format": "password", "writeOnly": True}
"""Its JSON Schema."""


class Secret:
    """A text that is shown as `•••` in views, pages, logs and exports.

    As the type of a parameter, a result, a field or a message it is recorded like any value, and a
    replay gets it again; what is stored for readers has the mask, and the text itself is in the
    table `perdure_secret` of the store, for the run alone. It hides the text from readers, and
    does not encrypt the file. Raises `DefinitionError` for anything but a str.

    >>> token = Secret("sk-123")
    >>> token
    Secret('•••')
    >>> f"Bearer {token}", f"Bearer {token.reveal()}"
    ('Bearer •••', 'Bearer sk-123')
    >>> token == Secret("sk-123")
    True
    """

    __slots__ = ("__weakref__", "_text")

    _text: str

    def __init__(self, text: str) -> None:
        if type(text) is not str:
            raise DefinitionError(
                f"A Secret holds a str, not {shown(type(text))}: make it text first."
            )
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """The text."""
        return self._text

    @classmethod
    def recorded(cls, text: object) -> Secret:
        """A secret from its recorded text, with or without the mark."""
        if not isinstance(text, str):
            raise TypeError(f"Expected `str`, got `{type(text).__name__}`")
        return cls(text.removeprefix(MARK))

    def marked(self) -> str:
        """The text as it is recorded, before it is hidden."""
        return MARK + self._text

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret does not change: make a new one")

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: reveal() it where its text is needed")

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        return dict(SCHEMA)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """For fields of pydantic models, whose JSON has the mask unless it is to be read again."""
        from pydantic_core import core_schema

        def read(given: object) -> Secret:
            if isinstance(given, Secret):
                return given
            if isinstance(given, str):
                return cls.recorded(given)
            raise ValueError("a Secret is text")

        def write(secret: Secret, info: Any) -> str:
            return secret.marked() if info.round_trip else MASK

        return core_schema.no_info_plain_validator_function(
            read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                write, info_arg=True, return_schema=core_schema.str_schema(), when_used="json"
            ),
            json_schema_input_schema=core_schema.str_schema(),
        )

"""Requests and exposed values in workflows: `receive_request`, `Request`, `expose`.

Rules: as in `verbs`; a request gets one reply, given by workflow code of the run that received it.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast, overload

from perdure.api.verbs import Issued, _kernel, checked_prompt
from perdure.core.mail import Received
from perdure.core.numbers import shown
from perdure.errors import DefinitionError

T = TypeVar("T")


class Request(Generic[T]):
    """A request to this run, as `receive_request` gives it: `value` is what was asked, `sender` the
    name of the asker (that of the engine, if nothing else was given), `key` its key, `channel` its
    channel.

    It gets one reply, by `reply` or `refuse`; a second one raises `AlreadyReplied`.
    """

    __slots__ = ("_received",)

    def __init__(self, received: Received) -> None:
        self._received = received

    def __repr__(self) -> str:
        return f"<request {self.key} on {self.channel}>"

    @property
    def value(self) -> T:
        """What was asked."""
        return cast("T", self._received.value)

    @property
    def sender(self) -> str:
        """The name of the asker."""
        return self._received.sender

    @property
    def key(self) -> str:
        """The key under which it was asked; asking again with it gives the same reply."""
        return self._received.key

    @property
    def channel(self) -> str:
        """The channel on which it came."""
        return self._received.channel

    def reply(self, result: Any = None) -> Issued[None]:
        """Reply with a result, any value that has a JSON form. The asker gets it when it is
        recorded.

        Raises `NotSerializable`, and then the request stays open; `AlreadyReplied`; outside of a
        workflow `NotInWorkflow`.
        """
        _kernel("Request.reply()").mail.reply(self._received, result)
        return Issued()

    def refuse(self, reason: str) -> Issued[None]:
        """Refuse the request: the asker gets `RequestRefused` with this reason.

        Raises `AlreadyReplied`, and `DefinitionError` for a reason that is no text.
        """
        if not isinstance(reason, str):
            raise DefinitionError(f"The reason of a refusal is a text, not {shown(reason)}.")
        _kernel("Request.refuse()").mail.refuse(self._received, reason)
        return Issued()


@overload
async def receive_request(channel: str, *, prompt: str | None = None) -> Request[Any]: ...
@overload
async def receive_request(
    channel: str, type: type[T], *, prompt: str | None = None
) -> Request[T]: ...
async def receive_request(
    channel: str, type: Any = Any, *, prompt: str | None = None
) -> Request[Any]:
    """Wait for the next request on `channel`, with its value decoded as `type`.

    Requests of a channel come in the order in which they were recorded, each to one receiver;
    messages of that channel are no requests, and `receive` gets those. One that does not fit `type`
    is refused, and the wait goes on. `prompt` is the question that the inbox asks a person.
    `asyncio.timeout` bounds the wait. Raises `BadName`.

    >>> from perdure import SyncEngine, workflow
    >>> @workflow
    ... async def cart(owner: str) -> list[str]:
    ...     items: list[str] = []
    ...     while len(items) < 2:
    ...         request = await receive_request("add", str)
    ...         if request.value in items:
    ...             request.refuse(f"{request.value} is in the cart")
    ...         else:
    ...             items.append(request.value)
    ...             request.reply(len(items))
    ...     return items
    >>> with SyncEngine(":memory:", workflows=[cart]) as engine:
    ...     run = engine.start(cart("ada"), id="cart")
    ...     engine.ask("cart", "tea", channel="add"), run.ask("milk", channel="add"), run.result()
    (1, 2, ['tea', 'milk'])
    """
    kernel = _kernel("receive_request()")
    return Request(await kernel.mail.receive_request(channel, type, checked_prompt(prompt)))


def expose(**values: Any) -> Issued[None]:
    """Set named values of this run, for `Run.exposed` and the view `perdure_exposed`.

    A value is any value that has a JSON form; the last one of a name counts. A run has at most
    1,000 names, and its successor by `continue_as` begins without any. Raises `NotSerializable` and
    `BadName`, and then none of them is set.

    >>> from perdure import SyncEngine, workflow
    >>> @workflow
    ... async def survey(pages: int) -> None:
    ...     expose(stage="reading", done=0)
    ...     expose(stage="written", done=pages)
    >>> with SyncEngine(":memory:", workflows=[survey]) as engine:
    ...     engine.run(survey(3), id="survey")
    ...     engine.get("survey").exposed()
    {'stage': 'written', 'done': 3}
    """
    _kernel("expose()").expose(values)
    return Issued()

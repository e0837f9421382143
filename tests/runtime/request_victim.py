"""A process that serves requests, or that asks: `request_victim.py STORE serve` and
`request_victim.py STORE ask RUN VALUE KEY`.

Rules: as in `victim`; what it prints is all that the tests go by.
"""

from __future__ import annotations

import asyncio
import sys

from perdure import Engine, expose, receive_request, step, workflow
from tests.runtime.victim import hear, say


@step
async def price(item: str) -> int:
    """Says that it is under way, and ends when it hears so."""
    say("PRICING", item)
    await hear()
    return len(item)


@workflow
async def desk(name: str) -> int:
    """Replies with a price and the number of the reply, until it is asked to close."""
    replies = 0
    while True:
        expose(replies=replies)
        request = await receive_request("price", str)
        if request.value == "close":
            request.reply(replies)
            return replies
        if request.value == "free":
            request.refuse("nothing is free")
            continue
        cost = await price(request.value)
        replies += 1
        request.reply([cost, replies])


@workflow
async def tally() -> int:
    """Replies with the number of the request, until it is asked to end."""
    count = 0
    while True:
        request = await receive_request("next", bool)
        if not request.value:
            request.reply(count)
            return count
        count += 1
        request.reply(count)


async def main() -> None:
    store, verb, *words = sys.argv[1:]
    if verb == "serve":
        async with Engine(store, workflows=[desk, tally], lease_ttl=1.0):
            say("OPEN")
            await asyncio.Event().wait()
    else:
        run_id, value, key = words
        async with Engine(store, execute=False, name="the asker") as engine:
            say("ASKING")
            say("REPLY", await engine.ask(run_id, value, channel="price", key=key))


if __name__ == "__main__":
    asyncio.run(main())

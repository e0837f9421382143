"""A refund: look the order up, ask a person when it is much, pay, wait a little, write a letter.

    perdure run app.py A-17 120

Kill it anywhere and give the same command again: what was recorded is not done again.
"""

import asyncio
from dataclasses import dataclass

from perdure import receive, step, workflow


@dataclass
class Order:
    number: str
    customer: str


@step
def look_up(number: str) -> Order:
    """A plain function runs in a thread; read from your database here."""
    return Order(number, customer="Ada")


@step(timeout=30)
async def pay(order: Order, amount: float) -> str:
    """An async step; call your payment service here. Once its result is recorded it is never done
    again.
    """
    return f"payment of {amount:.2f} to {order.customer}"


@step
def write_letter(order: Order, payment: str) -> str:
    return f"Dear {order.customer}, we made a {payment} for order {order.number}."


@workflow
async def refund(order_number: str, amount: float) -> str:
    """Decides what happens; everything that touches the world is a step."""
    order = await look_up(order_number)
    if amount > 50 and not await approved():
        return f"Refund for order {order.number} was not approved."
    payment = await pay(order, amount)
    await asyncio.sleep(2)  # durable: it may as well be 30 days, across restarts and deploys
    return await write_letter(order, payment)


async def approved() -> bool:
    """Wait for a person for three days; meanwhile the run costs nothing."""
    try:
        async with asyncio.timeout(3 * 24 * 3600):
            return await receive("approval", bool)
    except TimeoutError:
        return False

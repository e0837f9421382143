"""Queues and rates are checked where they are given; keys and weights follow from arguments."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from perdure import BadName, DefinitionError, Queue, Rate, step, workflow
from perdure.api import queues

# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["concurrency", "per_worker", "key_concurrency", "waiting_max"])
@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "5", math.inf, 10**10], ids=repr)
def test_a_limit_is_a_whole_number_from_one(limit: str, wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=f"openai.*{limit}"):
        Queue("openai", **{limit: wrong})


@pytest.mark.parametrize("limit", ["rate", "key_rate"])
@pytest.mark.parametrize("wrong", [5, (5, 60), "5/s"], ids=repr)
def test_a_rate_is_a_rate(limit: str, wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=rf"{limit} is a Rate, such as {limit}=Rate\("):
        Queue("openai", **{limit: wrong})


@pytest.mark.parametrize("part", ["per_worker", "key_concurrency"])
def test_limits_that_contradict_each_other(part: str) -> None:
    five: Any = {part: 5}
    with pytest.raises(DefinitionError, match=f"{part}=5 is more than concurrency=4"):
        Queue("openai", concurrency=4, **five)
    assert Queue("openai", concurrency=5, **five).concurrency == 5
    with pytest.raises(DefinitionError, match="more than concurrency"):
        Queue("openai", **five).changed({"concurrency": 4})


def test_a_rate_of_keys_above_that_of_the_queue_would_limit_nothing() -> None:
    with pytest.raises(DefinitionError, match="key_rate allows more than rate"):
        Queue("openai", rate=Rate(5, per=60), key_rate=Rate(50, per=60))
    with pytest.raises(DefinitionError, match="key_rate allows more than rate"):
        Queue("openai", rate=Rate(5, per=60), key_rate=Rate(5, per=1))
    assert Queue("openai", rate=Rate(60, per=60), key_rate=Rate(5, per=1, burst=5)).key_rate
    assert Queue("openai", rate=Rate(5, per=60), key_rate=Rate(5, per=60)).key_rate


@pytest.mark.parametrize("name", ["", 5, None, "nul\0", "half \ud800"], ids=repr)
def test_a_name_is_a_text(name: Any) -> None:
    with pytest.raises((BadName, DefinitionError), match="queue"):
        Queue(name)


def test_paused_is_a_flag() -> None:
    with pytest.raises(DefinitionError, match="paused is True or False"):
        Queue("q", paused=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "per", "burst"),
    [(0, 1, None), (1, 0, None), (1, -1, None), (1, "1", None), (1, math.nan, None), (1, 1, 0),
     (1.5, 1, None), (1, timedelta(0), None), (1, 1e9, None), (True, 1, None)],
)  # fmt: skip
def test_a_rate_that_can_not_be(limit: Any, per: Any, burst: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Rate: (limit|per|burst) is"):
        Rate(limit, per, burst)


def test_a_rate_has_the_burst_of_its_limit() -> None:
    assert Rate(60, timedelta(minutes=1)).tokens_max == 60
    assert Rate(60, per=0.5, burst=5).tokens_max == 5
    assert Rate(60, timedelta(minutes=1)).per_ms == 60_000
    assert Rate(60, per=0.5) == Rate(60, 0.5, 60)


# --- changes --------------------------------------------------------------------------------------


def test_a_change_names_what_it_changes() -> None:
    queue = Queue("q", concurrency=3, rate=Rate(1, 1))
    assert queue.changed({"rate": None, "paused": True}) == Queue("q", concurrency=3, paused=True)
    with pytest.raises(DefinitionError, match=r"no limit is called size.*concurrency, per_worker"):
        queue.changed({"size": 3})
    with pytest.raises(DefinitionError, match="concurrency is a whole number"):
        queue.changed({"concurrency": 0})


@pytest.mark.parametrize("wrong", ["q", Queue("q"), {"q": 5}, 5, None, [Queue("q"), "q"]], ids=repr)
def test_an_engine_takes_a_list_of_queues(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="queues is a list of queues"):
        queues.checked_queues(wrong)


def test_a_queue_is_given_once() -> None:
    assert queues.checked_queues([]) == ()
    with pytest.raises(DefinitionError, match="'q' is given twice"):
        queues.checked_queues([Queue("q"), Queue("r"), Queue("q", concurrency=1)])


# --- keys and weights -----------------------------------------------------------------------------


@step
async def ask(tenant: str, prompt: str, *, model: str = "small") -> str:
    return tenant + prompt + model


def chosen(given: Any, *args: Any, **kwargs: Any) -> Any:
    return queues.chosen(given, ask, args, kwargs)


def test_a_function_gets_the_arguments_by_their_names() -> None:
    assert chosen("t", "a", "b") == "t"
    assert chosen(lambda tenant, **_: tenant, "a", "b") == "a"
    assert chosen(lambda prompt: len(prompt), "a", "long") == 4
    assert chosen(lambda model, tenant: f"{tenant}/{model}", "a", "b") == "a/small"
    assert chosen(lambda model, tenant: f"{tenant}/{model}", prompt="b", tenant="a") == "a/small"
    assert chosen(lambda **given: sorted(given), "a", "b") == ["model", "prompt", "tenant"]
    assert chosen(lambda tenant, other=5: f"{tenant}{other}", "a", "b") == "a5"


def test_a_function_with_names_of_its_own_gets_them_in_their_order() -> None:
    assert chosen(lambda a, b, c: a + b + c, "x", "y", model="z") == "xyz"
    assert chosen(lambda *given: given, "x", "y") == ("x", "y", "small")


@pytest.mark.parametrize("option", ["key", "weight"])
def test_a_function_that_does_not_take_the_arguments_is_an_error_at_once(option: str) -> None:
    wrong: Any = {option: lambda who: who}
    with pytest.raises(DefinitionError, match=rf"step ask: the function {option} takes who"):
        ask.options(**wrong)
    with pytest.raises(DefinitionError, match=rf"the function {option} takes who"):
        step(queue="q", **wrong)(ask.fn)


@pytest.mark.parametrize("wrong", [5, b"t", ["t"], ""], ids=repr)
def test_a_key_is_a_text(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="key"):
        ask.options(key=wrong)
    with pytest.raises(DefinitionError, match="key"):
        workflow(key=wrong)(ask.fn)


@pytest.mark.parametrize("wrong", [-1, 1.5, "5", None, True], ids=repr)
def test_a_weight_is_a_whole_number(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="weight"):
        ask.options(weight=wrong)


def test_a_transactional_step_has_no_queue() -> None:
    with pytest.raises(DefinitionError, match="transactional step can't have a queue"):

        @step(transactional=True, queue="q")  # type: ignore[call-overload]
        def write(db: Any) -> None: ...

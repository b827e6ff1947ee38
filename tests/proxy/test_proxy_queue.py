"""Who waits for room, and in which order."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from pool_kit import add_up, new_pool

from mvllm_router.policies import Supposed
from mvllm_router.pool import Backend
from mvllm_router.proxy.queue import Queue, Ticket

_POOL = new_pool()
A, B = add_up(_POOL, "a"), add_up(_POOL, "b")


def ticket(tell: str, model: str | None = "m", tried: Iterable[Backend] = ()) -> Ticket[str]:
    return Ticket(Supposed(model), tried, tell, 0.0)


def queue_of(*tickets: Ticket[str]) -> Queue[str]:
    queue: Queue[str] = Queue()
    for one in tickets:
        queue.join(one)
    return queue


def heads(queue: Queue[str]) -> list[str]:
    return [one.tell for one in queue.first_of_each_kind()]


def serve(queue: Queue[str]) -> list[str]:
    """Take the first of all out until none is left; return them in that order."""
    served = []
    while queue.count:
        first = queue.first_of_each_kind()[0]
        assert queue.leave(first)
        served.append(first.tell)
    return served


def test_a_new_one_is_empty() -> None:
    queue: Queue[str] = Queue()
    assert (queue.count, heads(queue), queue.drain()) == (0, [], [])


def test_a_ticket_says_for_which_model_it_waits_and_where_it_has_been() -> None:
    one = ticket("x", "m", [A, B, A])
    assert (one.model, one.tried, one.tell) == ("m", {A, B}, "x")
    assert ticket("x", None).model is None


def test_of_a_kind_the_first_to_come_is_the_first_to_be_served() -> None:
    queue = queue_of(*(ticket(name) for name in "abcdef"))
    assert heads(queue) == ["a"]
    assert serve(queue) == list("abcdef")


def test_kinds_are_told_apart_by_model_and_by_where_they_have_been() -> None:
    queue = queue_of(
        ticket("m"),
        ticket("other model", "n"),
        ticket("no model", None),
        ticket("been at a", "m", [A]),
        ticket("been at both", "m", [A, B]),
        ticket("been at both too", "m", [B, A]),
        ticket("m too"),
    )
    assert heads(queue) == ["m", "other model", "no model", "been at a", "been at both"]


def test_the_heads_stand_in_the_order_of_arrival_whichever_kind_was_first() -> None:
    first, second, third = ticket("1", "m"), ticket("2", "n"), ticket("3", "m")
    queue = queue_of(first, second, third)
    assert heads(queue) == ["1", "2"]
    queue.leave(first)
    assert heads(queue) == ["2", "3"]


def test_one_in_the_middle_may_leave() -> None:
    tickets = [ticket(name) for name in "abc"]
    queue = queue_of(*tickets)
    assert queue.leave(tickets[1])
    assert queue.count == 2
    assert serve(queue) == ["a", "c"]


def test_one_leaves_once() -> None:
    first, second = ticket("a"), ticket("b")
    queue = queue_of(first, second)
    assert [queue.leave(first), queue.leave(first)] == [True, False]
    assert queue.count == 1
    queue.leave(second)
    assert not queue.leave(second), "its kind is gone"
    assert queue.count == 0


def test_one_that_never_joined_cannot_leave() -> None:
    queue = queue_of(ticket("a"))
    assert not queue.leave(ticket("b"))
    assert not queue.leave(ticket("c", "n"))
    assert queue.count == 1


def test_one_that_left_joins_again_behind_all_others() -> None:
    tickets = [ticket(name) for name in "abc"]
    queue = queue_of(*tickets)
    queue.leave(tickets[0])
    queue.join(tickets[0])
    assert serve(queue) == ["b", "c", "a"]


def test_all_are_taken_out_in_the_order_of_arrival() -> None:
    queue = queue_of(ticket("1", "m"), ticket("2", "n"), ticket("3", "m"), ticket("4", None))
    assert [one.tell for one in queue.drain()] == ["1", "2", "3", "4"]
    assert (queue.count, heads(queue)) == (0, [])


def test_nothing_is_left_of_a_kind_that_waits_no_more() -> None:
    queue: Queue[str] = Queue()
    for number in range(1000):
        one = ticket("x", f"invented-{number}")
        queue.join(one)
        queue.leave(one)
    assert not queue._kinds, "names come from clients"


@pytest.mark.parametrize("seed", range(3))
def test_leaving_in_any_order_leaves_the_others_in_theirs(seed: int) -> None:
    draw = random.Random(seed)
    tickets = [ticket(str(number), draw.choice("mn")) for number in range(200)]
    queue = queue_of(*tickets)
    gone = draw.sample(tickets, 120)
    for one in gone:
        queue.leave(one)
    assert serve(queue) == [one.tell for one in tickets if one not in gone]

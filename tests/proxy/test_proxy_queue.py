"""Who waits for room, and in which order."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from pool_kit import add_up, new_pool

from mvllm_router.policies import Supposed
from mvllm_router.pool import Backend
from mvllm_router.proxy.queue import Claim, Queue, Ticket

_POOL = new_pool()
A, B = add_up(_POOL, "a"), add_up(_POOL, "b")
# Seconds: when all happens where time plays no part, and what one step of priority counts for.
NOW, STEP = 1000.0, 5.0


def ticket(
    tell: str,
    model: str | None = "m",
    tried: Iterable[Backend] = (),
    *,
    key: str = "",
    base: int = 0,
    asked: int = 0,
) -> Ticket[str]:
    return Ticket(Supposed(model), tried, tell, Claim.of(key, base, asked))


def queue_of(*tickets: Ticket[str], now: float = NOW) -> Queue[str]:
    queue: Queue[str] = Queue()
    for one in tickets:
        queue.join(one, now, STEP)
    return queue


def heads(queue: Queue[str], now: float = NOW) -> list[str]:
    return [one.tell for one in queue.first_of_each_kind(now)]


def serve(queue: Queue[str], now: float = NOW, most: int = 1_000_000) -> list[str]:
    """Serve the first of all until none is left; return them in that order."""
    served: list[str] = []
    while queue.count and len(served) < most:
        first = queue.first_of_each_kind(now)[0]
        queue.serve(first)
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
    queue.join(tickets[0], NOW, STEP)
    assert serve(queue) == ["b", "c", "a"]


def test_all_are_taken_out_in_the_order_of_arrival() -> None:
    queue = queue_of(ticket("1", "m"), ticket("2", "n"), ticket("3", "m"), ticket("4", None))
    assert [one.tell for one in queue.drain()] == ["1", "2", "3", "4"]
    assert (queue.count, heads(queue)) == (0, [])


def test_nothing_is_left_of_a_kind_that_waits_no_more() -> None:
    queue: Queue[str] = Queue()
    for number in range(1000):
        one = ticket("x", f"invented-{number}", key=f"key-{number}", asked=number)
        queue.join(one, NOW, STEP)
        queue.leave(one)
    assert (queue._kinds, queue._waiting) == ({}, {}), "names come from clients"


@pytest.mark.parametrize("seed", range(3))
def test_leaving_in_any_order_leaves_the_others_in_theirs(seed: int) -> None:
    draw = random.Random(seed)
    tickets = [ticket(str(number), draw.choice("mn")) for number in range(200)]
    queue = queue_of(*tickets)
    gone = draw.sample(tickets, 120)
    for one in gone:
        queue.leave(one)
    assert serve(queue) == [one.tell for one in tickets if one not in gone]


# --- priorities


def test_who_asks_for_less_is_served_first() -> None:
    queue = queue_of(
        ticket("b1", asked=1), ticket("a"), ticket("c", asked=2), ticket("b2", asked=1)
    )
    assert serve(queue) == ["a", "b1", "b2", "c"]


def test_below_zero_is_before_those_that_ask_for_nothing() -> None:
    queue = queue_of(ticket("plain"), ticket("urgent", asked=-1), ticket("more urgent", asked=-2))
    assert serve(queue) == ["more urgent", "urgent", "plain"]


def test_one_step_counts_as_much_as_some_seconds_of_waiting() -> None:
    queue = queue_of(ticket("late", asked=2))
    queue.join(ticket("in time"), NOW + 2 * STEP - 0.1, STEP)
    queue.join(ticket("as late"), NOW + 2 * STEP, STEP)
    queue.join(ticket("urgent", asked=-1), NOW + 3 * STEP - 0.1, STEP)
    assert serve(queue, NOW + 3 * STEP) == ["in time", "urgent", "late", "as late"]


def test_where_a_step_counts_for_nothing_priorities_have_no_effect() -> None:
    queue: Queue[str] = Queue()
    for one in (ticket("a", asked=9), ticket("b"), ticket("c", key="k", base=-9, asked=-9)):
        queue.join(one, NOW, 0.0)
    assert serve(queue) == ["a", "c", "b"], "the keys take turns"


def test_the_most_that_may_be_asked_for_is_no_trouble() -> None:
    most = 2**53 - 1
    queue = queue_of(ticket("last", asked=most), ticket("a", asked=0), ticket("b", asked=-most))
    queue.join(ticket("k", key="k", base=-1000, asked=most), NOW, 1e300)
    assert serve(queue) == ["b", "a", "k", "last"]


def test_priorities_order_kinds_that_could_go_to_the_same_server_too() -> None:
    queue = queue_of(
        ticket("m later", "m", asked=1), ticket("n", "n"), ticket("any", None, asked=-1)
    )
    assert heads(queue) == ["any", "n", "m later"]
    queue.join(ticket("other key", "o", key="k"), NOW, STEP)
    assert heads(queue) == ["n", "any", "other key", "m later"]


# --- keys


def test_keys_take_turns_and_within_each_the_first_to_come_is_first() -> None:
    tickets = [ticket(f"a{number}", key="a") for number in range(4)]
    tickets += [ticket(f"b{number}", key="b") for number in range(2)]
    tickets += [ticket("nobody's 0"), ticket("nobody's 1")]
    expected = ["a0", "b0", "nobody's 0", "a1", "b1", "nobody's 1", "a2", "a3"]
    assert serve(queue_of(*tickets)) == expected


def test_a_key_with_very_many_does_not_hold_up_one_that_has_just_come() -> None:
    queue = queue_of(*(ticket(f"a{number}", key="a") for number in range(1000)))
    assert serve(queue, NOW + 30, most=10)[-1] == "a9"
    queue.join(ticket("b", key="b"), NOW + 50, STEP)
    assert serve(queue, NOW + 50, most=2) == ["a10", "b"]
    queue.join(ticket("c", key="c"), NOW + 90, STEP)
    assert "c" in serve(queue, NOW + 90, most=2)


def test_who_leaves_gives_its_turn_to_the_next_with_its_key() -> None:
    leaves = ticket("b0", key="b")
    queue = queue_of(ticket("a0", key="a"), leaves, ticket("b1", key="b"), ticket("a1", key="a"))
    assert serve(queue, most=1) == ["a0"]
    queue.leave(leaves)
    assert heads(queue) == ["b1"]


def test_a_key_is_not_before_others_for_having_left_and_come_back() -> None:
    queue = queue_of(*(ticket(f"{key}{n}", key=key) for n in range(2) for key in "abc"))
    assert serve(queue, most=1) == ["a0"]
    again = next(iter(queue._kinds["m", frozenset()]["a"]))
    queue.leave(again)
    queue.join(again, NOW, STEP)
    assert serve(queue, most=3) == ["b0", "c0", "a1"]


def test_one_with_many_kinds_does_not_hold_up_another_of_one_of_them() -> None:
    tickets = [ticket(f"a{n}", model, key="a") for n in range(50) for model in ("m", "n")]
    queue = queue_of(*tickets, ticket("b0", "m", key="b"), ticket("b1", "m", key="b"))
    served = serve(queue, most=6)
    assert {"b0", "b1"} < set(served)


def test_how_many_wait_is_known_by_key_and_by_rank() -> None:
    one, other = ticket("a", key="a"), ticket("b", "n", key="a", base=-1)
    queue = queue_of(one, other, ticket("c"), ticket("d", asked=3), ticket("e", asked=-3))
    assert queue.waiting() == (5, {"a": 2, "": 3}, {"high": 1, "normal": 3, "low": 1})
    queue.serve(one)
    queue.leave(other)
    assert queue.waiting() == (3, {"": 3}, {"high": 0, "normal": 2, "low": 1})
    queue.drain()
    assert queue.waiting() == (0, {}, {"high": 0, "normal": 0, "low": 0})


# --- priorities among keys


@pytest.mark.parametrize("asked", [-1, -1000, -(2**53) + 1])
def test_no_request_gets_in_front_of_other_keys_by_asking_for_it(asked: int) -> None:
    claims = [ticket("a", key="a"), ticket("b", key="b", asked=asked), ticket("c", key="b")]
    assert serve(queue_of(*claims)) == ["a", "b", "c"]


def test_a_request_that_asks_to_be_later_lets_other_keys_go_first() -> None:
    polite = [ticket(f"a{number}", key="a", asked=1) for number in range(3)]
    queue = queue_of(*polite, ticket("b0", key="b"), ticket("b1", key="b"))
    assert serve(queue) == ["b0", "b1", "a0", "a1", "a2"]


def test_a_key_has_a_priority_that_its_requests_are_later_by() -> None:
    tickets = [
        ticket("batch, later", key="batch", base=10, asked=5),
        ticket("batch", key="batch", base=10),
        ticket("batch, urgent", key="batch", base=10, asked=-5),
        ticket("plain", key="plain", asked=9),
        ticket("first", key="first", base=-1),
    ]
    expected = ["first", "plain", "batch, urgent", "batch", "batch, later"]
    assert serve(queue_of(*tickets)) == expected


def test_one_that_has_waited_for_its_steps_takes_turns_with_those_before_it_and_no_more() -> None:
    queue = queue_of(*(ticket(f"batch{number}", key="batch", base=2) for number in range(4)))
    for number in range(4):
        queue.join(ticket(f"a{number}", key="a"), NOW + 1, STEP)
    assert serve(queue, NOW + 2 * STEP - 0.1, most=1) == ["a0"]
    assert serve(queue, NOW + 100 * STEP, most=4) == ["batch0", "a1", "batch1", "a2"]


def test_ranks_are_counted_from_the_best_that_waits() -> None:
    queue = queue_of(ticket("a", key="a", base=10), ticket("b", key="b", base=11))
    queue.join(ticket("c", key="c", base=11), NOW + STEP, STEP)
    assert serve(queue, NOW + STEP) == ["a", "b", "c"]


# --- a full queue


def leaves(queue: Queue[str], newcomer: Ticket[str], now: float = NOW) -> str:
    """Return who gives way to a newcomer: the newcomer itself, if it comes in vain."""
    found = queue.gives_way_to(newcomer.claim, now, STEP)
    return found.tell if found else newcomer.tell


def test_the_last_to_come_is_the_one_that_finds_no_room() -> None:
    newcomer = ticket("newcomer")
    assert leaves(queue_of(), newcomer) == "newcomer"
    assert leaves(queue_of(ticket("a"), ticket("b"), ticket("n", "n")), newcomer) == "newcomer"
    several = [ticket("a", key="a"), ticket("b", key="b")]
    assert leaves(queue_of(*several), ticket("newcomer", key="a")) == "newcomer"


def test_the_key_with_the_most_gives_way_to_others_until_they_have_as_many() -> None:
    queue = queue_of(*(ticket(f"a{number}", key="a") for number in range(5)))
    for number, gone in enumerate(["a4", "a3"]):
        newcomer = ticket(f"b{number}", key="b")
        last = queue.gives_way_to(newcomer.claim, NOW, STEP)
        assert last is not None
        assert last.tell == gone
        queue.leave(last)
        queue.join(newcomer, NOW, STEP)
    assert leaves(queue, ticket("b2", key="b")) == "b2", "or the two would push each other out"
    assert leaves(queue, ticket("a5", key="a")) == "a5"
    assert leaves(queue, ticket("c0", key="c")) == "a2"


def test_what_ranks_worse_gives_way_and_what_ranks_better_does_not() -> None:
    queue = queue_of(ticket("batch", key="batch", base=10), *(ticket(n, key="a") for n in "abc"))
    assert leaves(queue, ticket("a", key="a")) == "batch"
    assert leaves(queue, ticket("other", key="other")) == "batch"
    assert leaves(queue, ticket("more", key="batch", base=10)) == "more"
    assert leaves(queue, ticket("polite", key="other", asked=5)) == "batch"
    assert leaves(queue, ticket("too polite", key="other", asked=11)) == "too polite"


def test_what_has_waited_for_its_steps_does_not_give_way_to_what_ranks_better() -> None:
    queue = queue_of(ticket("batch", key="batch", base=2), ticket("a", key="a"))
    assert leaves(queue, ticket("newcomer", key="a"), NOW + 2 * STEP - 0.1) == "batch"
    assert leaves(queue, ticket("newcomer", key="a"), NOW + 2 * STEP) == "newcomer"


def test_within_a_key_what_is_due_last_gives_way() -> None:
    queue = queue_of(ticket("late", asked=2), ticket("plain"), ticket("latest", "n", asked=3))
    assert leaves(queue, ticket("newcomer")) == "latest"
    assert leaves(queue, ticket("newcomer", asked=3)) == "newcomer"
    assert leaves(queue_of(ticket("plain")), ticket("urgent", asked=-1)) == "plain"

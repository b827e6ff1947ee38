"""What a key may do, and what is counted of it."""

from __future__ import annotations

import pytest
from auth_kit import key
from pool_kit import Clock

from mvllm_router.auth import ANYBODY, Holder
from mvllm_router.errors import ModelNotAllowed, RateLimited


def test_anybody_may_do_all_and_is_not_counted() -> None:
    ANYBODY.admit(None)
    ANYBODY.admit("any")
    ANYBODY.used(1, 2)
    ANYBODY.release()
    assert ANYBODY.may_use("any")
    assert ANYBODY.name == ""
    assert vars(ANYBODY) == {}


def test_what_a_key_does_is_counted() -> None:
    alice = Holder(key("alice"), Clock())
    for _ in range(3):
        alice.admit("m")
    alice.release()
    alice.used(5, 7)
    alice.used(1, 2)
    assert (alice.requests, alice.in_flight) == (3, 2)
    assert (alice.prompt_tokens, alice.completion_tokens) == (6, 9)
    assert sum(alice.refused.values()) == 0


def test_requests_per_minute_are_what_comes_in() -> None:
    clock = Clock()
    alice = Holder(key("alice", requests_per_minute=2), clock)
    for _ in range(2):
        alice.admit("m")
        alice.release()
    with pytest.raises(RateLimited) as caught:
        alice.admit("m")
    assert caught.value.retry_after == 30
    assert (alice.requests, alice.in_flight, alice.refused["requests"]) == (2, 0, 1)
    clock.advance(30)
    alice.admit("m")
    with pytest.raises(RateLimited):
        alice.admit("m")


def test_a_refused_request_uses_nothing_up() -> None:
    clock = Clock()
    alice = Holder(key("alice", requests_per_minute=1), clock)
    alice.admit("m")
    for _ in range(100):
        with pytest.raises(RateLimited):
            alice.admit("m")
    clock.advance(60)
    alice.admit("m")


def test_tokens_are_charged_after_the_answer_and_the_debt_is_paid_before_the_next() -> None:
    clock = Clock()
    alice = Holder(key("alice", tokens_per_minute=600), clock)
    alice.admit("m")
    alice.admit("m")  # what they will cost is not known yet
    alice.used(300, 300)
    alice.used(100, 500)
    with pytest.raises(RateLimited) as caught:
        alice.admit("m")
    assert caught.value.retry_after == 61
    assert "600 tokens per minute" in caught.value.message
    assert alice.refused == {"requests": 0, "tokens": 1, "concurrent": 0, "model": 0}
    clock.advance(61)
    alice.admit("m")


def test_requests_at_once_are_counted_until_they_are_given_back() -> None:
    alice = Holder(key("alice", max_concurrent_requests=2), Clock())
    alice.admit("m")
    alice.admit("m")
    with pytest.raises(RateLimited, match="2 requests in flight") as caught:
        alice.admit("m")
    assert caught.value.retry_after == 1
    assert (alice.in_flight, alice.refused["concurrent"]) == (2, 1)
    alice.release()
    alice.admit("m")


def test_only_the_models_of_the_key_may_be_asked_for_by_their_public_names() -> None:
    alice = Holder(key("alice", models=("gpt-4o", "tiny"), requests_per_minute=1), Clock())
    assert [alice.may_use(name) for name in ("gpt-4o", "tiny", "big", "TINY", None)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    with pytest.raises(ModelNotAllowed) as caught:
        alice.admit("big")
    error = caught.value
    assert (error.status, error.type, error.code, error.param) == (
        403,
        "permission_error",
        "model_not_allowed",
        "model",
    )
    assert error.message == (
        "The key `alice` may not use the model `big`. It may use: gpt-4o, tiny"
    )
    assert (alice.requests, alice.in_flight, alice.refused["model"]) == (0, 0, 1)
    alice.admit("tiny")  # the refused one used nothing up


def test_a_request_that_names_no_model_is_not_for_a_key_with_some() -> None:
    alice = Holder(key("alice", models=("tiny",)), Clock())
    with pytest.raises(ModelNotAllowed, match="a model that is not named"):
        alice.admit(None)


def test_a_long_name_of_a_model_and_a_long_list_are_cut_short() -> None:
    alice = Holder(key("alice", models=tuple(f"m{n}" for n in range(1000))), Clock())
    with pytest.raises(ModelNotAllowed) as caught:
        alice.admit("x" * 100_000)
    assert len(caught.value.message) < 500
    assert caught.value.message.endswith("m19, ...")


def test_other_limits_are_live_and_what_was_used_stays_used() -> None:
    clock = Clock()
    alice = Holder(key("alice", requests_per_minute=1), clock)
    alice.admit("m")
    alice.adopt(key("alice", requests_per_minute=60))
    with pytest.raises(RateLimited):
        alice.admit("m")
    clock.advance(1)
    alice.admit("m")
    alice.adopt(key("alice", max_concurrent_requests=3, models=("m",)))
    alice.admit("m")
    with pytest.raises(RateLimited):
        alice.admit("m")
    with pytest.raises(ModelNotAllowed):
        alice.admit("other")
    alice.adopt(key("alice"))
    alice.admit("other")
    assert alice.requests == 4

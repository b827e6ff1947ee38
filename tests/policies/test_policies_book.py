"""Which policy is asked for which request."""

from __future__ import annotations

import pytest
from pool_kit import add_up, new_pool

from mvllm_router.errors import BadRequest
from mvllm_router.policies import Policies, Supposed
from mvllm_router.policies.book import HEADER
from mvllm_router.policies.least_load import LeastLoad
from mvllm_router.policies.prefix import Prefix
from mvllm_router.policies.random_choice import RandomChoice


def named(policy: str, model: str = "m") -> Supposed:
    return Supposed(model, headers={HEADER: policy})


def test_a_model_has_its_own_policy_and_the_others_the_default() -> None:
    policies = Policies("least_load", {"chat": "prefix"})
    assert isinstance(policies.of(Supposed("chat")), Prefix)
    assert isinstance(policies.of(Supposed("other")), LeastLoad)
    assert isinstance(policies.of(Supposed(None)), LeastLoad)
    assert policies.name_of(Supposed("chat")) == "prefix"


def test_models_with_the_same_policy_share_it() -> None:
    policies = Policies("prefix", {"a": "prefix", "b": "prefix"})
    assert policies.of(Supposed("a")) is policies.of(Supposed("b")) is policies.of(Supposed())


def test_what_a_policy_knows_outlasts_a_reload_that_keeps_it() -> None:
    before = Policies("prefix", {"m": "random"})
    after = Policies("least_load", {"m": "prefix"}, before=before)
    assert after.of(Supposed("m")) is before.of(Supposed("other"))


def test_a_name_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no policy is called 'nope'"):
        Policies("least_load", {"m": "nope"})


def test_a_request_may_not_name_its_policy_unless_that_is_allowed() -> None:
    assert isinstance(Policies().of(named("random")), LeastLoad)


def test_a_request_that_may_name_its_policy_gets_it_and_always_the_same() -> None:
    policies = Policies("least_load", {"m": "prefix"}, trials=True)
    tried = policies.of(named("random"))
    assert isinstance(tried, RandomChoice)
    assert policies.of(named("random")) is tried
    assert isinstance(policies.of(Supposed("m")), Prefix)


def test_a_request_that_names_no_policy_that_there_is_is_told_so() -> None:
    with pytest.raises(BadRequest, match="x-router-policy: no such policy; there are"):
        Policies(trials=True).of(named("nope"))


def test_a_server_that_is_removed_is_forgotten_by_all_of_them() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    policies = Policies("least_load", {"m": "prefix"}, trials=True)
    body = b'{"messages":"%b"}' % (b"word " * 1000)
    for wish in (Supposed("m", body), Supposed("x", body, {HEADER: "prefix"})):
        policies.of(wish).choose([backend], wish, 0.0)
    prefix = policies.of(Supposed("m"))
    assert isinstance(prefix, Prefix)
    assert len(prefix.index)
    policies.forget(backend)
    assert not len(prefix.index)


def test_a_policy_that_has_to_be_prepared_cannot_be_tried_where_it_is_not_in_use() -> None:
    with pytest.raises(BadRequest, match="can be tried only where it is in use"):
        Policies(trials=True).of(named("kv_events"))
    in_use = Policies("least_load", {"other": "kv_events"}, trials=True)
    assert in_use.of(named("kv_events")) is in_use.made("kv_events")

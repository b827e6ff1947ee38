"""Who comes in, and who does not."""

from __future__ import annotations

import pytest
from auth_kit import bearer, config, gate, holder, key
from multidict import CIMultiDict

from mvllm_router.auth import ANYBODY, OPEN_PATHS, Gate, presented_key
from mvllm_router.errors import RateLimited, Unauthorized

CHAT = "/v1/chat/completions"
SNAPSHOT = "/router/snapshot"


def with_key(value: str = "secret") -> Gate:
    """Return a gate that knows only the key of the setting `api_key`."""
    return gate(api_key=value)


def test_without_a_key_everybody_comes_in_and_is_not_counted() -> None:
    for headers in ({}, bearer("whatever")):
        caller = gate().check(CHAT, headers)
        assert caller is ANYBODY
    assert list(gate().holders) == []


def test_an_admin_key_alone_asks_clients_for_nothing() -> None:
    assert gate(admin_key="boss").check(CHAT, {}) is ANYBODY


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer secret"},
        {"authorization": "bearer   secret "},
        {"x-api-key": "secret"},
        {"authorization": "Basic dXNlcg==", "x-api-key": "secret"},
    ],
)
def test_the_key_lets_in(headers: dict[str, str]) -> None:
    for path in (CHAT, "/health", SNAPSHOT):
        caller = with_key().check(path, headers)
        assert caller is not None
        assert caller.name == "default"


def test_header_names_are_taken_in_any_case() -> None:
    with_key().check(CHAT, CIMultiDict({"Authorization": "Bearer secret"}))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer secret2"},
        {"authorization": "Bearer SECRET"},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"authorization": "Bearer wrong", "x-api-key": "secret"},
    ],
)
def test_a_wrong_key_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized, match="wrong"):
        with_key().check(CHAT, headers)


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "secret"}, {"authorization": "Bearer "}, {"authorization": "Basic x"}],
)
def test_no_key_is_refused_and_the_way_to_give_one_is_named(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized, match="Authorization: Bearer"):
        with_key().check(CHAT, headers)


def test_a_key_of_bytes_that_are_no_utf_8_is_just_a_wrong_one() -> None:
    raw = b"\xff\xfe".decode("utf-8", "surrogateescape")
    with pytest.raises(Unauthorized):
        with_key().check(CHAT, bearer(raw))


def test_a_key_outside_of_ascii_lets_in() -> None:
    with_key("schlüssel").check(CHAT, {"x-api-key": "schlüssel"})


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_probes_need_no_key_and_are_not_told_all(path: str) -> None:
    assert with_key().check(path, {}) is None
    assert with_key().check(path, {"x-api-key": "wrong"}) is None


CLOSED = [CHAT, "/v1/models", "/metrics", "/load-stats", SNAPSHOT, "/health/", "//"]


@pytest.mark.parametrize("path", CLOSED)
def test_all_else_needs_the_key(path: str) -> None:
    with pytest.raises(Unauthorized):
        with_key().check(path, {})


@pytest.mark.parametrize("path", CLOSED)
def test_open_metrics_open_the_figures_and_nothing_else(path: str) -> None:
    opened = gate(api_key="secret", open_metrics=True)
    if path in ("/metrics", "/load-stats"):
        assert opened.check(path, {}) is None
        assert opened.check(path, bearer("wrong")) is None
        assert opened.check(path, bearer("secret")) is holder(opened, "default")
    else:
        with pytest.raises(Unauthorized):
            opened.check(path, {})


def test_each_of_several_keys_is_told_apart_by_its_name() -> None:
    several = gate(key("alice"), key("bob"), api_key="secret")
    for name, value in (("alice", "alice-secret"), ("bob", "bob-secret"), ("default", "secret")):
        assert several.check(CHAT, bearer(value)) is holder(several, name)
    with pytest.raises(Unauthorized):
        several.check(CHAT, bearer("alice"))


def test_the_admin_key_opens_the_operators_routes_and_no_others() -> None:
    both = gate(key("alice"), admin_key="boss")
    assert both.check(SNAPSHOT, bearer("boss")) is ANYBODY
    assert both.check(SNAPSHOT, bearer("alice-secret")) is holder(both, "alice")
    for path in (CHAT, "/v1/models", "/metrics", "/router", "/v1/router/x"):
        with pytest.raises(Unauthorized):
            both.check(path, bearer("boss"))
    assert both.check("/health", bearer("boss")) is None


def test_the_keys_themselves_are_not_kept() -> None:
    both = gate(key("alice"), api_key="a-secret", admin_key="b-secret")
    kept = repr(vars(both)) + "".join(repr(vars(one)) for one in both.holders)
    assert "secret" not in kept


def test_a_bearer_key_goes_before_the_other_header() -> None:
    assert presented_key({"authorization": "Bearer a", "x-api-key": "b"}) == "a"
    assert presented_key({"x-api-key": "b"}) == "b"
    assert presented_key({}) is None


# --- reload


def test_a_key_that_stays_keeps_its_counts_under_another_value_as_well() -> None:
    live = gate(key("alice"), key("bob"))
    alice = holder(live, "alice")
    alice.admit("m")
    live.adopt(config(key("alice", "new")))
    assert live.check(CHAT, bearer("new")) is alice
    assert (alice.requests, alice.in_flight) == (1, 1)
    for old in ("alice-secret", "bob-secret"):
        with pytest.raises(Unauthorized):
            live.check(CHAT, bearer(old))
    assert [one.name for one in live.holders] == ["alice"]


def test_other_limits_of_a_key_that_stays_are_live() -> None:
    live = gate(key("alice"))
    holder(live, "alice").admit("m")
    live.adopt(config(key("alice", max_concurrent_requests=1)))
    with pytest.raises(RateLimited):
        holder(live, "alice").admit("m")


def test_a_request_of_a_key_that_is_gone_still_gives_its_place_back() -> None:
    live = gate(key("alice"), key("bob"))
    alice = holder(live, "alice")
    alice.admit("m")
    live.adopt(config(key("bob")))
    alice.used(1, 2)
    alice.release()
    assert alice.in_flight == 0
    live.adopt(config(key("alice")))
    assert holder(live, "alice").requests == 0


def test_keys_that_change_names_take_no_counts_with_them() -> None:
    live = gate(key("alice", "one"), key("bob", "two"))
    holder(live, "alice").admit("m")
    live.adopt(config(key("alice", "two"), key("bob", "one")))
    assert live.check(CHAT, bearer("one")) is holder(live, "bob")
    assert [(one.name, one.requests) for one in live.holders] == [("alice", 1), ("bob", 0)]


def test_settings_of_the_gate_are_live() -> None:
    live = gate(api_key="old")
    live.adopt(config(api_key="new", admin_key="boss", open_metrics=True))
    assert live.check("/metrics", {}) is None
    live.check(SNAPSHOT, bearer("boss"))
    live.check(CHAT, bearer("new"))
    with pytest.raises(Unauthorized):
        live.check(CHAT, bearer("old"))
    live.adopt(config())
    assert live.check(CHAT, {}) is ANYBODY

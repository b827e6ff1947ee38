"""Who may change a running router."""

from __future__ import annotations

import pytest
from auth_kit import bearer, config, gate, key

from mvllm_router.auth import ANYBODY, Gate
from mvllm_router.errors import Forbidden, Unauthorized

EVERYWHERE = "0.0.0.0"


def allows(gate: Gate, headers: dict[str, str]) -> int:
    """Return the status that a change is refused with, or 200."""
    try:
        gate.check_admin(headers)
    except (Forbidden, Unauthorized) as error:
        return error.status
    return 200


@pytest.mark.parametrize("host", ["127.0.0.1", EVERYWHERE])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (bearer("boss"), 200),
        ({"x-api-key": "boss"}, 200),
        ({**bearer("boss"), "origin": "http://elsewhere", "x-forwarded-for": "10.0.0.1"}, 200),
        ({}, 401),
        (bearer("wrong"), 401),
        (bearer("alice-secret"), 403),
    ],
)
def test_an_admin_key_is_what_it_takes(headers: dict[str, str], status: int, host: str) -> None:
    assert allows(gate(key("alice"), admin_key="boss", host=host), headers) == status


def test_an_admin_key_without_keys_of_clients_is_what_it_takes() -> None:
    alone = gate(admin_key="boss")
    assert [allows(alone, headers) for headers in ({}, bearer("x"), bearer("boss"))] == [
        401,
        401,
        200,
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_without_one_whoever_is_at_the_machine_may_with_a_clients_key_if_there_are_any(
    host: str,
) -> None:
    assert allows(gate(host=host), {}) == 200
    keyed = gate(key("alice"), host=host)
    assert allows(keyed, bearer("alice-secret")) == 200
    assert allows(keyed, {}) == 401
    assert allows(keyed, bearer("wrong")) == 401


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.168.1.7", "router.example.com", ""])
def test_without_one_a_router_that_others_reach_cannot_be_changed(host: str) -> None:
    assert allows(gate(host=host), {}) == 403
    assert allows(gate(key("alice"), host=host), bearer("alice-secret")) == 403
    assert allows(gate(key("alice"), host=host), {}) == 401


@pytest.mark.parametrize("header", ["forwarded", "x-forwarded-for", "x-real-ip", "via", "origin"])
def test_without_one_nobody_may_through_a_proxy_or_from_a_web_page(header: str) -> None:
    assert allows(gate(), {header: "x"}) == 403
    assert allows(gate(key("alice")), {**bearer("alice-secret"), header: "x"}) == 403


def test_the_refusal_says_how_to_allow_it() -> None:
    with pytest.raises(Forbidden, match="admin_key") as caught:
        gate(host=EVERYWHERE).check_admin({})
    assert caught.value.type == "permission_error"


def test_an_address_that_a_reload_names_and_that_is_not_in_use_yet_opens_nothing() -> None:
    live = gate(host=EVERYWHERE)
    live.adopt(config(host="127.0.0.1"))
    assert allows(live, {}) == 403


@pytest.mark.parametrize("admin_key", ["", "boss"])
def test_who_has_started_the_router_may_do_what_operators_may_and_no_more(admin_key: str) -> None:
    live = gate(host=EVERYWHERE)
    live.trust("starter")
    live.adopt(config(key("alice"), host=EVERYWHERE, admin_key=admin_key))
    assert allows(live, bearer("starter")) == 200
    assert live.check("/router/snapshot", bearer("starter")) is ANYBODY
    with pytest.raises(Unauthorized):
        live.check("/v1/models", bearer("starter"))
    assert allows(live, bearer("alice-secret")) == 403
    assert allows(live, bearer("starter2")) == 401

"""Who comes in, and who does not."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from mvllm_router.auth import OPEN_PATHS, Gate, presented_key
from mvllm_router.errors import Unauthorized

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_everybody_comes_in(key: str | None) -> None:
    gate = Gate(key)
    assert gate.check(CHAT, {})
    assert gate.check(CHAT, {"authorization": "Bearer whatever"})


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
    assert Gate("secret").check(CHAT, headers)
    assert Gate("secret").check("/health", headers)


def test_header_names_are_taken_in_any_case() -> None:
    Gate("secret").check(CHAT, CIMultiDict({"Authorization": "Bearer secret"}))


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
        Gate("secret").check(CHAT, headers)


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "secret"}, {"authorization": "Bearer "}, {"authorization": "Basic x"}],
)
def test_no_key_is_refused_and_the_way_to_give_one_is_named(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized, match="Authorization: Bearer"):
        Gate("secret").check(CHAT, headers)


def test_a_key_of_bytes_that_are_no_utf_8_is_just_a_wrong_one() -> None:
    raw = b"\xff\xfe".decode("utf-8", "surrogateescape")
    with pytest.raises(Unauthorized):
        Gate("secret").check(CHAT, {"authorization": f"Bearer {raw}"})


def test_a_key_outside_of_ascii_lets_in() -> None:
    Gate("schlüssel").check(CHAT, {"x-api-key": "schlüssel"})


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_probes_need_no_key_and_are_not_told_all(path: str) -> None:
    assert not Gate("secret").check(path, {})
    assert not Gate("secret").check(path, {"x-api-key": "wrong"})


@pytest.mark.parametrize(
    "path", [CHAT, "/v1/models", "/metrics", "/load-stats", "/router/snapshot", "/health/", "//"]
)
def test_all_else_needs_the_key(path: str) -> None:
    with pytest.raises(Unauthorized):
        Gate("secret").check(path, {})


def test_the_key_itself_is_not_kept() -> None:
    assert "secret" not in repr(vars(Gate("secret")))


def test_a_bearer_key_goes_before_the_other_header() -> None:
    assert presented_key({"authorization": "Bearer a", "x-api-key": "b"}) == "a"
    assert presented_key({"x-api-key": "b"}) == "b"
    assert presented_key({}) is None

"""Which web pages get a permit, and what it says."""

from __future__ import annotations

import pytest

from mvllm_router.cors import Cors

PAGE = "https://chat.example.com"
ASKS = {"origin": PAGE, "access-control-request-method": "POST"}


def test_a_named_origin_gets_a_permit_for_itself() -> None:
    permit = Cors([PAGE, "http://localhost:3000"]).permit(PAGE)
    assert permit is not None
    assert permit.headers == {
        "access-control-allow-origin": PAGE,
        "access-control-expose-headers": (
            "x-request-id, x-router-backend, x-router-attempts, x-router-reason, retry-after"
        ),
        "vary": "Origin",
    }


def test_the_lines_are_the_headers() -> None:
    permit = Cors([PAGE]).permit(PAGE)
    assert permit is not None
    lines = "".join(f"{name}: {value}\r\n" for name, value in permit.headers.items())
    assert permit.lines == lines.encode()


@pytest.mark.parametrize(
    "origin",
    [None, "", "null", "https://evil.example", f"{PAGE}.evil.example", f"{PAGE}:8443", PAGE[:-1]],
)
def test_nobody_else_gets_one(origin: str | None) -> None:
    assert Cors([PAGE]).permit(origin) is None
    assert Cors([]).permit(origin) is None


@pytest.mark.parametrize("origin", [PAGE, "null", "x\r\ny: z"])
def test_any_origin_gets_one_that_repeats_nothing_of_it(origin: str) -> None:
    permit = Cors(["*"]).permit(origin)
    assert permit is not None
    assert permit.headers["access-control-allow-origin"] == "*"
    assert Cors(["*"]).permit(None) is None


def test_a_preflight_is_told_methods_headers_and_for_how_long() -> None:
    asks = {**ASKS, "access-control-request-headers": "authorization,content-type,x-stainless-os"}
    told = Cors([PAGE]).preflight("OPTIONS", asks)
    assert told is not None
    assert told["access-control-allow-origin"] == PAGE
    assert told["access-control-allow-methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE"
    assert told["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    assert told["access-control-max-age"] == "600"
    assert told["vary"] == "Origin"


def test_a_preflight_without_headers_of_its_own_is_told_of_none() -> None:
    told = Cors([PAGE]).preflight("OPTIONS", ASKS)
    assert told is not None
    assert "access-control-allow-headers" not in told


@pytest.mark.parametrize("names", ["a\r\nset-cookie: b", "größe", "a" * 1001, "a: b", ""])
def test_headers_that_cannot_be_are_not_repeated(names: str) -> None:
    told = Cors(["*"]).preflight("OPTIONS", {**ASKS, "access-control-request-headers": names})
    assert told is not None
    assert "access-control-allow-headers" not in told


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", ASKS),
        ("OPTIONS", {"origin": PAGE}),
        ("OPTIONS", {"access-control-request-method": "POST"}),
        ("OPTIONS", {**ASKS, "origin": "https://evil.example"}),
    ],
)
def test_what_is_no_preflight_of_a_named_origin_gets_no_answer(
    method: str, headers: dict[str, str]
) -> None:
    assert Cors([PAGE]).preflight(method, headers) is None

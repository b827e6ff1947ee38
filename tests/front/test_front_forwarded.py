"""Who is believed when it says for whom it asks."""

from __future__ import annotations

import pytest

from mvllm_router.fields import fields_of
from mvllm_router.front.forwarded import TrustedProxies
from mvllm_router.proxy.headers import to_backend

PROXIES = TrustedProxies(["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"])
# What a client may write to look like somebody else.
FORWARDING = [
    (b"Forwarded", b"for=1.2.3.4"),
    (b"X-Forwarded-For", b"1.2.3.4"),
    (b"x-forwarded-host", b"a.example"),
    (b"X-FORWARDED-PORT", b"443"),
    (b"X-Forwarded-Prefix", b"/llm"),
    (b"X-Forwarded-Proto", b"https"),
    (b"X-Real-IP", b"1.2.3.4"),
]


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "127.0.0.1", "fd00::1", "::ffff:10.1.2.3", "fd12:3456::9"]
)
def test_addresses_in_the_networks_are_trusted(address: str) -> None:
    assert PROXIES.trusts(address)


@pytest.mark.parametrize(
    "address", ["11.0.0.1", "127.0.0.2", "fe00::1", "", "unknown", "10.0.0.1:80", "::ffff:11.0.0.1"]
)
def test_others_are_not(address: str) -> None:
    assert not PROXIES.trusts(address)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.7", "203.0.113.7"),  # the left one is hearsay
        ("10.0.0.1", "6.6.6.6, 203.0.113.7, 10.0.0.2,10.0.0.3", "203.0.113.7"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),  # all of them are proxies
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7, x\x1b[2J", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7:4711", "203.0.113.7"),
        ("10.0.0.1", "2001:DB8::7", "2001:db8::7"),
        ("10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),  # nobody believes that one
        ("", "1.2.3.4", ""),
        ("10.0.0.1", "203.0.113.7, " + "10.0.0.2, " * 31 + "10.0.0.3", "203.0.113.7"),
        ("10.0.0.1", "203.0.113.7, " + "10.0.0.2, " * 9000 + "10.0.0.3", "10.0.0.2"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_trusted_proxy(
    peer: str, forwarded_for: str, client: str
) -> None:
    assert PROXIES.client(peer, forwarded_for) == client


def test_what_anybody_says_of_whom_it_asks_for_does_not_reach_a_server() -> None:
    assert to_backend(fields_of([*FORWARDING, (b"a", b"b")])) == b"a: b\r\n"


def test_what_a_trusted_proxy_says_does_with_its_address_added() -> None:
    passed = to_backend(fields_of([*FORWARDING, (b"a", b"b")]), proxy="10.0.0.1")
    kept = [header for header in FORWARDING if header[0] != b"X-Forwarded-For"]
    assert passed == (
        b"".join(b"%b: %b\r\n" % header for header in kept)
        + b"a: b\r\nx-forwarded-for: 1.2.3.4, 10.0.0.1\r\n"
    )


def test_several_lines_become_one_in_their_order() -> None:
    headers = [(b"X-Forwarded-For", b"1.1.1.1, 2.2.2.2"), (b"x-forwarded-for", b"3.3.3.3")]
    assert to_backend(fields_of(headers), proxy="fd00::1") == (
        b"x-forwarded-for: 1.1.1.1, 2.2.2.2, 3.3.3.3, fd00::1\r\n"
    )


def test_a_trusted_proxy_that_says_nothing_is_itself_the_first() -> None:
    assert to_backend(fields_of([]), proxy="10.0.0.1") == b"x-forwarded-for: 10.0.0.1\r\n"


def test_a_chain_that_is_declared_to_end_here_ends_here() -> None:
    headers = [(b"Connection", b"x-forwarded-for"), (b"X-Forwarded-For", b"1.1.1.1")]
    assert to_backend(fields_of(headers), proxy="10.0.0.1") == b"x-forwarded-for: 10.0.0.1\r\n"

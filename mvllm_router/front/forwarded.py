"""Whom to believe when it says for whom it asks: the proxies in front of the router."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

FORWARDED_FOR = b"x-forwarded-for"
# Addresses are looked up for each request, and there are few proxies.
_REMEMBERED = 1024
# Proxies in a row that are looked back on; a client can write any number of addresses.
_MOST_PROXIES = 32


class TrustedProxies:
    """The networks of proxies that are believed."""

    def __init__(self, networks: Sequence[str]) -> None:
        """`networks` are written as the ipaddress module does it."""
        self._networks = [ip_network(network) for network in networks]
        self.trusts = lru_cache(_REMEMBERED)(self._trusts)

    def _trusts(self, address: str) -> bool:
        """Tell whether a proxy at this address is believed."""
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client(self, peer: str, forwarded_for: str) -> str:
        """Return the address of the client behind `peer`.

        Args:
            peer: the address that the connection comes from.
            forwarded_for: the values of X-Forwarded-For, joined by commas. The right-most was
                added by `peer`; what stands left of an address that is not trusted is hearsay.
        """
        known = peer
        for text in reversed(forwarded_for.rsplit(",", _MOST_PROXIES)):
            if not self.trusts(known):
                break
            parsed = _parsed(_without_port(text.strip()))
            if parsed is None:
                break
            known = str(parsed)
        return known


def forwarded_for(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the addresses in X-Forwarded-For, in one line."""
    return b", ".join(value for name, value in headers if name.lower() == FORWARDED_FOR)


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    # A listener on :: sees IPv4 clients as ::ffff:10.0.0.1.
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed


def _without_port(text: str) -> str:
    """Some proxies add the client's port: 10.0.0.1:4711, [fd00::1]:4711."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text

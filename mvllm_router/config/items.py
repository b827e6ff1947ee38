"""Elements of settings that are arrays: networks and origins, one spelling for each."""

from __future__ import annotations

import re

from mvllm_router.config.rules import Mismatch, shown

# A browser sends scheme, host and port, and the port only where it is not the scheme's own.
_ORIGIN = re.compile(r"(?P<origin>(?P<scheme>[a-z][a-z0-9+.-]*)://[a-z0-9._:\[\]-]+)/?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def network(text: str) -> str:
    """The one spelling of a network, or of an address as a network of one.

    Raises Mismatch for what is none.
    """
    import ipaddress  # costs start-up time, and few need it

    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise Mismatch(f"{shown(text)} is none", _network_hint(text)) from None


def _network_hint(text: str) -> str:
    import ipaddress

    try:
        # Read generously it would trust more machines than the text seems to name.
        return f'did you mean "{ipaddress.ip_network(text, strict=False)}"?'
    except ValueError:
        return 'write it like "10.0.0.0/8" or "127.0.0.1"'


def origin(text: str) -> str:
    """The spelling in which a browser sends an origin; "*" is any. Raises Mismatch for none."""
    if text == "*":
        return text
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        raise Mismatch(f"{shown(text)} is none", 'write it like "https://chat.example.com", or "*"')
    return match["origin"].removesuffix(_DEFAULT_PORTS.get(match["scheme"], ":"))

"""Which headers pass the router, in either direction. Bytes in, bytes out."""

from __future__ import annotations

import re

from mvllm_router.fields import Fields
from mvllm_router.front.forwarded import FORWARDED_FOR, forwarded_for

# They belong to one connection (RFC 9110, section 7.6.1), not to the message.
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
# For whom a proxy says that it asks. Anybody can write them, so only trusted proxies are believed.
FORWARDING = frozenset(
    (
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-real-ip",
    )
)
# The router writes these itself; a client's credentials are for the router alone.
_NOT_TO_BACKENDS = HOP_BY_HOP | {
    b"host",
    b"expect",
    b"authorization",
    b"x-api-key",
    b"x-request-id",
}
_NOT_FROM_CLIENTS = _NOT_TO_BACKENDS | FORWARDING
_NOT_FROM_PROXIES = _NOT_TO_BACKENDS | {FORWARDED_FOR}  # it is written anew
# Which web pages may read an answer is the router's to say (see cors.py).
_CORS = frozenset(
    b"access-control-" + name
    for name in (
        b"allow-credentials",
        b"allow-headers",
        b"allow-methods",
        b"allow-origin",
        b"allow-private-network",
        b"expose-headers",
        b"max-age",
    )
)
_NOT_TO_CLIENTS = (
    HOP_BY_HOP
    | _CORS
    | {
        b"x-request-id",
        b"x-router-backend",
        b"x-router-attempts",
        b"x-router-reason",
    }
)
_NOT_IN_STREAMS = _NOT_TO_CLIENTS | {b"x-accel-buffering", b"cache-control"}

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")


def to_backend(fields: Fields, proxy: str | None = None) -> bytes:
    """Return the lines of a request that a backend gets, each with its line end.

    `proxy` is the address of the trusted proxy that sent it, if one did: then what it says of
    its client goes on, and its own address with it.
    """
    if proxy is None:
        return fields.lines(_NOT_FROM_CLIENTS)
    barred = fields.named_by_connection()
    chain = [] if FORWARDED_FOR in barred else [forwarded_for(fields.raw)]
    chain = [*filter(None, chain), proxy.encode("ascii")]
    lines = fields.lines(_NOT_FROM_PROXIES)
    return lines + b"x-forwarded-for: %b\r\n" % b", ".join(chain)


def without(lines: bytes, names: frozenset[bytes]) -> bytes:
    """Return header lines less those with one of `names` (lower case)."""
    kept = [
        line
        for line in lines.splitlines(keepends=True)
        if line.split(b":", 1)[0].lower() not in names
    ]
    return b"".join(kept)


def to_client(fields: Fields, *, is_event_stream: bool) -> bytes:
    """Return the lines of an answer that a client gets, each with its line end.

    A server-sent stream is marked so that no cache or proxy on the way holds it back.
    """
    if not is_event_stream:
        return fields.lines(_NOT_TO_CLIENTS)
    kept = fields.lines(_NOT_IN_STREAMS)
    return kept + b"x-accel-buffering: no\r\ncache-control: no-cache\r\n"


def usable_request_id(given: bytes) -> str | None:
    """Return a client's request id if it can stand in a header and a log, else None."""
    return given.decode("ascii") if _REQUEST_ID.fullmatch(given) else None

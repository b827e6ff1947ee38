"""Which headers pass the router, in either direction. Bytes in, bytes out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

RawHeaders = Sequence[tuple[bytes, bytes]]

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
# The router writes these itself; a client's credentials are for the router alone.
_NOT_TO_BACKENDS = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"authorization",
    b"x-api-key",
    b"x-request-id",
}
_NOT_TO_CLIENTS = HOP_BY_HOP | {
    b"content-length",
    b"x-request-id",
    b"x-router-backend",
    b"x-router-attempts",
}
_STREAM_HEADERS = frozenset((b"x-accel-buffering", b"cache-control"))

_REQUEST_ID = re.compile(r"[!-~]{1,128}")


def named_by_connection(headers: RawHeaders) -> frozenset[bytes]:
    """Return the names, in lower case, that `Connection` declares to be hop-by-hop too."""
    names = [
        name.strip().lower()
        for key, value in headers
        if key.lower() == b"connection"
        for name in value.split(b",")
    ]
    return frozenset(names)


def to_backend(headers: RawHeaders) -> bytes:
    """Return the lines of a request that a backend gets, each with its line end."""
    barred = _NOT_TO_BACKENDS | named_by_connection(headers)
    return _lines(headers, barred)


def without(lines: bytes, names: frozenset[bytes]) -> bytes:
    """Return header lines less those with one of `names` (lower case)."""
    kept = [
        line
        for line in lines.splitlines(keepends=True)
        if line.split(b":", 1)[0].lower() not in names
    ]
    return b"".join(kept)


def to_client(headers: RawHeaders, *, is_event_stream: bool) -> bytes:
    """Return the lines of an answer that a client gets, each with its line end.

    A server-sent stream is marked so that no cache or proxy on the way holds it back.
    """
    barred = _NOT_TO_CLIENTS | named_by_connection(headers)
    if not is_event_stream:
        return _lines(headers, barred)
    kept = _lines(headers, barred | _STREAM_HEADERS)
    return kept + b"x-accel-buffering: no\r\ncache-control: no-cache\r\n"


def _lines(headers: RawHeaders, barred: Iterable[bytes]) -> bytes:
    return b"".join(
        [b"%b: %b\r\n" % (key, value) for key, value in headers if key.lower() not in barred]
    )


def usable_request_id(text: str | None) -> str | None:
    """Return a client's request id if it can stand in a header and a log, else None."""
    return text if text and _REQUEST_ID.fullmatch(text) else None

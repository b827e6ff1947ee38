"""Turns a backend's answer into the bytes that a client gets: head, framing, end."""

from __future__ import annotations

from enum import Enum

from mvllm_router.proxy import headers
from mvllm_router.proxy.connection import Head

# What parsers let through in a status line, though it may not stand there; a tab may.
_CONTROL = bytes({*range(32), 127} - {9})


class Framing(Enum):
    """How the client learns where the body ends."""

    NONE = "none"  # there is no body
    LENGTH = "length"  # by the content-length that the backend gave
    CHUNKED = "chunked"
    CLOSE = "close"  # by the end of the connection, for HTTP/1.0 clients


def retry_after(head: Head) -> float | None:
    """Return how many seconds an answer asks to wait; None when it does not say (in seconds)."""
    value = head.fields.first.get(b"retry-after")
    return float(value) if value is not None and value.isdigit() and len(value) < 10 else None


def framing_of(head: Head, *, is_head: bool, http_1_1: bool) -> Framing:
    """Choose the framing for a client: RFC 9112, section 6."""
    if is_head or head.status in (204, 304):
        return Framing.NONE
    if head.fields.length is not None:
        return Framing.LENGTH
    return Framing.CHUNKED if http_1_1 else Framing.CLOSE


def head_bytes(
    head: Head, framing: Framing, own_lines: bytes, *, keep_alive: bool, http_1_1: bool
) -> bytes:
    """Return the status line and headers for the client.

    Args:
        own_lines: the router's headers, each with its line end.
        keep_alive: the connection stays open after this answer.
        http_1_1: the version that the client speaks; HTTP/1.0 has to be told to keep alive.
    """
    lines = [
        b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason.translate(None, _CONTROL)),
        headers.to_client(head.fields, is_event_stream=head.is_event_stream),
        own_lines,
    ]
    if framing is Framing.CHUNKED:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif head.status != 204 and (length := head.fields.length) is not None:
        lines.append(b"content-length: %b\r\n" % length)
    if not keep_alive:
        lines.append(b"connection: close\r\n")
    elif not http_1_1:
        lines.append(b"connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def frame(data: bytes, framing: Framing, *, ended: bool) -> bytes:
    """Return `data` as it goes over the wire, with the end of the body if it is that."""
    if framing is Framing.NONE:
        return b""
    if framing is not Framing.CHUNKED:
        return data
    end = b"0\r\n\r\n" if ended else b""
    return b"%x\r\n%b\r\n%b" % (len(data), data, end) if data else end

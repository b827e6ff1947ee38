"""What clients see in place of a server's own errors, where they are not to see those."""

from __future__ import annotations

import re

from mvllm_router.errors import AttemptsFailed
from mvllm_router.fields import fields_of
from mvllm_router.proxy.connection import Head

_ERROR = AttemptsFailed("The server failed this request.")
# An event that is an error and nothing else, as engines put it into a stream that has begun.
_ERROR_EVENT = re.compile(
    rb'(?:^|(?<=[\r\n]))data:[ \t]*\{[ \t]*"(?:error|(?:object|type)"[ \t]*:[ \t]*"error)"[^\r\n]*'
)


def answer(head: Head) -> tuple[Head, bytes]:
    """Return the head and the body that stand for an answer with a server error."""
    body = _ERROR.body()
    headers = [
        (b"content-type", b"application/json; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    ]
    asked = head.fields.first.get(b"retry-after")
    if asked is not None:
        headers.append((b"retry-after", asked))
    return Head(head.status, head.reason, fields_of(headers), head.keeps_alive, False), body


def stream(head: Head) -> Head:
    """Return the head of a stream whose events may get another text, and so another length."""
    return Head(
        head.status, head.reason, fields_of(head.fields.raw), head.keeps_alive, head.until_close
    )


def events(data: bytes) -> bytes:
    """Return whole events with another text in those that are errors."""
    if b'"error"' not in data:
        return data
    return _ERROR_EVENT.sub(lambda _: _ERROR.event().rstrip(b"\n"), data)

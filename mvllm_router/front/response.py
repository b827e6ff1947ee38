"""Answers that the router makes itself, and how they are written."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from mvllm_router.errors import RouterError

JSON = "application/json; charset=utf-8"


class Response:
    """A whole answer. Names of `headers` are in lower case."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, body: bytes = b"", *, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.status = status
        self.headers = headers if headers is not None else {}
        self.body = body


def json_response(document: object) -> Response:
    """Return a document as JSON."""
    body = json.dumps(document, ensure_ascii=False).encode()
    return Response(body, headers={"content-type": JSON})


def error_response(error: RouterError) -> Response:
    """Return the answer that stands for an error."""
    headers = {"content-type": JSON}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if error.allow:
        headers["allow"] = error.allow
    return Response(error.body(), status=error.status, headers=headers)


def encoded(response: Response, *, keep_alive: bool, http_1_1: bool, is_head: bool) -> bytes:
    """Return the bytes of an answer.

    Args:
        keep_alive: the connection stays open after it.
        http_1_1: the version that the client speaks; HTTP/1.0 has to be told to keep alive.
        is_head: only the head is wanted.
    """
    status, body = response.status, response.body
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    if status != 204:
        lines.append(f"content-length: {len(body)}")
    lines += ["server: mvllm-router", f"date: {http_date()}"]
    if not keep_alive:
        lines.append("connection: close")
    elif not http_1_1:
        lines.append("connection: keep-alive")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
    return head if is_head else head + body


def stream_head(headers: Mapping[str, str]) -> bytes:
    """Return the head of a stream of events, which lasts for as long as its connection."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = [
        "HTTP/1.1 200 OK",
        "content-type: text/event-stream; charset=utf-8",
        "cache-control: no-cache",
        "x-accel-buffering: no",
        *lines,
        "server: mvllm-router",
        f"date: {http_date()}",
        "connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode("latin-1", "replace")


def last_words(error: RouterError) -> bytes:
    """Return a whole answer that ends its connection, for a client whose request was not read."""
    return encoded(error_response(error), keep_alive=False, http_1_1=True, is_head=False)


def http_date() -> str:
    """Return the time as headers write it."""
    return formatdate(time.time(), usegmt=True)

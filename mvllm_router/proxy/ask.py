"""A client's request, as it is written anew for each backend that is asked."""

from __future__ import annotations

import asyncio
import random

from mvllm_router.auth import ANYBODY, Caller
from mvllm_router.engines import get as get_engine
from mvllm_router.errors import MethodNotAllowed
from mvllm_router.front.outlet import Outlet
from mvllm_router.front.request import Request
from mvllm_router.policies.kv_index import Prompt
from mvllm_router.pool import Backend
from mvllm_router.proxy import headers
from mvllm_router.proxy.client import Client
from mvllm_router.proxy.connections import Connections
from mvllm_router.proxy.inspect import (
    priority_of_header,
    wanted_of,
    wanted_of_object,
    with_model,
)
from mvllm_router.proxy.queue import Claim
from mvllm_router.proxy.routes import Route

# A server would answer TRACE with what it was sent, the key that the router has for it included.
# CONNECT asks for a tunnel.
_NOT_RELAYED = ("TRACE", "CONNECT")
_HAVE_BODIES = ("POST", "PUT", "PATCH")
_RELAYED = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


class Ask:
    """A request that is ready to be sent to any backend, and the client that waits for it.

    `lines` are its headers as a backend gets them. `model` is the one that it names, if it does;
    `priority` is the one that it asks for, 0 if it does not. `prompt` has the tokens of its prompt,
    once they are known.
    """

    __slots__ = ("caller", "client", "lines", "model", "priority", "prompt", "request", "route")

    def __init__(self, request: Request, route: Route, outlet: Outlet) -> None:
        """Take a whole request.

        Raises:
            BadRequest, MethodNotAllowed: the client's mistakes.
        """
        if request.method in _NOT_RELAYED:
            raise MethodNotAllowed(f"{request.method} is not relayed.", allow=_RELAYED)
        self.request = request
        self.route = route
        self.caller: Caller = request.caller or ANYBODY
        self.lines = headers.to_backend(request.fields, request.trusted_proxy)
        if route.json and request.method == "POST":
            wanted = wanted_of_object(request.body)
        else:
            content_type = request.fields.get("content-type", "")
            wanted = wanted_of(request.body, content_type, request.query)
        self.model: str | None = wanted.model
        # What is in front of the router knows better than the client how urgent it is.
        given = request.fields.first.get(b"x-priority")
        self.priority: int = wanted.priority or 0 if given is None else priority_of_header(given)
        self.prompt: Prompt | None = None
        self.client = Client(
            outlet,
            http_1_1=request.http_1_1,
            keep_alive=request.keep_alive,
            is_head=request.method == "HEAD",
        )

    @property
    def body(self) -> bytes:
        return self.request.body

    def header(self, name: str) -> str:
        """Return the value of a header by its name in small letters; "" where it has none."""
        return self.request.fields.get(name, "")

    @property
    def claim(self) -> Claim:
        """For whom it waits where it has to, and how early it wants its turn."""
        return Claim.of(self.caller.name, self.caller.priority, self.priority)

    def leave_if_gone(self) -> None:
        """Stop here if the client has left.

        Before Python 3.12, `asyncio.wait_for` forgets that its task was cancelled when what
        it waited for is done in the same tick; so this is asked after it.
        """
        if self.client.outlet.is_closing():
            raise asyncio.CancelledError


def for_backend(ask: Ask, backend: Backend, connections: Connections) -> tuple[bytes, bytes]:
    """Return the head and the body as this backend gets them."""
    request = ask.request
    body = request.body
    if ask.model is not None and ask.model in backend.spec.aliases:
        body = with_model(body, backend.own_name(ask.model))
    target = f"{ask.route.path}?{request.query}" if request.query else ask.route.path
    lines = [
        request.method.encode("latin-1"),
        connections.path_prefix,
        target.encode("utf-8", "surrogateescape"),
        b" HTTP/1.1\r\n",
        connections.fixed_lines,
        headers.without(ask.lines, names) if (names := connections.fixed_names) else ask.lines,
    ]
    if body or request.method in _HAVE_BODIES:
        lines.append(b"content-length: %d\r\n" % len(body))
    if request.id_is_ours or get_engine(backend.engine).accepts_request_id(request.id):
        lines.append(b"x-request-id: %b\r\n" % request.id.encode("latin-1"))
    lines.append(b"\r\n")
    return b"".join(lines), body


def new_request_id() -> str:
    """Return a random id that is a valid UUID: some servers refuse anything else."""
    return f"{random.getrandbits(128):032x}"

"""A client's request: read whole, and written anew for each backend that is asked."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

from aiohttp import StreamReader, web

from mvllm_router.auth import Caller
from mvllm_router.engines import get as get_engine
from mvllm_router.errors import BadRequest, MethodNotAllowed, SlowUpload, TooLarge
from mvllm_router.pool import Backend
from mvllm_router.proxy import headers
from mvllm_router.proxy.bodies import MOST_BODIES
from mvllm_router.proxy.client import Client
from mvllm_router.proxy.connections import Connections
from mvllm_router.proxy.front import FrontConnection
from mvllm_router.proxy.inspect import model_of, with_model
from mvllm_router.proxy.routes import Route

# A server would answer TRACE with what it was sent, the key that the router has for it included.
# CONNECT asks for a tunnel.
_NOT_RELAYED = ("TRACE", "CONNECT")
# Bytes per second that an upload must come at, on average, once it has taken as long as a client
# may be silent. Mobile networks are faster; a body in drops would be held for days.
_SLOWEST = 1024


@dataclass(slots=True)  # not frozen: that would cost 2 us per request
class Ask:
    """A client's request, read and ready to be sent to any backend."""

    route: Route
    method: str
    query: str
    lines: bytes
    body: bytes
    model: str | None
    request_id: str
    arrived: float  # monotonic seconds
    client: Client
    front: FrontConnection
    caller: Caller
    address: str  # of the client, as far as proxies in front are believed; "" if unknown
    cors_lines: bytes  # headers of the answer for the web page that asks, each with its line end

    def release_body(self) -> None:
        """Let go of the body: the request will not be sent again. A second call does nothing."""
        self.front.body.release()
        self.body = b""

    def leave_if_gone(self) -> None:
        """Stop here if the client has left.

        Before Python 3.12, `asyncio.wait_for` forgets that its task was cancelled when what
        it waited for is done in the same tick; so this is asked after it.
        """
        if self.client.gone:
            raise asyncio.CancelledError


async def read_ask(
    request: web.BaseRequest,
    route: Route,
    request_id: str,
    arrived: float,
    *,
    max_body_size: int,
    patience: float,
    caller: Caller,
) -> Ask:
    """Read a request.

    Args:
        max_body_size: in bytes.
        patience: seconds that a client may be silent in the middle of its request.

    Raises:
        TooLarge, SlowUpload, BadRequest, MethodNotAllowed: the client's mistakes.
        Overloaded: all requests together hold too much already.
        asyncio.CancelledError: it has left.
    """
    front = request.protocol
    assert isinstance(front, FrontConnection)
    if front.transport is None:  # gone before we began
        raise asyncio.CancelledError
    if request.method in _NOT_RELAYED:
        raise MethodNotAllowed(f"{request.method} is not relayed.")
    try:
        body = await _read_body(request, front, max_body_size, patience)
    except OSError:  # the client has left; see `leave_if_gone` for why we come here
        raise asyncio.CancelledError from None
    query = request.raw_path.partition("?")[2]
    content_type = request.headers.get("content-type", "")
    permit = front.permit
    must_be_json = route.json and request.method == "POST"
    return Ask(
        route=route,
        method=request.method,
        query=query,
        lines=headers.to_backend(request.raw_headers, front.trusted_proxy),
        body=body,
        model=model_of(body, content_type, query, must_be_json=must_be_json),
        request_id=request_id,
        arrived=arrived,
        client=Client(
            front.transport,
            http_1_1=request.version >= (1, 1),
            keep_alive=request.keep_alive and not front.draining,
            is_head=request.method == "HEAD",
        ),
        front=front,
        caller=caller,
        address=front.client_address(request),
        cors_lines=permit.lines if permit else b"",
    )


async def _read_body(
    request: web.BaseRequest, front: FrontConnection, limit: int, patience: float
) -> bytes:
    length = request.content_length
    if length is None:
        _check_coding(request)
    elif length > limit:
        raise _too_large(limit)
    content = request.content
    if content.is_eof():
        body = content.read_nowait()
        if len(body) > limit:
            raise _too_large(limit)
        front.body.add(len(body), MOST_BODIES * limit)
        return body
    _invite(request, front)
    pieces, size, begun = [], 0, time.monotonic()
    while not content.at_eof():
        piece = await _piece(content, patience)
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        front.body.add(len(piece), MOST_BODIES * limit)
        seconds = time.monotonic() - begun
        if seconds > patience and size < seconds * _SLOWEST:
            raise SlowUpload(f"The request body came at less than {_SLOWEST} bytes per second.")
    error = content.exception()
    if isinstance(error, ConnectionError):  # it left, and `wait_for` forgot that it was cancelled
        raise asyncio.CancelledError
    if error is not None:  # the body ended where it could not be read on
        raise error
    return b"".join(pieces)


def _check_coding(request: web.BaseRequest) -> None:
    """Refuse a body that is compressed for its way only: the server would not learn of it."""
    coding = request.headers.get("transfer-encoding", "chunked")
    if coding.strip().lower() != "chunked":
        raise BadRequest("Of the transfer codings, only `chunked` is taken.")


def _invite(request: web.BaseRequest, front: FrontConnection) -> None:
    """Tell a client that waits for it to send its body."""
    expects = request.headers.get("expect", "").lower() == "100-continue"
    if expects and request.version >= (1, 1) and front.transport is not None:
        front.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _piece(content: StreamReader, patience: float) -> bytes:
    try:
        return await asyncio.wait_for(content.readany(), patience)
    except asyncio.TimeoutError:
        raise SlowUpload(f"Nothing of the request body came for {patience:g} s.") from None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than {limit} bytes.")


def for_backend(ask: Ask, backend: Backend, connections: Connections) -> tuple[bytes, bytes]:
    """Return the head and the body as this backend gets them."""
    body = ask.body
    if ask.model is not None and ask.model in backend.spec.aliases:
        body = with_model(body, backend.own_name(ask.model))
    target = ask.route.path + (f"?{ask.query}" if ask.query else "")
    lines = [
        f"{ask.method} ".encode("latin-1"),
        connections.path_prefix,
        target.encode("utf-8", "surrogateescape"),
        b" HTTP/1.1\r\n",
        connections.fixed_lines,
        headers.without(ask.lines, names) if (names := connections.fixed_names) else ask.lines,
    ]
    if body or ask.method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d\r\n" % len(body))
    if get_engine(backend.engine).accepts_request_id(ask.request_id):
        lines.append(f"x-request-id: {ask.request_id}\r\n".encode("latin-1"))
    lines.append(b"\r\n")
    return b"".join(lines), body


def new_request_id() -> str:
    """Return a random id that is a valid UUID: some servers refuse anything else."""
    return f"{random.getrandbits(128):032x}"

"""A client's request, as it was read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mvllm_router.auth import Caller
from mvllm_router.cors import Permit
from mvllm_router.errors import RouterError
from mvllm_router.fields import Fields
from mvllm_router.front.bodies import Bodies
from mvllm_router.front.response import Response
from mvllm_router.pool import Backend

if TYPE_CHECKING:
    from mvllm_router.front.connection import ClientConnection


Trail = tuple[Sequence[Backend], Sequence[str]]
_NOWHERE: Trail = ((), ())


class Request:
    """One request. Its body comes after its head, and is held until `release`.

    The first attributes are what the client sent. `error` is set when the request is to be
    refused, whoever finds that out; then `whole` tells whether all of it was read. `id`, `caller`,
    `route`, `label`, `model` and `trail` are the handler's.
    """

    __slots__ = (
        "_bodies",
        "_held",
        "_pieces",
        "arrived",
        "body",
        "caller",
        "connection",
        "error",
        "fields",
        "http_1_1",
        "id",
        "id_is_ours",
        "keep_alive",
        "label",
        "method",
        "model",
        "path",
        "permit",
        "prepared",
        "query",
        "route",
        "size",
        "trail",
        "whole",
    )

    def __init__(
        self,
        connection: ClientConnection,
        bodies: Bodies,
        method: str,
        target: str,
        fields: Fields,
        *,
        http_1_1: bool,
        keep_alive: bool,
    ) -> None:
        self.connection = connection
        self.method = method
        if "?" in target or not target.startswith("/"):
            self.path, self.query = _parts(target)
        else:
            self.path, self.query = target, ""
        self.fields = fields
        self.http_1_1 = http_1_1
        self.keep_alive = keep_alive  # the connection may stay open after the answer
        self.arrived = time.monotonic()  # seconds
        self.body = b""
        self.size = 0  # bytes of the body that have come
        self.whole = False
        self.error: RouterError | None = None
        self.permit: Permit | None = None  # of the web page that asks
        self.prepared: Response | None = None  # the answer, where no handler is to be asked
        self.id = ""
        self.id_is_ours = True  # not the client's
        self.caller: Caller | None = None
        self.route: object = None
        self.label = ""  # what metrics call its route, when it is one that is relayed
        self.model: str | None = None  # that it names, once that was looked for
        # Where it was and why that was in vain, if it ends without an answer of a backend.
        self.trail: Trail = _NOWHERE
        self._bodies = bodies
        self._held = 0  # bytes that `bodies` counts for it
        self._pieces: list[bytes] = []

    @property
    def address(self) -> str:
        """Where it comes from, as far as proxies in front are believed; "" if that is unknown."""
        return self.connection.client_address(self)

    @property
    def trusted_proxy(self) -> str | None:
        """The address at the other end, if that is a proxy which is believed."""
        return self.connection.trusted_proxy

    @property
    def announced(self) -> int:
        """The length of the body in bytes, if the head tells it, else 0."""
        return int(self.fields.length or 0)

    def add(self, piece: bytes) -> None:
        """Hold a piece of the body.

        Raises:
            Overloaded: all requests together would hold too much.
        """
        size = len(piece)
        self._bodies.take(size)
        self._held += size
        self.size += size
        self._pieces.append(piece)

    def complete(self) -> None:
        """The last piece has come."""
        self.whole = True
        pieces = self._pieces
        self.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()

    def release(self) -> None:
        """Let go of the body; a second call does nothing."""
        if self._held:
            self._bodies.give_back(self._held)
            self._held = 0
        self._pieces.clear()
        self.body = b""


def _parts(target: str) -> tuple[str, str]:
    """Return path and query of a request target, also of one in absolute form."""
    path, _, query = target.partition("?")
    if not path.startswith("/"):
        path = urlsplit(path).path or "/"
    return path, query

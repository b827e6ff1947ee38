"""A client's request, as it was read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mvllm_router.auth import Caller
from mvllm_router.cors import Permit
from mvllm_router.errors import RouterError
from mvllm_router.front.bodies import Bodies
from mvllm_router.front.response import Response

if TYPE_CHECKING:
    from mvllm_router.front.connection import ClientConnection

RawHeaders = Sequence[tuple[bytes, bytes]]


class Fields(Mapping[str, str]):
    """The headers of a request, by their names in lower case; the first one of a name counts."""

    __slots__ = ("_names", "raw")

    def __init__(self, names: list[bytes], raw: list[tuple[bytes, bytes]]) -> None:
        """Take the names in lower case, and the headers as they were sent, in the same order."""
        self._names = names
        self.raw = raw

    def raw_value(self, name: bytes) -> bytes | None:
        """Return the value of a header as it was sent; None where there is none."""
        return self.raw[self._names.index(name)][1] if name in self._names else None

    def __getitem__(self, name: str) -> str:
        value = self.raw_value(name.encode("ascii"))
        if value is None:
            raise KeyError(name)
        return value.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("utf-8", "surrogateescape") for name in dict.fromkeys(self._names))

    def __len__(self) -> int:
        return len(set(self._names))


class Request:
    """One request. Its body comes after its head, and is held until `release`.

    The first attributes are what the client sent. `error` is set when the request is to be
    refused, whoever finds that out; then `whole` tells whether all of it was read. `id`, `caller`
    and `label` are the handler's.
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
        "keep_alive",
        "label",
        "method",
        "path",
        "permit",
        "prepared",
        "query",
        "size",
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
        self.path, self.query = _parts(target)
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
        self.caller: Caller | None = None
        self.label = ""  # what metrics call its route, when it is one that is relayed
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
        return int(self.fields.raw_value(b"content-length") or 0)

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

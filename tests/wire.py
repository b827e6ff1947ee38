"""Raw sockets for tests: a server that follows a script, and clients that send exact bytes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Seen:
    """One request as it arrived at a scripted server."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]

    def header(self, name: bytes) -> list[bytes]:
        lines = [line.partition(b": ") for line in self.head.split(b"\r\n")[1:]]
        return [value for key, _, value in lines if key.lower() == name]


Act = Callable[[Seen, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\n"


def answer(body: bytes, head: bytes = OK, *lines: bytes) -> bytes:
    """Return a whole answer with its content-length."""
    more = b"".join(line + b"\r\n" for line in lines)
    return head + more + b"content-length: %d\r\n\r\n" % len(body) + body


@dataclass
class Scripted:
    """A server that answers requests for /v1/... by `act`, and health checks by itself.

    It looks like an unknown OpenAI server that lists the model `tiny`. With `tls` it speaks https.
    """

    act: Act
    tls: ssl.SSLContext | None = None
    models: bytes = b'{"object":"list","data":[{"id":"tiny","object":"model"}]}'
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    async def __aenter__(self) -> Scripted:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=2**26, ssl=self.tls
        )
        scheme = "https" if self.tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._writers: set[asyncio.StreamWriter] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        counted = False
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                seen = Seen(head, b"")
                length = seen.header(b"content-length")
                if seen.line.startswith((b"GET /health", b"GET /openapi", b"GET /version")):
                    writer.write(answer(b"{}", b"HTTP/1.1 404 Not Found\r\n"))
                elif seen.line == b"GET /v1/models HTTP/1.1":
                    writer.write(answer(self.models, OK, b"content-type: application/json"))
                else:
                    self.connections += not counted
                    counted = True
                    if length and b"x-read-no-body" not in head:
                        seen.body = await reader.readexactly(int(length[0]))
                    self.seen.append(seen)
                    await self.act(seen, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


def replies(*pieces: bytes, close: bool = False) -> Act:
    """Return an act that writes the pieces one after the other, each in a packet of its own."""

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)  # a packet of its own; nothing depends on the time
        if close:
            writer.close()

    return act


class RawClient:
    """A client's connection that sends and reads exact bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(
        cls, url: str, *, receive_buffer: int = 0, tls: ssl.SSLContext | None = None
    ) -> RawClient:
        """Connect; `receive_buffer` bounds what the kernel takes for a client that reads slowly."""
        import socket

        parts = urlsplit(url)
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (parts.hostname, parts.port))
        name = {"server_hostname": parts.hostname} if tls else {}
        return cls(*await asyncio.open_connection(sock=sock, limit=2**16, ssl=tls, **name))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def post(self, body: bytes, path: bytes = b"/v1/chat/completions", *lines: bytes) -> None:
        head = [b"POST %b HTTP/1.1" % path, b"host: x", b"content-type: application/json", *lines]
        self.send(b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body]))

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)

    async def until(self, mark: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(mark), 10)

    async def rest_of_chunks(self) -> bytes:
        return await self.until(b"0\r\n\r\n")

    async def last_of_stream(self) -> bytes:
        """Read chunks to their end, however many; return the last 10 kB."""
        last = b""
        while not last.endswith(b"\r\n0\r\n\r\n"):
            piece = await self.reader.read(65536)
            assert piece, "the connection was closed in mid-stream"
            last = (last + piece)[-10_000:]
        return last

    async def rest(self) -> bytes:
        """Read until the other side closes."""
        return await asyncio.wait_for(self.reader.read(-1), 10)

    async def all(self) -> bytes:
        """Read until the other side closes, which is a reset where it left something unread."""
        pieces = []
        try:
            while piece := await asyncio.wait_for(self.reader.read(65536), 10):
                pieces.append(piece)
        except ConnectionError:
            pass
        return b"".join(pieces)

    async def answer(self) -> tuple[bytes, bytes]:
        """Read one answer with a content-length or chunks; return its head and raw body."""
        head = await self.head()
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            return head, await self.until(b"0\r\n\r\n")
        for line in lowered.split(b"\r\n"):
            if line.startswith(b"content-length: "):
                return head, await self.reader.readexactly(int(line.partition(b": ")[2]))
        return head, b""


class Client:
    """`async with Client(url) as client:` gives a `RawClient`."""

    def __init__(self, url: str, **options: Any) -> None:
        self._url = url
        self._options = options

    async def __aenter__(self) -> RawClient:
        self._client = await RawClient.connect(self._url, **self._options)
        return self._client

    async def __aexit__(self, *_: object) -> None:
        self._client.writer.transport.abort()


SSE = OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)

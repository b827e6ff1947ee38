"""Requests that go to a real engine and to a simulated one, and what to compare of the answers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wire import Client, RawClient

PATIENCE = 60.0  # seconds for one answer

# Headers whose values differ from one answer to the next.
VOLATILE: tuple[str, ...] = ("date", "content-length", "x-request-id", "openai-processing-ms")
VOLATILE += ("process-start-time-unix",)
# Members whose values are compared; of the others the type is.
TELLING = {"object", "role", "finish_reason", "index", "type", "code", "param", "owned_by"}
TELLING |= {"status", "detail", "title", "completion_tokens", "total_slots", "is_processing"}

Shape = frozenset[tuple[str, str]]  # of one JSON text: paths, and what stands there


@dataclass(frozen=True)
class Ask:
    """A request; `fields` are added to a small valid body, None takes one of its fields away."""

    method: str
    path: str
    fields: dict[str, Any] | None = None
    raw: bytes | None = None  # in place of a body of fields
    lines: tuple[str, ...] = ()

    def wire(self, model: str) -> bytes:
        body = self.raw if self.raw is not None else self._body(model)
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: x", *self.lines]
        if self.method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def _body(self, model: str) -> bytes:
        if self.fields is None:
            return b""
        chat = {"messages": [{"role": "user", "content": "Dafi kenu"}]}
        prompt = chat if "chat" in self.path else {"prompt": "Dafi kenu"}
        fields = {"model": model, "max_tokens": 3, **prompt, **self.fields}
        return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()


@dataclass(frozen=True)
class Exchange:
    """What came back, and whether the connection took another request after it."""

    line: str
    headers: list[tuple[str, str]]
    framing: str
    body: bytes
    kept: bool

    @property
    def status(self) -> int:
        return int(self.line.split()[1])

    def header(self, name: str) -> str:
        return header(self.headers, name)

    def outside(self, unsteady: Sequence[str] = ()) -> dict[str, object]:
        """All but the body and `unsteady`; of versions in `server` the numbers do not count."""
        shown = dict.fromkeys(VOLATILE, "...")
        shown["server"] = re.sub(r"\d+", "N", self.header("server"))
        names = ((name.lower(), value) for name, value in self.headers)
        headers = sorted((name, shown.get(name, value)) for name, value in names)
        seen = {"line": self.line, "headers": headers, "framing": self.framing, "kept": self.kept}
        return {name: value for name, value in seen.items() if name not in unsteady}

    def inside(self) -> list[Shape]:
        """The shapes of its JSON or of its events; equal events in a row are one."""
        if self.header("content-type").startswith("text/event-stream"):
            shapes = [shape_of(event) for event in self.body.decode().split("\n\n") if event]
            return [s for i, s in enumerate(shapes) if i == 0 or s != shapes[i - 1]]
        return [shape_of(self.body.decode())]


def header(headers: list[tuple[str, str]], name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")


def shape_of(text: str) -> Shape:
    """Where it is no JSON, the text itself without its numbers."""
    start, data = ("data: ", text[6:]) if text.startswith("data: ") else ("", text)
    try:
        value = json.loads(data)
    except ValueError:
        return frozenset({("text", re.sub(r"\d+", "N", text))})
    spacing = start + ("spaced" if '": ' in data else "compact")
    return frozenset({("spacing", spacing), *leaves(value, "")})


def leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}")
    elif isinstance(value, list) and value:
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        told = value in (None, "", [], {}) or path.rpartition(".")[2] in TELLING
        yield path, repr(value) if told else type(value).__name__


async def exchange(url: str, data: bytes) -> Exchange:
    async def go() -> Exchange:
        async with Client(url) as client:
            client.send(data)
            line, headers = await read_head(client)
            bodyless = data.startswith(b"HEAD") or " 204 " in line
            framing, body = ("none", b"") if bodyless else await read_body(client, headers)
            kept = framing != "close" and await takes_another(client)
            return Exchange(line, headers, framing, body, kept)

    return await asyncio.wait_for(go(), PATIENCE)


async def read_head(client: RawClient) -> tuple[str, list[tuple[str, str]]]:
    head = await client.reader.readuntil(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = [each.partition(":") for each in lines]
    return line, [(name, value.strip()) for name, _, value in pairs]


async def read_body(client: RawClient, headers: list[tuple[str, str]]) -> tuple[str, bytes]:
    if header(headers, "transfer-encoding") == "chunked":
        pieces: list[bytes] = []
        try:
            async for piece in chunks(client):
                pieces.append(piece)
        except asyncio.IncompleteReadError:
            return "chunked, cut", b"".join(pieces)
        return "chunked", b"".join(pieces)
    if length := header(headers, "content-length"):
        return "length", await client.reader.readexactly(int(length))
    return "close", await client.reader.read(-1)


async def chunks(client: RawClient) -> AsyncIterator[bytes]:
    size = -1
    while size:
        size = int(await client.reader.readuntil(b"\r\n"), 16)
        yield (await client.reader.readexactly(size + 2))[:-2]


async def takes_another(client: RawClient) -> bool:
    client.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        return bool(await client.reader.read(1))
    except ConnectionError:
        return False

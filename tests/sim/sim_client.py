"""What the tests of the simulated engine share: raw connections, and streams taken apart."""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Raw:
    """One TCP connection on which a test sees every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, url: str) -> Raw:
        host, port = url.removeprefix("http://").rsplit(":", 1)
        return cls(*await asyncio.open_connection(host, int(port)))

    def post(self, path: str, body: dict[str, Any], extra: str = "") -> None:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: sim\r\nContent-Length: {len(data)}\r\n{extra}\r\n"
        self.writer.write(head.encode() + data)

    def get(self, path: str) -> None:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: sim\r\n\r\n".encode())

    async def head(self) -> str:
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def answer(self) -> tuple[str, bytes]:
        """Head and body of an answer with a content-length."""
        head = await self.head()
        length = head.lower().split("content-length: ")[1].split("\r\n")[0]
        return head, await self.reader.readexactly(int(length))

    def close(self) -> None:
        self.writer.close()


def chat(**fields: Any) -> dict[str, Any]:
    """A small chat request."""
    return {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **fields}


def events(text: str) -> list[Any]:
    """The events of a stream in order: objects, and "[DONE]"; comments are left out."""
    lines = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def content(parsed: list[Any]) -> str:
    """The text of a chat stream."""
    chunks = [event for event in parsed if event != "[DONE]" and event["choices"]]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)

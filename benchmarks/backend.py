"""A backend that costs next to nothing: fixed answers, so that the proxy is what is measured.

`python benchmarks/backend.py` prints its URL and serves until its standard input closes.
"""

from __future__ import annotations

import asyncio
import sys

import httptools
import uvloop

EVENTS = 64
SECONDS_BETWEEN_EVENTS = 0.005

_TEXT = b"x" * 200
_JSON = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"tiny","choices":[{"index"'
    b':0,"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}],"usage":'
    b'{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}' % _TEXT
)
_MODELS = b'{"object":"list","data":[{"id":"tiny","object":"model"}]}'
_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _answer(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nserver: fixed\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Backend(asyncio.Protocol):
    """One connection: reads requests, answers each by its path and body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""
        self.url = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        url, body, self.url, self.body = self.url, self.body, b"", b""
        if url == b"/v1/models":
            self.transport.write(_answer(_MODELS))
        elif b'"stream":true' in body:
            self.transport.write(_STREAM_HEAD)
            self._stream(EVENTS)
        elif b"chat" in url:
            self.transport.write(_answer(_JSON))
        else:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def _stream(self, left: int) -> None:
        if self.transport.is_closing():
            return
        if left:
            self.transport.write(_chunk(_EVENT))
            loop = asyncio.get_running_loop()
            loop.call_later(SECONDS_BETWEEN_EVENTS, self._stream, left - 1)
        else:
            self.transport.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Backend, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    loop = uvloop.new_event_loop()
    loop.run_until_complete(main())

"""A backend that costs next to nothing: fixed answers, so that the proxy is what is measured.

`python benchmarks/backend.py [COUNT]` listens on so many ports, prints their URLs, one a line, and
serves until its standard input closes. A stream has as many events as `max_completion_tokens`
says, one each `temperature` seconds, and each tells when it was written: the clock is the
machine's, so that a client knows how long it took.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import cast

import httptools
import uvloop

_TEXT = b"x" * 200
_JSON = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"tiny","choices":[{"index"'
    b':0,"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}],"usage":'
    b'{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}' % _TEXT
)
_MODELS = b'{"object":"list","data":[{"id":"tiny","object":"model"}]}'
_EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":%.6f,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
_MAX_TOKENS = re.compile(rb'"max_completion_tokens": ?(\d+)')
_TEMPERATURE = re.compile(rb'"temperature": ?([\d.e-]+)')


def _answer(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nserver: fixed\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def _metrics() -> bytes:
    """As much text as a vLLM that has been busy has, and its load in the middle of it."""
    buckets = "".join(
        f'vllm:some_histogram_{n}_seconds_bucket{{engine="0",le="{le}",model_name="tiny"}} {le}.0\n'
        for n in range(40)
        for le in range(20)
    )
    load = "".join(
        f'vllm:num_requests_{what}{{engine="0",model_name="tiny"}} 0.0\n'
        for what in ("running", "waiting")
    )
    return (buckets[: len(buckets) // 2].rpartition("\n")[0] + "\n" + load + buckets).encode()


_PAGES = {
    b"/v1/models": _answer(_MODELS),
    b"/health": _answer(b"{}"),
    b"/metrics": _answer(_metrics()),
}
_ANSWER = _answer(_JSON)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Backend(asyncio.Protocol):
    """One connection: reads requests, answers each by its path and body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.body: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:  # some ask whether HTTP/2 or gRPC is spoken
            self.transport.close()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        url, body = self.url, b"".join(self.body)
        self.url, self.body = b"", []
        if b"chat" not in url:
            self.transport.write(_PAGES.get(url, _NOT_FOUND))
        elif (wanted := _MAX_TOKENS.search(body)) is not None:
            pause = _TEMPERATURE.search(body)
            self.transport.write(_STREAM_HEAD)
            self._stream(int(wanted[1]), float(pause[1]) if pause else 0.0)
        else:
            self.transport.write(_ANSWER)

    def _stream(self, left: int, pause: float) -> None:
        if self.transport.is_closing():
            return
        if left:
            self.transport.write(_chunk(_EVENT % time.monotonic()))
            asyncio.get_running_loop().call_later(pause, self._stream, left - 1, pause)
        else:
            self.transport.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def main(count: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Backend, "127.0.0.1", 0) for _ in range(count)]
    for server in servers:
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.new_event_loop().run_until_complete(main(int(sys.argv[1]) if sys.argv[1:] else 1))

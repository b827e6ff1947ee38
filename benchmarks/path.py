"""What a small request or an event costs in Python alone: the data path without sockets.

    python benchmarks/path.py [--stream] [--calls]

Transports that do nothing stand in for the sockets, and the server's answer is fed as soon as
the request is written. The least of many rounds counts, so that the figure hardly drifts: it is
there to compare two versions of the code with. `--calls` counts the calls of each function.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from loads import chat, post  # noqa: E402

from mvllm_router.config import Config, ServerSpec, Settings  # noqa: E402
from mvllm_router.front.front import Front  # noqa: E402
from mvllm_router.proxy.connection import Connection  # noqa: E402
from mvllm_router.server import Router  # noqa: E402

_ROUNDS, _REQUESTS = 60, 500
_BODY = b'{"id":"1","usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}'
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nserver: fixed\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Wire(asyncio.Transport):
    """A transport that hands on what is written."""

    def __init__(self, written: Callable[[bytes], None]) -> None:
        super().__init__()
        self.write = written  # type: ignore[assignment,method-assign]

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def abort(self) -> None: ...
    def close(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":" token"}}]}\n\n'


async def one_by_one(*, stream: bool) -> Callable[[], None]:
    """Return what sends one request through a router and back, or the next event of a stream."""
    spec = ServerSpec(url="http://127.0.0.1:9", name="s0", models=("tiny",))
    router = Router(Config(settings=Settings(), servers=(spec,)))
    router.pool.add(spec)
    backend = router.pool.backends["s0"]
    router.pool.health(backend, lambda health: health.check_passed(0.0, 0.0))
    front = Front(router.app, router.pool.stats, 10)
    front.adopt(Settings())
    client = front.protocol()
    answers = 0

    def answered(data: bytes) -> None:
        nonlocal answers
        answers += 1

    client.connection_made(Wire(answered))
    connections = router.relay.connections(backend)
    connection = Connection(connections)
    answer = _ANSWER
    feed: list[None] = []
    connection.connection_made(Wire(lambda data: feed.append(None)))
    connections._monotonic = lambda: 0.0
    connections.put_back(connection)
    request = post(chat(), "")

    def once() -> None:
        client.data_received(request)
        connections.outbox.flush()
        feed.pop()
        connection.data_received(answer)
        front.outbox.flush()

    if not stream:
        once()
        assert answers == 1
        return once
    event = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
    client.data_received(request)
    connection.data_received(_STREAM + event)
    return lambda: connection.data_received(event)


def least(once: Callable[[], None]) -> float:
    """Return the microseconds of the quickest of many rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        for _ in range(_REQUESTS):
            once()
        best = min(best, time.perf_counter() - begun)
    return best / _REQUESTS * 1e6


def calls(once: Callable[[], None]) -> Counter[str]:
    """Return how often each function is called for one request."""
    counted: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            code = frame.f_code
            counted[f"{Path(code.co_filename).stem}.{code.co_name}"] += 1

    sys.setprofile(count)
    once()
    sys.setprofile(None)
    return counted


async def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--stream", action="store_true")
    options.add_argument("--calls", action="store_true")
    chosen = options.parse_args()
    once = await one_by_one(stream=chosen.stream)
    counted = calls(once)
    if chosen.calls:
        for name, count in counted.most_common():
            print(f"{count:4} {name}")
    print(f"{least(once):.1f} us, {counted.total()} calls")


if __name__ == "__main__":
    asyncio.run(main())

"""What a fuzzer that only knows bytes can call: by name, the checks with their options taken from
the first bytes of its input."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import cache

from fuzz_checks import (
    check_body,
    check_config,
    check_cutting,
    check_document,
    check_hiding,
    check_judging,
    check_metrics,
    check_path,
    check_reads,
    check_renaming,
    check_server,
)
from fuzz_corpus import ANSWERS, METRICS, STREAMS, body_of
from fuzz_exchange import Case, check_passing

from mvllm_router.engines import ENGINES
from mvllm_router.engines.recognise import Answer

# Bytes of an input that are options: flags, and two places to cut at.
OPTIONS = 6
_PATHS = ("/health", "/version", "/openapi.json", "/v1/models", "/props", "/metrics")
_STATUS = (200, 200, 200, 503, 404, 401, 204, 500)
_TYPES = ("application/json", "multipart/form-data; boundary=B", "", "text/plain")
_ENDS = ("eof", "reset", "silent", "stop")
_ENGINES = (*ENGINES, "auto")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _options(data: bytes) -> tuple[int, list[bytes], bytes]:
    """Return flags, the rest cut into reads, and the rest."""
    options, rest = data[:OPTIONS].ljust(OPTIONS, b"\0"), data[OPTIONS:]
    flags = int.from_bytes(options[:2], "big")
    first, second = sorted(
        int.from_bytes(options[at : at + 2], "big") % (len(rest) + 1) for at in (2, 4)
    )
    pieces = [rest[:first], rest[first:second], rest[second:]]
    if flags & 0x8000:
        pieces = [rest[at : at + 1] for at in range(len(rest))]
    return flags, [piece for piece in pieces if piece], rest


def connection(data: bytes) -> None:
    flags, pieces, rest = _options(data)
    check_reads(rest, pieces, is_head=bool(flags & 1), end=_ENDS[flags >> 1 & 1])


def exchange(data: bytes) -> None:
    flags, pieces, rest = _options(data)
    case = Case(
        is_head=bool(flags & 1),
        http_1_1=not flags & 2,
        keep_alive=not flags & 4,
        moves=bool(flags & 8),
        end_is_marked=not flags & 16,
        hide_errors=bool(flags & 32),
        end=_ENDS[flags >> 6 & 3],
    )
    check_passing(_loop(), rest, pieces, case)


def sse(data: bytes) -> None:
    flags, pieces, rest = _options(data)
    check_cutting(rest, pieces)
    check_hiding(rest)
    check_judging(rest, ended=bool(flags & 1), moves=bool(flags & 2))


def metrics(data: bytes) -> None:
    flags, _, rest = _options(data)
    check_metrics(_loop(), [*ENGINES][flags % len(ENGINES)], rest)


def server(data: bytes) -> None:
    """A server that answers the same, or the same and something else, on all paths."""
    flags, pieces, rest = _options(data)
    try:
        check_document(json.loads(rest))
    except (ValueError, RecursionError):
        pass
    bodies = pieces or [b""]
    name = ("llama.cpp", "BaseHTTP/0.6", "uvicorn", "")[flags >> 12 & 3]
    answers = {
        path: Answer(_STATUS[(flags >> at) & 7], {"server": name}, bodies[at % len(bodies)])
        for at, path in enumerate(_PATHS)
        if flags >> at & 1
    }
    check_server(_loop(), answers, _ENGINES[flags % len(_ENGINES)])


def body(data: bytes) -> None:
    flags, _, rest = _options(data)
    query = rest[:40].decode("latin-1") if flags & 8 else ""
    check_body(rest, _TYPES[flags & 3], query, must_be_json=bool(flags & 4))
    check_renaming(rest)


def path(data: bytes) -> None:
    check_path("/v1/" + data.decode("utf-8", "surrogateescape"))
    check_path(data.decode("utf-8", "surrogateescape"))


def config(data: bytes) -> None:
    check_config(data.decode("utf-8", "replace"))


def _seeds(options: int, *more: bytes) -> list[bytes]:
    return [bytes(options) + seed for seed in more]


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "connection": (connection, lambda: _seeds(OPTIONS, *ANSWERS.values())),
    "exchange": (exchange, lambda: _seeds(OPTIONS, *ANSWERS.values())),
    "sse": (sse, lambda: _seeds(OPTIONS, *STREAMS.values())),
    "metrics": (metrics, lambda: _seeds(OPTIONS, *map(str.encode, METRICS.values()))),
    "server": (server, lambda: _seeds(OPTIONS, *map(body_of, ANSWERS.values()))),
    "body": (
        body,
        lambda: _seeds(
            OPTIONS,
            b'{"model":"tiny","messages":[{"role":"user","content":"hi"}],"n":1.50}',
            b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--B--\r\n',
        ),
    ),
    "path": (path, lambda: [b"/v1/files/a", b"a/%2e%2e/%252e", b"..%2f..\\#"]),
    "config": (
        config,
        lambda: [
            b'[servers]\nservers = [{ url = "http://a:1", api_key = "x", weight = 1.0 }]\n',
            b'[config]\nport = 1\n[auth]\nkeys = [{ name = "a", key = "b" }]\n[[servers]]\n',
        ],
    ),
}

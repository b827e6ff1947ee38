"""Strategies: real answers with something done to them, and ways to cut bytes into reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from fuzz_corpus import ANSWERS
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

THOROUGH = os.environ.get("MVLLM_HYPOTHESIS") == "thorough"
# How many times more examples are tried then.
_MORE = 30

Op = tuple[str, int, int, bytes]

# What framing turns on, in servers' answers and in clients' requests.
TOKENS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b"\r\r",
    b"\x00",
    b" ",
    b"\t",
    b"0\r\n\r\n",
    b"0\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff\r\n",
    b";x=y",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"\r\ncontent-length: 5",
    b"\r\ncontent-length: 0",
    b"\r\ncontent-length: 99999999999999999999",
    b"\r\ncontent-length: -1",
    b"\r\ncontent-length: +5",
    b"\r\ncontent-length: 5, 5",
    b"\r\ntransfer-encoding: chunked",
    b"\r\ntransfer-encoding: gzip",
    b"\r\ntransfer-encoding: gzip, chunked",
    b"\r\ntransfer-encoding : chunked",
    b"\r\nTransfer-Encoding:\tchunked",
    b"\r\nconnection: close",
    b"\r\nconnection: keep-alive, x-hop, content-length, content-type",
    b"\r\nx-hop: 1",
    b"\r\nupgrade: websocket",
    b"\r\nte: trailers",
    b"\r\nkeep-alive: timeout=5",
    b"\r\nproxy-authenticate: Basic",
    b"\r\ntrailer: x-sum",
    b"\r\nx-router-backend: forged",
    b"\r\ncontent-encoding: gzip",
    b"\r\ncontent-type: text/event-stream",
    b"\r\nretry-after: 1",
    b"\r\n folded: yes",
    b"x-sum: 1\r\n",
    b"data: [DONE]\n\n",
    b'data: {"error": {"message": "x", "code": 503}}\n\n',
    b'data: {"error": ' + b"[" * 3000,
    b": ping\n\n",
    b'"usage": {"prompt_tokens": 7, "completion_tokens": 9}',
    "grüße 🦙".encode(),
    b"\xff\xfe",
)


def examples(count: int) -> settings:
    """Return settings for `count` examples, or many more in a thorough run."""
    return settings(
        max_examples=count * (_MORE if THOROUGH else 1),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def _apply(data: bytes, op: Op) -> bytes:
    kind, at, size, token = op
    at = at % (len(data) + 1)
    end = at + size % 64
    if kind == "insert":
        return data[:at] + token + data[at:]
    if kind == "replace":
        return data[:at] + token + data[end:]
    if kind == "delete":
        return data[:at] + data[end:]
    if kind == "repeat":
        return data[:end] + data[at:end] * (size % 7) + data[end:]
    if kind == "cut":
        return data[:at]
    flipped = bytes([data[at] ^ (1 << size % 8)]) if at < len(data) else b""
    return data[:at] + flipped + data[at + 1 :]


def mutate(data: bytes, ops: Iterable[Op]) -> bytes:
    for op in ops:
        data = _apply(data, op)
    return data


_places = st.integers(0, 0xFFFF)
_kinds = st.sampled_from(("insert", "replace", "delete", "repeat", "cut", "flip"))


def mutated(
    sources: st.SearchStrategy[bytes], most: int = 4, tokens: Sequence[bytes] = TOKENS
) -> st.SearchStrategy[bytes]:
    """Bytes of `sources` to which up to `most` things were done, some of them with `tokens`."""
    ops: st.SearchStrategy[Op] = st.tuples(_kinds, _places, _places, st.sampled_from(tokens))
    return st.builds(mutate, sources, st.lists(ops, max_size=most))


def _spliced(one: bytes, other: bytes, at: int, there: int) -> bytes:
    return one[: at % (len(one) + 1)] + other[there % (len(other) + 1) :]


def spliced(sources: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """The beginning of one and the end of another."""
    return st.builds(_spliced, sources, sources, _places, _places)


_status = st.sampled_from(
    (200, 200, 200, 201, 204, 205, 206, 301, 304, 400, 404, 413, 429, 500, 502, 503, 504, 999)
)
_reasons = st.sampled_from((b" OK", b" OK", b" Whatever\tit is", b" ", b"", b" \x00\x1b\x7f\xff"))
_HEAD_TOKENS = [token for token in TOKENS if token.startswith(b"\r\n") and len(token) > 4]


def _made(start: bytes, lines: list[bytes], body: bytes, framing: str) -> bytes:
    """Return an answer of any shape, framed well."""
    head = start + b"".join(lines)
    if framing == "length":
        return head + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    if framing == "close":
        return head + b"\r\n\r\n" + body
    pieces = [body[at : at + 40] for at in range(0, len(body), 40)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


event_streams = st.lists(
    st.sampled_from(
        (
            b"data: 1\n\n",
            b"data: {}\r\n\r\n",
            b"data: x\r\r",
            b"event: a\ndata: b\n\n",
            b": ping\n\n",
            b'data: {"error": {"code": 500, "message": "leak"}}\n\n',
            b'data: {"error": "leak"}\r\n\r\n',
            b"data: half",
            b"\n",
            b"\r",
            b"\r\n",
            b"data: [DONE]\n\n",
        )
    ),
    max_size=8,
).map(b"".join)

_benign = [line for line in _HEAD_TOKENS if b"length" not in line and b"transfer" not in line]
made_answers = st.builds(
    _made,
    st.builds(b"HTTP/1.%d %d%b".__mod__, st.tuples(st.integers(0, 1), _status, _reasons)),
    st.lists(st.sampled_from([*_benign, b"\r\ncontent-type: text/event-stream"]), max_size=3),
    st.one_of(event_streams, st.binary(max_size=30)),
    st.sampled_from(("length", "close", "chunked")),
)
made_streams = st.builds(
    _made,
    st.just(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream"),
    st.just([]),
    event_streams,
    st.sampled_from(("length", "close", "chunked")),
)
real_answers = st.sampled_from(sorted(ANSWERS.values()))
whole_answers = st.one_of(real_answers, made_answers, made_streams)
any_answers = st.one_of(mutated(whole_answers), spliced(whole_answers), st.binary(max_size=64))

# Where to cut bytes into reads; [-1] is one byte at a time.
cuts = st.one_of(st.lists(_places, max_size=6), st.just([-1]))


def pieces_of(data: bytes, places: list[int]) -> list[bytes]:
    """Cut `data` at `places`, taken modulo its length."""
    if places == [-1]:
        return [data[at : at + 1] for at in range(len(data))]
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[begin:end] for begin, end in pairwise(at)]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from((1e999, -0.0, 10**400, -1, 2**63, "", "tiny", "a\nb", "\ud800")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


def with_keys(*keys: str) -> st.SearchStrategy[Any]:
    """JSON values whose objects often have some of `keys`."""
    names: st.SearchStrategy[str] = st.sampled_from(keys)
    return st.recursive(
        json_values,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=8,
    )


Target = Callable[[bytes], None]

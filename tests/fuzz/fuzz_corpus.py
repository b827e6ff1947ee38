"""Answers that real servers gave, byte for byte as they went over the wire.

`corpus/ENGINE-WHAT.http` is a whole answer, `.prom` the text of a server's metrics, `.sse` the body
of a stream. Long ones were shortened by whole lines, events or values.
"""

from __future__ import annotations

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def _files(suffix: str) -> dict[str, bytes]:
    found = {path.stem: path.read_bytes() for path in sorted(CORPUS.glob(f"*{suffix}"))}
    assert found, f"there is no {suffix} file in {CORPUS}"
    return found


ANSWERS = _files(".http")
METRICS = {name: text.decode() for name, text in _files(".prom").items()}


def body_of(answer: bytes) -> bytes:
    """Return the body of a whole answer, out of its chunks."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return unchunked(body) if b"transfer-encoding: chunked" in head.lower() else body


def unchunked(body: bytes) -> bytes:
    pieces = []
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return b"".join(pieces)
        pieces.append(body[:length])
        body = body[length + 2 :]


STREAMS = {
    name: body_of(answer) for name, answer in ANSWERS.items() if b"text/event-stream" in answer
} | _files(".sse")
DOCUMENTS = {
    name: body_of(answer)
    for name, answer in ANSWERS.items()
    if b"application/json" in answer and body_of(answer).startswith((b"{", b"["))
}

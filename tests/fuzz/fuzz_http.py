"""Reads HTTP/1.x strictly, as RFC 9112 has it and as no lenient parser does, and a second time
with httptools: what goes out must be understood in one way only."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httptools

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d) [\t\x20-\x7e\x80-\xff]*")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}")

# They belong to one connection, and end there.
HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
        *(b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    )
)

Fields = list[tuple[bytes, bytes]]


class Malformed(AssertionError):
    """What was written is no well-formed HTTP."""


@dataclass
class Message:
    """One message as the other side reads it.

    `start` is the first line; `whole`: all of its body is here; `keeps_alive`: it says so;
    `rest` is what follows it.
    """

    start: bytes
    fields: Fields
    body: bytes
    whole: bool
    keeps_alive: bool
    rest: bytes

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]


def _fields(lines: list[bytes]) -> Fields:
    found = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Malformed(f"a header line is {line!r}")
        found.append((field[1], field[2].rstrip(b" \t")))
    return found


def _chunks(data: bytes) -> tuple[bytes, bool, bytes]:
    """Return the body, whether it is whole, and what follows."""
    pieces = []
    while True:
        line, mark, behind = data.partition(b"\r\n")
        if not mark:
            return b"".join(pieces), False, b""
        if not _CHUNK_SIZE.fullmatch(line):
            raise Malformed(f"the size of a chunk is {line!r}")
        size = int(line, 16)
        pieces.append(behind[:size])
        if len(behind) < size + 2:
            return b"".join(pieces), False, b""
        if behind[size : size + 2] != b"\r\n":
            raise Malformed(f"a chunk ends with {behind[size : size + 2]!r}")
        data = behind[size + 2 :]
        if size == 0:
            return b"".join(pieces), True, data


def _head(data: bytes, start: re.Pattern[bytes]) -> tuple[bytes, Fields, bytes]:
    head, mark, behind = data.partition(b"\r\n\r\n")
    if not mark:
        raise Malformed(f"no whole head: {data[:200]!r}")
    first, *lines = head.split(b"\r\n")
    if not start.fullmatch(first):
        raise Malformed(f"the first line is {first!r}")
    return first, _fields(lines), behind


def _framed(
    first: bytes, fields: Fields, behind: bytes, *, closed: bool, is_request: bool
) -> Message:
    message = Message(first, fields, b"", True, _keeps_alive(first, fields), behind)
    lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if (lengths and codings) or len(lengths) > 1 or len(codings) > 1:
        raise Malformed(f"framed twice: {fields}")
    if codings:
        if codings != [b"chunked"]:
            raise Malformed(f"encoded as {codings}")
        message.body, message.whole, message.rest = _chunks(behind)
    elif lengths:
        if not re.fullmatch(rb"\d{1,18}", lengths[0]):
            raise Malformed(f"a length of {lengths[0]!r}")
        size = int(lengths[0])
        message.body, message.rest = behind[:size], behind[size:]
        message.whole = len(message.body) == size
    elif not is_request:
        message.body, message.rest, message.whole = behind, b"", closed
    return message


def _keeps_alive(first: bytes, fields: Fields) -> bool:
    options = b",".join(value for key, value in fields if key.lower() == b"connection").lower()
    names = {option.strip() for option in options.split(b",")}
    is_1_0 = first.startswith(b"HTTP/1.0") or first.endswith(b" HTTP/1.0")
    return b"close" not in names and (not is_1_0 or b"keep-alive" in names)


def read_answer(data: bytes, *, is_head: bool = False, closed: bool = False) -> Message:
    """Read one answer; `closed`: the connection was closed behind it, without a reset."""
    first, fields, behind = _head(data, _STATUS_LINE)
    status = int(first[9:12])
    if is_head or status in (204, 304):
        names = {key.lower() for key, _ in fields}
        if b"transfer-encoding" in names or (status == 204 and b"content-length" in names):
            raise Malformed(f"a body is announced with {first!r}: {fields}")
        return Message(first, fields, b"", True, _keeps_alive(first, fields), behind)
    return _framed(first, fields, behind, closed=closed, is_request=False)


def read_request(data: bytes) -> Message:
    return _framed(*_head(data, _REQUEST_LINE), closed=False, is_request=True)


class _Noted:
    def __init__(self) -> None:
        self.fields: Fields = []
        self.body = b""
        self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.whole = True


def read_by_httptools(data: bytes) -> tuple[Fields, bytes, bool]:
    """Read one answer as a client with llhttp does; it may not be one to HEAD."""
    noted = _Noted()
    httptools.HttpResponseParser(noted).feed_data(data)
    return noted.fields, noted.body, noted.whole

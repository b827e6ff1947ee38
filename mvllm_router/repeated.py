"""Knows a head again that came before on the same connection.

Who asks again and again sends the same head each time, but for the length of the body; so do
servers. To compare it with the last one costs a tenth of parsing it.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

T = TypeVar("T")

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (\d{1,9})\r\n")
# Bytes that a length may have, and those that end its line.
_LONGEST_LENGTH = 9 + 2


class Repeated(Generic[T]):
    """The head of a message that was parsed whole, in two parts: before and after its length.

    `meaning` is what the parser made of it. It is that of all messages with the same parts, for
    a parser that is between two messages, and where all else that the meaning depends on stands
    in the head.
    """

    __slots__ = ("_after", "_before", "meaning")

    def __init__(self, before: bytes, after: bytes, meaning: T) -> None:
        self._before = before
        self._after = after
        self.meaning = meaning

    def body_of(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the length, as it is written, and the body of a message with the same head.

        None where `data` is anything but one such message, whole.
        """
        if not data.startswith(self._before):
            return None
        begin = len(self._before)
        end = data.find(b"\r\n", begin, begin + _LONGEST_LENGTH)
        length = data[begin:end] if end > 0 else b""
        if not length.isdigit() or not data.startswith(self._after, end):
            return None
        body = data[end + len(self._after) :]
        return (length, body) if len(body) == int(length) else None


def repeated(data: bytes, length: bytes | None, meaning: T) -> Repeated[T] | None:
    """Return the head to know again, if `data` is one whole message framed by its length.

    Args:
        data: what one read brought, to a parser between two messages.
        length: of the body, as the parser found it.
        meaning: what the parser made of the head.
    """
    if length is None:
        return None
    head = data.find(_END) + len(_END)
    found = _LENGTH.search(data, 0, head)
    if found is None or found[1] != length or head + int(length) != len(data):
        return None
    return Repeated(data[: found.start(1)], data[found.end(1) : head], meaning)

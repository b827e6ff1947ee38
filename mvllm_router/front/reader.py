"""Reads requests from what one client sends, as long as it is in proportion.

The parser (llhttp) is strict about framing; what is added here bounds heads, bodies, and what
frames a body. Errors of one request are left in it (`Request.error`): it is answered in its turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

from mvllm_router.errors import BadRequest, HeadTooLarge, RouterError, TooLarge
from mvllm_router.fields import Fields, RawHeaders
from mvllm_router.front.bodies import Bodies
from mvllm_router.front.request import Request
from mvllm_router.repeated import Repeated, repeated

if TYPE_CHECKING:
    from mvllm_router.front.connection import ClientConnection

# Of the head of a request: bytes of its target, of one header and of all, and headers.
LONGEST_TARGET = 16384
LONGEST_FIELD = 32768
LONGEST_HEAD = 65536
MOST_HEADERS = 128
_VERSIONS = ("1.1", "1.0")
# Chunks of one byte take five more each; what is much more than that is no framing of a body.
# The margin, in bytes, is above what one read brings.
_FRAMING_PER_BYTE = 16
_FRAMING = 1024 * 1024
# A head with one of these changes what the parser does next.
_TURNING = frozenset((b"transfer-encoding", b"upgrade", b"expect"))

# What a head is read as: method, target, fields, whether the connection may stay open.
_Meaning = tuple[str, str, Fields, bool]


class Reader:
    """Reads the requests of one connection.

    `current` is the request whose body is being read. `head_bytes` is what has come of a head
    that is not whole. Once `deaf`, nothing that comes is read any more.
    """

    __slots__ = (
        "_between",
        "_bodies",
        "_connection",
        "_fields",
        "_framing",
        "_is_much",
        "_is_new",
        "_last",
        "_meaning",
        "_parser",
        "_target",
        "current",
        "deaf",
        "head_bytes",
    )

    def __init__(self, connection: ClientConnection, bodies: Bodies) -> None:
        """Read for `connection`: it is told of each request that is `opened` or `complete`."""
        self._connection = connection
        self._bodies = bodies
        self.current: Request | None = None
        self.deaf = False
        self.head_bytes = 0
        self._parser = httptools.HttpRequestParser(self)
        self._framing = 0  # bytes read for the current body, with what frames it
        self._is_new = False  # the last read has brought the end of a head
        self._is_much = False  # the head is in so many bytes that it may be too long
        self._target = b""
        self._fields = Fields()
        self._between = True  # the parser has seen nothing of the next request
        self._meaning: _Meaning | None = None  # of a head that may come again
        self._last: Repeated[_Meaning] | None = None

    def feed(self, data: bytes) -> RouterError | None:
        """Read on.

        Returns:
            What is wrong with what cannot be taken for a request at all.
        """
        began_between = self._between
        if began_between and self._last is not None and self._is_repeated(self._last, data):
            return None
        error = self._parse(data)
        meaning, self._meaning = self._meaning, None
        if began_between and self._between and meaning is not None:
            self._last = repeated(data, meaning[2].length, meaning)
        return error

    def _is_repeated(self, last: Repeated[_Meaning], data: bytes) -> bool:
        """Take `data` without parsing it if it is the last request with another body."""
        found = last.body_of(data)
        if found is None or int(found[0]) > self._bodies.longest:
            return False
        self.head_bytes = 0  # of empty lines
        method, target, fields, keep_alive = last.meaning
        self._open(
            Request(
                self._connection,
                self._bodies,
                method,
                target,
                fields.with_length(found[0]),
                http_1_1=True,
                keep_alive=keep_alive,
            )
        )
        if found[1]:
            self.on_body(found[1])
        self.on_message_complete()
        return True

    def _parse(self, data: bytes) -> RouterError | None:
        in_body = self.current is not None
        self._is_new = False
        self._is_much = self.head_bytes + len(data) > LONGEST_TARGET
        error: RouterError | None = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a mistake of ours
        except httptools.HttpParserUpgrade as upgrade:
            error = self._pass_by(data[upgrade.args[0] :])
        except httptools.HttpParserError as found:
            error = BadRequest(f"Bad HTTP request: {str(found) or type(found).__name__}")
        if self.deaf:  # what follows the last request of a connection is nobody's
            return None
        if self._is_new:  # what else was read with it is no head that is too long
            self.head_bytes = 0
        else:
            error = error or self._out_of_proportion(len(data), in_body=in_body)
        return self._give_up(error) if error is not None else None

    def close(self) -> None:
        """Read nothing any more, and let go of those who would keep this alive: cycles."""
        self.deaf = True
        del self._parser, self._connection

    def _pass_by(self, rest: bytes) -> RouterError | None:
        """Read on behind a request that would switch to another protocol: here, none does."""
        self._parser = httptools.HttpRequestParser(self)
        return self.feed(rest) if rest else None

    def _out_of_proportion(self, size: int, *, in_body: bool) -> RouterError | None:
        """Count what was read without a head's end in it; return what there is too much of."""
        if self.current is not None:
            self._framing += size
            if self._framing > _FRAMING + _FRAMING_PER_BYTE * self.current.size:
                return BadRequest("Bad HTTP request: there is more framing than body")
        elif not in_body:
            self.head_bytes += size
            if self.head_bytes > LONGEST_HEAD:
                return _too_long()
        return None

    def _give_up(self, error: RouterError) -> RouterError | None:
        """Read no more. A request whose body it was fails; it is not whole."""
        self.deaf = True
        request, self.current = self.current, None
        if request is None:
            return error
        request.error = request.error or error
        request.keep_alive = False
        self._connection.complete(request)
        return None

    # --- what the parser finds

    def on_message_begin(self) -> None:
        self._between = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.current is None:  # else it is a trailer
            self._fields.add(name, value)

    def on_headers_complete(self) -> None:
        parser = self._parser
        version = parser.get_http_version()
        target = self._target.decode("utf-8", "surrogateescape")
        request = Request(
            self._connection,
            self._bodies,
            parser.get_method().decode("latin-1"),
            target,
            self._fields,
            http_1_1=version == "1.1",
            keep_alive=parser.should_keep_alive(),
        )
        error = self._fault(request, version)
        if error is not None:
            request.error = error
            request.keep_alive = False
        elif (
            version == "1.1"
            and request.method != "CONNECT"
            and _TURNING.isdisjoint(self._fields.first)
        ):
            self._meaning = request.method, target, self._fields, request.keep_alive
        self._target = b""
        self._fields = Fields()
        self._is_new = True
        self._open(request)

    def _open(self, request: Request) -> None:
        self._framing = 0
        self.current = request
        self._connection.opened(request)

    def on_body(self, data: bytes) -> None:
        request = self.current
        if request is None or request.error is not None:
            return  # the rest of what is refused is passed over
        limit = self._bodies.longest
        try:
            if request.size + len(data) > limit:
                raise _too_large(limit)
            request.add(data)
        except RouterError as error:
            request.error = error
            request.release()

    def on_message_complete(self) -> None:
        self._between = True
        request, self.current = self.current, None
        if request is None:
            return
        request.complete()
        if not request.keep_alive:
            self.deaf = True
        self._connection.complete(request)

    # --- bounds

    def _fault(self, request: Request, version: str) -> RouterError | None:
        """Return what is wrong with a head, if anything is."""
        fields, limit = request.fields, self._bodies.longest
        if version not in _VERSIONS:
            return BadRequest(f"HTTP/{version} is not spoken here.")
        if len(fields.raw) > MOST_HEADERS:
            return HeadTooLarge(f"There are more than {MOST_HEADERS} headers.")
        if self._is_much and self._is_too_long(fields.raw):
            return _too_long()
        coding = fields.first.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            # The server would not learn that the body is compressed for its way.
            return BadRequest("Of the transfer codings, only `chunked` is taken.")
        return _too_large(limit) if request.announced > limit else None

    def _is_too_long(self, raw: RawHeaders) -> bool:
        sizes = [len(name) + len(value) for name, value in raw]
        target = len(self._target)
        if target > LONGEST_TARGET or max(sizes, default=0) > LONGEST_FIELD:
            return True
        return target + sum(sizes) > LONGEST_HEAD


def _too_long() -> HeadTooLarge:
    return HeadTooLarge(f"The head is longer than {LONGEST_HEAD} bytes.")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than {limit} bytes.")

"""Requests that two servers could read in two ways: refused whole, or read in the one way."""

from __future__ import annotations

import pytest
from support import StartRouter
from wire import Client, Scripted, answer, replies

START = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"
BODY = b'{"model":"tiny"}'
LENGTH = b"content-length: 16\r\n\r\n" + BODY
CHUNKS = b"10\r\n" + BODY + b"\r\n0\r\n\r\n"


def with_length(value: bytes) -> bytes:
    return START + b"content-length:" + value + b"\r\n\r\n" + BODY


def with_coding(line: bytes, chunks: bytes = CHUNKS) -> bytes:
    return START + line + b"\r\n\r\n" + chunks


REFUSED = {
    "both": with_coding(b"transfer-encoding: chunked\r\ncontent-length: 5", b"0\r\n\r\n"),
    "both the other way": with_coding(b"content-length: 5\r\ntransfer-encoding: chunked"),
    "two equal lengths": START + b"content-length: 16\r\n" + LENGTH,
    "a list of lengths": with_length(b" 16, 16"),
    "a length with a sign": with_length(b" +16"),
    "a length below zero": with_length(b" -16"),
    "a length with a space": with_length(b" 1 6"),
    "a length in hex": with_length(b" 0x10"),
    "a length with a bar": with_length(b" 1_6"),
    "no length": with_length(b" "),
    "a length that overflows": with_length(b" 18446744073709551632"),
    "chunked twice": with_coding(b"transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
    "chunked and identity": with_coding(b"transfer-encoding: chunked, identity"),
    "identity": START + b"transfer-encoding: identity\r\n\r\n" + BODY,
    "xchunked": with_coding(b"transfer-encoding: xchunked"),
    "quoted": with_coding(b'transfer-encoding: "chunked"'),
    "vertical tab": with_coding(b"transfer-encoding: \x0bchunked"),
    "space before the colon": with_coding(b"transfer-encoding : chunked"),
    "space before a length's colon": START + b"content-length : 16\r\n\r\n" + BODY,
    "folded coding": with_coding(b"transfer-encoding:\r\n chunked"),
    "folded header": START + b"x-a: b\r\n c\r\n" + LENGTH,
    "space before a name": START + b" x-a: b\r\n" + LENGTH,
    "bare LF": START.replace(b"\r\n", b"\n") + LENGTH.replace(b"\r\n", b"\n"),
    "one bare LF": START + b"x: y\n" + LENGTH,
    "bare CR": START + b"x: y\rz: w\r\n" + LENGTH,
    "NUL in a value": START + b"x: a\0b\r\n" + LENGTH,
    "NUL in a name": START + b"x\0: a\r\n" + LENGTH,
    "ESC in a value": START + b"x: a\x1b[2J\r\n" + LENGTH,
    "no name": START + b": x\r\n" + LENGTH,
    "no colon": START + b"xyz\r\n" + LENGTH,
    "name with a bracket": START + b"a(b): x\r\n" + LENGTH,
    "name beyond ASCII": START + b"\xc3\xa9: x\r\n" + LENGTH,
    "chunk with a space": with_coding(b"transfer-encoding: chunked", CHUNKS.replace(b"10", b"10 ")),
    "chunk with 0x": with_coding(b"transfer-encoding: chunked", b"0x" + CHUNKS),
    "chunk with bare LF": with_coding(
        b"transfer-encoding: chunked", CHUNKS.replace(b"\r\n", b"\n")
    ),
    "chunk extension with bare LF": with_coding(
        b"transfer-encoding: chunked", CHUNKS.replace(b"10", b"10;a\nb", 1)
    ),
    "chunk without its end": with_coding(
        b"transfer-encoding: chunked", b"10\r\n" + BODY + b"0\r\n\r\n"
    ),
    "chunk that overflows": with_coding(
        b"transfer-encoding: chunked", CHUNKS.replace(b"10", b"10000000000000010", 1)
    ),
    "length in the trailers": with_coding(
        b"transfer-encoding: chunked", CHUNKS[:-2] + b"content-length: 3\r\n\r\n"
    ),
    "old HTTP": b"GET /v1/files\r\n\r\n",
    "HTTP/2 by its preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "HTTP/2 by its number": b"GET /v1/files HTTP/2.0\r\nhost: x\r\n\r\n",
    "HTTP/1.2": b"GET /v1/files HTTP/1.2\r\nhost: x\r\n\r\n",
    "HTTP without a dot": b"GET /v1/files HTTP/11\r\nhost: x\r\n\r\n",
    "http": b"GET /v1/files http/1.1\r\nhost: x\r\n\r\n",
    "tabs in the first line": b"GET\t/v1/files\tHTTP/1.1\r\nhost: x\r\n\r\n",
    "more in the first line": b"GET /v1/files HTTP/1.1 x\r\nhost: x\r\n\r\n",
    "space in a path": b"GET /v1/a b HTTP/1.1\r\nhost: x\r\n\r\n",
    "NUL in a path": b"GET /v1/a\0b HTTP/1.1\r\nhost: x\r\n\r\n",
    "bytes in a path": b"GET /v1/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
    "odd method": b"G@T /v1/files HTTP/1.1\r\nhost: x\r\n\r\n",
    "small method": b"get /v1/files HTTP/1.1\r\nhost: x\r\n\r\n",
    "unknown method": b"STEAL /v1/files HTTP/1.1\r\nhost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9\r\n\r\n",
}


SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("form", REFUSED)
async def test_it_is_a_400_and_nothing_of_it_nor_behind_it_reaches_a_server(
    form: str, start_router: StartRouter
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(REFUSED[form] + SMUGGLED)
            got = await client.all()
        assert server.seen == []
        assert got.split(b"\r\n")[0].split(b" ")[1] == b"400"
        assert b'"type": "invalid_request_error"' in got


TAKEN = {
    "spaces around a length": with_length(b"   16 "),
    "a tab before a length": with_length(b"\t16"),
    "another name that looks like it": START + b"content-length-x: 5\r\n" + LENGTH,
    "Chunked": with_coding(b"Transfer-Encoding: Chunked"),
    "spaces around the coding": with_coding(b"transfer-encoding: \tchunked "),
    "zeros before a chunk's size": with_coding(b"transfer-encoding: chunked", b"0" * 1000 + CHUNKS),
    "extensions of a chunk": with_coding(
        b"transfer-encoding: chunked", CHUNKS.replace(b"10", b'10;a=b;c="d"', 1)
    ),
    "trailers": with_coding(
        b"transfer-encoding: chunked\r\ntrailer: authorization",
        CHUNKS[:-2] + b"authorization: Bearer evil\r\nx-evil: 1\r\n\r\n",
    ),
}


@pytest.mark.parametrize("form", TAKEN)
async def test_what_is_taken_is_written_anew_and_what_follows_is_another_request(
    form: str, start_router: StartRouter
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(TAKEN[form] + SMUGGLED)
            for _ in range(2):
                assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
        first, second = server.seen
        assert first.body == BODY
        assert first.header(b"content-length") == [b"16"]
        assert first.header(b"transfer-encoding") == []
        assert b"evil" not in first.head.lower()
        assert second.line == b"GET /v1/smuggled HTTP/1.1"


async def test_a_body_in_chunks_from_an_http_1_0_client_ends_its_connection(
    start_router: StartRouter,
) -> None:
    request = with_coding(b"transfer-encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0")
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(request)
            assert b" 200 OK\r\n" in await client.all()
        assert [seen.body for seen in server.seen] == [BODY]


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"deflate , chunked", b"chunked;x=y"])
async def test_a_body_that_is_coded_for_its_way_only_reaches_no_server(
    coding: bytes, start_router: StartRouter
) -> None:
    """The server would not be told that it is."""
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(with_coding(b"transfer-encoding: " + coding))
            assert b" 400 Bad Request" in await client.head()
        assert server.seen == []


@pytest.mark.parametrize("name", [b"websocket", b"h2c", b"TLS/1.0", b"x"])
async def test_no_protocol_is_switched_to(name: bytes, start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(
                b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\n"
                b"upgrade: %b\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
                b"sec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n" % name
            )
            assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
        (seen,) = server.seen
        assert seen.header(b"upgrade") == []
        assert seen.header(b"connection") == []
        assert seen.header(b"http2-settings") == []


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT"])
async def test_a_method_that_would_tell_a_servers_key_or_open_a_tunnel_is_refused(
    method: bytes, start_router: StartRouter
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(method + b" /v1/files HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await client.answer())[0].startswith(b"HTTP/1.1 405")
        assert server.seen == []


@pytest.mark.parametrize(
    "request_id",
    [
        b"a%0d%0ax-evil:%201",
        b"a b",
        b"a\tb",
        b"\xc3\xa9",
        b"x" * 129,
        b"",
        b"\xff",
    ],
)
async def test_a_request_id_that_could_not_be_one_is_replaced_or_harmless(
    request_id: bytes, start_router: StartRouter
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(BODY, b"/v1/completions", b"x-request-id: " + request_id)
            head, _ = await client.answer()
            client.post(b"{", b"/v1/completions", b"x-request-id: " + request_id)
            own, _ = await client.answer()
        for text in (head, own):
            lines = [line for line in text.lower().split(b"\r\n") if b"request-id" in line]
            assert len(lines) == 1
            value = lines[0].partition(b": ")[2]
            assert 0 < len(value) <= 128
            assert all(33 <= byte <= 126 for byte in value)
        assert server.seen[0].header(b"x-request-id") == [
            head.lower().partition(b"x-request-id: ")[2].partition(b"\r\n")[0]
        ]


EVIL = b'{"model":"a\\r\\nx-evil: 1\\u0000\\u001b[2J\\u202e"}'


@pytest.mark.parametrize(
    "request_bytes",
    [
        START + b"content-length: %d\r\n\r\n%b" % (len(EVIL), EVIL),
        b"GET /v1/files?model=a%0d%0ax-evil:%201%00%1b HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/models/a%0d%0ax-evil:%201%00%1b HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["in a body", "in a query", "in a path"],
)
async def test_a_models_name_cannot_become_a_header_of_an_answer(
    request_bytes: bytes, start_router: StartRouter
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(request_bytes)
            head, text = await client.answer()
    assert head.startswith(b"HTTP/1.1 404")
    assert b"evil" not in head
    assert b"evil" in text
    assert not any(byte < 32 for byte in text)

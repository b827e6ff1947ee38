"""What goes through the router is what was sent, in both directions."""

from __future__ import annotations

import asyncio
import gzip
import json
import os

import aiohttp
import pytest
from support import StartRouter, StartSim, chat
from wire import OK, SSE, Client, Scripted, Seen, answer, chunk, replies

JSON_TYPE = b"content-type: application/json"


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b'{"a": 1,  "b" : [1, 2.0, "\xc3\xbc"]}', [JSON_TYPE]),
        (gzip.compress(b'{"a":1}'), [JSON_TYPE, b"content-encoding: gzip"]),
        (os.urandom(300_000), [b"content-type: audio/mpeg"]),
        ("grüße".encode(), [b"content-type: text/plain; charset=utf-8"]),
        (b"", [JSON_TYPE]),
    ],
    ids=["spaced json", "gzip", "binary", "text", "empty"],
)
async def test_an_answer_arrives_byte_for_byte(
    body: bytes, lines: list[bytes], start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    async with Scripted(replies(answer(body, OK, *lines))) as server:
        router = await start_router(server.url)
        async with http.post(f"{router.url}/v1/chat/completions", json=chat()) as response:
            assert await response.read() == body
            assert response.headers["content-length"] == str(len(body))
            for line in lines:
                name, _, value = line.decode().partition(": ")
                assert response.headers[name] == value


async def test_a_request_arrives_byte_for_byte(start_router: StartRouter) -> None:
    body = b'{ "model" :"tiny",\n "x": [1.0, 12345678901234567890123, "\\u00fc\xc3\xbc"] }'
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(body, b"/v1/completions?x=%2f&y=a+b&x=2")
            await client.answer()
        assert server.seen[0].line == b"POST /v1/completions?x=%2f&y=a+b&x=2 HTTP/1.1"
        assert server.seen[0].body == body


async def test_short_paths_are_sent_to_their_v1_route(start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(b'{"model":"tiny"}', b"/chat/completions")
            await client.answer()
            client.post(b'{"model":"tiny"}', b"/rerank")
            await client.answer()
        assert [s.line.split()[1] for s in server.seen] == [b"/v1/chat/completions", b"/rerank"]


async def test_duplicate_headers_stay_and_hop_by_hop_ones_go_in_both_directions(
    start_router: StartRouter,
) -> None:
    reply = answer(
        b"{}",
        OK,
        b"set-cookie: a=1",
        b"set-cookie: b=2",
        b"connection: keep-alive, x-secret-hop",
        b"x-secret-hop: 1",
        b"keep-alive: timeout=5",
        b"x-router-backend: forged",
    )
    async with Scripted(replies(reply)) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(
                b'{"model":"tiny"}',
                b"/v1/chat/completions",
                b"X-Multi: 1",
                b"X-Multi: 2",
                b"Connection: keep-alive, x-my-hop",
                b"x-my-hop: gone",
                b"te: trailers",
                b"authorization: Bearer client-secret",
                b"x-api-key: client-secret",
                b"accept-encoding: gzip",
            )
            head, _ = await client.answer()
        arrived = server.seen[0]
        assert arrived.header(b"x-multi") == [b"1", b"2"]
        assert arrived.header(b"accept-encoding") == [b"gzip"]
        assert b"client-secret" not in arrived.head
        for name in (b"x-my-hop", b"te", b"connection"):
            assert arrived.header(name) == []
        assert head.count(b"set-cookie") == 2
        assert b"hop" not in head
        assert b"timeout=5" not in head
        assert head.count(b"x-router-backend") == 1
        assert b"x-router-backend: s0\r\n" in head
        assert b"x-router-attempts: 1\r\n" in head
        assert b"x-router-reason: the lowest score\r\n" in head


async def test_the_request_id_is_the_clients_or_a_new_one(start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(b'{"model":"tiny"}', b"/v1/completions", b"x-request-id: my-id.1")
            head, _ = await client.answer()
            assert b"x-request-id: my-id.1\r\n" in head
            client.post(b'{"model":"tiny"}', b"/v1/completions")
            head, _ = await client.answer()
        assert server.seen[0].header(b"x-request-id") == [b"my-id.1"]
        new = server.seen[1].header(b"x-request-id")[0]
        assert len(new) == 32
        assert b"x-request-id: %b\r\n" % new in head


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_keeps_the_connections(
    status: int, start_router: StartRouter
) -> None:
    reply = b"HTTP/1.1 %d Whatever\r\nx-a: b\r\n\r\n" % status
    async with Scripted(replies(reply)) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for _ in range(2):
                client.send(b"DELETE /v1/files/1 HTTP/1.1\r\nhost: x\r\n\r\n")
                head = await client.head()
                assert head.startswith(b"HTTP/1.1 %d Whatever\r\n" % status)
                assert b"transfer-encoding" not in head
        assert server.connections == 1


async def test_head_gets_the_head_only(start_router: StartRouter) -> None:
    async with Scripted(replies(OK + b"content-length: 500\r\n\r\n")) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(b"HEAD /v1/files/1 HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"content-length: 500\r\n" in await client.head()
            client.send(b"HEAD /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await client.head()).startswith(b"HTTP/1.1 200")
            client.send(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await client.head()).startswith(b"HTTP/1.1 200")
        assert server.seen[0].line.startswith(b"HEAD ")


async def test_chunked_uploads_and_expect_continue_work(start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
                b"expect: 100-continue\r\n\r\n"
            )
            assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b'8\r\n{"model"\r\n8\r\n:"tiny"}\r\n0\r\n\r\n')
            head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 200")
        assert server.seen[0].body == b'{"model":"tiny"}'
        assert server.seen[0].header(b"transfer-encoding") == []
        assert server.seen[0].header(b"expect") == []


async def test_an_interim_answer_is_not_taken_for_the_answer(start_router: StartRouter) -> None:
    reply = b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"real", OK, JSON_TYPE)
    async with Scripted(replies(reply[:30], reply[30:])) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for _ in range(2):
                client.post(b'{"model":"tiny"}')
                head, body = await client.answer()
                assert (head[:15], body) == (b"HTTP/1.1 200 OK", b"real")


async def test_an_http_1_0_client_gets_a_stream_without_chunks(start_router: StartRouter) -> None:
    async with Scripted(replies(SSE, b"9\r\ndata: a\n\n\r\n0\r\n\r\n")) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(b"POST /v1/completions HTTP/1.0\r\ncontent-length: 16\r\n\r\n")
            client.send(b'{"model":"tiny"}')
            head = await client.head()
            assert b"chunked" not in head
            assert b"connection: close\r\n" in head
            assert await client.rest() == b"data: a\n\n"


async def test_an_http_1_0_client_may_keep_its_connection(start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for _ in range(2):
                client.send(
                    b"POST /v1/completions HTTP/1.0\r\nconnection: keep-alive\r\n"
                    b'content-length: 16\r\n\r\n{"model":"tiny"}'
                )
                head, _ = await client.answer()
                assert b"connection: keep-alive\r\n" in head


async def test_pipelined_requests_are_answered_in_order(start_router: StartRouter) -> None:
    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(json.loads(seen.body)["n"].encode()))

    async with Scripted(act) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for number in range(5):
                client.post(b'{"model":"tiny","n":"%d"}' % number, b"/v1/completions")
            assert [(await client.answer())[1] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_30_mb_prompt_goes_through(start_router: StartRouter) -> None:
    body = b'{"model":"tiny","image":"' + b"A" * 30_000_000 + b'"}'
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(body)
            head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 200")
        assert server.seen[0].body == body


EVENTS = [
    b": keepalive 1/3\n\n",
    b'data: {"n":1}\n\n',
    b'event: x\r\ndata: {"n":"\xc3\xbc"}\r\n\r\n',
    b":\n\n",
    b"data: [DONE]\n\n",
]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
async def test_events_arrive_byte_for_byte_however_they_are_split(
    size: int, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    whole = b"".join(EVENTS)
    pieces = [chunk(whole[i : i + size]) for i in range(0, len(whole), size)]
    async with Scripted(replies(SSE, *pieces, b"0\r\n\r\n")) as server:
        router = await start_router(server.url)
        async with http.post(f"{router.url}/v1/chat/completions", json=chat()) as response:
            assert response.headers["x-accel-buffering"] == "no"
            assert response.headers["cache-control"] == "no-cache"
            assert await response.read() == whole


async def test_each_event_goes_out_before_the_next_one_comes_in(start_router: StartRouter) -> None:
    go_on = asyncio.Event()

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE)
        for event in EVENTS:
            writer.write(chunk(event))
            await writer.drain()
            await go_on.wait()  # until the client says that it has it
            go_on.clear()
        writer.write(b"0\r\n\r\n")

    async with Scripted(act) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(b'{"model":"tiny"}', b"/v1/completions")
            await client.head()
            for event in EVENTS:
                assert await client.until(event + b"\r\n") == chunk(event)
                go_on.set()
            assert await client.until(b"0\r\n\r\n") == b"0\r\n\r\n"


async def test_http_1_0_answers_are_framed_for_http_1_1_clients(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim("mlx")
    router = await start_router(engine)
    async with Client(router.url) as client:
        for _ in range(2):  # the client's connection outlives the server's
            client.post(json.dumps(chat(stream=True, max_tokens=3)).encode())
            head, body = await client.answer()
            assert b"transfer-encoding: chunked" in head
            assert b"connection: close" not in head
            assert b"data: [DONE]\n\n" in body
    async with http.post(f"{router.url}/v1/chat/completions", json=chat(max_tokens=3)) as response:
        assert (await response.json())["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    "smuggled",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"transfer-encoding: chunked\r\n\r\nZZ\r\nhello\r\n0\r\n\r\n",
        b"content-length: -1\r\n\r\n",
        b"content-length: +5\r\n\r\nhello",
        b"transfer-encoding: xchunked\r\n\r\nhello",
        b"x: y\nz: w\r\ncontent-length: 3\r\n\r\nabc",
    ],
    ids=["both", "two lengths", "bad chunk", "negative", "plus", "unknown coding", "bare LF"],
)
async def test_smuggling_forms_are_refused_and_reach_no_server(
    smuggled: bytes, start_router: StartRouter
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n" + smuggled)
            got = await client.rest()
        assert server.seen == []
        assert b" 400 Bad Request\r\n" in got
        assert b'"type": "invalid_request_error"' in got


async def test_a_second_answer_to_one_request_never_reaches_the_next_client(
    start_router: StartRouter,
) -> None:
    async with Scripted(replies(answer(b"mine") + answer(b"forged"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for _ in range(3):
                client.post(b'{"model":"tiny"}', b"/v1/completions")
                assert (await client.answer())[1] == b"mine"
        assert server.connections == 3  # none of them was used again


async def test_memory_stays_flat_when_a_client_does_not_read(start_router: StartRouter) -> None:
    """The backend is read no faster than the client reads."""
    sent = 0
    stop = asyncio.Event()

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(OK + b"content-length: 200000000\r\n\r\n")
        while sent < 200_000_000 and not stop.is_set():
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with Scripted(act) as server:
        router = await start_router(server.url)
        async with Client(router.url, receive_buffer=8192) as client:
            client.post(b'{"model":"tiny"}', b"/v1/completions")
            await client.head()
            held = -1
            while held != sent:  # until nothing moves any more
                held = sent
                await asyncio.sleep(0.2)
            assert sent < 20_000_000
            (exchange,) = router.relay.active
            assert exchange.connection is not None
            assert exchange.connection.reading_paused
            assert exchange.client.outlet.unsent < 1_000_000
            read = 0
            while read < 30_000_000:  # it goes on as the client reads
                read += len(await asyncio.wait_for(client.reader.read(1_000_000), 10))
        stop.set()

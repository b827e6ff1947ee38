"""What hostile or broken servers and clients must not be able to do."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from support import StartRouter, StartSim, chat, prefer, until
from wire import OK, SSE, Client, Scripted, Seen, answer, chunk, replies

from mvllm_router.config import ServerSpec
from mvllm_router.proxy.budget import RetryBudget
from mvllm_router.sim.faults import Fault

BODY = b'{"model":"tiny"}'


@asynccontextmanager
async def raw_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[ServerSpec]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield ServerSpec(url=f"http://127.0.0.1:{port}", name="bad", models=("tiny",))
    server.close()


@pytest.mark.parametrize("greeting", [b"", b"220 hello\r\n"], ids=["closes", "speaks first"])
async def test_a_server_that_closes_or_speaks_before_it_is_asked_is_replaced(
    greeting: bytes, start_router: StartRouter, start_sim: StartSim
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    good = await start_sim()
    async with raw_server(serve) as spec:
        router = await start_router(
            spec, good, enable_active_health_check=False, request_timeout=2, failure_threshold=1000
        )
        prefer(router, "bad")
        async with Client(router.url) as client:
            for _ in range(8):
                client.post(json.dumps(chat(max_tokens=1)).encode())
                head, _ = await client.answer()
                assert head.startswith(b"HTTP/1.1 200")
                assert b"x-router-backend: s1" in head


@pytest.mark.parametrize(
    "cut",
    [b"HTTP/1.1 200 OK\r\ncontent-type: text/pl", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"],
    ids=["half a head", "after early hints"],
)
async def test_an_answer_cut_in_its_head_is_replaced_at_once(
    cut: bytes, start_router: StartRouter, start_sim: StartSim
) -> None:
    async with Scripted(replies(cut, close=True)) as bad:
        good = await start_sim()
        router = await start_router(ServerSpec(url=bad.url, name="bad"), good)
        prefer(router, "bad")
        async with Client(router.url) as client:
            client.post(json.dumps(chat(max_tokens=1)).encode())
            head, _ = await client.answer()
    assert b"x-router-backend: s1" in head
    assert b"x-router-attempts: 2" in head


async def test_an_http_1_0_answer_without_headers_is_whole_when_it_closes(
    start_router: StartRouter,
) -> None:
    async with Scripted(replies(b"HTTP/1.0 200 OK\r\n\r\nhello", close=True)) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(BODY)
            _, body = await client.answer()
    assert body == b"5\r\nhello\r\n0\r\n\r\n"


async def test_a_cut_stream_without_framing_is_not_a_clean_end_in_http_1_1_either(
    start_router: StartRouter,
) -> None:
    head = OK + b"content-type: text/event-stream\r\nconnection: close\r\n\r\n"
    async with Scripted(replies(head, b"data: 1\n\n", close=True)) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(BODY)
            _, cut = await client.answer()
            client.post(BODY, b"/v1/audio/transcriptions")  # its end has no mark
            _, whole = await client.answer()
    assert b'data: {"error"' in cut
    assert whole == b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"


async def test_trailers_do_not_become_headers(start_router: StartRouter) -> None:
    whole = (
        OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
        b"set-cookie: a=1\r\ncontent-encoding: gzip\r\n\r\n"
    )
    async with Scripted(replies(whole)) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(BODY)
            head, body = await client.answer()
    assert b"set-cookie" not in head
    assert b"gzip" not in head
    assert body == b"2\r\nhi\r\n0\r\n\r\n"


@pytest.mark.parametrize("stream", [False, True])
async def test_junk_behind_a_whole_answer_is_not_the_answers_fault(
    stream: bool, start_router: StartRouter
) -> None:
    whole = SSE + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n" if stream else answer(b"{}")
    async with Scripted(replies(whole + b"\x00junk\r\n\r\n")) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for _ in range(3):
                client.post(BODY)
                head, body = await client.answer()
                assert head.startswith(b"HTTP/1.1 200")
                assert b"error" not in body
    assert not router.pool.backends["s0"].stats.failures


async def test_a_connection_with_an_unsent_upload_is_not_used_again(
    start_router: StartRouter,
) -> None:
    early = answer(b"{}", b"HTTP/1.1 413 Too Large\r\n", b"connection: keep-alive")

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(early if b"x-read-no-body" in seen.head else answer(b"fine"))
        await writer.drain()
        if b"x-read-no-body" in seen.head:
            await asyncio.Event().wait()  # it never reads the body

    async with Scripted(act) as server:
        router = await start_router(server.url, request_timeout=3)
        async with Client(router.url) as client:
            upload = b'{"model":"tiny","x":"' + b"y" * 20_000_000 + b'"}'
            client.post(upload, b"/v1/completions", b"x-read-no-body: 1")
            head, _ = await client.answer()
            assert b" 413 " in head
            client.post(BODY)
            _, body = await client.answer()
            assert body == b"fine"


async def test_the_head_of_an_answer_is_bounded(start_router: StartRouter) -> None:
    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        for number in range(1000):
            writer.write(b"x-%d: %b\r\n" % (number, b"y" * 1000))
            await writer.drain()

    async with Scripted(act) as server:
        router = await start_router(server.url, max_retries=0)
        async with Client(router.url) as client:
            client.post(BODY)
            head, body = await client.answer()
    assert b" 502 " in head
    assert b"not an HTTP answer" in body


async def test_an_upload_that_stops_coming_is_a_408(start_router: StartRouter) -> None:
    router = await start_router(request_timeout=0.2)
    async with Client(router.url) as client:
        client.send(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{")
        head, body = await client.answer()
    assert b" 408 " in head
    assert json.loads(body)["error"]["code"] == "request_timeout"


async def test_a_request_that_is_being_uploaded_is_not_lost_when_the_router_drains(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    router = await start_router(await start_sim())
    body = json.dumps(chat(max_tokens=2)).encode()
    async with Client(router.url) as client:
        client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body[:10])
        )
        await until(lambda: router.pool.stats.in_flight == 1)
        stopping = asyncio.create_task(router.stop(drain_timeout=10))
        await until(lambda: router.app.draining)
        client.send(body[10:])
        head, got = await client.answer()
        assert head.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in head
        assert json.loads(got)["usage"]["completion_tokens"] == 2
        assert await client.rest() == b""
        await stopping


async def test_a_stream_that_outlasts_the_drain_ends_with_an_error_event(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    engine = await start_sim(tokens_per_second=100.0)
    router = await start_router(engine)
    async with Client(router.url) as client:
        client.post(json.dumps(chat(stream=True, max_tokens=10_000)).encode())
        await client.until(b"data: ")
        await router.stop(drain_timeout=0.05)
        last = await client.last_of_stream()
    assert b'data: {"error"' in last
    assert b"The router is stopping." in last
    assert b"[DONE]" not in last
    # It was not the server's fault.
    assert router.pool.backends["s0"].circuit.failures(router.pool.monotonic()) == 0


async def test_a_client_that_never_reads_the_end_is_closed(start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"x" * 400_000))) as server:
        router = await start_router(server.url, request_timeout=0.4)
        assert router._listener is not None
        for sock in router._listener.sockets:  # else the kernel takes all of it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async with Client(router.url, receive_buffer=4096) as client:
            client.post(BODY)
            await client.head()
            await until(lambda: not router.front.connections)


async def test_a_server_that_fails_fast_does_not_draw_all_requests(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    broken, good = await start_sim(), await start_sim(tokens_per_second=100.0)
    router = await start_router(broken, good, health_check_interval=60)
    broken.inject(Fault.ERROR_500)

    async def ask() -> int:
        async with http.post(f"{router.url}/v1/completions", json=chat(max_tokens=2)) as response:
            await response.read()
            return response.status

    statuses: list[int] = []

    async def client() -> None:
        for _ in range(10):
            statuses.append(await ask())

    await asyncio.gather(*(client() for _ in range(4)))
    assert "circuit open: " in " ".join(e.message for e in router.pool.events.last(50))
    assert broken.started < good.started


async def test_a_503_is_busy_and_never_takes_a_server_out(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    router.relay.limits.max_retries = 0
    engine.inject(Fault.BUSY_503)
    for _ in range(8):
        async with http.post(f"{router.url}/v1/completions", json=chat()) as response:
            assert response.status == 503
    assert router.pool.backends["s0"].is_up


async def test_retries_do_not_multiply_an_overload(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engines = [await start_sim() for _ in range(4)]
    router = await start_router(*engines)
    router.relay.budget = RetryBudget(lambda: 0.0)  # a second in which nothing is earned
    for engine in engines:
        engine.inject(Fault.BUSY_503)

    async def ask() -> int:
        async with http.post(f"{router.url}/v1/completions", json=chat()) as response:
            return response.status

    assert set(await asyncio.gather(*(ask() for _ in range(100)))) == {503}
    attempts = sum(engine.started for engine in engines)
    assert 100 < attempts <= 100 + 10 + 20  # what the purse held, and what the requests paid


def test_the_budget_fills_with_time_and_with_requests_and_is_bounded() -> None:
    now = 0.0
    budget = RetryBudget(lambda: now)
    assert [budget.take() for _ in range(11)] == [True] * 10 + [False]
    for _ in range(5):
        budget.request()
    assert [budget.take(), budget.take()] == [True, False]
    now = 0.5
    assert [budget.take() for _ in range(6)] == [True] * 5 + [False]
    for _ in range(10_000):
        budget.request()
    assert sum(budget.take() for _ in range(200)) == 100


async def test_an_error_inside_the_router_after_the_answer_adds_nothing_to_it(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Scripted(replies(answer(b"whole"))) as server:
        router = await start_router(server.url)

        def fail(*_: object) -> None:
            raise RuntimeError("on purpose")

        monkeypatch.setattr(router.relay, "_finished", fail)
        async with Client(router.url) as client:
            client.post(BODY)
            await client.head()
            assert await client.rest() in (b"whole", b"")


async def test_letters_beyond_latin_1_in_paths_and_headers_reach_the_server(
    start_router: StartRouter,
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        spec = ServerSpec(
            url=f"{server.url}/prix-€",
            name="s0",
            engine="openai",
            headers=(("X-Price", "3 €"),),
            models=("tiny",),
            api_key="schlüssel-€",
        )
        router = await start_router(spec)
        prefer(router, "s0")
        async with Client(router.url) as client:
            client.post(BODY)
            head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 200")
        arrived = next(seen for seen in server.seen if seen.body == BODY)
        assert arrived.line == b"POST /prix-%E2%82%AC/v1/chat/completions HTTP/1.1"
        assert arrived.header(b"x-price") == ["3 €".encode()]
        assert arrived.header(b"authorization") == ["Bearer schlüssel-€".encode()]


async def test_an_impossible_host_name_is_a_502(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    spec = ServerSpec(url=f"http://{'a' * 70}.example:80", name="s0", models=("tiny",))
    router = await start_router(spec, enable_active_health_check=False)
    prefer(router, "s0")
    async with http.post(f"{router.url}/v1/completions", json=chat()) as response:
        assert response.status == 502
        assert "cannot connect" in (await response.json())["error"]["message"]


async def test_an_answer_that_switches_protocols_is_a_502(start_router: StartRouter) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"
    async with Scripted(replies(switch)) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(BODY)
            head, _ = await client.answer()
    assert b" 502 " in head

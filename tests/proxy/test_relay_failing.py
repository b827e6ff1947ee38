"""What happens when servers fail: others are tried, clients see the truth, nothing is left over."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence

import aiohttp
import pytest
from support import StartRouter, StartSim, chat, until
from wire import OK, SSE, Client, Scripted, Seen, answer, chunk, replies

from mvllm_router.config import ServerSpec
from mvllm_router.policies import Choice, Policy, Wish
from mvllm_router.pool import Backend
from mvllm_router.proxy.connection import Connection
from mvllm_router.server import Router
from mvllm_router.sim.faults import Fault


class InOrder(Policy):
    """A policy that always takes the first candidate, so that tests know who is tried first."""

    def choose(self, candidates: Sequence[Backend], wish: Wish, now: float) -> Choice:
        return min(candidates, key=lambda backend: backend.name), "in order"


def in_order(router: Router) -> Router:
    router.dispatch.policies.use("least_load", InOrder())
    return router


def post(
    http: aiohttp.ClientSession, router: Router, **body: object
) -> aiohttp.client._BaseRequestContextManager[aiohttp.ClientResponse]:
    return http.post(f"{router.url}/v1/chat/completions", json=chat(max_tokens=4, **body))  # type: ignore[arg-type]


MOVED_ON = [
    (Fault.REFUSE, "connection refused"),
    (Fault.RESET, "connection reset"),
    (Fault.BUSY_503, "503"),
    (Fault.RATE_429, "429"),
    (Fault.DRAINING_500, "draining"),
    (Fault.GARBAGE, "not an HTTP answer"),
]


@pytest.mark.parametrize(("fault", "reason"), MOVED_ON, ids=[fault.value for fault, _ in MOVED_ON])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_server_that_fails_before_its_answer_is_replaced_unseen(
    fault: Fault,
    reason: str,
    stream: bool,
    start_router: StartRouter,
    start_sim: StartSim,
    http: aiohttp.ClientSession,
) -> None:
    bad, good = await start_sim(), await start_sim()
    router = in_order(await start_router(bad, good, health_check_interval=60))
    bad.inject(fault)
    async with post(http, router, stream=stream) as response:
        assert response.status == 200
        assert response.headers["x-router-backend"] == "s1"
        assert response.headers["x-router-attempts"] == "2"
        body = await response.text()
    assert ("data: [DONE]" in body) is stream
    assert "error" not in body
    assert router.pool.backends["s0"].stats.retries == {reason: 1}
    assert good.served == 1


async def test_a_busy_error_as_the_first_event_is_moved_on(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    busy, free = await start_sim(), await start_sim()
    router = in_order(await start_router(busy, free))
    busy.inject(Fault.BUSY_IN_STREAM)
    async with post(http, router, stream=True) as response:
        text = await response.text()
        assert response.headers["x-router-backend"] == "s1"
    assert "error" not in text
    assert text.endswith("data: [DONE]\n\n")
    assert router.pool.backends["s0"].stats.retries == {"503 in the first event": 1}


@pytest.mark.parametrize(
    ("fault", "status"), [(Fault.BUSY_503, 503), (Fault.RATE_429, 429), (Fault.DRAINING_500, 500)]
)
async def test_with_no_other_server_its_own_answer_is_passed_on(
    fault: Fault,
    status: int,
    start_router: StartRouter,
    start_sim: StartSim,
    http: aiohttp.ClientSession,
) -> None:
    engine = await start_sim()
    router = await start_router(engine, max_retries=0)
    engine.inject(fault)
    async with post(http, router) as response:
        assert response.status == status
        assert response.headers["x-router-attempts"] == "1"
        own = await response.json()
        assert "message" in json.dumps(own)
        assert ("retry-after" in response.headers) is (fault is Fault.RATE_429)
    assert engine.started == 1


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.BUSY_503, Fault.BUSY_IN_STREAM])
async def test_the_only_server_of_a_model_is_asked_again_after_a_pause(
    fault: Fault, start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    engine.inject(fault, times=2)
    async with post(http, router, stream=True) as response:
        assert response.status == 200
        assert response.headers["x-router-attempts"] == "3"
        text = await response.text()
    assert "error" not in text
    assert text.endswith("data: [DONE]\n\n")
    assert engine.started == 3


async def test_a_request_that_pauses_before_it_asks_again_is_told_when_the_router_stops(
    start_router: StartRouter,
) -> None:
    busy = b"HTTP/1.1 503 Service Unavailable\r\n"
    async with Scripted(replies(answer(b"{}", busy, b"retry-after: 5"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(json.dumps(chat()).encode())
            await until(lambda: bool(router.pool.backends["s0"].stats.retries))
            await router.stop(drain_timeout=0)
            head, body = await client.answer()
    assert b" 503 " in head
    assert b"The router is stopping." in body


async def test_a_request_whose_connection_is_being_made_is_told_when_the_router_stops(
    start_router: StartRouter, start_sim: StartSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = await start_router(await start_sim(tokens_per_second=1.0))
    connections = router.relay.connections(router.pool.backends["s0"])
    opening = connections.open

    async def open_as_it_stops(timeout: float) -> Connection:
        router.relay.stop()
        return await opening(timeout)

    monkeypatch.setattr(connections, "open", open_as_it_stops)
    async with Client(router.url) as client:
        client.post(json.dumps(chat(max_tokens=100)).encode())
        head, body = await client.answer()
    assert b" 503 " in head
    assert b"The router is stopping." in body


async def test_a_server_that_wants_to_be_left_alone_for_long_is_and_its_429_is_passed_on(
    start_router: StartRouter,
) -> None:
    busy = b"HTTP/1.1 429 Too Many Requests\r\n"
    async with Scripted(replies(answer(b"{}", busy, b"retry-after: 20"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(json.dumps(chat()).encode())
            head, _ = await client.answer()
        assert b" 429 " in head
        assert b"retry-after: 20" in head
        assert len(server.seen) == 1
        assert 15 < router.pool.backends["s0"].rest.until - router.pool.monotonic() <= 20


async def test_a_server_that_says_busy_is_left_alone_while_another_is_well(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    busy, free = await start_sim(), await start_sim()
    router = in_order(await start_router(busy, free, health_check_interval=60))
    busy.inject(Fault.BUSY_503)
    router.pool.is_busy(router.pool.backends["s0"], 30.0)
    for _ in range(20):
        async with post(http, router) as response:
            assert response.headers["x-router-backend"] == "s1"
    assert busy.started == 0
    assert router.pool.backends["s0"].is_up


async def test_a_server_that_drains_gets_no_more_requests_though_its_health_is_good(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    leaving, good = await start_sim(), await start_sim()
    router = in_order(await start_router(leaving, good, health_check_interval=60))
    leaving.inject(Fault.DRAINING_500)
    for _ in range(5):
        assert (await _status(http, router))[0] == 200
    assert leaving.started == 1
    assert router.pool.backends["s0"].condition(router.pool.monotonic()) == "open"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_request_whose_engine_died_gets_one_more_engine_and_no_third(
    stream: bool, start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engines = [await start_sim() for _ in range(3)]
    router = in_order(await start_router(*engines))
    engines[0].inject(Fault.ENGINE_DEATH, after_events=0)
    async with post(http, router, stream=stream) as response:
        assert response.status == 200
        assert response.headers["x-router-attempts"] == "2"
        assert "error" not in await response.text()
    engines[1].inject(Fault.ENGINE_DEATH, after_events=0)
    async with post(http, router, stream=stream) as response:
        assert response.headers["x-router-attempts"] == "2"
        assert "EngineCore encountered an issue" in await response.text()
    assert engines[2].started == 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_a_server_aborts_before_it_has_said_anything_is_answered_by_another(
    stream: bool, start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    leaving, staying = await start_sim(), await start_sim()
    router = in_order(await start_router(leaving, staying))
    leaving.inject(Fault.ABORT, after_events=0)
    async with post(http, router, stream=stream) as response:
        assert response.headers["x-router-backend"] == "s1"
        assert '"abort"' not in await response.text()
    assert staying.served == 1


async def test_a_500_may_be_the_requests_fault_and_is_not_run_elsewhere(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    bad, good = await start_sim(), await start_sim()
    router = in_order(await start_router(bad, good))
    bad.inject(Fault.ERROR_500)
    async with post(http, router) as response:
        assert response.status == 500
    assert good.started == 0


async def test_when_every_attempt_fails_the_client_gets_a_502_with_the_reasons_and_no_addresses(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engines = [await start_sim() for _ in range(3)]
    router = await start_router(*engines)
    for engine in engines:
        engine.inject(Fault.RESET)
    async with post(http, router) as response:
        assert response.status == 502
        error = (await response.json())["error"]
    assert (error["type"], error["code"]) == ("upstream_error", "all_attempts_failed")
    assert error["message"] == (
        "Every attempt failed (3): connection reset, connection reset, connection reset"
    )
    assert [engine.started for engine in engines] == [1, 1, 1]


async def test_max_retries_bounds_the_attempts(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engines = [await start_sim() for _ in range(4)]
    router = await start_router(*engines, max_retries=1)
    for engine in engines:
        engine.inject(Fault.RESET)
    async with post(http, router) as response:
        assert response.status == 502
    assert sum(engine.started for engine in engines) == 2


async def test_the_last_attempts_503_is_passed_on_when_retries_are_used_up(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engines = [await start_sim() for _ in range(3)]
    router = await start_router(*engines, max_retries=1)
    for engine in engines:
        engine.inject(Fault.BUSY_503)
    async with post(http, router) as response:
        assert response.status == 503
        assert response.headers["x-router-attempts"] == "2"


async def test_a_clients_own_mistake_is_passed_on_and_never_held_against_the_server(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engines = [await start_sim() for _ in range(2)]
    router = await start_router(*engines)
    for _ in range(10):
        async with http.post(f"{router.url}/v1/chat/completions", json={"model": "tiny"}) as reply:
            assert reply.status == 400
            assert reply.headers["x-router-attempts"] == "1"
    assert all(backend.is_up for backend in router.pool.backends.values())
    now = router.pool.monotonic()
    assert [b.circuit.failures(now) for b in router.pool.backends.values()] == [0, 0]


async def test_silence_before_the_first_byte_is_a_504_and_is_not_run_again(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    silent, other = await start_sim(), await start_sim()
    router = in_order(await start_router(silent, other, request_timeout=0.3))
    silent.inject(Fault.HANG)
    async with post(http, router) as response:
        assert response.status == 504
        error = (await response.json())["error"]
    assert error["code"] == "upstream_timeout"
    assert other.started == 0
    await silent.wait_for(lambda engine: engine.aborted == 1)  # it was told


async def test_a_slow_answer_that_keeps_flowing_outlives_the_timeout(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim(tokens_per_second=20.0)
    router = await start_router(engine, request_timeout=0.4)
    request = chat(stream=True, max_tokens=30)
    async with http.post(f"{router.url}/v1/chat/completions", json=request) as response:
        assert (await response.text()).endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("fault", [Fault.DROP, Fault.STALL])
async def test_a_stream_that_is_lost_ends_with_an_error_event_and_no_done(
    fault: Fault, start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine, request_timeout=0.5)
    engine.inject(fault, 1, after_events=2)
    async with Client(router.url) as client:
        client.post(json.dumps(chat(stream=True, max_tokens=50)).encode())
        _, body = await client.answer()  # the chunks end properly
        assert b"[DONE]" not in body
        last = body.rsplit(b"data: ", 1)[1].split(b"\n\n")[0]
        error = json.loads(last)["error"]
        assert error["type"] == "upstream_error"
        assert error["code"] == (
            "all_attempts_failed" if fault is Fault.DROP else "upstream_timeout"
        )
        client.post(json.dumps(chat(max_tokens=2)).encode())  # the connection goes on
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 200")
    assert sum(router.pool.backends["s0"].stats.failures.values()) == 1


async def test_half_an_event_is_never_passed_on(start_router: StartRouter) -> None:
    whole, half = b'data: {"n":1}\n\n', b'data: {"n":2'
    async with Scripted(replies(SSE, chunk(whole + half), close=True)) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(b'{"model":"tiny"}')
            _, body = await client.answer()
    assert whole in body
    assert half not in body
    assert b'data: {"error"' in body


async def test_an_error_event_after_a_cut_over_long_event_stands_on_a_line_of_its_own(
    start_router: StartRouter,
) -> None:
    half = b"data: " + b"x" * 70_000
    async with Scripted(replies(SSE, chunk(half), close=True)) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(b'{"model":"tiny"}')
            await client.head()
            rest = await client.last_of_stream()
    assert b'\n\ndata: {"error"' in rest


@pytest.mark.parametrize(
    "head",
    [b"content-length: 100\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n4\r\n"],
    ids=["length", "chunked"],
)
async def test_a_body_that_is_lost_never_ends_cleanly(
    head: bytes, start_router: StartRouter
) -> None:
    async with Scripted(replies(OK + head + b"part", close=True)) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.post(b'{"model":"tiny"}')
            await client.head()
            rest = await client.rest()
    assert b"part" in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_for_an_http_1_0_client_a_lost_body_is_a_reset(start_router: StartRouter) -> None:
    head = OK + b"transfer-encoding: chunked\r\n\r\n"
    go_on = asyncio.Event()

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + chunk(b"part"))
        await writer.drain()
        await go_on.wait()
        writer.close()

    async with Scripted(act) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(b"POST /v1/completions HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}")
            assert (await client.until(b"part")).endswith(b"part")
            go_on.set()
            with pytest.raises(ConnectionResetError):
                await client.rest()


async def test_an_http_1_0_stream_that_is_cut_is_not_taken_for_its_end(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    engine = await start_sim("mlx")
    router = await start_router(engine)
    engine.inject(Fault.DROP, 1, after_events=2)
    async with Client(router.url) as client:
        client.post(json.dumps(chat(stream=True, max_tokens=50)).encode())
        _, body = await client.answer()
    assert b'data: {"error"' in body
    assert b"[DONE]" not in body


# --- connections that died while idle


async def test_an_idle_connection_that_the_server_closed_is_replaced_unseen(
    start_router: StartRouter,
) -> None:
    """The server closes as soon as it sees the second request on a connection."""

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(server.seen) == 2:
            writer.transport.abort()
        else:
            writer.write(answer(b"{}"))

    async with Scripted(act) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for _ in range(3):
                client.post(b'{"model":"tiny"}', b"/v1/completions")
                head, _ = await client.answer()
                assert b"x-router-attempts: 1\r\n" in head
        assert len(server.seen) == 4
        assert server.connections == 2
    assert not router.pool.backends["s0"].stats.failures


async def test_connections_are_pooled(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        for _ in range(20):
            async with post(http, router) as response:
                await response.read()
        assert server.connections == 1


async def test_a_server_that_says_close_is_not_asked_again_on_that_connection(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    async with Scripted(replies(answer(b"{}", OK, b"connection: close"))) as server:
        router = await start_router(server.url)
        for _ in range(3):
            async with post(http, router) as response:
                assert response.status == 200
        assert server.connections == 3


# --- clients that leave


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_client_that_leaves_is_noticed_at_once_and_the_server_told(
    stream: bool, start_router: StartRouter, start_sim: StartSim
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    engine.hold()
    async with Client(router.url) as client:
        client.post(json.dumps(chat(stream=stream, max_tokens=1000)).encode())
        await engine.wait_for(lambda sim: sim.running == 1)
        assert router.pool.backends["s0"].in_flight == 1
    await engine.wait_for(lambda sim: sim.aborted == 1)
    await until(lambda: router.pool.backends["s0"].in_flight == 0)
    assert router.pool.stats.client_left == {"/v1/chat/completions": 1}


async def test_a_client_that_leaves_in_mid_stream_is_noticed(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    engine = await start_sim(tokens_per_second=100.0)
    router = await start_router(engine)
    async with Client(router.url) as client:
        client.post(json.dumps(chat(stream=True, max_tokens=10_000)).encode())
        await client.until(b"data: ")
    await engine.wait_for(lambda sim: sim.aborted == 1)
    await until(lambda: router.pool.stats.in_flight == 0)


async def test_a_client_that_leaves_while_it_uploads_reaches_no_server(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    async with Client(router.url) as client:
        client.send(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        await until(lambda: router.pool.stats.in_flight == 1)
    await until(lambda: router.pool.stats.in_flight == 0)
    assert engine.started == 0


# --- one at a time


async def test_a_server_that_takes_one_at_a_time_gets_one_at_a_time(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim("llama-cpp-python", tokens_per_second=500.0)
    router = await start_router(engine)
    assert router.pool.backends["s0"].capacity == 1

    async def ask(number: int) -> str:
        body = chat(stream=bool(number % 2), max_tokens=8)
        async with http.post(f"{router.url}/v1/chat/completions", json=body) as response:
            assert response.status == 200
            return await response.text()

    texts = await asyncio.gather(*(ask(number) for number in range(6)))
    assert engine.served == 6
    assert engine.aborted == engine.failed == 0
    for number, text in enumerate(texts):
        assert '"finish_reason":"length"' in text.replace(": ", ":"), (number, text)


async def test_those_that_wait_are_served_first_come_first_served(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    engine = await start_sim("llama-cpp-python")
    router = await start_router(engine)
    engine.hold()
    clients = []
    for number in range(4):
        client = await Client(router.url).__aenter__()
        client.post(json.dumps(chat(max_tokens=2, seed=number)).encode())
        await until(lambda n=number: router.pool.stats.in_flight == n + 1)  # type: ignore[misc]
        clients.append(client)
    await until(lambda: router.dispatch.waiting == 3)
    clients[2].writer.transport.abort()  # who leaves the queue leaves it at once
    await until(lambda: router.dispatch.waiting == 2)
    engine.release()
    for number in (0, 1, 3):
        await clients[number].answer()
        clients[number].writer.transport.abort()
    seeds = [json.loads(r.body)["seed"] for r in engine.requests if r.method == "POST"]
    assert seeds == [0, 1, 3]


async def test_a_full_or_slow_queue_is_a_429(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim("llama-cpp-python")
    router = await start_router(engine, max_queue=1, queue_timeout=0.3)
    engine.hold()
    first = asyncio.create_task(_status(http, router))
    await until(lambda: router.pool.backends["s0"].in_flight == 1)
    second = asyncio.create_task(_status(http, router))
    await until(lambda: router.dispatch.waiting == 1)
    assert await _status(http, router) == (429, "2")  # the queue is full
    assert await second == (429, "2")  # it waited too long
    engine.release()
    assert await first == (200, None)


async def _status(http: aiohttp.ClientSession, router: Router) -> tuple[int, str | None]:
    async with post(http, router) as response:
        return response.status, response.headers.get("retry-after")


async def test_a_request_id_that_llama_cpp_python_refuses_is_kept_from_it(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim("llama-cpp-python")
    router = await start_router(engine)
    url = f"{router.url}/v1/chat/completions"
    async with http.post(url, json=chat(), headers={"x-request-id": "not-a-uuid"}) as response:
        assert response.status == 200
        assert response.headers["x-request-id"] == "not-a-uuid"


# --- which servers


async def test_requests_of_every_kind_go_only_to_servers_that_have_the_model(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    alpha, beta = await start_sim("vllm", "alpha"), await start_sim("vllm", "beta", "gamma")
    router = await start_router(alpha, beta)
    form = aiohttp.FormData({"model": "gamma"})
    form.add_field("file", b"RIFF", filename="a.wav")
    for _ in range(5):
        for path in ("/v1/embeddings", "/v1/rerank", "/score", "/tokenize", "/v1/anything"):
            async with http.post(f"{router.url}{path}", json={"model": "beta"}) as response:
                assert response.headers["x-router-backend"] == "s1"
    async with http.post(f"{router.url}/v1/audio/transcriptions", data=form()) as response:
        assert response.headers["x-router-backend"] == "s1"
    async with http.get(f"{router.url}/v1/things?model=alpha") as response:
        assert response.headers["x-router-backend"] == "s0"


async def test_a_missing_model_goes_to_any_server(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engines = [await start_sim("vllm", "alpha"), await start_sim("vllm", "beta")]
    router = await start_router(*engines, policy="round_robin")
    for _ in range(4):
        async with http.post(
            f"{router.url}/v1/chat/completions", json=chat(None, max_tokens=1)
        ) as response:
            assert response.status == 200
    assert [engine.served for engine in engines] == [2, 2]


async def test_an_alias_reaches_the_server_under_its_own_name(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim("vllm", "Qwen/Qwen3-8B")
    spec = ServerSpec(url=engine.url, name="s0", aliases={"gpt-4o": "Qwen/Qwen3-8B"})
    router = await start_router(spec)
    async with http.post(
        f"{router.url}/v1/chat/completions", json=chat("gpt-4o", max_tokens=1, seed=2**60)
    ) as response:
        assert response.status == 200
    sent = json.loads(engine.requests[-1].body)
    assert (sent["model"], sent["seed"]) == ("Qwen/Qwen3-8B", 2**60)


async def test_a_servers_key_and_headers_are_sent_and_never_shown(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim(api_key="server-secret")
    spec = ServerSpec(
        url=engine.url, name="s0", api_key="server-secret", headers=(("X-Team", "team-secret"),)
    )
    router = await start_router(spec, api_key="client-secret")
    headers = {"authorization": "Bearer client-secret"}
    async with http.post(
        f"{router.url}/v1/chat/completions", json=chat(max_tokens=1), headers=headers
    ) as response:
        assert response.status == 200
        seen = str(response.headers) + await response.text()
    arrived = engine.requests[-1]
    assert arrived.header("authorization") == "Bearer server-secret"
    assert arrived.header("x-team") == "team-secret"
    for path in ("/load-stats", "/router/snapshot", "/metrics", "/health", "/server-models"):
        async with http.get(f"{router.url}{path}", headers=headers) as response:
            assert response.status == 200
            seen += await response.text()
    assert "secret" not in seen


async def test_fifty_requests_at_once_spread_by_capacity(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    sizes = (3, 5, 10, 20)
    engines = [await start_sim(slots=size) for size in sizes]
    specs = [
        ServerSpec(url=engine.url, name=f"s{n}", max_concurrent_requests=sizes[n])
        for n, engine in enumerate(engines)
    ]
    router = await start_router(*specs, scrape_interval=60)
    for engine in engines:
        engine.hold()
    tasks = [asyncio.create_task(_status(http, router)) for _ in range(38)]
    await until(lambda: sum(b.in_flight for b in router.pool.backends.values()) == 38)
    assert [b.in_flight for b in router.pool.backends.values()] == list(sizes)
    for engine in engines:
        engine.release()
    assert {status for status, _ in await asyncio.gather(*tasks)} == {200}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_it_starts_with_dead_servers_and_takes_them_in_when_they_come(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    await engine.stop()
    router = await start_router(engine, f"http://127.0.0.1:{free_port()}")
    assert await _status(http, router) == (503, "2")
    await engine.start()
    await until(lambda: router.pool.backends["s0"].is_up)
    assert await _status(http, router) == (200, None)


async def test_a_client_that_stops_reading_is_closed_and_its_server_not_blamed(
    start_router: StartRouter,
) -> None:
    async with Scripted(replies(answer(b"x" * 50_000_000))) as server:
        router = await start_router(server.url, request_timeout=0.4)
        async with Client(router.url, receive_buffer=8192) as client:
            client.post(b'{"model":"tiny"}', b"/v1/completions")
            await client.head()
            await until(lambda: router.pool.stats.in_flight == 0)
    backend = router.pool.backends["s0"]
    assert backend.circuit.failures(router.pool.monotonic()) == 0
    assert not backend.stats.failures


async def test_configured_headers_replace_the_clients_own(start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        spec = ServerSpec(
            url=server.url, name="s0", headers=(("Host", "inner.example"), ("X-Team", "ours"))
        )
        router = await start_router(spec)
        async with Client(router.url) as client:
            client.post(b'{"model":"tiny"}', b"/v1/completions", b"x-team: theirs", b"x-other: 1")
            await client.answer()
        arrived = server.seen[0]
        assert arrived.header(b"host") == [b"inner.example"]
        assert arrived.header(b"x-team") == [b"ours"]
        assert arrived.header(b"x-other") == [b"1"]


async def test_a_failure_without_another_server_counts_as_no_retry(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine, max_retries=0)
    engine.inject(Fault.RESET)
    assert await _status(http, router) == (502, None)
    assert not router.pool.backends["s0"].stats.retries


async def test_a_name_that_does_not_resolve_is_not_called_refused(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine, max_retries=0)
    connections = router.relay.connections(router.pool.backends["s0"])
    connections.adopt(ServerSpec(url="http://no-such-host.invalid:1", name="s0"))
    async with post(http, router) as response:
        assert response.status == 502
        message = (await response.json())["error"]["message"]
    assert message == "Every attempt failed (1): cannot connect"

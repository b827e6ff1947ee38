"""Three limits on silence, each with its own setting, and what is no silence."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from support import StartRouter, StartSim, chat, until
from wire import Client, Scripted, Seen, answer, replies

from mvllm_router.sim.faults import Fault


async def test_the_first_byte_has_a_limit_of_its_own(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine, first_byte_timeout=0.3, request_timeout=60)
    engine.inject(Fault.HANG)
    async with http.post(f"{router.url}/v1/chat/completions", json=chat()) as response:
        assert response.status == 504
        assert "silent for 0.3 s" in (await response.json())["error"]["message"]


@pytest.mark.parametrize("first_byte", [0.0, 60.0])
async def test_between_bytes_request_timeout_counts_whatever_the_first_byte_may_take(
    first_byte: float, start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine, first_byte_timeout=first_byte, request_timeout=0.3)
    engine.inject(Fault.STALL, after_events=2)
    request = chat(stream=True, max_tokens=20)
    async with http.post(f"{router.url}/v1/chat/completions", json=request) as response:
        text = await response.text()
    assert "silent for 0.3 s" in text
    assert "[DONE]" not in text


async def test_a_first_byte_that_may_take_longer_than_the_rest_is_waited_for(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim(prefill_seconds=1.0)
    router = await start_router(engine, first_byte_timeout=30, request_timeout=0.2)
    request = chat(max_tokens=2)
    async with http.post(f"{router.url}/v1/chat/completions", json=request) as response:
        assert response.status == 200


async def test_a_head_without_an_event_is_no_first_byte(start_router: StartRouter) -> None:
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await reader.read(1)  # until the router gives up

    async with Scripted(act) as server:
        router = await start_router(server.url, first_byte_timeout=0.3, request_timeout=60)
        async with Client(router.url) as client:
            client.post(json.dumps(chat(stream=True)).encode())
            answered, _ = await client.answer()
    assert b" 504 " in answered


async def test_a_server_that_takes_an_upload_slowly_is_not_silent(
    start_router: StartRouter,
) -> None:
    size = 30_000_000  # much more than the kernel takes

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = size
        while left > 0:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(0.02)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            left -= len(await reader.read(size))
        writer.write(answer(b"{}"))

    body = json.dumps(chat()).encode()
    body += b" " * (size - len(body))
    async with Scripted(act) as server:
        router = await start_router(server.url, request_timeout=0.5)
        async with Client(router.url) as client:
            client.post(body, b"/v1/chat/completions", b"x-read-no-body: 1")
            head, _ = await asyncio.wait_for(client.answer(), 30)
    assert b" 200 " in head


async def test_a_prompt_is_not_kept_once_its_answer_has_begun(
    start_router: StartRouter, start_sim: StartSim
) -> None:
    engine = await start_sim(tokens_per_second=20.0)
    router = await start_router(engine)
    async with Client(router.url) as client:
        client.post(json.dumps(chat(stream=True, max_tokens=100)).encode())
        await client.until(b"data: ")
        (exchange,) = router.relay.active
        assert exchange._request.ask.request.body == b""  # type: ignore[attr-defined]
    await until(lambda: router.pool.stats.in_flight == 0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_a_server_says_when_it_fails_is_hidden_if_so_set(
    stream: bool, start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine, hide_upstream_errors=True, max_retries=0)
    engine.inject(Fault.ENGINE_DEATH, after_events=2)
    request = chat(stream=stream, max_tokens=9)
    async with http.post(f"{router.url}/v1/chat/completions", json=request) as response:
        assert response.status == (200 if stream else 500)
        text = await response.text()
    assert "EngineCore" not in text
    assert "The server failed this request." in text


async def test_a_mistake_of_the_clients_is_told_though_errors_are_hidden(
    start_router: StartRouter,
) -> None:
    bad = b"HTTP/1.1 400 Bad Request\r\n"
    async with Scripted(replies(answer(b'{"error":{"message":"too long"}}', bad))) as server:
        router = await start_router(server.url, hide_upstream_errors=True)
        async with Client(router.url) as client:
            client.post(json.dumps(chat()).encode())
            head, body = await client.answer()
    assert b" 400 " in head
    assert b"too long" in body

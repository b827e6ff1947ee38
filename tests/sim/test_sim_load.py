"""Slots, queues, metrics, clients that leave, hold and release."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import aiohttp
import pytest
from sim_client import Raw, chat, events

from mvllm_router.sim import Profile, SimEngine


def profile(dialect: Any = "vllm", **fields: Any) -> Profile:
    return Profile(dialect, ("tiny",), **fields)


async def samples(client: aiohttp.ClientSession, url: str) -> dict[str, float]:
    async with client.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


async def post(client: aiohttp.ClientSession, url: str, **fields: Any) -> str:
    async with client.post(f"{url}/v1/chat/completions", json=chat(**fields)) as response:
        return await response.text()


async def test_slots_fill_first_and_the_rest_waits(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile(slots=2)) as engine:
        engine.hold()
        tasks = [asyncio.ensure_future(post(client, engine.url, stream=True)) for _ in range(5)]
        await engine.wait_for(lambda e: (e.running, e.waiting) == (2, 3))
        labels = '{engine="0",model_name="tiny"}'
        seen = await samples(client, engine.url)
        assert seen[f"vllm:num_requests_running{labels}"] == 2
        assert seen[f"vllm:num_requests_waiting{labels}"] == 3
        assert seen[f"vllm:kv_cache_usage_perc{labels}"] > 0
        engine.release()
        await asyncio.gather(*tasks)
        await engine.wait_for(lambda e: e.served == 5)
        seen = await samples(client, engine.url)
        assert seen[f"vllm:num_requests_running{labels}"] == 0
        assert seen[f"vllm:num_requests_waiting{labels}"] == 0
        assert seen[f"vllm:generation_tokens_total{labels}"] == 5 * 16
        finished = 'vllm:request_success_total{engine="0",finished_reason="stop",model_name="tiny"}'
        assert seen[finished] == 5


async def test_queue_is_first_in_first_out(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile(slots=1)) as engine:
        engine.hold()
        order: list[int] = []

        async def one(number: int) -> None:
            await post(client, engine.url)
            order.append(number)

        tasks = []
        for number in range(4):
            tasks.append(asyncio.ensure_future(one(number)))
            await engine.wait_for(lambda e: e.running + e.waiting == len(tasks))
        engine.release()
        await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


async def test_llamacpp_shows_its_load(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile("llama.cpp", slots=2)) as engine:
        engine.hold()
        tasks = [asyncio.ensure_future(post(client, engine.url, stream=True)) for _ in range(3)]
        await engine.wait_for(lambda e: (e.running, e.waiting) == (2, 1))
        seen = await samples(client, engine.url)
        assert seen["llamacpp:requests_processing"] == 2
        assert seen["llamacpp:requests_deferred"] == 1
        async with client.get(f"{engine.url}/props") as response:
            assert (await response.json())["total_slots"] == 2
        async with client.get(f"{engine.url}/slots") as response:
            assert [slot["is_processing"] for slot in await response.json()] == [True, True]
        async with client.get(f"{engine.url}/slots?fail_on_no_slot=1") as response:
            assert response.status == 503
        engine.release()
        await asyncio.gather(*tasks)


async def test_ranks_have_samples_after_the_first_request_only(
    client: aiohttp.ClientSession,
) -> None:
    async with SimEngine(profile(engines=2)) as engine:
        running = "vllm:num_requests_running"
        seen = await samples(client, engine.url)
        assert not [name for name in seen if name.startswith(running)]
        async with client.get(f"{engine.url}/metrics") as response:
            assert f"# TYPE {running} gauge" in await response.text()
        engine.hold()
        tasks = [asyncio.ensure_future(post(client, engine.url)) for _ in range(2)]
        await engine.wait_for(lambda e: e.running == 2)
        seen = await samples(client, engine.url)
        ranks = {name: value for name, value in seen.items() if name.startswith(running)}
        assert ranks == {f'{running}{{engine="{rank}",model_name="tiny"}}': 1.0 for rank in (0, 1)}
        engine.release()
        await asyncio.gather(*tasks)


async def test_full_vllm_queue_answers_503(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile(slots=1, max_queue=2)) as engine:
        engine.hold()
        tasks = [asyncio.ensure_future(post(client, engine.url)) for _ in range(2)]
        await engine.wait_for(lambda e: (e.running, e.waiting) == (1, 1))
        url = f"{engine.url}/v1/chat/completions"
        async with client.post(url, json=chat(stream=True)) as response:
            error = (await response.json())["error"]
        assert (response.status, error["type"]) == (503, "Service Unavailable")
        seen = await samples(client, engine.url)
        rejections = [v for k, v in seen.items() if "admission_rejections_total" in k]
        assert rejections == [1.0]
        engine.release()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_frees_its_slot_and_its_place(stream: bool) -> None:
    async with SimEngine(profile(slots=1)) as engine:
        engine.hold()
        first, second = await Raw.open(engine.url), await Raw.open(engine.url)
        for raw in (first, second):
            raw.post("/v1/chat/completions", chat(stream=stream))
            await engine.wait_for(lambda e: e.running == 1)
        await engine.wait_for(lambda e: e.waiting == 1)
        second.close()
        await engine.wait_for(lambda e: e.waiting == 0 and e.aborted == 1)
        assert engine.running == 1
        first.close()
        await engine.wait_for(lambda e: e.running == 0 and e.aborted == 2)
        assert engine.started == engine.aborted


async def test_slot_of_a_client_that_left_goes_to_the_next(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile(slots=1)) as engine:
        engine.hold()
        raw = await Raw.open(engine.url)
        raw.post("/v1/chat/completions", chat(stream=True))
        await engine.wait_for(lambda e: e.running == 1)
        task = asyncio.ensure_future(post(client, engine.url))
        await engine.wait_for(lambda e: e.waiting == 1)
        raw.close()
        await engine.wait_for(lambda e: (e.running, e.waiting, e.aborted) == (1, 0, 1))
        engine.release()
        await task
        assert engine.served == 1


async def test_llamacpp_does_not_notice_that_a_plain_client_left() -> None:
    async with SimEngine(profile("llama.cpp", slots=1)) as engine:
        engine.hold()
        raw = await Raw.open(engine.url)
        raw.post("/v1/chat/completions", chat(max_tokens=50))
        await engine.wait_for(lambda e: e.running == 1)
        raw.close()
        await engine.wait_for(lambda e: e.aborted == 1)
        assert (engine.running, engine.generated) == (1, 0)
        engine.release()
        await engine.wait_for(lambda e: e.running == 0)
        assert engine.generated == 50


async def test_held_stream_goes_on_where_it_was(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile("llama.cpp", tokens_per_second=200)) as engine:
        url = f"{engine.url}/v1/chat/completions"
        async with client.post(url, json=chat(max_tokens=30, stream=True)) as response:
            await engine.wait_for(lambda e: e.generated >= 3)
            engine.hold()
            made = engine.generated
            async with client.get(f"{engine.url}/health") as health:
                assert health.status == 200
            assert engine.generated == made < 30
            engine.release()
            parsed = events(await response.text())
    assert len(parsed) == 1 + 30 + 1 + 1  # role, tokens, finish, [DONE]


async def test_heads_come_when_the_real_servers_send_them(client: aiohttp.ClientSession) -> None:
    body = chat(stream=True)
    async with SimEngine(profile("vllm", slots=1)) as engine:
        engine.hold()
        async with (
            client.post(f"{engine.url}/v1/chat/completions", json=body) as running,
            client.post(f"{engine.url}/v1/chat/completions", json=body) as queued,
        ):
            assert (running.status, queued.status, engine.waiting) == (200, 200, 1)
    async with SimEngine(profile("llama.cpp", slots=1)) as engine:
        engine.hold()
        raw = await Raw.open(engine.url)
        raw.post("/v1/chat/completions", body)
        head = asyncio.ensure_future(raw.head())
        await engine.wait_for(lambda e: e.running == 1)
        async with client.get(f"{engine.url}/health"):
            assert not head.done()
        engine.release()
        assert (await head).startswith("HTTP/1.1 200 OK")
        raw.close()


async def test_llama_cpp_python_serves_one_and_cuts_it_for_the_next(
    client: aiohttp.ClientSession,
) -> None:
    async with SimEngine(profile("llama-cpp-python", slots=8)) as engine:
        engine.hold()
        raw = await Raw.open(engine.url)
        raw.post("/v1/chat/completions", chat(max_tokens=500, stream=True))
        await raw.head()
        await engine.wait_for(lambda e: e.running == 1)
        async with client.get(f"{engine.url}/v1/models") as response:
            assert response.status == 200
        # The last chunk is missing: a client must not take the answer for whole.
        assert await raw.reader.read() == b"e\r\ndata: [DONE]\n\n\r\n"
        raw.close()
        assert engine.generated == 0


async def test_llama_cpp_python_can_be_told_not_to_interrupt(
    client: aiohttp.ClientSession,
) -> None:
    async with SimEngine(profile("llama-cpp-python", interrupt_requests=False)) as engine:
        engine.hold()
        stream = asyncio.ensure_future(post(client, engine.url, max_tokens=5, stream=True))
        await engine.wait_for(lambda e: e.running == 1)
        models = asyncio.ensure_future(client.get(f"{engine.url}/v1/models"))
        await engine.wait_for(lambda e: e.waiting == 1)
        async with client.get(f"{engine.url}/openapi.json") as response:
            assert response.status == 200  # this one takes no lock
        assert not models.done()
        engine.release()
        assert events(await stream)[-2]["choices"][0]["finish_reason"] == "length"
        (await models).release()


async def test_loading_llamacpp_answers_503_everywhere(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile("llama.cpp", loading_seconds=math.inf)) as engine:
        for path in ("/health", "/metrics", "/v1/models", "/nope"):
            async with client.get(engine.url + path) as response:
                assert response.status == 503
                assert (await response.json())["error"]["message"] == "Loading model"
        assert "Loading model" in await post(client, engine.url)
        engine.finish_loading()
        async with client.get(f"{engine.url}/health") as response:
            assert response.status == 200


async def test_loading_vllm_is_not_there_yet(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile("vllm", loading_seconds=math.inf)) as engine:
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get(f"{engine.url}/health")
        engine.finish_loading()
        async with client.get(f"{engine.url}/health") as response:
            assert response.status == 200


async def test_stop_cuts_all_and_start_takes_the_same_port(client: aiohttp.ClientSession) -> None:
    engine = SimEngine(profile(slots=1))
    await engine.start()
    url = engine.url
    engine.hold()
    tasks = [asyncio.ensure_future(post(client, url, stream=True)) for _ in range(2)]
    await engine.wait_for(lambda e: (e.running, e.waiting) == (1, 1))
    await engine.stop()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, aiohttp.ClientError)
    assert (engine.running, engine.waiting, engine.failed, engine.aborted) == (0, 0, 2, 0)
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.get(f"{url}/health")
    await engine.start()
    assert engine.url == url
    assert "[DONE]" in await post(client, url, stream=True)
    await engine.stop()


async def test_requests_are_kept_byte_for_byte() -> None:
    async with SimEngine(profile()) as engine:
        raw = await Raw.open(engine.url)
        body = b'{"model" : "tiny", "prompt":"x",  "max_tokens":1}'
        head = "POST /v1/completions?a=%2F&b HTTP/1.1\r\nHOST: here\r\nX-Twice: 1\r\nx-twice: 2\r\n"
        raw.writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await raw.answer()
        raw.close()
        (received,) = engine.requests
    assert (received.method, received.path) == ("POST", "/v1/completions?a=%2F&b")
    assert received.body == body
    assert received.headers[:3] == [("HOST", "here"), ("X-Twice", "1"), ("x-twice", "2")]
    assert received.header("x-TWICE") == "1"


async def test_wait_for_says_what_it_saw_when_it_gives_up() -> None:
    async with SimEngine(profile()) as engine:
        with pytest.raises(TimeoutError, match="running=0 waiting=0 started=0"):
            await engine.wait_for(lambda e: e.started == 1, timeout=0.01)


def test_profiles_that_no_server_could_have_are_refused() -> None:
    for fields in (
        {"slots": 0},
        {"engines": 0},
        {"tokens_per_second": -1},
        {"slowdown": 1},
        {"dialect": "llama.cpp", "max_queue": 3},
        {"dialect": "vlm"},
    ):
        with pytest.raises(ValueError, match=r"must|not one of|queues without limit"):
            profile(**fields)
    with pytest.raises(ValueError, match="model name"):
        Profile("vllm", ())


def test_more_running_requests_are_slower() -> None:
    shared = profile(tokens_per_second=100, slowdown=0.5)
    assert [shared.seconds_per_token(running) for running in (1, 2, 3)] == [0.01, 0.02, 0.04]
    assert profile(slowdown=0.5).seconds_per_token(3) == 0

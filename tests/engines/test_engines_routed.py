"""Real engines behind the router, driven by the official client."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import openai
import pytest
from support import StartRouter, prefer, until
from wire import Client

from mvllm_router.config import ServerSpec
from mvllm_router.pool import Backend
from mvllm_router.server import Router

if TYPE_CHECKING:
    from conftest import EngineServer, StartLlamaServer, StartVllm

ENGINES = {
    "vllm_server": "vllm",
    "llama_server": "llama.cpp",
    "llama_cpp_python_server": "llama-cpp-python",
    "mlx_server": "mlx",
}


@pytest.fixture(params=ENGINES)
def server(request: pytest.FixtureRequest) -> EngineServer:
    started: EngineServer = request.getfixturevalue(request.param)
    return started


@pytest.fixture
def engine_name(request: pytest.FixtureRequest) -> str:
    return ENGINES[request.node.callspec.params["server"]]


def client_of(router: Router) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{router.url}/v1", api_key="unused", max_retries=0)


async def backend_of(router: Router, name: str = "s0") -> Backend:
    backend = router.pool.backends[name]
    await until(lambda: backend.is_up, timeout=30)
    return backend


async def test_it_is_recognised_with_its_models_and_capacity(
    server: EngineServer, engine_name: str, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router(server.url)
    backend = await backend_of(router)
    assert backend.engine == engine_name
    assert server.model in (backend.model_names() or ())
    assert (
        backend.capacity
        == {"llama.cpp": 4, "llama-cpp-python": 1, "vllm": 16, "mlx": 8}[engine_name]
    )
    if engine_name in ("vllm", "llama.cpp"):
        await until(lambda: backend.scrape is not None)
        assert backend.scrape is not None
        assert backend.scrape.sample.running == 0
        assert backend.scrape.sample.waiting == 0
    async with http.get(f"{router.url}/v1/models") as response:
        assert server.model in [card["id"] for card in (await response.json())["data"]]


async def test_the_async_openai_client_gets_whole_answers_and_streams(
    server: EngineServer, start_router: StartRouter
) -> None:
    router = await start_router(server.url)
    await backend_of(router)
    async with client_of(router) as client:
        messages: Any = [{"role": "user", "content": "Dafi kenu"}]
        whole = await client.chat.completions.create(
            model=server.model, messages=messages, max_tokens=8
        )
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 8
        stream = await client.chat.completions.create(
            model=server.model, messages=messages, max_tokens=12, stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        completion = await client.completions.create(
            model=server.model, prompt="Dafi", max_tokens=4
        )
        assert completion.choices[0].text
        assert router.pool.backends["s0"].stats.completion_tokens >= 12
        models = [model.id async for model in client.models.list()]
        assert server.model in models


async def test_the_sync_openai_client_works_too(
    server: EngineServer, start_router: StartRouter
) -> None:
    router = await start_router(server.url)
    await backend_of(router)

    def ask() -> tuple[str, int]:
        with openai.OpenAI(base_url=f"{router.url}/v1", api_key="unused", max_retries=0) as client:
            whole = client.completions.create(model=server.model, prompt="Dafi", max_tokens=4)
            stream = client.completions.create(
                model=server.model, prompt="Dafi", max_tokens=6, stream=True
            )
            return whole.choices[0].text, len(list(stream))

    text, chunks = await asyncio.to_thread(ask)
    assert text
    assert chunks > 1


async def test_an_unknown_model_raises_the_clients_own_error(
    server: EngineServer, start_router: StartRouter
) -> None:
    router = await start_router(server.url)
    await backend_of(router)
    async with client_of(router) as client:
        with pytest.raises(openai.NotFoundError, match="There are: "):
            await client.completions.create(model="nope", prompt="x")


async def test_four_streams_at_once_all_arrive_whole(
    server: EngineServer, start_router: StartRouter
) -> None:
    router = await start_router(server.url)
    backend = await backend_of(router)

    async with client_of(router) as client:

        async def ask() -> str:
            stream = await client.completions.create(
                model=server.model, prompt="Dafi", max_tokens=40, stream=True
            )
            reasons = [c.choices[0].finish_reason async for c in stream if c.choices]
            return str(reasons[-1])

        assert await asyncio.gather(*(ask() for _ in range(4))) == ["length"] * 4
    assert backend.in_flight == 0
    assert not backend.stats.failures


async def test_a_client_that_leaves_frees_the_real_engine(
    llama_server: EngineServer, vllm_server: EngineServer, start_router: StartRouter
) -> None:
    for server in (llama_server, vllm_server):
        router = await start_router(server.url, scrape_interval=0.2)
        backend = await backend_of(router)
        body = {"model": server.model, "prompt": "x", "max_tokens": 400, "stream": True}
        async with Client(router.url) as client:
            client.post(json.dumps(body).encode(), b"/v1/completions")
            await client.until(b"data: ")
        await until(lambda b=backend: b.in_flight == 0)  # type: ignore[misc]
        scraped = backend.scrape
        await until(
            lambda b=backend, s=scraped: b.scrape is not s and b.scrape.sample.running == 0,  # type: ignore[misc]
            timeout=20,
        )


async def test_vllm_and_llama_server_share_the_load_of_one_model(
    vllm_server: EngineServer, llama_server: EngineServer, start_router: StartRouter
) -> None:
    router = await start_router(
        ServerSpec(url=vllm_server.url, name="vllm", max_concurrent_requests=4),
        ServerSpec(url=llama_server.url, name="llama"),
    )
    for name in ("vllm", "llama"):
        await backend_of(router, name)
    async with client_of(router) as client:

        async def ask() -> None:
            stream = await client.completions.create(
                model=vllm_server.model, prompt="Dafi", max_tokens=30, stream=True
            )
            async for _ in stream:
                pass

        await asyncio.gather(*(ask() for _ in range(8)))
    counts = {name: b.stats.requests[200] for name, b in router.pool.backends.items()}
    assert sum(counts.values()) == 8
    assert min(counts.values()) >= 3, counts


async def test_a_llama_server_killed_in_mid_stream_is_told_and_replaced(
    start_llama_server: StartLlamaServer,
    llama_server: EngineServer,
    start_router: StartRouter,
) -> None:
    victim = await asyncio.to_thread(start_llama_server)
    router = await start_router(
        ServerSpec(url=victim.url, name="victim"),
        ServerSpec(url=llama_server.url, name="other"),
    )
    for name in ("victim", "other"):
        await backend_of(router, name)
    prefer(router, "victim")
    async with Client(router.url) as client:
        body = {"model": victim.model, "prompt": "x", "max_tokens": 100000, "stream": True}
        client.post(json.dumps(body).encode(), b"/v1/completions")
        head = await client.head()
        assert b"x-router-backend: victim" in head
        await client.until(b"data: ")
        await asyncio.to_thread(victim.stop)
        rest = await client.until(b"\r\n0\r\n\r\n")
    assert b'data: {"error"' in rest
    assert b"[DONE]" not in rest
    async with client_of(router) as openai_client:
        answer = await openai_client.completions.create(
            model=victim.model, prompt="x", max_tokens=2
        )
    assert answer.choices[0].text
    await until(lambda: not router.pool.backends["victim"].is_up)


async def test_vllm_told_to_stop_never_leaves_its_client_hanging(
    start_vllm: StartVllm, start_router: StartRouter
) -> None:
    """On SIGTERM it was seen to end streams, to report its engine's death, and to go silent."""
    longer = ["--max-model-len", "8192"]  # so that the stream runs still when the signal comes
    victim = await asyncio.to_thread(start_vllm, extra=longer)
    router = await start_router(victim.url, request_timeout=3.0)
    await backend_of(router)
    async with Client(router.url) as client:
        body = {"model": victim.model, "prompt": "x", "max_tokens": 8000, "stream": True}
        client.post(json.dumps(body).encode(), b"/v1/completions")
        await client.until(b"data: ")
        victim.process.terminate()
        last = await asyncio.wait_for(client.last_of_stream(), 60)
    silent = b"was silent for 3 s" in last
    assert (b"[DONE]" in last) is not silent
    await until(lambda: router.pool.backends["s0"].in_flight == 0)
    await until(lambda: not router.pool.backends["s0"].is_up)

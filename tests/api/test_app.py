"""The router's own routes and errors, as a client sees them."""

from __future__ import annotations

import json

import aiohttp
import pytest
from support import StartRouter, StartSim, chat, until
from wire import Client, Scripted, answer, replies

from mvllm_router import __version__
from mvllm_router.config import ServerSpec


async def error_of(response: aiohttp.ClientResponse) -> dict[str, object]:
    document = await response.json()
    assert list(document) == ["error"]
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert "x-request-id" in response.headers
    error: dict[str, object] = document["error"]
    return error


async def test_the_root_names_service_version_and_status(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    async with http.get(router.url) as response:
        assert await response.json() == {
            "service": "mvllm-router",
            "version": __version__,
            "status": "running",
        }
        assert response.headers["server"] == "mvllm-router"


async def test_health_is_always_200_and_ready_only_with_a_server(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    async with http.get(f"{router.url}/health") as response:
        assert (response.status, (await response.json())["status"]) == (200, "no_servers")
    async with http.get(f"{router.url}/ready") as response:
        assert response.status == 503
        assert response.headers["retry-after"] == "2"
        await error_of(response)
    router = await start_router(await start_sim())
    for path in ("/health", "/ready"):
        async with http.get(f"{router.url}{path}") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    "path", ["/load-stats", "/server-models", "/metrics", "/v1/models", "/router/snapshot"]
)
async def test_own_routes_answer_get_and_refuse_other_methods(
    path: str, start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim())
    async with http.get(router.url + path) as response:
        assert response.status == 200
        assert len(await response.read()) > 50
    async with http.post(router.url + path) as response:
        assert response.status == 405
        await error_of(response)


async def test_models_are_merged_and_found_by_id_with_slashes(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engines = [await start_sim("vllm", "Qwen/Qwen3-8B"), await start_sim("llama.cpp", "tiny")]
    router = await start_router(*engines)
    async with http.get(f"{router.url}/v1/models") as response:
        models = {card["id"]: card for card in (await response.json())["data"]}
    assert set(models) == {"Qwen/Qwen3-8B", "tiny"}
    assert models["Qwen/Qwen3-8B"]["max_model_len"] == 32768
    async with http.get(f"{router.url}/v1/models/Qwen/Qwen3-8B") as response:
        assert await response.json() == models["Qwen/Qwen3-8B"]
    async with http.get(f"{router.url}/v1/models/nope") as response:
        assert response.status == 404
        assert (await error_of(response))["code"] == "model_not_found"


async def test_v1_models_asks_no_server(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine, health_check_interval=60)
    asked = len([r for r in engine.requests if r.path == "/v1/models"])
    for _ in range(5):
        async with http.get(f"{router.url}/v1/models") as response:
            assert response.status == 200
    assert len([r for r in engine.requests if r.path == "/v1/models"]) == asked


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"null", b"\xff\xfe"])
async def test_a_body_that_is_no_json_object_is_a_400_and_reaches_no_server(
    body: bytes, start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    async with http.post(f"{router.url}/v1/chat/completions", data=body) as response:
        assert response.status == 400
        assert (await error_of(response))["type"] == "invalid_request_error"
    assert engine.started == 0


async def test_an_unknown_model_is_a_404_that_names_those_there_are(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim("vllm", "a", "b"))
    async with http.post(f"{router.url}/v1/completions", json={"model": "c"}) as response:
        assert response.status == 404
        error = await error_of(response)
    assert error["code"] == "model_not_found"
    assert error["param"] == "model"
    assert "a, b" in str(error["message"])


async def test_a_model_whose_servers_are_down_is_a_503_not_a_404(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    up, down = await start_sim("vllm", "a"), await start_sim("vllm", "b")
    router = await start_router(up, down)
    await down.stop()
    async with http.post(f"{router.url}/v1/completions", json={"model": "b"}) as response:
        assert response.status == 502  # the request itself found it dead
    async with http.post(f"{router.url}/v1/completions", json={"model": "b"}) as response:
        assert response.status == 503
        assert response.headers["retry-after"] == "2"
        assert (await error_of(response))["code"] == "no_server_available"


async def test_a_declared_model_of_a_server_never_seen_is_a_503(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    dead = ServerSpec(url="http://127.0.0.1:9", name="dead", models=("later",))
    router = await start_router(await start_sim(), dead)
    async with http.post(f"{router.url}/v1/completions", json={"model": "later"}) as response:
        assert response.status == 503


async def test_an_unknown_route_is_a_404(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router()
    async with http.get(f"{router.url}/nope") as response:
        assert response.status == 404
        assert (await error_of(response))["code"] == "not_found"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_over_the_limit_is_a_413(chunked: bool, start_router: StartRouter) -> None:
    router = await start_router(max_body_size=1000)
    async with Client(router.url) as client:
        if chunked:
            client.send(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
                b"800\r\n" + b"x" * 2048 + b"\r\n0\r\n\r\n"
            )
        else:
            client.post(b"x" * 1001, b"/v1/completions")
        head, body = await client.answer()
    assert b" 413 " in head.splitlines()[0]
    assert json.loads(body)["error"]["code"] == "body_too_large"


async def test_a_head_without_end_is_refused(start_router: StartRouter) -> None:
    router = await start_router()
    async with Client(router.url) as client:
        client.send(b"GET /health HTTP/1.1\r\nx: " + b"y" * 100_000)
        assert b" 431 " in (await client.head()).splitlines()[0]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic right"}, 401),
        ({"authorization": "Bearer right"}, 200),
        ({"authorization": "bearer right"}, 200),
        ({"x-api-key": "right"}, 200),
    ],
)
async def test_with_an_api_key_only_those_who_have_it_come_in(
    headers: dict[str, str],
    status: int,
    start_router: StartRouter,
    start_sim: StartSim,
    http: aiohttp.ClientSession,
) -> None:
    router = await start_router(await start_sim(), api_key="right")
    url = f"{router.url}/v1/chat/completions"
    async with http.post(url, json=chat(max_tokens=1), headers=headers) as response:
        assert response.status == status
        if status == 401:
            assert (await error_of(response))["code"] == "invalid_api_key"
    for path in ("/load-stats", "/metrics", "/router/snapshot", "/v1/models", "/nope"):
        async with http.get(router.url + path, headers=headers) as response:
            assert (response.status == 401) is (status == 401)
    for path in ("/", "/health", "/ready"):
        async with http.get(router.url + path) as response:
            assert response.status == 200


async def test_health_names_the_servers_only_to_those_who_have_the_key(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine, api_key="right")
    for headers, named in (({}, 0), ({"x-api-key": "wrong"}, 0), ({"x-api-key": "right"}, 1)):
        async with http.get(f"{router.url}/health", headers=headers) as response:
            document = await response.json()
        assert (document["status"], document["total_servers"]) == ("healthy", 1)
        assert len(document["servers"]) == named
        assert (engine.url in str(document)) is bool(named)
        async with http.post(f"{router.url}/health", headers=headers) as response:
            assert response.status == 405


async def test_load_stats_show_what_is_in_flight_and_what_others_put_there(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim(slots=4)
    spec = ServerSpec(url=engine.url, name="s0", max_concurrent_requests=4)
    router = await start_router(spec)
    engine.hold()
    async with Client(router.url) as ours, Client(engine.url) as theirs:
        theirs.post(json.dumps(chat(max_tokens=9)).encode())
        await engine.wait_for(lambda sim: sim.running == 1)
        backend = router.pool.backends["s0"]
        await until(lambda: bool(backend.scrape and backend.scrape.others))
        ours.post(json.dumps(chat(max_tokens=9)).encode())
        await engine.wait_for(lambda sim: sim.running == 2)
        async with http.get(f"{router.url}/load-stats") as response:
            stats = await response.json()
        (server,) = stats["servers"]
        assert (server["in_flight"], server["current_load"], server["score"]) == (1, 2, 0.5)
        assert server["utilization_percent"] == 50
        assert stats["summary"]["total_active_load"] == 2
        assert server["detailed_metrics"]["num_requests_waiting"] == 0


async def test_usage_figures_are_counted_as_tokens(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim())
    url = f"{router.url}/v1/chat/completions"
    usage = {"stream_options": {"include_usage": True}}
    for body in (chat(max_tokens=5), chat(max_tokens=7, stream=True, **usage)):
        async with http.post(url, json=body) as response:
            await response.read()
    async with http.get(f"{router.url}/metrics") as response:
        text = await response.text()
    assert 'router_tokens_total{backend="s0",kind="completion"} 12.0' in text
    assert 'router_requests_total{route="/v1/chat/completions",status="200"} 2.0' in text
    assert 'router_ttft_seconds_count{backend="s0"} 1.0' in text
    assert "router_in_flight 0.0" in text


async def test_the_absolute_form_of_a_target_is_understood(start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(b"GET http://x/health HTTP/1.1\r\nhost: x\r\n\r\n")
            head, _ = await client.answer()
            assert head.startswith(b"HTTP/1.1 200")
            client.send(b"GET http://x/v1/things?a=1 HTTP/1.1\r\nhost: x\r\n\r\n")
            await client.answer()
        assert server.seen[0].line == b"GET /v1/things?a=1 HTTP/1.1"

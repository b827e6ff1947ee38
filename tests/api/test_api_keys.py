"""Keys of clients and of operators, as a router enforces them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support import StartRouter, StartSim, chat, reload_with, until
from wire import Client

from mvllm_router.auth import Holder
from mvllm_router.config import KeySpec, ServerSpec, key_digest, load
from mvllm_router.server import Router

CHAT = "/v1/chat/completions"
SNAPSHOT = "/router/snapshot"
ALICE, BOB, BOSS = ({"x-api-key": f"{name}-secret"} for name in ("alice", "bob", "boss"))

StartWithKeys = Callable[..., Awaitable[Router]]


def key(name: str, **limits: Any) -> KeySpec:
    """Return a key whose value is `NAME-secret`."""
    return KeySpec(name, key_digest(f"{name}-secret"), **limits)


@pytest.fixture
def start_with_keys(start_router: StartRouter, start_sim: StartSim) -> StartWithKeys:
    """Give a function that starts a router with these keys, in front of one simulated server."""

    async def start(*keys: KeySpec, models: tuple[str, ...] = ("tiny",), **settings: Any) -> Router:
        router = await start_router(await start_sim("vllm", *models), **settings)
        await reload_with(router, replace(router.config, keys=keys))
        return router

    return start


def holder(router: Router, name: str) -> Holder:
    (found,) = [one for one in router.app.gate.holders if one.name == name]
    return found


class Http:
    """Asks a router."""

    def __init__(self, session: aiohttp.ClientSession, router: Router) -> None:
        self.session = session
        self.router = router

    async def post(self, headers: dict[str, str], **body: Any) -> aiohttp.ClientResponse:
        """Send a chat request and read its whole answer."""
        body = chat(**{"max_tokens": 3, **body})
        async with self.session.post(self.router.url + CHAT, json=body, headers=headers) as answer:
            await answer.read()
        return answer

    async def status(self, headers: dict[str, str], path: str, method: str = "GET") -> int:
        async with self.session.request(method, self.router.url + path, headers=headers) as answer:
            return answer.status

    async def text(self, headers: dict[str, str], path: str) -> str:
        async with self.session.get(self.router.url + path, headers=headers) as answer:
            assert answer.status == 200, path
            return await answer.text()

    async def change(self, headers: dict[str, str]) -> int:
        """Ask for a change that changes nothing."""
        url = f"{self.router.url}/router/backends/s0"
        async with self.session.patch(url, json={"state": "enabled"}, headers=headers) as answer:
            return answer.status


@pytest.fixture
def ask(http: aiohttp.ClientSession) -> Callable[[Router], Http]:
    return lambda router: Http(http, router)


Ask = Callable[[Router], Http]


async def error_of(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    error: dict[str, Any] = (await answer.json())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# --- who comes in


async def test_each_key_comes_in_and_is_counted_by_its_name(
    start_with_keys: StartWithKeys, ask: Ask
) -> None:
    router = await start_with_keys(key("alice"), key("bob"), api_key="default-secret")
    client = ask(router)
    for headers in (ALICE, ALICE, BOB, {"authorization": "Bearer default-secret"}):
        assert (await client.post(headers)).status == 200
    for headers in ({}, {"x-api-key": "wrong"}):
        answer = await client.post(headers)
        assert answer.status == 401
        assert (await error_of(answer))["code"] == "invalid_api_key"
    keys = {one["name"]: one for one in json.loads(await client.text(BOB, SNAPSHOT))["keys"]}
    assert {name: one["requests"] for name, one in keys.items()} == {
        "alice": 2,
        "bob": 1,
        "default": 1,
    }
    assert keys["alice"]["completion_tokens"] == 6
    text = await client.text(ALICE, "/metrics")
    assert 'router_key_requests_total{key="alice"} 2.0' in text
    assert 'router_key_tokens_total{key="alice",kind="completion"} 6.0' in text
    assert 'router_key_in_flight{key="alice"} 0.0' in text


@pytest.mark.parametrize("name", ["api_key", "key", "x-api-key", "access_token", "authorization"])
async def test_a_key_in_the_query_is_none(
    name: str, start_with_keys: StartWithKeys, ask: Ask
) -> None:
    router = await start_with_keys(key("alice"))
    for path in ("/v1/models", SNAPSHOT, "/metrics", "/v1/files"):
        assert await ask(router).status({}, f"{path}?{name}=alice-secret") == 401


async def test_without_keys_everybody_comes_in_and_nobody_is_counted(
    start_with_keys: StartWithKeys, ask: Ask
) -> None:
    client = ask(await start_with_keys())
    assert (await client.post(ALICE)).status == 200
    assert json.loads(await client.text({}, SNAPSHOT))["keys"] == []
    assert "\nrouter_key_requests_total{" not in await client.text({}, "/metrics")


# --- limits


async def test_a_key_that_has_had_its_requests_is_told_when_to_come_back(
    start_with_keys: StartWithKeys, ask: Ask
) -> None:
    router = await start_with_keys(key("alice", requests_per_minute=2), key("bob"))
    client = ask(router)
    assert [(await client.post(ALICE)).status for _ in range(2)] == [200, 200]
    answer = await client.post(ALICE)
    assert answer.status == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    error = await error_of(answer)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "2 requests per minute" in error["message"]
    assert (await client.post(BOB)).status == 200
    assert router.pool.backends["s0"].stats.requests[200] == 3
    text = await client.text(ALICE, "/metrics")  # the router's own routes are not counted
    assert 'router_key_refused_total{key="alice",reason="requests"} 1.0' in text
    assert f'router_requests_total{{route="{CHAT}",status="429"}} 1.0' in text


async def test_tokens_are_charged_when_the_answer_says_what_it_cost(
    start_with_keys: StartWithKeys, ask: Ask
) -> None:
    router = await start_with_keys(key("alice", tokens_per_minute=20))
    client = ask(router)
    assert (await client.post(ALICE, max_tokens=50)).status == 200
    answer = await client.post(ALICE)
    assert answer.status == 429
    # Over 50 tokens at 20 a minute: the debt has to be paid off.
    assert int(answer.headers["retry-after"]) > 60
    assert holder(router, "alice").refused["tokens"] == 1


@pytest.mark.parametrize(("usage", "status"), [(True, 429), (False, 200)])
async def test_a_stream_costs_what_its_usage_says_and_nothing_without(
    usage: bool, status: int, start_with_keys: StartWithKeys, ask: Ask
) -> None:
    router = await start_with_keys(key("alice", tokens_per_minute=20))
    client = ask(router)
    options = {"stream_options": {"include_usage": True}} if usage else {}
    assert (await client.post(ALICE, stream=True, max_tokens=50, **options)).status == 200
    assert (await client.post(ALICE)).status == status


async def test_requests_at_once_are_limited_until_one_ends_or_its_client_leaves(
    start_router: StartRouter, start_sim: StartSim, ask: Ask
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    limited = key("alice", max_concurrent_requests=2)
    await reload_with(router, replace(router.config, keys=(limited, key("bob"))))
    client, alice = ask(router), holder(router, "alice")
    engine.hold()
    body, line = json.dumps(chat(max_tokens=1)).encode(), b"x-api-key: alice-secret"
    async with Client(router.url) as leaves:
        stays = asyncio.ensure_future(client.post(ALICE))
        leaves.post(body, CHAT.encode(), line)
        await engine.wait_for(lambda sim: sim.running == 2)
        answer = await client.post(ALICE)
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert "2 requests in flight at once" in (await error_of(answer))["message"]
        assert 'router_key_in_flight{key="alice"} 2.0' in await client.text(BOB, "/metrics")
    await until(lambda: alice.in_flight == 1)
    engine.release()
    assert (await stays).status == 200
    assert alice.in_flight == 0
    assert (await client.post(ALICE)).status == 200
    assert alice.refused["concurrent"] == 1


@pytest.mark.parametrize(
    ("body", "statuses"),
    [(b"[1]", (400,)), (b'{"model": "nope"}', (404,)), (b'{"model": "dead"}', (502, 503))],
)
async def test_a_request_that_fails_gives_its_place_back(
    body: bytes,
    statuses: tuple[int, ...],
    start_router: StartRouter,
    start_sim: StartSim,
    http: aiohttp.ClientSession,
) -> None:
    dead = await start_sim("vllm", "dead")
    router = await start_router(await start_sim(), dead)
    await reload_with(
        router, replace(router.config, keys=(key("alice", max_concurrent_requests=1),))
    )
    await dead.stop()
    async with http.post(router.url + CHAT, data=body, headers=ALICE) as answer:
        assert answer.status in statuses
    async with http.post(router.url + CHAT, json=chat(max_tokens=1), headers=ALICE) as answer:
        assert answer.status == 200
    assert holder(router, "alice").in_flight == 0


# --- models


async def test_a_key_for_some_models_may_use_and_see_only_these(
    start_router: StartRouter, start_sim: StartSim, ask: Ask
) -> None:
    engine = await start_sim("vllm", "big", "tiny")
    spec = ServerSpec(url=engine.url, name="s0", aliases={"gpt-4o": "big"})
    router = await start_router(spec)
    some = key("alice", models=("gpt-4o", "absent"))
    await reload_with(router, replace(router.config, keys=(some, key("bob"))))
    client = ask(router)
    assert (await client.post(ALICE, model="gpt-4o")).status == 200
    started = engine.started
    for model in ("big", "tiny", "nope", None):
        answer = await client.post(ALICE, model=model)
        assert answer.status == 403
        error = await error_of(answer)
        assert (error["type"], error["code"]) == ("permission_error", "model_not_allowed")
        assert "gpt-4o" in error["message"]
    assert engine.started == started
    assert (await client.post(ALICE, model="absent")).status == 404
    assert await client.status(ALICE, "/v1/files") == 403
    listed = json.loads(await client.text(ALICE, "/v1/models"))["data"]
    assert [card["id"] for card in listed] == ["gpt-4o"]
    assert await client.status(ALICE, "/v1/models/gpt-4o") == 200
    assert await client.status(ALICE, "/v1/models/big") == 404
    assert await client.status(BOB, "/v1/models/big") == 200
    assert len(json.loads(await client.text(BOB, "/v1/models"))["data"]) == 3
    assert holder(router, "alice").refused["model"] == 5


# --- operators


async def test_with_an_admin_key_only_that_changes_the_router(
    start_with_keys: StartWithKeys, ask: Ask
) -> None:
    router = await start_with_keys(key("alice"), admin_key="boss-secret")
    client = ask(router)
    assert [await client.change(headers) for headers in ({}, ALICE, BOSS)] == [401, 403, 200]
    for path in (SNAPSHOT, "/router/backends/s0"):
        assert [await client.status(who, path) for who in ({}, ALICE, BOSS)] == [401, 200, 200]
    assert (await client.post(BOSS)).status == 401
    for path in ("/v1/models", "/metrics", "/load-stats", "/server-models", "/v1/files"):
        assert await client.status(BOSS, path) == 401


async def test_with_an_admin_key_only_that_reads_what_tells_of_all_clients(
    start_with_keys: StartWithKeys, ask: Ask
) -> None:
    router = await start_with_keys(key("alice"), admin_key="boss-secret")
    client = ask(router)
    for path in ("/router/requests", "/router/config"):
        assert [await client.status(who, path) for who in ({}, ALICE, BOSS)] == [401, 403, 200]
    settings = replace(router.config.settings, admin_key="")
    await reload_with(router, replace(router.config, settings=settings))
    for path in ("/router/requests", "/router/config"):
        assert [await client.status(who, path) for who in ({}, ALICE, BOSS)] == [401, 200, 401]


async def test_without_one_a_router_on_loopback_is_changed_by_who_is_there(
    start_with_keys: StartWithKeys, ask: Ask
) -> None:
    client = ask(await start_with_keys(key("alice")))
    assert [await client.change(headers) for headers in ({}, BOB, ALICE)] == [401, 401, 200]
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "Origin"):
        assert await client.change({**ALICE, header: "x"}) == 403
    client = ask(await start_with_keys())
    assert await client.change({}) == 200


async def test_without_one_a_router_that_others_reach_is_changed_by_nobody(
    start_router: StartRouter, start_sim: StartSim, ask: Ask
) -> None:
    router = await start_router(await start_sim(), host="0.0.0.0", api_key="alice-secret")
    client = ask(router)
    assert await client.change({}) == 401
    assert await client.change(ALICE) == 403
    settings = replace(router.config.settings, host="127.0.0.1")  # needs a restart
    await reload_with(router, replace(router.config, settings=settings))
    assert await client.change(ALICE) == 403
    settings = replace(settings, admin_key="boss-secret")
    await reload_with(router, replace(router.config, settings=settings))
    assert await client.change(BOSS) == 200


async def test_open_metrics_are_open_and_nothing_else_is(
    start_with_keys: StartWithKeys, ask: Ask
) -> None:
    client = ask(await start_with_keys(key("alice"), open_metrics=True))
    for path in ("/metrics", "/load-stats"):
        assert await client.status({}, path) == 200
        assert await client.status(BOB, path) == 200
        assert await client.status({}, path, "POST") == 405
    for path in ("/server-models", "/v1/models", SNAPSHOT, "/v1/files"):
        assert await client.status({}, path) == 401


# --- reload


async def test_a_reload_keeps_what_a_key_has_used_also_of_requests_that_run(
    start_router: StartRouter, start_sim: StartSim, ask: Ask
) -> None:
    engine = await start_sim()
    router = await start_router(engine)
    limited = key("alice", max_concurrent_requests=1, requests_per_minute=2)
    await reload_with(router, replace(router.config, keys=(limited, key("bob"))))
    client, alice = ask(router), holder(router, "alice")
    engine.hold()
    runs = asyncio.ensure_future(client.post(ALICE))
    await engine.wait_for(lambda sim: sim.running == 1)
    other = replace(limited, digest=key_digest("other"))
    await reload_with(router, replace(router.config, keys=(other,)))
    event = router.pool.events.last(1)[0].message
    assert "changed: key alice, key bob" in event
    assert (await client.post(ALICE)).status == 401
    assert (await client.post({"x-api-key": "other"})).status == 429
    engine.release()
    assert (await runs).status == 200
    assert holder(router, "alice") is alice
    assert alice.in_flight == 0
    assert [(await client.post({"x-api-key": "other"})).status for _ in range(2)] == [200, 429]
    text = await client.text({"x-api-key": "other"}, "/metrics")
    assert 'router_key_requests_total{key="alice"} 2.0' in text
    assert "bob" not in text


async def test_a_key_file_that_changed_counts_from_the_next_reload_on(
    tmp_path: Path, start_sim: StartSim, ask: Ask
) -> None:
    engine = await start_sim()
    file, key_file = tmp_path / "servers.toml", tmp_path / "alice.key"
    file.write_text(
        f"servers = ['{engine.url}']\n[config]\nport = 0\n"
        "[[auth.keys]]\nname = 'alice'\nkey_file = 'alice.key'\n"
    )
    key_file.write_text("alice-secret\n")
    router = Router(load(file, environ={}), lambda: load(file, environ={}))
    await router.start()
    client = ask(router)
    try:
        assert await client.status(ALICE, "/v1/models") == 200
        key_file.write_text("bob-secret\n")
        assert await client.status(ALICE, "/v1/models") == 200
        await router.live.reload()
        assert await client.status(ALICE, "/v1/models") == 401
        assert await client.status(BOB, "/v1/models") == 200
        key_file.unlink()
        await router.live.reload()
        assert await client.status(BOB, "/v1/models") == 200, "a bad file changes nothing"
    finally:
        await router.stop(1)


# --- secrets


async def test_no_key_reaches_a_server_a_document_an_error_or_the_log(
    start_router: StartRouter,
    start_sim: StartSim,
    http: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    engine = await start_sim(api_key="server-secret")
    spec = ServerSpec(url=engine.url, name="s0", api_key="server-secret")
    router = await start_router(spec, admin_key="boss-secret", log_level="debug")
    limited = key("alice", requests_per_minute=1, models=("tiny",))
    await reload_with(router, replace(router.config, keys=(limited, key("bob"))))
    seen = ""
    for name, model, status in (
        ("alice", "tiny", 200),
        ("alice", "tiny", 429),
        ("alice", "big", 403),
        ("mallory", "tiny", 401),
        ("boss", "tiny", 401),
    ):
        for headers in (
            {"authorization": f"Bearer {name}-secret"},
            {"x-api-key": f"{name}-secret"},
        ):
            async with http.post(
                router.url + CHAT, json=chat(model, max_tokens=1), headers=headers
            ) as answer:
                assert answer.status in (status, 429)
                seen += str(answer.headers) + await answer.text()
    for path in ("/load-stats", SNAPSHOT, "/metrics", "/health", "/server-models", "/v1/models"):
        async with http.get(router.url + path, headers=BOB) as answer:
            assert answer.status == 200
            seen += await answer.text()
    await reload_with(
        router, replace(router.config, keys=(replace(limited, digest=b"sec"), key("bob")))
    )
    seen += caplog.text + repr(router.config) + repr(vars(router.app.gate))
    assert "-secret" not in seen
    assert key_digest("bob-secret").hex() not in seen
    assert engine.requests
    for request in engine.requests:
        assert request.header("authorization") == "Bearer server-secret"
        assert request.header("x-api-key") is None

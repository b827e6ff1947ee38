"""Web pages and proxies in front of the router: what they are told, and what is believed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import aiohttp
import pytest
from support import StartRouter, StartSim, chat, until
from wire import OK, SSE, Client, Scripted, answer, chunk, replies

from mvllm_router.server import Router

PAGE = "https://chat.example.com"
ORIGIN = {"origin": PAGE}
ASKS = {**ORIGIN, "access-control-request-method": "POST"}
BODY = b'{"model":"tiny"}'
# As vLLM does it by default.
OPEN_TO_ALL = (
    b"access-control-allow-origin: *",
    b"Access-Control-Allow-Credentials: true",
    b"access-control-expose-headers: x-secret",
    b"access-control-allow-methods: GET",
    b"access-control-allow-headers: x-a",
    b"access-control-max-age: 5",
    b"access-control-allow-private-network: true",
)


def of_cors(headers: object) -> dict[str, str]:
    assert hasattr(headers, "items")
    return {
        name.lower(): value
        for name, value in headers.items()
        if name.lower().startswith("access-control-") or name.lower() == "vary"
    }


def permits(page: str) -> dict[str, str]:
    return {
        "access-control-allow-origin": page,
        "access-control-expose-headers": (
            "x-request-id, x-router-backend, x-router-attempts, x-router-reason, retry-after"
        ),
        "vary": "Origin",
    }


async def head_of(router: Router, path: bytes, *lines: bytes) -> bytes:
    async with Client(router.url) as client:
        client.post(BODY, path, *lines)
        return (await client.answer())[0].lower()


# --- web pages


async def test_without_origins_no_answer_says_anything_to_web_pages(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    async with Scripted(replies(answer(b"{}", OK, *OPEN_TO_ALL))) as server:
        router = await start_router(server.url)
        head = await head_of(router, b"/v1/completions", b"origin: https://chat.example.com")
        assert b"access-control" not in head
    for path in ("/health", "/v1/models", "/nope"):
        async with http.get(router.url + path, headers=ORIGIN) as response:
            assert of_cors(response.headers) == {}
        async with http.options(router.url + path, headers=ASKS) as response:
            assert response.status in (404, 405)
            assert of_cors(response.headers) == {}


@pytest.mark.parametrize(("origins", "told"), [([PAGE], PAGE), (["*"], "*"), (["*", PAGE], PAGE)])
async def test_every_answer_has_the_permit_of_a_page_that_is_named(
    origins: list[str],
    told: str,
    start_router: StartRouter,
    start_sim: StartSim,
    http: aiohttp.ClientSession,
) -> None:
    router = await start_router(await start_sim(), cors_origins=tuple(origins), api_key="k")
    key = {**ORIGIN, "authorization": "Bearer k"}
    url = f"{router.url}/v1/chat/completions"
    for body, status in (
        (chat(max_tokens=2), 200),
        (chat(max_tokens=2, stream=True), 200),
        (chat("nope"), 404),
        (chat(max_tokens=-1), 400),
    ):
        async with http.post(url, json=body, headers=key) as response:
            assert (response.status, of_cors(response.headers)) == (status, permits(told))
            assert len(response.headers.getall("access-control-allow-origin")) == 1
            await response.read()
    for path, headers, status in (
        ("/health", ORIGIN, 200),
        ("/v1/models", key, 200),
        ("/v1/models", ORIGIN, 401),
        ("/nope", key, 404),
    ):
        async with http.get(router.url + path, headers=headers) as response:
            assert (response.status, of_cors(response.headers)) == (status, permits(told))


async def test_what_a_server_says_to_web_pages_is_replaced(start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"{}", OK, *OPEN_TO_ALL))) as server:
        router = await start_router(server.url, cors_origins=(PAGE,))
        head = await head_of(router, b"/v1/completions", b"origin: " + PAGE.encode())
        assert head.count(b"access-control-") == 2
        assert b"access-control-allow-origin: https://chat.example.com\r\n" in head
        # A page that is not named learns nothing.
        head = await head_of(router, b"/v1/completions", b"origin: https://evil.example")
        assert b"access-control-" not in head
        assert b"access-control-" not in await head_of(router, b"/v1/completions")


async def test_a_mistake_of_the_router_can_be_read_by_the_page(
    start_router: StartRouter, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = await start_router(cors_origins=(PAGE,))

    def break_down(*_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(router.app.own, "find", break_down)
    async with http.get(f"{router.url}/health", headers=ORIGIN) as response:
        assert response.status == 500
        assert of_cors(response.headers) == permits(PAGE)


async def test_a_preflight_needs_no_key_and_reaches_no_server(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url, cors_origins=(PAGE,), api_key="k")
        asks = {**ASKS, "access-control-request-headers": "authorization,content-type"}
        for path in ("/v1/chat/completions", "/v1/files", "/v1/models", "/health"):
            async with http.options(router.url + path, headers=asks) as response:
                assert (response.status, await response.read()) == (204, b"")
                assert of_cors(response.headers) == {
                    **permits(PAGE),
                    "access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
                    "access-control-allow-headers": "authorization,content-type",
                    "access-control-max-age": "600",
                }
                assert "content-length" not in response.headers
        for headers in ({**asks, "origin": "https://evil.example"}, {"a": "b"}):
            async with http.options(f"{router.url}/v1/models", headers=headers) as response:
                assert response.status in (401, 405)
                assert of_cors(response.headers) == {}
        assert not server.seen


async def test_a_connection_is_kept_after_a_preflight(start_router: StartRouter) -> None:
    async with Scripted(replies(answer(b"mine"))) as server:
        router = await start_router(server.url, cors_origins=("*",))
        async with Client(router.url) as client:
            client.send(
                b"OPTIONS /v1/completions HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\n"
                b"access-control-request-method: POST\r\n\r\n"
            )
            assert (await client.head()).startswith(b"HTTP/1.1 204 ")
            client.post(BODY)
            assert (await client.answer())[1] == b"mine"


async def test_what_changes_the_router_is_for_no_page_whatever_is_configured(
    start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    router = await start_router(cors_origins=("*", PAGE))
    for path in ("/router/snapshot", "/router/reload", "/router/backends/s0"):
        async with http.options(router.url + path, headers=ASKS) as response:
            assert response.status in (404, 405)
            assert of_cors(response.headers) == {}
        async with http.get(router.url + path, headers=ORIGIN) as response:
            assert of_cors(response.headers) == {}


async def test_a_reload_changes_who_may_ask_on_connections_that_are_open(
    start_router: StartRouter,
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url, cors_origins=(PAGE,))
        async with Client(router.url) as client:
            for origins in ((), ("*",), ()):
                settings = replace(router.config.settings, cors_origins=origins)
                await router.live.apply(replace(router.config, settings=settings))
                client.post(BODY, b"/v1/completions", b"origin: " + PAGE.encode())
                head, _ = await client.answer()
                assert (b"access-control-allow-origin: *" in head) is bool(origins)
                assert (b"vary" in head) is bool(origins)


async def test_a_stream_that_breaks_has_its_permit_too(start_router: StartRouter) -> None:
    async with Scripted(replies(SSE + chunk(b"data: 1\n\n"), close=True)) as server:
        router = await start_router(server.url, cors_origins=(PAGE,))
        head = await head_of(router, b"/v1/completions", b"origin: " + PAGE.encode())
        assert b"access-control-allow-origin: https://chat.example.com\r\n" in head
        assert b"x-accel-buffering: no\r\n" in head


# --- proxies


FORWARDED = (b"x-forwarded-for: 203.0.113.7", b"x-forwarded-proto: https", b"x-real-ip: 1.2.3.4")


async def test_what_a_client_says_of_itself_is_believed_only_from_a_trusted_proxy(
    start_router: StartRouter,
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        for networks, chain in (
            ((), []),
            (("10.0.0.0/8",), []),
            (("127.0.0.0/8",), [b"203.0.113.7, 127.0.0.1"]),
        ):
            router = await start_router(server.url, trusted_proxies=networks)
            await head_of(router, b"/v1/completions", *FORWARDED)
            seen = server.seen[-1]
            assert seen.header(b"x-forwarded-for") == chain
            assert seen.header(b"x-forwarded-proto") == ([b"https"] if chain else [])
            assert seen.header(b"x-real-ip") == ([b"1.2.3.4"] if chain else [])


@pytest.mark.parametrize(
    ("networks", "client"), [((), "127.0.0.1"), (("127.0.0.1/32",), "203.0.113.7")]
)
async def test_the_log_names_the_client(
    networks: tuple[str, ...],
    client: str,
    start_router: StartRouter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "mvllm_router")
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url, trusted_proxies=networks, log_level="debug")
        await head_of(router, b"/v1/completions", *FORWARDED, b"x-request-id: one")
        await head_of(router, b"/nope", *FORWARDED, b"x-request-id: two")
        await until(lambda: "two" in caplog.text)
    lines = [one.getMessage() for one in caplog.records]
    assert any(line.startswith(f"one {client} POST /v1/completions -> s0 200 ") for line in lines)
    assert any(line.startswith(f"two {client} POST /nope -> 404 ") for line in lines)


async def test_a_reload_changes_who_is_believed_on_connections_that_are_open(
    start_router: StartRouter,
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            for networks in (("127.0.0.1/32",), ()):
                settings = replace(router.config.settings, trusted_proxies=networks)
                await router.live.apply(replace(router.config, settings=settings))
                client.post(BODY, b"/v1/completions", *FORWARDED)
                await asyncio.wait_for(client.answer(), 10)
                assert bool(server.seen[-1].header(b"x-forwarded-for")) is bool(networks)

"""TLS in front of the router and behind it: nothing is different but who can listen in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import trustme
from support import StartRouter, StartSim, chat, reload_with, until
from tls_kit import Authority, Files, serial, serial_of
from wire import OK, SSE, Client, RawClient, Scripted, Seen, answer, chunk, replies

from mvllm_router import server as server_module
from mvllm_router.config import ServerSpec
from mvllm_router.control import certificates
from mvllm_router.server import CannotListen, Router
from mvllm_router.sim.faults import Fault

BODY = b'{"model":"tiny"}'
StartTls = Callable[..., Awaitable[Router]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(authority: Authority) -> Files:
    return authority.issue("router")


@pytest.fixture
def trust(authority: Authority) -> ssl.SSLContext:
    """What clients know of the CA."""
    return authority.for_clients()


@pytest.fixture
def start_tls(start_router: StartRouter, files: Files) -> StartTls:
    """Start a router that speaks https."""

    async def start(*servers: object, **settings: object) -> Router:
        return await start_router(*servers, tls_cert=files.cert, tls_key=files.key, **settings)

    return start


async def certificate_of(router: Router, trust: ssl.SSLContext) -> int:
    """The number of the certificate that a new connection sees."""
    async with Client(router.url, tls=trust) as client:
        return serial(client.writer.get_extra_info("ssl_object"))


# --- in front


async def test_streams_and_whole_answers_arrive_over_tls(
    start_tls: StartTls, start_sim: StartSim, http: aiohttp.ClientSession, trust: ssl.SSLContext
) -> None:
    router = await start_tls(await start_sim(tokens_per_second=1000.0))
    assert router.url.startswith("https://")
    url = f"{router.url}/v1/chat/completions"
    async with http.post(url, json=chat(max_tokens=3), ssl=trust) as response:
        assert response.status == 200
        assert (await response.json())["usage"]["completion_tokens"] == 3
    async with http.post(url, json=chat(max_tokens=20, stream=True), ssl=trust) as response:
        text = await response.text()
    assert text.endswith("data: [DONE]\n\n")
    async with http.get(f"{router.url}/router/snapshot", ssl=trust) as response:
        assert (await response.json())["address"] == router.url


async def test_each_event_goes_out_before_the_next_one_comes_in(
    start_tls: StartTls, trust: ssl.SSLContext
) -> None:
    heard = asyncio.Event()

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + chunk(b"data: 1\n\n"))
        await heard.wait()
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async with Scripted(act) as server:
        router = await start_tls(server.url)
        async with Client(router.url, tls=trust) as client:
            client.post(BODY)
            await client.until(b"data: 1\n\n")
            heard.set()
            await client.until(b"[DONE]")


async def test_tls_1_2_or_newer_and_http_1_1_are_spoken(
    start_tls: StartTls, trust: ssl.SSLContext
) -> None:
    router = await start_tls()
    trust.set_alpn_protocols(["h2", "http/1.1"])
    async with Client(router.url, tls=trust) as client:
        tls = client.writer.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert tls.version() == "TLSv1.3"
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    async with Client(router.url, tls=trust) as client:
        assert client.writer.get_extra_info("ssl_object").version() == "TLSv1.2"
    assert router.certificates._own is not None
    assert router.certificates._own.context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_client_that_leaves_in_mid_stream_is_noticed_and_the_server_told(
    start_tls: StartTls, start_sim: StartSim, trust: ssl.SSLContext
) -> None:
    engine = await start_sim(tokens_per_second=100.0)
    router = await start_tls(engine)
    async with Client(router.url, tls=trust) as client:
        client.post(json.dumps(chat(stream=True, max_tokens=10_000)).encode())
        await client.until(b"data: ")
    await engine.wait_for(lambda sim: sim.aborted == 1)
    await until(lambda: router.pool.stats.in_flight == 0)


async def test_a_client_that_says_goodbye_while_it_waits_is_noticed(
    start_tls: StartTls, start_sim: StartSim, trust: ssl.SSLContext
) -> None:
    engine = await start_sim()
    router = await start_tls(engine)
    engine.hold()
    async with Client(router.url, tls=trust) as client:
        client.post(json.dumps(chat()).encode())
        await engine.wait_for(lambda sim: sim.running == 1)
        client.writer.close()  # with TLS's own goodbye
        await engine.wait_for(lambda sim: sim.aborted == 1)
    await until(lambda: router.pool.stats.in_flight == 0)


async def test_memory_stays_flat_when_a_client_does_not_read(
    start_tls: StartTls, trust: ssl.SSLContext
) -> None:
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
        router = await start_tls(server.url)
        async with Client(router.url, receive_buffer=8192, tls=trust) as client:
            client.post(BODY, b"/v1/completions")
            await client.head()
            held = -1
            while held != sent:  # until nothing moves any more
                held = sent
                await asyncio.sleep(0.2)
            assert sent < 20_000_000
            (exchange,) = router.relay.active
            assert exchange.connection is not None
            assert exchange.connection.reading_paused
            assert exchange.client.outlet.unsent < 2_000_000
            read = 0
            while read < 10_000_000:  # it goes on as the client reads
                read += len(await asyncio.wait_for(client.reader.read(1_000_000), 10))
        stop.set()


async def test_a_client_that_stops_reading_is_closed(
    start_tls: StartTls, trust: ssl.SSLContext
) -> None:
    async with Scripted(replies(answer(b"x" * 50_000_000))) as server:
        router = await start_tls(server.url, request_timeout=0.4)
        async with Client(router.url, receive_buffer=8192, tls=trust) as client:
            client.post(BODY, b"/v1/completions")
            await client.head()
            await until(lambda: router.pool.stats.in_flight == 0)
            await until(lambda: not router.front.connections)


async def test_a_lost_stream_ends_with_an_error_event(
    start_tls: StartTls, start_sim: StartSim, trust: ssl.SSLContext
) -> None:
    engine = await start_sim()
    router = await start_tls(engine)
    engine.inject(Fault.DROP, 1, after_events=2)
    async with Client(router.url, tls=trust) as client:
        client.post(json.dumps(chat(stream=True, max_tokens=50)).encode())
        _, body = await client.answer()
    assert b'data: {"error"' in body
    assert b"[DONE]" not in body


async def test_a_lost_body_without_framing_does_not_look_like_a_clean_end(
    start_tls: StartTls, trust: ssl.SSLContext
) -> None:
    """A clean end would be a goodbye of TLS; this is a connection that is cut."""
    go_on = asyncio.Event()

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"transfer-encoding: chunked\r\n\r\n" + chunk(b"part"))
        await writer.drain()
        await go_on.wait()
        writer.close()

    async with Scripted(act) as server:
        router = await start_tls(server.url)
        async with Client(router.url, tls=trust) as client:
            client.send(b"POST /v1/completions HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}")
            await client.until(b"part")
            go_on.set()
            with pytest.raises(ConnectionResetError):
                await client.rest()


async def test_plain_http_is_closed_and_nothing_is_logged_for_it(
    start_tls: StartTls, trust: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    router = await start_tls()
    for _ in range(2):
        async with Client(router.url) as client:
            client.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"HTTP/" not in await client.rest()
    await certificate_of(router, trust)  # it goes on listening
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_a_client_that_never_shakes_hands_is_closed(
    start_tls: StartTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_HANDSHAKE", 0.05)
    router = await start_tls()
    async with Client(router.url) as client:
        assert await client.rest() == b""


async def test_a_stop_lets_go_of_idle_clients_and_ends_streams(
    start_tls: StartTls, start_sim: StartSim, trust: ssl.SSLContext
) -> None:
    engine = await start_sim()
    router = await start_tls(engine)
    async with Client(router.url, tls=trust) as idle, Client(router.url, tls=trust) as busy:
        idle.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        await idle.answer()
        engine.hold()
        busy.post(json.dumps(chat(stream=True)).encode())
        await engine.wait_for(lambda sim: sim.running == 1)
        stopping = asyncio.create_task(router.stop(drain_timeout=10))
        assert await idle.rest() == b""
        engine.release()
        assert (await busy.answer())[1].endswith(b"0\r\n\r\n")
        await stopping


# --- another certificate


async def test_a_running_stream_goes_on_and_new_clients_see_the_new_certificate(
    start_tls: StartTls,
    trust: ssl.SSLContext,
    authority: Authority,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(certificates, "TICK", 0.02)
    go_on = asyncio.Event()

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + chunk(b"data: 1\n\n"))
        await go_on.wait()
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async with Scripted(act) as server:
        router = await start_tls(server.url)
        old = serial_of(files)
        async with Client(router.url, tls=trust) as client:
            assert serial(client.writer.get_extra_info("ssl_object")) == old
            client.post(BODY)
            await client.until(b"data: 1\n\n")
            new = serial_of(authority.issue("router"))
            await until(lambda: _last_event(router) == "the new certificate is in use")
            assert await certificate_of(router, trust) == new != old
            go_on.set()
            await client.until(b"[DONE]")


def _last_event(router: Router) -> str:
    return router.pool.events.last(1)[0].message if router.pool.events.last(1) else ""


async def test_a_key_of_another_kind_leaves_nothing_of_the_old_certificate(
    start_tls: StartTls, trust: ssl.SSLContext, authority: Authority
) -> None:
    """OpenSSL keeps one certificate for each kind of key, and clients may ask for the old kind."""
    old = authority.issue("router", key_type=trustme.KeyType.RSA)
    router = await start_tls()
    asks_for_old = authority.for_clients()
    asks_for_old.maximum_version = ssl.TLSVersion.TLSv1_2
    asks_for_old.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    assert await certificate_of(router, asks_for_old) == serial_of(old)
    new = serial_of(authority.issue("router", key_type=trustme.KeyType.ECDSA))
    router.certificates.renew()
    assert await certificate_of(router, trust) == new
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await certificate_of(router, asks_for_old)


@pytest.mark.parametrize("broken", ["cert", "key", "fit"])
async def test_a_broken_certificate_is_refused_and_the_old_one_stays(
    broken: str,
    start_tls: StartTls,
    trust: ssl.SSLContext,
    authority: Authority,
    files: Files,
) -> None:
    router = await start_tls()
    old = serial_of(files)
    authority.spoil(files, broken)
    for _ in range(2):
        router.certificates.renew()
    refused = [e.message for e in router.pool.events.last(50) if e.kind == "tls"]
    assert len(refused) == 1  # said once, not at each look
    assert refused[0].startswith("the new certificate is refused, the old one stays: ")
    assert await certificate_of(router, trust) == old
    new = serial_of(authority.issue("router"))
    router.certificates.renew()
    assert await certificate_of(router, trust) == new


async def test_a_certificate_that_cannot_be_used_is_said_plainly_at_the_start(
    start_router: StartRouter, authority: Authority, files: Files
) -> None:
    other = authority.issue("other")
    with pytest.raises(CannotListen, match="the key does not fit the certificate"):
        await start_router(tls_cert=files.cert, tls_key=other.key)
    with pytest.raises(CannotListen, match=r"(?i)nope.*no such file"):
        await start_router(tls_cert=files.cert, tls_key="nope")


# --- behind


def spec(url: str, **tls: object) -> ServerSpec:
    return ServerSpec(url=url, name="s0", **tls)  # type: ignore[arg-type]


async def ask(router: Router) -> bytes:
    async with Client(router.url) as client:
        client.post(BODY)
        return (await client.answer())[1]


async def test_a_server_with_a_certificate_of_a_private_ca_is_asked(
    start_router: StartRouter, authority: Authority, files: Files
) -> None:
    async with Scripted(replies(answer(b"well")), authority.for_servers(files)) as server:
        router = await start_router(spec(server.url, tls_ca=authority.path))
        assert router.pool.backends["s0"].is_up
        assert await ask(router) == await ask(router) == b"well"
        assert server.connections == 1  # it is kept


async def test_a_stream_of_a_server_over_tls_passes(
    start_router: StartRouter, authority: Authority, files: Files
) -> None:
    events = [b"data: %d\n\n" % number for number in range(50)]
    pieces = [SSE, *map(chunk, events), chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"]
    async with Scripted(replies(*pieces), authority.for_servers(files)) as server:
        router = await start_router(spec(server.url, tls_ca=authority.path))
        async with Client(router.url) as client:
            client.post(BODY)
            _, body = await client.answer()
    assert [line for line in body.split(b"\r\n") if line.startswith(b"data: ")] == [
        *events,
        b"data: [DONE]\n\n",
    ]


async def test_a_certificate_of_another_ca_is_a_plain_reason_and_a_502(
    start_router: StartRouter, authority: Authority, files: Files, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    async with Scripted(replies(answer(b"well")), authority.for_servers(files)) as server:
        for tls in ({}, {"tls_ca": other.path}):
            router = await start_router(spec(server.url, **tls))
            backend = router.pool.backends["s0"]
            assert not backend.is_up
            assert backend.health.reason.startswith(
                "no TLS connection (its certificate is not trusted: "
            )
            assert not server.seen
        # The data plane says the same as the health checks.
        router.pool.health(backend, lambda health: health.trust_again("test"))
        await ask(router)
        assert not server.seen


async def test_a_certificate_for_another_name_is_not_taken(
    start_router: StartRouter, authority: Authority
) -> None:
    tls = authority.for_servers(authority.issue("other", "gpu1.example"))
    async with Scripted(replies(answer(b"well")), tls) as server:
        router = await start_router(spec(server.url, tls_ca=authority.path))
        assert "not valid for '127.0.0.1'" in router.pool.backends["s0"].health.reason


async def test_a_server_that_says_that_it_wants_a_certificate_is_quoted(
    start_router: StartRouter, authority: Authority, files: Files
) -> None:
    """Event loops hang up without a word, but OpenSSL by itself says why."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    done = threading.Event()
    context = authority.for_servers(files, clients=authority)

    def serve() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):  # a refused handshake, or nobody came
                connection, _ = listener.accept()
                connection.settimeout(5)
                with context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                ) as tls:
                    with contextlib.suppress(ssl.SSLError):
                        tls.do_handshake()
                    tls.shutdown(socket.SHUT_WR)
                    while socket.socket.recv(tls, 65536):  # unread bytes would cost it its words
                        pass

    serving = asyncio.create_task(asyncio.to_thread(serve))
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    router = await start_router(spec(url, tls_ca=authority.path))
    reason = router.pool.backends["s0"].health.reason
    assert reason == "no TLS connection (it asks for a client certificate)"
    await reload_with(router, replace(router.config, servers=()))
    done.set()
    await serving
    listener.close()


@pytest.mark.parametrize("in_one_file", [True, False])
async def test_a_server_that_demands_a_certificate_gets_it(
    in_one_file: bool, start_router: StartRouter, authority: Authority, files: Files
) -> None:
    mine = authority.issue("mine", "router.example")
    shown = {"tls_cert": mine.cert, "tls_key": mine.key}
    if in_one_file:
        shown = {"tls_cert": mine.both}
    tls = authority.for_servers(files, clients=authority)
    async with Scripted(replies(answer(b"well")), tls) as server:
        router = await start_router(spec(server.url, tls_ca=authority.path, **shown))
        assert router.pool.backends["s0"].is_up
        assert await ask(router) == b"well"


async def test_without_a_certificate_the_reason_is_that_the_server_asks_for_one(
    start_router: StartRouter, authority: Authority, files: Files
) -> None:
    tls = authority.for_servers(files, clients=authority)
    async with Scripted(replies(answer(b"well")), tls) as server:
        router = await start_router(spec(server.url, tls_ca=authority.path))
        backend = router.pool.backends["s0"]
        assert not backend.is_up
        assert "it may ask for a client certificate" in backend.health.reason


async def test_a_ca_that_cannot_be_read_is_a_reason_and_not_a_crash(
    start_router: StartRouter, authority: Authority, files: Files, tmp_path: Path
) -> None:
    (tmp_path / "junk.pem").write_text("-----BEGIN CERTIFICATE-----\njunk")
    async with Scripted(replies(answer(b"well")), authority.for_servers(files)) as server:
        router = await start_router(spec(server.url, tls_ca=str(tmp_path / "junk.pem")))
        backend = router.pool.backends["s0"]
        assert "junk.pem cannot be used: it is not in PEM format" in backend.health.reason
        router.pool.health(backend, lambda health: health.trust_again("test"))
        assert b"cannot connect" in await ask(router)
        # With one that can be read it works from then on.
        new = replace(router.config, servers=(spec(server.url, tls_ca=authority.path),))
        await reload_with(router, new)
        await until(lambda: router.pool.backends["s0"].is_up)
        assert await ask(router) == b"well"


async def test_other_tls_settings_end_idle_connections_and_keep_the_server(
    start_router: StartRouter, authority: Authority, files: Files
) -> None:
    async with Scripted(replies(answer(b"well")), authority.for_servers(files)) as server:
        router = await start_router(spec(server.url, tls_verify=False))
        backend = router.pool.backends["s0"]
        await ask(router)
        for tls in ({"tls_ca": authority.path}, {"tls_ca": authority.path, "tls_files": "new"}):
            seen = server.connections
            await reload_with(router, replace(router.config, servers=(spec(server.url, **tls),)))
            assert await ask(router) == b"well"
            assert server.connections == seen + 1
            assert await ask(router) == b"well"
            assert server.connections == seen + 1
        assert router.pool.backends["s0"] is backend


async def test_a_connection_that_was_busy_when_its_rule_changed_is_not_kept(
    start_router: StartRouter, authority: Authority, files: Files
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await go_on.wait()
        writer.write(answer(b"well"))

    async with Scripted(act, authority.for_servers(files)) as server:
        router = await start_router(spec(server.url, tls_verify=False))
        running = asyncio.create_task(ask(router))
        await asyncio.wait_for(asked.wait(), 10)
        new = spec(server.url, tls_ca=authority.path)
        await reload_with(router, replace(router.config, servers=(new,)))
        go_on.set()
        assert await running == await ask(router) == await ask(router) == b"well"
        assert server.connections == 2


async def test_a_server_that_speaks_no_tls_is_a_plain_reason(start_router: StartRouter) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer(b"", b"HTTP/1.1 400 Bad Request\r\n"))
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    router = await start_router(spec(f"https://127.0.0.1:{port}"))
    assert "it does not speak TLS" in router.pool.backends["s0"].health.reason
    listener.close()


async def test_a_server_that_never_shakes_hands_is_a_connect_timeout(
    start_router: StartRouter, authority: Authority
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    router = await start_router(
        spec(f"https://127.0.0.1:{port}"), connect_timeout=0.1, health_check_timeout=0.1
    )
    backend = router.pool.backends["s0"]
    assert "no answer in 0.1 s" in backend.health.reason
    router.pool.health(backend, lambda health: health.trust_again("test"))
    assert b"connect timeout" in await ask(router)
    listener.close()


async def test_a_client_over_tls_that_leaves_ends_the_request_over_tls(
    start_tls: StartTls, authority: Authority, files: Files, trust: ssl.SSLContext
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def act(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await reader.read()
        ended.set()

    async with Scripted(act, authority.for_servers(files)) as server:
        router = await start_tls(spec(server.url, tls_ca=authority.path))
        client = await RawClient.connect(router.url, tls=trust)
        client.post(BODY)
        await begun.wait()
        client.writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 10)

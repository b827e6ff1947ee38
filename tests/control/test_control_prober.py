"""The questions that the router asks servers: what goes out, what is taken, what is refused."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from control_kit import Page, Pages
from support import StartSim

from mvllm_router.config import ServerSpec
from mvllm_router.control.prober import NoAnswer, Prober
from mvllm_router.sim import Fault


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    made = Prober()
    yield made
    await made.close()


def spec(url: str, **more: object) -> ServerSpec:
    return ServerSpec(url=url, name="s", **more)  # type: ignore[arg-type]


async def test_key_and_headers_of_the_server_are_sent(prober: Prober) -> None:
    async with Pages({"/x": Page("hello", headers={"X-Some": "Thing"})}) as pages:
        told = spec(pages.url, api_key="secret", headers=(("X-Team", "research"),))
        answer = await prober.get(told, "/x", 5)
        assert (answer.status, answer.body, answer.headers["x-some"]) == (200, b"hello", "Thing")
        sent = pages.headers[0]
        assert sent["Authorization"] == "Bearer secret"
        assert sent["X-Team"] == "research"
        assert sent["User-Agent"] == "mvllm-router"


async def test_no_key_is_sent_where_there_is_none(prober: Prober) -> None:
    async with Pages({}) as pages:
        assert (await prober.get(spec(pages.url), "/x", 5)).status == 404
        assert "Authorization" not in pages.headers[0]


async def test_a_question_may_have_a_body(prober: Prober, start_sim: StartSim) -> None:
    engine = await start_sim(api_key="sesame")
    asked = spec(engine.url, api_key="sesame", headers=(("x-team", "blue"),))
    answer = await prober.post(asked, "/tokenize", b'{"prompt":"abc"}', 5)
    assert answer.status == 200
    assert b'"count":1' in answer.body
    [seen] = engine.requests
    assert seen.body == b'{"prompt":"abc"}'
    assert seen.header("content-type") == "application/json"
    assert seen.header("authorization") == "Bearer sesame"
    assert seen.header("x-team") == "blue"


async def test_a_path_prefix_of_the_address_is_kept(prober: Prober) -> None:
    async with Pages({"/gpu/health": Page("ok")}) as pages:
        assert (await prober.get(spec(f"{pages.url}/gpu"), "/health", 5)).status == 200


async def test_no_compressed_answer_is_asked_for(prober: Prober) -> None:
    async with Pages({"/x": Page("hello")}) as pages:
        await prober.get(spec(pages.url), "/x", 5)
        assert pages.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip"])
async def test_a_compressed_answer_is_refused_unread(encoding: str, prober: Prober) -> None:
    page = Page(gzip.compress(bytes(2**26)), headers={"Content-Encoding": encoding})
    async with Pages({"/x": page}) as pages:
        with pytest.raises(NoAnswer, match=f"encoded as {encoding}"):
            await prober.get(spec(pages.url), "/x", 20)


async def test_an_answer_may_say_that_it_is_not_encoded(prober: Prober) -> None:
    page = Page("hello", headers={"Content-Encoding": "identity"})
    async with Pages({"/x": page}) as pages:
        assert (await prober.get(spec(pages.url), "/x", 5)).body == b"hello"


async def test_the_metrics_of_16_engines_of_90_kb_are_taken_and_much_more_is_not(
    prober: Prober,
) -> None:
    pages = {"/metrics": Page(bytes(16 * 90_000)), "/endless": Page(bytes(9 * 2**20))}
    async with Pages(pages) as server:
        assert len((await prober.get(spec(server.url), "/metrics", 20)).body) == 16 * 90_000
        with pytest.raises(NoAnswer, match="long"):
            await prober.get(spec(server.url), "/endless", 20)


async def test_a_redirection_is_an_answer_and_is_not_followed(prober: Prober) -> None:
    page = Page(status=302, headers={"Location": "/y"})
    async with Pages({"/x": page}) as pages:
        assert (await prober.get(spec(pages.url), "/x", 5)).status == 302
        assert pages.asked == ["/x"]


async def test_nobody_there_is_certain(prober: Prober, start_sim: StartSim) -> None:
    engine = await start_sim()
    await engine.stop()
    with pytest.raises(NoAnswer) as caught:
        await prober.get(spec(engine.url), "/health", 5)
    assert caught.value.reason == "connection refused"
    assert (caught.value.refused, caught.value.timed_out) == (True, False)


async def test_silence_ends_after_the_timeout(prober: Prober, start_sim: StartSim) -> None:
    engine = await start_sim()
    engine.inject(Fault.HANG, everywhere=True)
    with pytest.raises(NoAnswer) as caught:
        await prober.get(spec(engine.url), "/health", 0.05)
    assert caught.value.reason == "no answer in 0.05 s"
    assert (caught.value.refused, caught.value.timed_out) == (False, True)


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.DROP, Fault.GARBAGE])
async def test_a_broken_answer_is_none(fault: Fault, prober: Prober, start_sim: StartSim) -> None:
    engine = await start_sim()
    engine.inject(fault, everywhere=True)
    with pytest.raises(NoAnswer) as caught:
        await prober.get(spec(engine.url), "/v1/models", 5)
    assert (caught.value.refused, caught.value.timed_out) == (False, False)


async def test_the_reason_quotes_nothing_that_a_terminal_acts_on(prober: Prober) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x1b[2J \xff\xed\xa0\x80\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(NoAnswer) as caught:
        await prober.get(spec(f"http://127.0.0.1:{port}"), "/health", 5)
    server.close()
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) <= 200


def make_certificate(key: Path, certificate: Path) -> None:
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", *options, *files], check=True, capture_output=True)


@pytest.fixture
async def tls_url(tmp_path: Path) -> AsyncIterator[str]:
    """A server whose certificate nobody has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    await asyncio.to_thread(make_certificate, key, certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client does not like the certificate
        finally:
            writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_a_certificate_that_nobody_signed_is_refused(prober: Prober, tls_url: str) -> None:
    with pytest.raises(NoAnswer, match="certificate") as caught:
        await prober.get(spec(tls_url), "/health", 10)
    assert not caught.value.refused


async def test_it_is_taken_with_tls_verify_off(prober: Prober, tls_url: str) -> None:
    answer = await prober.get(spec(tls_url, tls_verify=False), "/health", 10)
    assert answer.body == b"ok"

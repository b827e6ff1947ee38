"""Targets that two readers could take for two paths: the key asked for fits what answers."""

from __future__ import annotations

import logging

import pytest
from support import StartRouter
from wire import Client, Scripted, answer, replies

from mvllm_router.logs import JsonFormatter, TextFormatter

KEY = "secret-key"
SECRETS = (b"s0", b"127.0.0.1", b"tiny", b"router_")

TRICKS = [
    b"//router/snapshot",
    b"///metrics",
    b"/./router/snapshot",
    b"/health/../router/snapshot",
    b"/health/%2e%2e/router/snapshot",
    b"/health%2f..%2frouter/snapshot",
    b"/health;x/../metrics",
    b"/health/",
    b"/health;x",
    b"/health#/../metrics",
    b"/ready%00/metrics",
    b"/v1/../router/snapshot",
    b"/v1/../health",
    b"/v1/models/../../router/snapshot",
    b"/v1/models/%2e%2e/%2e%2e/metrics",
    b"/%72outer/snapshot",
    b"/router%2fsnapshot",
    b"\\router\\snapshot",
    b"/\\router/snapshot",
    b"/ROUTER/snapshot",
    b"/Metrics",
    b"http:///router/snapshot",
    b"http://x//router/snapshot",
    b"http://x/health/../metrics",
    b"http://health@x/metrics",
    b"http://x\\/health/../metrics",
    b"x:/router/snapshot",
    b"router/snapshot",
    b"*",
    b"?/router/snapshot",
    b"",
]


def request(target: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"GET %b HTTP/1.1" % target, b"host: x", *lines, b"", b""])


@pytest.mark.parametrize("target", TRICKS, ids=repr)
async def test_without_the_key_no_target_shows_what_needs_it(
    target: bytes, start_router: StartRouter
) -> None:
    async with Scripted(replies(answer(b"from a server"))) as server:
        router = await start_router(server.url, api_key=KEY)
        async with Client(router.url) as client:
            client.send(request(target))
            head, body = await client.answer()
        assert server.seen == []
    assert head.split(b" ")[1] in (b"400", b"401", b"404")
    assert not any(secret in body for secret in SECRETS if secret not in target)


@pytest.mark.parametrize("target", TRICKS, ids=repr)
async def test_with_the_key_no_target_leads_to_a_path_of_the_server_that_is_not_relayed(
    target: bytes, start_router: StartRouter
) -> None:
    async with Scripted(replies(answer(b"from a server"))) as server:
        router = await start_router(server.url, api_key=KEY)
        async with Client(router.url) as client:
            client.send(request(target, b"x-api-key: " + KEY.encode()))
            await client.answer()
        assert server.seen == []


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/health", b"200"),
        (b"/health?/../router/snapshot", b"200"),
        (b"http://other.example/health", b"200"),
        (b"http://user:password@other.example/ready", b"200"),
        (b"http://other.example", b"200"),
        (b"http://other.example/metrics", b"401"),
        (b"http://other.example/router/snapshot?x=/health", b"401"),
        (b"http://other.example/v1/files", b"401"),
    ],
)
async def test_an_absolute_target_is_the_path_in_it_whatever_its_host(
    target: bytes, status: bytes, start_router: StartRouter
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url, api_key=KEY)
        async with Client(router.url) as client:
            client.send(request(target))
            head, _ = await client.answer()
        assert head.split(b" ")[1] == status
        assert server.seen == []


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        (b"/v1/files%0d%0ax-evil:%201", b"/v1/files%0d%0ax-evil:%201"),
        (b"/v1/files?m=%0d%0ax-evil:%201", b"/v1/files?m=%0d%0ax-evil:%201"),
        (b"/v1/a%20HTTP/1.1", b"/v1/a%20HTTP/1.1"),
        (b"/v1/a//b", b"/v1/a//b"),
        (b"/v1/a;x=1,2", b"/v1/a;x=1,2"),
        (b"http://other.example/v1/files?a=b", b"/v1/files?a=b"),
        (b"/v1/" + b"x" * 16_000, b"/v1/" + b"x" * 16_000),
    ],
    ids=lambda value: repr(value[:40]),
)
async def test_a_path_is_sent_on_as_it_was_written(
    target: bytes, sent: bytes, start_router: StartRouter
) -> None:
    async with Scripted(replies(answer(b"{}"))) as server:
        router = await start_router(server.url)
        async with Client(router.url) as client:
            client.send(request(target))
            assert (await client.answer())[0].startswith(b"HTTP/1.1 200")
        (seen,) = server.seen
        assert seen.line == b"GET %b HTTP/1.1" % sent
        assert b"evil" not in seen.head.split(b"\r\n", 1)[1]
        assert b"other.example" not in seen.head


async def test_a_path_or_a_model_cannot_forge_a_line_of_the_log(
    start_router: StartRouter, caplog: pytest.LogCaptureFixture
) -> None:
    router = await start_router()
    caplog.set_level(logging.DEBUG, "mvllm_router")
    logging.getLogger("mvllm_router").setLevel(logging.DEBUG)
    body = b'{"model":"m\\r\\n12:00:00 INFO    forged\\u001b[2J\\u202e\\u0085\\u2028"}'
    async with Client(router.url) as client:
        client.post(body)
        await client.answer()
        client.send(request(b"/v1/models/m%0a12:00:00%20INFO%20forged%1b[2J"))
        await client.answer()
        client.send(request(b"/x%0a12:00:00\\x1b", b"x-forwarded-for: 1.2.3.4\x80 forged"))
        await client.answer()
    about = [r for r in caplog.records if "->" in r.getMessage()]
    assert len(about) == 3
    for record in about:
        for line in TextFormatter().format(record).split("\n")[1:]:
            assert line.startswith("    ")
        assert len(JsonFormatter().format(record).splitlines()) == 1
        for text in (TextFormatter().format(record), JsonFormatter().format(record)):
            assert not set(text) & set("\x1b\r\x85\u2028\u202e")

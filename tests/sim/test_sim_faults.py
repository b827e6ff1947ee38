"""Each fault looks on the wire as it should."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from sim_client import Raw, chat, events

from mvllm_router.sim import Fault, Profile, SimEngine

DIALECTS = ("vllm", "llama.cpp", "llama-cpp-python", "mlx", "openai")


def profile(dialect: Any = "vllm", **fields: Any) -> Profile:
    return Profile(dialect, ("tiny",), **fields)


async def read_all(url: str, body: dict[str, Any]) -> tuple[bytes, bool]:
    """All bytes up to the end of the connection, and whether that was a reset."""
    raw = await Raw.open(url)
    raw.post("/v1/chat/completions", body, "Connection: close\r\n")
    rest = await rest_of(raw)
    raw.close()
    return rest


async def rest_of(raw: Raw) -> tuple[bytes, bool]:
    """What still comes on a connection, and whether it ends with a reset."""
    data = b""
    try:
        while part := await raw.reader.read(65536):
            data += part
    except ConnectionResetError:
        return data, True
    return data, False


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault.ERROR_500, 500),
        (Fault.DRAINING_500, 500),
        (Fault.BUSY_503, 503),
        (Fault.RATE_429, 429),
    ],
)
async def test_status_faults_hit_as_often_as_asked(
    dialect: str, fault: Fault, status: int, client: aiohttp.ClientSession
) -> None:
    async with SimEngine(profile(dialect)) as engine:
        engine.inject(fault, 2)
        seen = []
        for stream in (True, False, True):
            url = f"{engine.url}/v1/chat/completions"
            async with client.post(url, json=chat(stream=stream)) as response:
                seen.append(response.status)
                retry_after = response.headers.get("retry-after")
                assert (retry_after == "1") is (response.status == 429)
                await response.read()
        assert seen == [status, status, 200]
        assert (engine.failed, engine.served) == (2, 1)


async def test_vllm_draining_says_what_vllm_says(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile()) as engine:
        engine.inject(Fault.DRAINING_500)
        async with client.post(f"{engine.url}/v1/chat/completions", json=chat()) as response:
            message = (await response.json())["error"]["message"]
        assert message == "cannot schedule new futures after shutdown"
        async with client.get(f"{engine.url}/health") as response:
            assert response.status == 200


async def test_reset_comes_before_the_first_byte() -> None:
    async with SimEngine(profile()) as engine:
        engine.inject(Fault.RESET, 1)
        assert await read_all(engine.url, chat(stream=True)) == (b"", True)


async def test_garbage_is_not_http() -> None:
    async with SimEngine(profile()) as engine:
        engine.inject(Fault.GARBAGE, 1)
        data, _ = await read_all(engine.url, chat())
    assert data
    assert not data.startswith(b"HTTP/")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("after", [0, 1, 4])
async def test_drop_cuts_a_stream_after_its_events(dialect: str, after: int) -> None:
    async with SimEngine(profile(dialect)) as engine:
        engine.inject(Fault.DROP, 1, after_events=after)
        data, _ = await read_all(engine.url, chat(stream=True))
        assert data.count(b"data: {") == after
        assert b"[DONE]" not in data
        assert not data.endswith(b"\r\n0\r\n\r\n")
        assert (engine.failed, engine.aborted, engine.running) == (1, 0, 0)


async def test_drop_happens_also_to_a_stream_with_fewer_events() -> None:
    async with SimEngine(profile()) as engine:
        engine.inject(Fault.DROP, 1, after_events=99)
        data, _ = await read_all(engine.url, chat(max_tokens=2, stream=True))
    assert data.count(b"data: {") >= 2
    assert b"[DONE]" not in data


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_drop_cuts_a_plain_answer_in_mid_body(dialect: str) -> None:
    async with SimEngine(profile(dialect)) as engine:
        engine.inject(Fault.DROP, 1)
        data, _ = await read_all(engine.url, chat())
    head, body = data.split(b"\r\n\r\n", 1)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert 0 < len(body) < length


async def test_stall_keeps_the_connection_open(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile()) as engine:
        engine.inject(Fault.STALL, 1, after_events=2)
        raw = await Raw.open(engine.url)
        raw.post("/v1/chat/completions", chat(stream=True))
        data = b""
        while data.count(b"data: {") < 2:
            data += await raw.reader.read(65536)
        more = asyncio.ensure_future(raw.reader.read(1))
        async with client.get(f"{engine.url}/health") as response:
            assert response.status == 200
        assert not more.done()
        assert engine.running == 1
        more.cancel()
        raw.close()
        await engine.wait_for(lambda e: e.running == 0 and e.aborted == 1)


async def test_hang_answers_nothing_until_the_client_leaves() -> None:
    async with SimEngine(profile()) as engine:
        engine.inject(Fault.HANG, 1)
        raw = await Raw.open(engine.url)
        raw.post("/v1/chat/completions", chat())
        await engine.wait_for(lambda e: e.started == 1)
        assert engine.running == 0
        raw.close()
        await engine.wait_for(lambda e: e.aborted == 1)


async def test_slow_answers_in_the_end(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile()) as engine:
        engine.inject(Fault.SLOW, 1, seconds=0.05)
        async with client.post(f"{engine.url}/v1/chat/completions", json=chat()) as response:
            assert response.status == 200


async def test_busy_in_stream_is_a_200_with_one_error_event(
    client: aiohttp.ClientSession,
) -> None:
    async with SimEngine(profile()) as engine:
        engine.inject(Fault.BUSY_IN_STREAM, 2)
        url = f"{engine.url}/v1/chat/completions"
        async with client.post(url, json=chat(stream=True)) as response:
            text = await response.text()
        assert (response.status, response.content_type) == (200, "text/event-stream")
        error, done = events(text)
        assert (error["error"]["code"], done) == (503, "[DONE]")
        assert text.startswith('data: {"error": {"message": "The engine is currently busy')
        async with client.post(url, json=chat()) as response:
            assert response.status == 503


@pytest.mark.parametrize(("dialect", "done"), [("vllm", True), ("llama.cpp", False)])
async def test_engine_death_ends_a_stream_with_an_error_event(
    dialect: str, done: bool, client: aiohttp.ClientSession
) -> None:
    async with SimEngine(profile(dialect)) as engine:
        engine.inject(Fault.ENGINE_DEATH, 2, after_events=2)
        url = f"{engine.url}/v1/chat/completions"
        last = {"Connection": "close"}  # llama-server does so anyway
        async with client.post(url, json=chat(stream=True), headers=last) as response:
            parsed = events(await response.text())
        assert parsed[2]["error"]["code"] == 500
        assert parsed[3:] == ["[DONE]"] * done
        async with client.post(url, json=chat()) as response:
            assert response.status == 500


async def test_refuse_closes_listener_and_idle_connections(
    client: aiohttp.ClientSession,
) -> None:
    async with SimEngine(profile()) as engine:
        idle = await Raw.open(engine.url)
        idle.get("/health")
        await idle.answer()
        engine.inject(Fault.REFUSE)
        idle.get("/health")
        rest, _ = await rest_of(idle)
        assert rest == b""
        idle.close()
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get(f"{engine.url}/health")
        engine.clear()
        async with client.get(f"{engine.url}/health") as response:
            assert response.status == 200


async def test_faults_hit_other_paths_only_everywhere(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile()) as engine:
        engine.inject(Fault.ERROR_500)
        async with client.get(f"{engine.url}/health") as response:
            assert response.status == 200
        engine.clear()
        engine.inject(Fault.ERROR_500, everywhere=True)
        async with client.get(f"{engine.url}/health") as response:
            assert response.status == 500
        engine.clear()
        async with client.get(f"{engine.url}/health") as response:
            assert response.status == 200


async def test_injections_are_used_up_one_after_the_other(
    client: aiohttp.ClientSession,
) -> None:
    async with SimEngine(profile()) as engine:
        engine.inject(Fault.BUSY_503, 1)
        engine.inject(Fault.RATE_429, 1)
        seen = []
        for _ in range(3):
            async with client.post(f"{engine.url}/v1/chat/completions", json=chat()) as response:
                seen.append(response.status)
        assert seen == [503, 429, 200]


def test_faults_that_cannot_be_counted_are_refused() -> None:
    engine = SimEngine(profile())
    with pytest.raises(ValueError, match="times=0"):
        engine.inject(Fault.HANG, 0)
    with pytest.raises(ValueError, match="refuse"):
        engine.inject(Fault.REFUSE, 1)


async def test_faults_over_http(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile()) as engine:
        url, control = f"{engine.url}/v1/chat/completions", f"{engine.url}/sim/fault"
        async with client.post(control, json={"fault": "busy_503", "times": 5}) as response:
            assert response.status == 200
        async with client.post(url, json=chat()) as response:
            assert response.status == 503
        async with client.delete(control) as response:
            assert response.status == 200
        async with client.post(url, json=chat()) as response:
            assert response.status == 200
        wrong: Any
        for wrong in ({"fault": "nope"}, {}, [], {"fault": "hang", "x": 1}, {"fault": "refuse"}):
            async with client.post(control, json=wrong) as response:
                assert response.status == 400, wrong
        assert [received.path for received in engine.requests] == ["/v1/chat/completions"] * 2

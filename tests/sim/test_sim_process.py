"""Engines and the demo in a process of their own: it says where it is and never outlives us."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from sim_client import chat

from mvllm_router.sim import Fault, Profile, SimEngine
from mvllm_router.sim.__main__ import parse_engine
from mvllm_router.sim.commands import Commands
from mvllm_router.sim.demo import DEMO_MODELS, DEMO_PROFILES, trickle

SECONDS = 30  # after which a child counts as hung


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Any]]:
    """A child process and the JSON line with which it began."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), SECONDS)
        yield process, json.loads(line)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process.stdin.close()


async def test_engines_of_one_process_answer_and_end_with_stdin(
    client: aiohttp.ClientSession,
) -> None:
    engines = ("--engine", "vllm:a:slots=2", "--engine", "mlx:b,c:tps=500")
    async with child("mvllm_router.sim", *engines, "--parent-pipe") as (process, told):
        assert told["url"] == told["urls"][0]
        names = []
        for url in told["urls"]:
            async with client.get(f"{url}/v1/models") as response:
                names.append([card["id"] for card in (await response.json())["data"]])
        assert names == [["a"], ["b", "c"]]
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0


class Told:
    """Gives a child commands and reads its answers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    async def line(self, text: str) -> Any:
        self._stdin.write(text.encode() + b"\n")
        return json.loads(await asyncio.wait_for(self._stdout.readline(), SECONDS))

    async def command(self, word: str, **fields: Any) -> Any:
        return await self.line(json.dumps({word: fields}))


async def test_another_process_injects_faults_and_clears_them(
    client: aiohttp.ClientSession,
) -> None:
    two = ("--engine", "vllm:tiny", "--engine", "llama.cpp:tiny", "--parent-pipe")
    async with child("mvllm_router.sim", *two) as (process, told):
        control = Told(process)
        seen = []
        commands: tuple[tuple[str, dict[str, Any]], ...] = (
            ("inject", {"fault": "busy_503", "times": 1}),
            ("inject", {"fault": "error_500", "everywhere": True}),
            ("clear", {}),
        )
        for word, fields in commands:
            assert await control.command(word, engine=1, **fields) == {"ok": True}
            for url in told["urls"]:
                async with client.post(f"{url}/v1/chat/completions", json=chat()) as response:
                    seen.append(response.status)
        assert seen == [200, 503, 200, 500, 200, 200]


async def test_another_process_closes_an_engine_and_opens_it_again(
    client: aiohttp.ClientSession,
) -> None:
    async with child("mvllm_router.sim", "--parent-pipe") as (process, told):
        control = Told(process)
        assert await control.command("inject", engine=0, fault="refuse") == {"ok": True}
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get(f"{told['url']}/health")
        assert await control.command("clear", engine=0) == {"ok": True}
        async with client.get(f"{told['url']}/health") as response:
            assert response.status == 200


async def test_another_process_reads_the_counts(client: aiohttp.ClientSession) -> None:
    async with child("mvllm_router.sim", "--tps", "1", "--parent-pipe") as (process, told):
        control = Told(process)
        url = f"{told['url']}/v1/chat/completions"
        async with client.post(url, json=chat(max_tokens=1)) as response:
            await response.read()
        async with client.post(url, json=chat(max_tokens=900, stream=True)) as response:
            await response.content.readline()
            counts = await control.command("counts", engine=0)
    ended = {"served": 1, "aborted": 0, "failed": 0}
    assert counts == {"started": 2, **ended, "running": 1, "waiting": 0}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("nonsense", "JSONDecodeError"),
        ("[]", "AttributeError"),
        ("{}", "not enough values"),
        ('{"clear": 5}', "AttributeError"),
        ('{"clear": {}}', "KeyError"),
        ('{"clear": {"engine": 1}}', "engines 0 to 0"),
        ('{"clear": {"engine": -1}}', "engines 0 to 0"),
        ('{"dance": {"engine": 0}}', "dance"),
        ('{"inject": {"engine": 0}}', "fault"),
        ('{"inject": {"engine": 0, "fault": "nope"}}', "nope"),
        ('{"inject": {"engine": 0, "fault": "hang", "x": 1}}', "x"),
        ('{"inject": {"engine": 0, "fault": "hang", "times": 0}}', "times=0"),
    ],
)
def test_a_wrong_command_is_answered_with_what_is_wrong(line: str, wrong: str) -> None:
    (answer,) = Commands([SimEngine(Profile("vllm", ("tiny",)))]).answer(line).items()
    assert answer[0] == "error"
    assert wrong in answer[1]


async def test_a_wrong_command_does_not_end_the_process() -> None:
    async with child("mvllm_router.sim", "--parent-pipe") as (process, _):
        control = Told(process)
        assert "error" in await control.line("nonsense")
        assert await control.command("clear", engine=0) == {"ok": True}


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM to be caught")
async def test_sigterm_ends_it_with_requests_under_way(client: aiohttp.ClientSession) -> None:
    arguments = ("--dialect", "llama.cpp", "--model", "tiny", "--tps", "1", "--slots", "1")
    async with child("mvllm_router.sim", *arguments) as (process, told):
        url = f"{told['url']}/v1/chat/completions"
        async with client.post(url, json=chat(stream=True, max_tokens=500)) as response:
            assert await response.content.readline()
            process.send_signal(signal.SIGTERM)
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0


def test_engine_words_become_a_profile() -> None:
    assert parse_engine("vllm:tiny-cloud:slots=8:tps=60") == Profile(
        "vllm", ("tiny-cloud",), slots=8, tokens_per_second=60
    )
    assert parse_engine("llama.cpp:a,b:key=k").models == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vlm:tiny", "dialect 'vlm' is none of"),
        ("vllm", "model name"),
        ("vllm:tiny:speed=1", "'speed=1' is no word=value"),
        ("vllm:tiny:slots", "'slots' is no word=value"),
        ("vllm:tiny:slots=many", "many"),
    ],
)
def test_wrong_engine_words_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_engine(text)


async def test_demo_sends_its_trickle_to_the_router_and_ends_with_stdin() -> None:
    # This engine stands where the router would be.
    async with (
        SimEngine(Profile("vllm", DEMO_MODELS, slots=64, api_key="k")) as router,
        child("mvllm_router.sim.demo") as (process, told),
    ):
        assert [server["name"] for server in told["servers"]] == list(DEMO_PROFILES)
        assert process.stdin is not None
        process.stdin.write(json.dumps({"url": router.url, "api_key": "k"}).encode() + b"\n")
        await router.wait_for(lambda e: e.served >= 2, timeout=SECONDS)
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0
        assert {received.header("authorization") for received in router.requests} == {"Bearer k"}


async def test_demo_child_ends_when_it_never_hears_of_a_router() -> None:
    async with child("mvllm_router.sim.demo") as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0


async def test_trickle_mixes_requests_and_counts_errors() -> None:
    stop = asyncio.Event()
    async with SimEngine(Profile("vllm", DEMO_MODELS[:1], slots=64)) as engine:
        running = asyncio.ensure_future(trickle(engine.url, rate=2000, stop=stop, api_key=None))
        await engine.wait_for(lambda e: e.served >= 50 and e.failed >= 20)
        stop.set()
        tally = await asyncio.wait_for(running, SECONDS)
        bodies = [json.loads(received.body) for received in engine.requests]
    assert {body["model"] for body in bodies} == set(DEMO_MODELS)
    assert {body.get("stream", False) for body in bodies} == {True, False}
    assert tally.served > 0
    assert tally.failed > 0  # the second model is not there
    assert tally.sent >= tally.served + tally.failed


async def test_trickle_goes_on_after_errors() -> None:
    stop = asyncio.Event()
    async with SimEngine(Profile("vllm", DEMO_MODELS, slots=64)) as engine:
        for fault in (Fault.RESET, Fault.GARBAGE, Fault.DROP, Fault.ERROR_500):
            engine.inject(fault, 3)
        running = asyncio.ensure_future(trickle(engine.url, rate=2000, stop=stop, api_key=None))
        await engine.wait_for(lambda e: e.failed >= 12 and e.served >= 50)
        stop.set()
        tally = await asyncio.wait_for(running, SECONDS)
    assert tally.served > 0
    assert tally.failed > 0


def test_demo_models_are_on_two_servers_each() -> None:
    for name in DEMO_MODELS:
        assert sum(name in profile.models for profile in DEMO_PROFILES.values()) == 2
    assert len({profile.slots for profile in DEMO_PROFILES.values()}) == 3

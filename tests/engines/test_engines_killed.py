"""Real engines that are killed, stopped or full while clients ask: what the clients see."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import pytest
from load_kit import ENDLESS, PATIENCE, Call, Clients, SdkStream, engine_core, router_process
from support import StartRouter, prefer, reload_with, until

from mvllm_router.config import ServerSpec
from mvllm_router.policies import Supposed
from mvllm_router.pool import Backend, Sample, Scrape
from mvllm_router.server import Router

if TYPE_CHECKING:
    from conftest import EngineServer, StartLlamaServer, StartVllm

SLOTS = 3  # of a llama-server that something happens to
SHORT = 20  # tokens
ENDS_NEVER = ("--context-shift",)  # an answer of llama-server goes on for as long as is asked
TALKATIVE = ("--max-model-len", "8192", "--enable-log-requests")  # a vLLM with long answers
LONG = 7000  # tokens; vLLM takes some 20 s for them


def specs(**servers: EngineServer) -> list[ServerSpec]:
    return [ServerSpec(url=server.url, name=name) for name, server in servers.items()]


async def all_up(router: Router) -> dict[str, Backend]:
    backends = router.pool.backends
    await until(lambda: all(b.is_up for b in backends.values()), timeout=PATIENCE)
    return backends


@contextmanager
def only(router: Router, name: str) -> Iterator[None]:
    """Let all requests go to one server, if it can be had."""
    policies = router.dispatch.policies
    policy = policies.of(Supposed())
    prefer(router, name)
    yield
    policies.use(policies.default, policy)


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Stop a process, and let it go on at the end.

    Engines are fast and a test may get no processor for seconds: what is to happen while they
    work must not depend on it.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def load(
    router: Router, clients: Clients, name: str, streams: int
) -> tuple[list[Call], list[Call]]:
    """Fill a llama-server with streams, and queue four requests behind them.

    Returns:
        The streams, each of which has begun, and the requests that wait in the server.
    """
    with only(router, name):
        running = [clients.ask(stream=True, tokens=ENDLESS) for _ in range(streams)]
        await clients.begun(running)
        return running, await taken(clients, router.pool.backends[name], 4)


async def taken(clients: Clients, backend: Backend, count: int) -> list[Call]:
    """Begin requests, and wait until one server has them; no answer of its may end meanwhile."""
    there = backend.in_flight
    calls = clients.ask_all(count, tokens=SHORT)
    await until(lambda: backend.in_flight == there + count, timeout=PATIENCE)
    return calls


async def held_in_mid_stream(
    clients: Clients, backend: Backend, engine: int, *, tokens: int
) -> list[Call]:
    """Begin four streams and stop the engine of a vLLM in the middle of them.

    Where they were over by then, others are begun.
    """
    while True:
        calls = [clients.ask(stream=True, tokens=tokens) for _ in range(4)]
        await clients.begun(calls)
        os.kill(engine, signal.SIGSTOP)
        if (await settled(backend)).running == 4:
            return calls
        os.kill(engine, signal.SIGCONT)
        await clients.answered(*calls)


async def settled(backend: Backend) -> Sample:
    """Return what a server says of its load once that does not change any more."""

    async def next_scrape(last: Scrape | None) -> Scrape:
        await until(lambda: backend.scrape is not last, timeout=PATIENCE)
        assert backend.scrape is not None
        return backend.scrape

    last = await next_scrape(backend.scrape)
    while (scrape := await next_scrape(last)).sample != last.sample:
        last = scrape
    return last.sample


async def until_added(vllm: EngineServer, count: int) -> None:
    """Wait until a vLLM has given so many requests to its engine."""
    await until(lambda: vllm.log.read_text().count("Added request") >= count, timeout=PATIENCE)


async def limit_silence(router: Router, seconds: float) -> None:
    """Let no server be silent for longer from now on, as a change of the file does."""
    settings = replace(router.config.settings, request_timeout=seconds)
    await reload_with(router, replace(router.config, settings=settings))


async def until_answered_by(clients: Clients, name: str) -> None:
    """Wait until a server answers one request more, while the clients keep asking."""
    before = len(clients.answered_by(name))
    await until(lambda: len(clients.answered_by(name)) > before, timeout=PATIENCE)


async def assert_nothing_in_flight(router: Router) -> None:
    await until(lambda: router.pool.stats.in_flight == 0, timeout=PATIENCE)
    assert [backend.in_flight for backend in router.pool.backends.values()] == [0, 0]


# --- llama-server


async def test_what_a_killed_llama_server_had_not_begun_is_answered_by_another(
    start_llama_server: StartLlamaServer, llama_server: EngineServer, start_router: StartRouter
) -> None:
    victim = await asyncio.to_thread(start_llama_server, SLOTS, ENDS_NEVER)
    router = await start_router(*specs(victim=victim, other=llama_server), learn=False)
    backend = (await all_up(router))["victim"]
    prefer(router, "victim")
    async with (
        SdkStream(router.url, victim.model, ENDLESS) as sdk,
        Clients(router.url, victim.model) as clients,
    ):
        running, waiting = await load(router, clients, "victim", SLOTS - 1)
        clients.keep_asking(4, tokens=SHORT)
        await asyncio.to_thread(victim.kill)
        assert "The server was lost" in await sdk.error()
        await clients.answered(*running, *waiting)
        assert all(call.is_broken_off for call in running), running
        assert {call.error for call in running} == {"The server was lost: connection reset"}
        assert [(c.is_whole, c.backend, c.attempts) for c in waiting] == [(True, "other", 2)] * 4
        await until(lambda: not backend.is_up, timeout=PATIENCE)

        port = urlsplit(victim.url).port or 0
        await asyncio.to_thread(start_llama_server, SLOTS, port=port)
        await until_answered_by(clients, "victim")
        await clients.rest()
    assert [call for call in clients.calls if not call.is_whole] == running
    await assert_nothing_in_flight(router)


async def test_a_stopped_llama_server_is_told_as_silent_left_alone_and_back_when_it_goes_on(
    start_llama_server: StartLlamaServer, llama_server: EngineServer, start_router: StartRouter
) -> None:
    victim = await asyncio.to_thread(start_llama_server, SLOTS, ENDS_NEVER)
    router = await start_router(
        *specs(victim=victim, other=llama_server),
        health_check_timeout=0.5,
        request_timeout=PATIENCE,
        learn=False,
    )
    backend = (await all_up(router))["victim"]
    async with Clients(router.url, victim.model) as clients:
        running, waiting = await load(router, clients, "victim", SLOTS)
        victim.signal_group(signal.SIGSTOP)
        with only(router, "victim"):
            waiting += await taken(clients, backend, 2)  # by the system, in its place
        await limit_silence(router, 3.0)
        clients.keep_asking(4, tokens=SHORT)
        await until(lambda: not backend.is_up, timeout=PATIENCE)
        newcomers = clients.ask_all(6, tokens=SHORT)
        await clients.answered(*running, *waiting, *newcomers)
        assert [(c.is_whole, c.backend, c.attempts) for c in newcomers] == [(True, "other", 1)] * 6
        assert all(call.is_broken_off for call in running), running
        assert {call.error for call in running} == {"The server was silent for 3 s"}
        assert [call.status for call in waiting] == [504] * 6
        await until(lambda: backend.in_flight == 0, timeout=PATIENCE)

        victim.signal_group(signal.SIGCONT)
        await until(lambda: backend.is_up, timeout=PATIENCE)
        assert backend.health.reason == "2 health checks passed"
        await until_answered_by(clients, "victim")
        await clients.rest()
    failed = [call for call in clients.calls if not call.is_whole and call not in running]
    assert {(call.status, call.error) for call in failed} == {
        (504, "The server was silent for 3 s.")
    }
    await assert_nothing_in_flight(router)


async def test_a_router_told_to_stop_ends_no_answer_of_llama_server_early(
    start_llama_server: StartLlamaServer, tmp_path: Path
) -> None:
    server = await asyncio.to_thread(start_llama_server, SLOTS, ENDS_NEVER)
    file = tmp_path / "servers.toml"
    servers = f'servers = [{{ url = "{server.url}" }}]'
    file.write_text(f"{servers}\n[config]\nshutdown_timeout = {PATIENCE}\n")
    async with router_process(file) as router, Clients(router.url, server.model) as clients:
        await router.until_shown(lambda shown: shown["servers"][0]["state"] == "up")
        with held(server.process.pid):
            running = [clients.ask(stream=True, tokens=2000) for _ in range(SLOTS)]
            await router.until_shown(lambda shown: shown["in_flight"] == SLOTS)
            waiting = clients.ask_all(6, tokens=SHORT)
            await router.until_shown(lambda shown: shown["in_flight"] == SLOTS + 6)
        await clients.begun(running)
        router.process.send_signal(signal.SIGTERM)
        await clients.answered(*running, *waiting)
        assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 0
        late = clients.ask(stream=False, tokens=SHORT)
        await clients.answered(late)
    assert [call for call in clients.calls if not call.is_whole] == [late]
    assert "ClientConnectorError" in late.lost


# --- vLLM


async def test_no_client_sees_that_a_vllm_is_full_while_another_server_has_room(
    strict_vllm: Callable[[], EngineServer], llama_server: EngineServer, start_router: StartRouter
) -> None:
    vllm = await asyncio.to_thread(strict_vllm)
    router = await start_router(
        *specs(vllm=vllm, llama=llama_server), request_timeout=PATIENCE, learn=False
    )
    backend = (await all_up(router))["vllm"]
    prefer(router, "vllm")
    async with Clients(router.url, vllm.model) as clients:
        with held(engine_core(vllm.process.pid)):
            calls = clients.ask_all(16, tokens=SHORT)
            await until(lambda: backend.in_flight == 8 and moved(calls) == 8, timeout=PATIENCE)
        await clients.answered(*calls)
    assert all(call.is_whole for call in calls), calls
    assert set(backend.stats.retries) <= {"503", "503 in the first event"}
    assert backend.stats.retries.total() == 8
    assert backend.is_up
    assert not backend.stats.failures
    await assert_nothing_in_flight(router)


async def test_requests_beyond_what_a_vllm_takes_wait_in_the_router_and_are_never_refused(
    strict_vllm: Callable[[], EngineServer], start_router: StartRouter
) -> None:
    vllm = await asyncio.to_thread(strict_vllm)
    spec = ServerSpec(url=vllm.url, name="vllm", max_concurrent_requests=8)
    router = await start_router(spec, request_timeout=PATIENCE, max_queue=100)
    backend = (await all_up(router))["vllm"]
    async with Clients(router.url, vllm.model) as clients:
        with held(engine_core(vllm.process.pid)):
            calls = clients.ask_all(20, tokens=SHORT)
            await until(lambda: router.dispatch.waiting == 12, timeout=PATIENCE)
            assert backend.in_flight == 8
        await clients.answered(*calls)
    assert all(call.is_whole and call.attempts == 1 for call in calls), calls
    assert not backend.stats.retries


async def test_what_a_vllm_aborts_before_it_has_begun_is_answered_by_another(
    strict_vllm: Callable[[], EngineServer],
    llama_server: EngineServer,
    start_router: StartRouter,
    http: aiohttp.ClientSession,
) -> None:
    """What is aborted ends well for HTTP, and is empty. On SIGTERM that is one of its ways."""
    vllm = await asyncio.to_thread(strict_vllm)
    router = await start_router(
        *specs(vllm=vllm, llama=llama_server), request_timeout=PATIENCE, learn=False
    )
    backend = (await all_up(router))["vllm"]
    added = vllm.log.read_text().count("Added request")
    prefer(router, "vllm")
    async with Clients(router.url, vllm.model) as clients:
        with held(engine_core(vllm.process.pid)):
            calls = clients.ask_all(8, tokens=SHORT)
            await until_added(vllm, added + 8)
            async with http.post(f"{vllm.url}/abort_requests", json={}) as answer:
                assert (await answer.json())["aborted"] == 8
            await clients.answered(*calls)
    assert moved(calls) == 8, calls
    assert backend.stats.retries == {"empty stream": 4, "aborted": 4}
    await assert_nothing_in_flight(router)


async def test_a_draining_vllm_finishes_its_streams_and_who_comes_is_moved_on_unseen(
    strict_vllm: Callable[[], EngineServer], llama_server: EngineServer, start_router: StartRouter
) -> None:
    vllm = await asyncio.to_thread(strict_vllm)
    router = await start_router(
        *specs(vllm=vllm, llama=llama_server), request_timeout=PATIENCE, learn=False
    )
    backend = (await all_up(router))["vllm"]
    engine = engine_core(vllm.process.pid)
    prefer(router, "vllm")
    async with Clients(router.url, vllm.model) as clients:
        running = await held_in_mid_stream(clients, backend, engine, tokens=3000)
        vllm.process.terminate()
        clients.keep_asking(2, tokens=SHORT)
        await until(lambda: backend.circuit.openings > 0, timeout=PATIENCE)
        assert backend.circuit.reason == "it is shutting down"
        assert backend.is_up  # its /health says 200 all the time
        os.kill(engine, signal.SIGCONT)
        await clients.answered(*running)
        await clients.rest()
        assert await asyncio.to_thread(vllm.process.wait, PATIENCE) == 0
    await until(lambda: not backend.is_up, timeout=PATIENCE)
    assert [call for call in clients.calls if not call.is_whole] == []
    assert all(call.backend == "vllm" and call.attempts == 1 for call in running)
    # Two clients found out, then only the circuit's trials, which come less and less often.
    assert moved(clients.calls) == backend.stats.retries.total() <= 2 + 8
    assert backend.stats.retries["draining"]
    await assert_nothing_in_flight(router)


def moved(calls: list[Call]) -> int:
    """Return how many were answered whole by the second server that was asked, llama-server."""
    return sum(call.is_whole and (call.backend, call.attempts) == ("llama", 2) for call in calls)


async def test_what_a_vllm_had_not_begun_when_its_engine_was_killed_is_answered_by_another(
    start_vllm: StartVllm, llama_server: EngineServer, start_router: StartRouter
) -> None:
    vllm = await asyncio.to_thread(start_vllm, extra=TALKATIVE)
    router = await start_router(
        *specs(vllm=vllm, llama=llama_server), request_timeout=PATIENCE, learn=False
    )
    backend = (await all_up(router))["vllm"]
    engine = engine_core(vllm.process.pid)
    async with Clients(router.url, vllm.model) as clients:
        with only(router, "vllm"):
            running = await held_in_mid_stream(clients, backend, engine, tokens=LONG)
            waiting = await taken(clients, backend, 4)
        await until_added(vllm, len(clients.calls))
        clients.keep_asking(4, tokens=SHORT)
        os.kill(engine, signal.SIGKILL)
        await clients.answered(*running, *waiting)
        # vLLM itself tells its clients so, and ends these streams with [DONE] after it.
        assert all("EngineCore encountered an issue" in call.error for call in running), running
        assert moved(waiting) == 4, waiting
        assert backend.stats.retries["engine died"] >= 4
        await until(lambda: not backend.is_up, timeout=PATIENCE)
        await until_answered_by(clients, "llama")
        await clients.rest()
    assert [call for call in clients.calls if not call.is_whole] == running
    await assert_nothing_in_flight(router)


async def test_nobody_hangs_at_a_vllm_told_to_stop_and_newcomers_go_elsewhere(
    start_vllm: StartVllm, llama_server: EngineServer, start_router: StartRouter
) -> None:
    """What becomes of requests that it has taken differs from run to run: see `fate`."""
    vllm = await asyncio.to_thread(start_vllm, extra=TALKATIVE)
    router = await start_router(
        *specs(vllm=vllm, llama=llama_server), request_timeout=PATIENCE, learn=False
    )
    backend = (await all_up(router))["vllm"]
    engine = engine_core(vllm.process.pid)
    async with Clients(router.url, vllm.model) as clients:
        with only(router, "vllm"):
            running = await held_in_mid_stream(clients, backend, engine, tokens=LONG)
            waiting = await taken(clients, backend, 4)
        await until_added(vllm, len(clients.calls))
        clients.keep_asking(4, tokens=SHORT)
        os.kill(engine, signal.SIGCONT)
        vllm.process.terminate()
        await limit_silence(router, 5.0)
        await until(lambda: not backend.is_up, timeout=PATIENCE)
        newcomers = clients.ask_all(6, tokens=SHORT)
        await clients.answered(*running, *waiting, *newcomers)
        await clients.rest()
    assert {fate(call) for call in running} <= {"silent", "died", "aborted"}
    assert {fate(call) for call in waiting} <= {"whole", "silent"}
    assert moved(waiting) == sum(call.is_whole for call in waiting)
    assert all(call.status == 504 for call in waiting if fate(call) == "silent")
    assert [(c.is_whole, c.backend, c.attempts) for c in newcomers] == [(True, "llama", 1)] * 6
    await assert_nothing_in_flight(router)


def fate(call: Call) -> str:
    """Return in a word how a request ended at a vLLM that was told to stop.

    It was seen to go silent for ever, to report its engine's death, and to end every answer as
    it stood with the finish_reason "abort": it ends its engine at once, and whether that has time
    for a last word is chance. Only silence is not moved on, since it may be work.
    """
    if call.is_whole:
        return "whole"
    if "was silent for 5 s" in call.error:
        return "silent"
    if "EngineCore encountered an issue" in call.error:
        return "died"
    return "aborted" if call.done and call.finish == "abort" else repr(call)


# --- the others


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("engine", "tokens"),  # so many that some are left
    [("start_llama_cpp_python", 4000), ("start_mlx", 20000)],
    ids=["llama-cpp-python", "mlx"],
)
async def test_an_answer_that_its_killed_engine_had_not_begun_is_anothers_and_a_stream_is_told(
    engine: str,
    tokens: int,
    stream: bool,
    request: pytest.FixtureRequest,
    llama_server: EngineServer,
    start_router: StartRouter,
) -> None:
    start: Callable[[], EngineServer] = request.getfixturevalue(engine)
    victim = await asyncio.to_thread(start)
    aliases = {llama_server.model: victim.model}  # MLX knows its model by its folder
    router = await start_router(
        ServerSpec(url=victim.url, name="victim", aliases=aliases), *specs(other=llama_server)
    )
    backend = (await all_up(router))["victim"]
    prefer(router, "victim")
    async with Clients(router.url, llama_server.model) as clients:
        if not stream:
            victim.signal_group(signal.SIGSTOP)  # it shall not have answered when it is killed
        call = clients.ask(stream=stream, tokens=tokens)
        if stream:
            await clients.begun([call])
        await until(lambda: backend.in_flight == 1, timeout=PATIENCE)
        await asyncio.to_thread(victim.kill)
        await clients.answered(call)
        if stream:
            assert call.is_broken_off, call
            assert call.error == "The server was lost: connection reset"
        else:
            assert (call.is_whole, call.backend, call.attempts) == (True, "other", 2)
        clients.keep_asking(2, tokens=SHORT)
        await until(lambda: not backend.is_up, timeout=PATIENCE)
        await until_answered_by(clients, "other")
        await clients.rest()
    assert all(other.is_whole for other in clients.calls if other is not call)
    await assert_nothing_in_flight(router)

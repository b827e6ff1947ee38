"""What requests show of a server, and what comes of it: circuits, trials, last resorts."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from support import StartRouter, StartSim, chat, prefer, reload_with, until

from mvllm_router.pool import CircuitState
from mvllm_router.server import Router
from mvllm_router.sim.faults import Fault

CHECKS_RARELY = {"health_check_interval": 60.0}


async def ask(http: aiohttp.ClientSession, router: Router, **body: object) -> tuple[int, str, str]:
    """Return the status, the server that answered, and the text."""
    request = chat(**{"max_tokens": 5, **body})  # type: ignore[arg-type]
    async with http.post(f"{router.url}/v1/chat/completions", json=request) as response:
        text = await response.text()
        return response.status, response.headers.get("x-router-backend", ""), text


def circuit_of(router: Router, name: str) -> CircuitState:
    return router.pool.backends[name].circuit.state(router.pool.monotonic())


def events(router: Router) -> str:
    return "\n".join(f"{e.kind} {e.backend} {e.message}" for e in router.pool.events.last(100))


@pytest.mark.parametrize(
    ("fault", "stream"),
    [(Fault.RESET, False), (Fault.GARBAGE, False), (Fault.DROP, True), (Fault.ERROR_500, False)],
)
async def test_a_server_that_fails_requests_is_left_out_though_its_health_checks_pass(
    fault: Fault,
    stream: bool,
    start_router: StartRouter,
    start_sim: StartSim,
    http: aiohttp.ClientSession,
) -> None:
    bad, good = await start_sim(), await start_sim()
    router = await start_router(bad, good, failure_threshold=3)
    prefer(router, "s0")
    bad.inject(fault, after_events=1)
    for _ in range(3):
        await ask(http, router, stream=stream)
    assert circuit_of(router, "s0") is not CircuitState.CLOSED
    assert router.pool.backends["s0"].is_up
    begun = bad.started
    for _ in range(5):
        assert (await ask(http, router))[:2] == (200, "s1")
    assert bad.started == begun
    assert "open s0 circuit open: 3 of 3 requests failed" in events(router)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(Fault.ENGINE_DEATH, "error in the stream"), (Fault.ABORT, "aborted")],
)
async def test_streams_that_end_in_an_error_of_the_servers_own_count_against_it(
    fault: Fault,
    reason: str,
    start_router: StartRouter,
    start_sim: StartSim,
    http: aiohttp.ClientSession,
) -> None:
    engine = await start_sim()
    router = await start_router(engine, failure_threshold=3)
    engine.inject(fault, times=3, after_events=2)
    for _ in range(3):
        _, _, text = await ask(http, router, stream=True)
        assert text.endswith("data: [DONE]\n\n")
    assert circuit_of(router, "s0") is CircuitState.OPEN
    assert reason in events(router)


async def test_a_clients_mistakes_open_no_circuit(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim(), failure_threshold=1)
    for _ in range(5):
        async with http.post(f"{router.url}/v1/chat/completions", json={"model": "tiny"}) as reply:
            assert reply.status == 400
    assert circuit_of(router, "s0") is CircuitState.CLOSED


async def test_one_trial_brings_a_mended_server_back(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    bad, good = await start_sim(), await start_sim()
    router = await start_router(bad, good, failure_threshold=1, **CHECKS_RARELY)
    prefer(router, "s0")
    bad.inject(Fault.RESET, times=1)
    assert (await ask(http, router))[1] == "s1"
    assert circuit_of(router, "s0") is CircuitState.OPEN
    await until(lambda: circuit_of(router, "s0") is CircuitState.HALF_OPEN)
    assert (await ask(http, router))[:2] == (200, "s0")
    assert circuit_of(router, "s0") is CircuitState.CLOSED
    assert "closed s0 circuit closed: a trial succeeded" in events(router)


async def test_of_many_requests_a_half_open_circuit_lets_one_through(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    bad, good = await start_sim(), await start_sim()
    router = await start_router(bad, good, failure_threshold=1, request_timeout=2, **CHECKS_RARELY)
    prefer(router, "s0")
    bad.inject(Fault.RESET, times=1)
    await ask(http, router)
    bad.inject(Fault.HANG)
    await until(lambda: circuit_of(router, "s0") is CircuitState.HALF_OPEN)
    begun = bad.started
    answers = await asyncio.gather(*(ask(http, router) for _ in range(20)))
    assert bad.started == begun + 1
    assert sorted(status for status, _, _ in answers) == [200] * 19 + [504]
    assert circuit_of(router, "s0") is not CircuitState.CLOSED


async def test_a_trial_has_succeeded_as_its_stream_begins(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    slow, other = await start_sim(tokens_per_second=10.0), await start_sim()
    router = await start_router(slow, other, failure_threshold=1, **CHECKS_RARELY)
    prefer(router, "s0")
    slow.inject(Fault.RESET, times=1)
    await ask(http, router)
    await until(lambda: circuit_of(router, "s0") is CircuitState.HALF_OPEN)
    trial = asyncio.create_task(ask(http, router, stream=True, max_tokens=1000))
    await until(lambda: circuit_of(router, "s0") is CircuitState.CLOSED)
    assert not trial.done()
    trial.cancel()
    await until(lambda: router.pool.backends["s0"].in_flight == 0)


async def test_a_route_that_a_server_lacks_is_not_held_against_it(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim("llama.cpp"), failure_threshold=1)
    request = {"model": "tiny", "input": "x"}
    async with http.post(f"{router.url}/v1/embeddings", json=request) as response:
        assert response.status == 501
    assert circuit_of(router, "s0") is CircuitState.CLOSED


async def test_a_trial_whose_client_leaves_decides_nothing_and_the_next_one_tries(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    bad, good = await start_sim(), await start_sim()
    router = await start_router(bad, good, failure_threshold=1, **CHECKS_RARELY)
    prefer(router, "s0")
    bad.inject(Fault.RESET, times=1)
    await ask(http, router)
    bad.inject(Fault.HANG, times=1)
    await until(lambda: circuit_of(router, "s0") is CircuitState.HALF_OPEN)
    trial = asyncio.create_task(ask(http, router))
    await until(lambda: router.pool.backends["s0"].in_flight == 1)
    trial.cancel()
    await until(lambda: router.pool.backends["s0"].in_flight == 0)
    assert circuit_of(router, "s0") is CircuitState.HALF_OPEN
    assert (await ask(http, router))[:2] == (200, "s0")


async def test_the_last_server_of_a_model_is_asked_though_its_circuit_is_open_and_that_is_said(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine, other = await start_sim(), await start_sim("vllm", "other")
    router = await start_router(engine, other, failure_threshold=1, max_retries=0, **CHECKS_RARELY)
    engine.inject(Fault.RESET, times=1)
    assert (await ask(http, router))[0] == 502
    assert circuit_of(router, "s0") is CircuitState.OPEN
    assert (await ask(http, router))[:2] == (200, "s0")
    assert "last resort s0 asked although it is open: no server is better" in events(router)
    assert router.pool.backends["s0"].stats.last_resorts == 1
    # Whoever answers well is trusted again.
    assert circuit_of(router, "s0") is CircuitState.CLOSED


async def test_a_server_that_health_checks_took_out_is_asked_when_there_is_no_other(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine, **CHECKS_RARELY)
    backend = router.pool.backends["s0"]
    for _ in range(3):
        router.pool.health(backend, lambda h: h.check_failed(0.0, "no answer in 5 s"))
    assert not backend.is_up
    assert (await ask(http, router))[:2] == (200, "s0")
    assert "asked although it is down" in events(router)


async def test_refused_connections_take_a_server_out_at_once_and_two_good_checks_bring_it_back(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine, good = await start_sim(), await start_sim()
    router = await start_router(engine, good, **CHECKS_RARELY)
    prefer(router, "s0")
    await engine.stop()
    assert (await ask(http, router))[:2] == (200, "s1")
    assert not router.pool.backends["s0"].is_up
    await engine.start(port=int(engine.url.rpartition(":")[2]))
    await until(lambda: router.pool.backends["s0"].is_up)
    assert (await ask(http, router))[:2] == (200, "s0")


async def test_a_server_that_refuses_at_once_does_not_draw_the_requests(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    busy, good = await start_sim(), await start_sim(tokens_per_second=200.0)
    router = await start_router(busy, good, **CHECKS_RARELY)
    busy.inject(Fault.BUSY_503)

    async def client() -> None:
        for _ in range(15):
            assert (await ask(http, router))[:2] == (200, "s1")

    await asyncio.gather(*(client() for _ in range(8)))
    assert good.started == 120
    assert busy.started <= 12  # a tenth, when each rest was over


async def test_a_recovered_server_starts_with_a_clean_circuit(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start_router(engine, failure_threshold=1, max_retries=0, **CHECKS_RARELY)
    engine.inject(Fault.RESET, times=1)
    await ask(http, router)
    backend = router.pool.backends["s0"]
    assert circuit_of(router, "s0") is CircuitState.OPEN
    router.pool.request_refused(backend)
    router.pool.health(backend, lambda health: health.trust_again("test"))
    assert circuit_of(router, "s0") is CircuitState.CLOSED


async def test_a_reload_changes_the_rules_and_keeps_what_is_open(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    from dataclasses import replace

    bad, good = await start_sim(), await start_sim()
    router = await start_router(bad, good, failure_threshold=1, **CHECKS_RARELY)
    prefer(router, "s0")
    bad.inject(Fault.RESET, times=1)
    await ask(http, router)
    settings = replace(router.config.settings, failure_threshold=7, enforce_capacity=True)
    await reload_with(router, replace(router.config, settings=settings))
    backend = router.pool.backends["s0"]
    assert backend.circuit.rules.threshold == 7
    assert not backend.circuit.is_closed
    assert backend.most == backend.slots

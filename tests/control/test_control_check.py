"""One health check of one server: what it is, what it has, whether it is well."""

from __future__ import annotations

import errno
import math
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NoReturn

import pytest
from control_kit import Bench, Page, Pages, names, state
from support import StartSim

from mvllm_router.control.prober import Prober
from mvllm_router.control.watch import Watch
from mvllm_router.sim import Fault, Profile, SimEngine

# Capacity when the file says none: the engine's own figure or its default.
CAPACITIES = {"vllm": 16, "llama.cpp": 6, "llama-cpp-python": 1, "mlx": 8, "openai": 8}
MODELS = '{"object":"list","data":[{"id":"tiny"}]}'


def asked(engine: SimEngine) -> list[str]:
    return [request.path for request in engine.requests]


@asynccontextmanager
async def at_port(port: int, profile: Profile) -> AsyncIterator[SimEngine]:
    """Run an engine where another one was."""
    engine = SimEngine(profile)
    await engine.start(port=port)
    yield engine
    await engine.stop()


async def twice(watch: Watch) -> None:
    await watch.check()
    await watch.check()


def no_files(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("dialect", CAPACITIES)
async def test_one_check_tells_engine_models_and_capacity(
    dialect: str, start_sim: StartSim
) -> None:
    engine = await start_sim(dialect, "tiny", "other", slots=6)
    async with Bench() as bench:
        watch = bench.watch(engine)
        await watch.check()
        backend = watch.backend
        assert backend.is_up
        assert backend.engine == dialect
        assert {"tiny"} <= (names(watch) or set()) <= {"tiny", "other"}
        assert backend.capacity == CAPACITIES[dialect]
        assert backend.one_at_a_time is (dialect == "llama-cpp-python")


@pytest.mark.parametrize("dialect", CAPACITIES)
async def test_a_named_engine_is_not_looked_for(dialect: str, start_sim: StartSim) -> None:
    engine = await start_sim(dialect, slots=6)
    async with Bench() as bench:
        watch = bench.watch(engine, engine=dialect)
        await watch.check()
        assert watch.backend.is_up
        assert watch.backend.capacity == CAPACITIES[dialect]
        assert "/version" not in asked(engine)


async def test_the_capacity_of_the_file_wins(start_sim: StartSim) -> None:
    engine = await start_sim("llama.cpp", slots=6)
    async with Bench() as bench:
        watch = bench.watch(engine, max_concurrent_requests=3)
        await watch.check()
        assert watch.backend.capacity == 3


async def test_llama_cpp_loading_is_said_to_load_and_let_in_when_it_has(
    start_sim: StartSim,
) -> None:
    engine = await start_sim("llama.cpp", loading_seconds=math.inf)
    async with Bench() as bench:
        watch = bench.watch(engine)
        await twice(watch)
        assert state(watch) == "loading"
        assert watch.backend.health.reason == "it is loading its model"
        engine.finish_loading()
        await watch.check()
        assert state(watch) == "up"
        assert names(watch) == {"tiny"}


async def test_a_dead_server_is_out_at_once_and_back_after_two_good_checks(
    start_sim: StartSim,
) -> None:
    engine = await start_sim()
    async with Bench() as bench:
        watch = bench.watch(engine)
        await watch.check()
        await engine.stop()
        await watch.check()
        assert (state(watch), watch.backend.health.reason) == ("down", "connection refused")
        for _ in range(100):
            await watch.check()
        await engine.start()
        await watch.check()
        assert state(watch) == "down"
        await watch.check()
        assert state(watch) == "up"


async def test_a_server_that_answers_errors_is_out_after_three_checks(
    start_sim: StartSim,
) -> None:
    engine = await start_sim()
    async with Bench() as bench:
        watch = bench.watch(engine)
        await watch.check()
        engine.inject(Fault.ERROR_500, everywhere=True)
        await twice(watch)
        assert watch.backend.is_up
        await watch.check()
        assert state(watch) == "down"
        assert watch.backend.health.reason == "/health answered 500"


# --- keys


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp", "llama-cpp-python", "openai"])
@pytest.mark.parametrize("key", [None, "wrong"])
async def test_a_server_that_wants_another_key_is_down_and_says_so(
    dialect: str, key: str | None, start_sim: StartSim
) -> None:
    engine = await start_sim(dialect, api_key="right")
    async with Bench() as bench:
        watch = bench.watch(engine, api_key=key)
        await watch.check()
        assert state(watch) == "down"
        assert "401: it wants " in watch.backend.health.reason
        assert watch.backend.health.reason.endswith("api_key")
        assert "right" not in watch.backend.health.reason


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp", "llama-cpp-python", "openai"])
async def test_the_right_key_opens_it(dialect: str, start_sim: StartSim) -> None:
    engine = await start_sim(dialect, api_key="right")
    async with Bench() as bench:
        watch = bench.watch(engine, api_key="right")
        await watch.check()
        assert watch.backend.is_up
        assert names(watch) == {"tiny"}


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp", "openai"])
async def test_a_key_that_is_right_no_longer_is_noticed(dialect: str, start_sim: StartSim) -> None:
    engine = await start_sim(dialect, api_key="right")
    async with Bench() as bench:
        watch = bench.watch(engine, api_key="right")
        await watch.check()
        bench.pool.update(replace(watch.backend.spec, api_key="old"))
        for _ in range(bench.pool.rules.consecutive_failures):
            await watch.check()
        assert state(watch) == "down"
        assert "api_key" in watch.backend.health.reason


# --- busy is not dead


@pytest.mark.parametrize("bytes_flow", [True, False])
async def test_silence_counts_only_while_no_bytes_flow(
    bytes_flow: bool, start_sim: StartSim
) -> None:
    engine = await start_sim()
    async with Bench(health_check_timeout=0.1) as bench:
        watch = bench.watch(engine, engine="vllm")
        watch.settings = replace(bench.settings, health_check_timeout=10)
        await watch.check()
        watch.settings = bench.settings
        engine.inject(Fault.HANG, everywhere=True)
        if bytes_flow:
            watch.backend.last_byte = time.monotonic() + 1000
        for _ in range(3):
            await watch.check()
        assert watch.backend.is_up is bytes_flow
        assert watch.backend.health.bad_checks == (0 if bytes_flow else 3)


# --- a server that takes one request at a time


async def test_llama_cpp_python_is_not_asked_for_models_while_it_works(
    start_sim: StartSim,
) -> None:
    engine = await start_sim("llama-cpp-python")
    async with Bench() as bench:
        watch = bench.watch(engine)
        lease = bench.pool.lease(watch.backend)
        await twice(watch)
        assert watch.backend.is_up
        assert "/v1/models" not in asked(engine)
        assert names(watch) is None
        lease.release()
        await watch.check()
        assert names(watch) == {"tiny"}


async def test_llama_cpp_python_is_asked_for_models_once_and_then_only_for_its_api(
    start_sim: StartSim,
) -> None:
    engine = await start_sim("llama-cpp-python")
    async with Bench() as bench:
        watch = bench.watch(engine)
        await watch.check()
        engine.requests.clear()
        for _ in range(5):
            await watch.check()
        assert asked(engine) == ["/openapi.json"] * 5


# --- servers that change


async def test_another_engine_at_the_address_is_recognised(start_sim: StartSim) -> None:
    first = await start_sim("llama-cpp-python", "old")
    port = int(first.url.rpartition(":")[2])
    async with Bench() as bench:
        watch = bench.watch(first)
        await watch.check()
        await first.stop()
        await watch.check()
        async with at_port(port, Profile("llama.cpp", ("new",), slots=3)):
            await twice(watch)
            backend = watch.backend
            assert (backend.engine, backend.one_at_a_time) == ("llama.cpp", False)
            assert names(watch) == {"new"}
            assert backend.capacity == 3


async def test_swapped_models_are_read_while_it_stays_up(start_sim: StartSim) -> None:
    first = await start_sim("vllm", "old")
    port = int(first.url.rpartition(":")[2])
    async with Bench() as bench:
        watch = bench.watch(first)
        await watch.check()
        await first.stop()
        async with at_port(port, Profile("vllm", ("new",))):
            await watch.check()
            assert bench.pool.candidates("old") == []
            assert bench.pool.candidates("new") == [watch.backend]


async def test_an_engine_set_back_to_auto_while_up_is_recognised(start_sim: StartSim) -> None:
    engine = await start_sim("vllm")
    async with Bench() as bench:
        watch = bench.watch(engine, engine="openai")
        await watch.check()
        assert watch.backend.engine == "openai"
        bench.pool.update(replace(watch.backend.spec, engine="auto"))
        await watch.check()
        assert watch.backend.engine == "vllm"


# --- answers that are not what they should be


def openai_pages(models: Page) -> dict[str, Page]:
    return {"/health": Page(), "/version": Page("{}"), "/v1/models": models}


async def checked_with(models: Page) -> Watch:
    async with Pages(openai_pages(models)) as pages, Bench() as bench:
        watch = bench.watch(pages)
        await watch.check()
        return watch


@pytest.mark.parametrize(
    "body",
    [
        "no json",
        '{"data":[{"id":"tiny","n":NaN}]}',
        '{"data":[{"id":"tiny","n":1e999}]}',
        '{"data":[{"id":"\\ud800"}]}',
        "[" * 100_000,
        b"\xff\xfe",
    ],
)
async def test_a_model_list_that_is_no_json_is_an_unknown_one(body: bytes | str) -> None:
    watch = await checked_with(Page(body))
    assert (state(watch), names(watch)) == ("up", None)


async def test_an_error_leaves_the_known_models(start_sim: StartSim) -> None:
    async with Pages({"/health": Page(), "/v1/models": Page(MODELS)}) as pages, Bench() as bench:
        watch = bench.watch(pages, engine="vllm")
        await watch.check()
        for status in (404, 429, 500, 503):
            pages.pages["/v1/models"] = Page(status=status)
            await watch.check()
            assert names(watch) == {"tiny"}


async def test_a_server_without_a_model_list_is_up_and_asked_for_any_model() -> None:
    async with Pages({"/health": Page()}) as pages, Bench() as bench:
        watch = bench.watch(pages, engine="vllm")
        await watch.check()
        assert watch.backend.is_up
        assert bench.pool.candidates("whatever") == [watch.backend]


async def test_what_does_not_speak_http_is_down_with_a_reason_fit_for_json(
    start_sim: StartSim,
) -> None:
    engine = await start_sim()
    engine.inject(Fault.GARBAGE, everywhere=True)
    async with Bench() as bench:
        watch = bench.watch(engine)
        await watch.check()
        assert state(watch) == "down"
        assert watch.backend.health.reason == "what it answers is not HTTP"


async def test_a_server_without_tls_at_an_https_address_is_a_failed_check(
    start_sim: StartSim,
) -> None:
    """A connection that fails otherwise than refused counts, and does not end the watch."""
    engine = await start_sim()
    async with Bench() as bench:
        watch = bench.watch(engine)
        spec = watch.backend.spec
        bench.pool.update(replace(spec, url=spec.url.replace("http:", "https:")))
        await watch.check()
        assert state(watch) == "down"
        assert watch.backend.health.reason.startswith("no TLS connection")


async def test_a_redirect_is_not_followed() -> None:
    elsewhere = Page(status=302, headers={"Location": "/v1/models"})
    async with (
        Pages({"/health": elsewhere, "/v1/models": Page(MODELS)}) as pages,
        Bench() as bench,
    ):
        watch = bench.watch(pages, engine="vllm")
        await watch.check()
        assert watch.backend.health.reason == "/health answered 302"
        assert pages.asked == ["/health"]


async def test_a_router_that_has_no_file_left_to_ask_with_holds_nothing_against_the_server(
    start_sim: StartSim, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await start_sim()
    async with Bench(health_check_consecutive_failures=1) as bench:
        watch = bench.watch(engine)
        await twice(watch)
        before = watch.backend.health.checks
        watch._prober = Prober()  # one without a connection that it could use again
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", no_files)
            for _ in range(5):
                await watch.check()
        assert watch.backend.is_up
        assert watch.backend.health.checks == before
        assert "not asked for its health" in caplog.text
        await watch.check()
        assert watch.backend.is_up
        await watch._prober.close()


async def test_models_and_slots_beyond_all_measure_do_no_harm() -> None:
    entries = ",".join(f'{{"id":"m{number}"}}' for number in range(20_000))
    pages = {
        "/health": Page(),
        "/v1/models": Page(f'{{"data":[{{"id":"a\\nb"}},{{"id":"\\u001b[2J"}},{entries}]}}'),
        "/props": Page('{"total_slots":1000000000000}'),
    }
    async with Pages(pages) as server, Bench() as bench:
        watch = bench.watch(server, engine="llama.cpp")
        await watch.check()
        assert watch.backend.is_up
        assert watch.backend.capacity == 4
        known = names(watch)
        assert known is not None
        assert len(known) == 4096
        assert all(name.isprintable() for name in known)

"""The router starts real engines, sends them requests, and ends them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import engine_folder, models_folder, python_of, vllm_command
from support import chat, config_of, until

from mvllm_router.config import LaunchSpec
from mvllm_router.launch.guard import is_there
from mvllm_router.launch.keeper import Keeper
from mvllm_router.launch.life import Phase
from mvllm_router.launch.plan import make_plan
from mvllm_router.server import Router

START = 200.0  # seconds that an engine may take on a busy machine
Launch = Callable[..., Awaitable[Router]]


@pytest.fixture
async def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Launch]:
    """Give a function that starts a router and the servers of a launch."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    routers: list[Router] = []

    async def start(**launch: Any) -> Router:
        spec = LaunchSpec(**{"name": "tiny", "gpus": (), "replicas": 1, **launch})
        router = Router(config_of([]), plan=make_plan([spec]))
        await router.start()
        routers.append(router)
        return router

    yield start
    for router in routers:
        pids = [keeper.pid for keeper in keepers(router)]
        await router.stop(drain_timeout=2)
        assert [pid for pid in pids if pid is not None and is_there(pid)] == []


def keepers(router: Router) -> list[Keeper]:
    assert router.supervisor is not None
    return list(router.supervisor.keepers.values())


async def until_all(router: Router, phase: Phase) -> list[Keeper]:
    await until(lambda: all(one.life.phase is phase for one in keepers(router)), timeout=START)
    return keepers(router)


async def complete(router: Router, model: str = "tiny") -> tuple[int, str]:
    async with aiohttp.ClientSession() as http:
        url = router.url + "/v1/chat/completions"
        async with http.post(url, json=chat(model, max_tokens=3)) as response:
            await response.read()
            return response.status, response.headers.get("x-router-backend", "")


def llama(**more: Any) -> dict[str, Any]:
    return {
        "engine": "llama.cpp",
        "engine_path": str(engine_folder("llama-server") / "llama-server"),
        "model": str(models_folder() / "tiny.gguf"),
        "slots": 2,
        "context": 512,
        "args": ("-t", "1"),
        **more,
    }


async def test_two_llama_servers_serve_and_one_that_is_killed_comes_back(launched: Launch) -> None:
    router = await launched(**llama(replicas=2, api_key="hush"))
    first, second = await until_all(router, Phase.READY)
    for keeper in (first, second):
        backend = router.pool.backends[keeper.name]
        assert (backend.engine, backend.slots) == ("llama.cpp", 2)
        assert backend.model_names() == {"tiny"}
    assert {(await complete(router))[0] for _ in range(8)} == {200}
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    await until(lambda: first.life.starts == 2, timeout=START)
    await until_all(router, Phase.READY)
    router.pool.drain(second.name)
    assert await complete(router) == (200, first.name)


async def test_a_llama_server_with_a_wrong_option_fails_with_its_own_words(
    launched: Launch,
) -> None:
    router = await launched(**llama(args=("--no-such-option",)))
    (keeper,) = await until_all(router, Phase.FAILED)
    assert keeper.life.starts == 1
    assert keeper.life.reason.startswith("error: invalid argument: --no-such-option")


async def test_a_llama_cpp_python_server_is_started_as_a_module(launched: Launch) -> None:
    router = await launched(
        engine="llama-cpp-python",
        engine_path=python_of("llama-cpp-python"),
        model=str(models_folder() / "tiny.gguf"),
        context=512,
        args=("--n_threads", "1"),
        api_key="hush",
    )
    await until_all(router, Phase.READY)
    assert await complete(router) == (200, "tiny-0")


async def test_an_mlx_server_serves_the_model_that_it_was_started_with(
    launched: Launch, tmp_path: Path
) -> None:
    (tmp_path / "hub").mkdir()
    model = str((models_folder() / "tiny").resolve())
    router = await launched(
        engine="mlx",
        engine_path=python_of("mlx"),
        model=model,
        slots=4,
        env={"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    )
    await until_all(router, Phase.READY)
    assert await complete(router, model) == (200, "tiny-0")


async def test_vllm_is_started_with_its_share_and_ends_with_all_its_processes(
    launched: Launch,
) -> None:
    known = vllm_command(2, (), "tiny")
    router = await launched(
        engine="vllm",
        engine_path=known.argv[0],
        model=str(models_folder() / "tiny"),
        slots=2,
        context=512,
        args=("--dtype", "bfloat16", "--enforce-eager"),
        env=known.environ,
        api_key="hush",
    )
    (keeper,) = await until_all(router, Phase.READY)
    assert await complete(router) == (200, "tiny-0")
    assert router.pool.backends["tiny-0"].slots == 2
    assert "hush" not in keeper.journal.path.read_text("utf-8")
    assert keeper.stage in ("loading", "warming")

"""A router in the test's loop that has started servers of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from launch_kit import plan_of
from support import config_of

from mvllm_router.config import LaunchSpec
from mvllm_router.launch import keeper as keepers
from mvllm_router.launch.gpus import Gpu
from mvllm_router.launch.guard import is_there
from mvllm_router.launch.life import Rules
from mvllm_router.server import Router

StartLaunched = Callable[..., Awaitable[Router]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a function that makes servers be given up, restarted and killed soon."""

    def set_rules(**rules: Any) -> None:
        values = {"first_pause": 0.05, "longest_pause": 0.1, **rules}
        monkeypatch.setattr(keepers, "Rules", partial(Rules, **values))

    monkeypatch.setattr(keepers, "GRACE", 0.5)
    monkeypatch.setattr(keepers, "_TICK", 0.05)
    return set_rules


@pytest.fixture
async def start_launched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StartLaunched]:
    """Give a function that starts a router with servers; at the end nothing of them may be left."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    routers: list[Router] = []

    async def start(
        *launches: LaunchSpec,
        there: Sequence[Gpu] = (),
        parallel: int | None = None,
        servers: Sequence[Any] = (),
        **settings: Any,
    ) -> Router:
        plan = plan_of(*launches, there=there, parallel=parallel)
        router = Router(config_of(servers, **settings), plan=plan)
        await router.start()
        routers.append(router)
        return router

    yield start
    for router in routers:
        assert router.supervisor is not None
        found = [keeper.pid for keeper in router.supervisor.keepers.values()]
        await router.stop(drain_timeout=2)
        assert [pid for pid in found if pid is not None and is_there(pid)] == []

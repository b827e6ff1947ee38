"""Servers are started, kept, restarted and ended: real processes, some of which misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from launch_kit import SIM, commanded, gpus, script
from support import chat, until

from mvllm_router.launch.faults import CannotLaunch
from mvllm_router.launch.guard import is_there
from mvllm_router.launch.keeper import Keeper
from mvllm_router.launch.life import Phase
from mvllm_router.launch.supervisor import Supervisor
from mvllm_router.server import Router

if TYPE_CHECKING:
    from conftest import StartLaunched

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")

# Runs the words behind the first one once the file that this names is there.
WHEN_THERE = script(
    "import os, sys, time\n"
    "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
    "os.execv(sys.argv[2], sys.argv[2:])"
)
# The first time it says what is given and ends with 1; then it runs the words behind.
AT_FIRST = script(
    "import os, sys\n"
    "if not os.path.exists(sys.argv[1]):\n"
    "    open(sys.argv[1], 'w').close(); print(sys.argv[2]); sys.exit(1)\n"
    "os.execv(sys.argv[3], sys.argv[3:])"
)
SLEEPS = "import time; time.sleep(600)"
# Seconds for what takes a moment, on a machine that has other work.
PATIENCE = 20
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); {SLEEPS}"


def is_dead(pid: int) -> bool:
    """Tell whether a process has ended; what has adopted it may not have noticed yet."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip()[:1] in ("", "Z")


def supervisor_of(router: Router) -> Supervisor:
    assert router.supervisor is not None
    return router.supervisor


def keeper_of(router: Router, name: str = "sim-0") -> Keeper:
    return supervisor_of(router).keepers[name]


async def until_phase(router: Router, phase: Phase, name: str = "sim-0") -> Keeper:
    keeper = keeper_of(router, name)
    await until(lambda: keeper.life.phase is phase, timeout=30)
    return keeper


def messages(router: Router, name: str = "sim-0") -> list[str]:
    events = router.pool.events.last(500)
    return [e.message for e in events if e.kind == "launch" and e.backend == name]


async def ask(http: aiohttp.ClientSession, router: Router, path: str = "/ready") -> tuple[int, str]:
    async with http.get(router.url + path) as response:
        return response.status, await response.text()


async def complete(http: aiohttp.ClientSession, router: Router) -> tuple[int, str]:
    url = router.url + "/v1/chat/completions"
    async with http.post(url, json=chat(max_tokens=2)) as response:
        await response.read()
        return response.status, response.headers.get("x-router-backend", "")


async def test_clients_are_told_to_come_back_until_a_server_is_up(
    start_launched: StartLaunched, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    router = await start_launched(commanded(*WHEN_THERE, str(gate), *SIM))
    await until_phase(router, Phase.STARTING)
    assert (await ask(http, router))[0] == 503
    async with http.post(router.url + "/v1/chat/completions", json=chat()) as response:
        assert response.status == 503
        assert int(response.headers["retry-after"]) > 0
    await until(lambda: router.pool.backends["sim-0"].health.state.value == "loading")
    gate.touch()
    await until_phase(router, Phase.READY)
    assert (await ask(http, router))[0] == 200
    assert await complete(http, router) == (200, "sim-0")


async def test_a_server_that_dies_is_started_again(
    start_launched: StartLaunched, http: aiohttp.ClientSession, quick: Callable[..., None]
) -> None:
    quick()
    router = await start_launched(commanded(*SIM))
    keeper = await until_phase(router, Phase.READY)
    assert keeper.pid is not None
    os.kill(keeper.pid, signal.SIGKILL)
    await until(lambda: keeper.life.starts == 2, timeout=30)
    await until_phase(router, Phase.READY)
    assert await complete(http, router) == (200, "sim-0")
    assert any("SIGKILL, out of memory perhaps" in text for text in messages(router))


async def test_a_server_that_dies_again_and_again_is_given_up_with_its_reason(
    start_launched: StartLaunched, http: aiohttp.ClientSession, quick: Callable[..., None]
) -> None:
    quick(most_failures=3)
    crash = script("print('RuntimeError: boom'); raise SystemExit(3)")
    router = await start_launched(commanded(*crash))
    keeper = await until_phase(router, Phase.FAILED)
    assert keeper.life.starts == 3
    reason = "RuntimeError: boom (it ended with exit code 3)"
    assert keeper.life.reason == reason
    await until(lambda: router.pool.backends["sim-0"].health.state.value == "down")
    assert reason in router.pool.backends["sim-0"].health.reason
    assert messages(router)[-1].startswith("failed 3 times, and is not started again: ")
    assert (await ask(http, router))[0] == 503


async def test_the_routers_own_words_come_before_the_servers_and_are_no_reason(
    start_launched: StartLaunched, quick: Callable[..., None]
) -> None:
    quick(most_failures=1)
    loud = commanded("/bin/sh", "-c", "echo hello; exit 3", name="loud")
    mute = commanded("/bin/sh", "-c", "exit 3", name="mute")
    router = await start_launched(loud, mute)
    keeper = await until_phase(router, Phase.FAILED, "loud-0")
    assert keeper.journal.after(0)[-1] == "hello"
    assert keeper.life.reason == "hello (it ended with exit code 3)"
    keeper = await until_phase(router, Phase.FAILED, "mute-0")
    assert keeper.life.reason == "it ended with exit code 3"


async def test_wrong_usage_is_not_tried_twice(start_launched: StartLaunched) -> None:
    usage = script("print('x: error: unrecognized arguments: --y'); raise SystemExit(2)")
    router = await start_launched(commanded(*usage))
    keeper = await until_phase(router, Phase.FAILED)
    assert keeper.life.starts == 1


async def test_a_program_that_cannot_be_run_fails_with_the_systems_reason(
    start_launched: StartLaunched, tmp_path: Path
) -> None:
    router = await start_launched(commanded(str(tmp_path)))
    keeper = await until_phase(router, Phase.FAILED)
    assert "cannot be run" in keeper.life.reason


async def test_one_that_starts_in_silence_is_ended_and_started_again(
    start_launched: StartLaunched, quick: Callable[..., None]
) -> None:
    quick(most_failures=2)
    router = await start_launched(commanded(*script(SLEEPS), start_timeout=0.3))
    keeper = await until_phase(router, Phase.FAILED)
    assert keeper.life.reason == "it printed nothing for 0.3 s while it started"
    assert keeper.life.starts == 2


async def test_one_that_hangs_is_replaced(
    start_launched: StartLaunched, http: aiohttp.ClientSession, quick: Callable[..., None]
) -> None:
    quick(hung_after=0.3)
    router = await start_launched(commanded(*SIM), health_check_timeout=0.2)
    keeper = await until_phase(router, Phase.READY)
    hung = keeper.pid
    assert hung is not None
    os.killpg(hung, signal.SIGSTOP)
    await until(lambda: keeper.life.starts == 2, timeout=30)
    await until_phase(router, Phase.READY)
    assert not is_there(hung)
    assert any("it runs, and is not well for 0.3 s: " in text for text in messages(router))
    assert await complete(http, router) == (200, "sim-0")


async def test_one_that_answers_but_never_well_is_ended_with_what_it_said(
    start_launched: StartLaunched, quick: Callable[..., None]
) -> None:
    quick(hung_after=0.2, most_failures=1)
    broken = script(
        "import http.server, sys\n"
        "class Broken(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_error(500)\n"
        "print('ValueError: no such model')\n"
        "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Broken).serve_forever()",
        "{port}",
    )
    router = await start_launched(commanded(*broken))
    keeper = await until_phase(router, Phase.FAILED)
    assert keeper.life.reason.startswith("it runs, and is not well for 0.2 s: ")
    assert keeper.life.reason.endswith("; it said: ValueError: no such model")


async def test_asked_a_second_time_to_stop_it_kills_what_is_left(
    start_launched: StartLaunched,
) -> None:
    router = await start_launched(commanded(*script(DEAF)))
    keeper = keeper_of(router)
    await until(lambda: keeper.journal.last == "deaf", timeout=PATIENCE)
    pid = keeper.pid
    assert pid is not None
    router.ask_to_stop()
    router.ask_to_stop()
    await router.stop(drain_timeout=0)
    assert not is_there(pid)
    assert "so it is killed" not in keeper.journal.path.read_text("utf-8")


async def test_a_port_that_somebody_took_is_changed(
    start_launched: StartLaunched,
    http: aiohttp.ClientSession,
    quick: Callable[..., None],
    tmp_path: Path,
) -> None:
    quick()
    error = "OSError: [Errno 98] address already in use"
    router = await start_launched(commanded(*AT_FIRST, str(tmp_path / "x"), error, *SIM))
    first = keeper_of(router).port
    await until_phase(router, Phase.READY)
    assert keeper_of(router).port != first
    assert await complete(http, router) == (200, "sim-0")


async def test_a_restart_waits_for_what_is_in_flight(
    start_launched: StartLaunched, http: aiohttp.ClientSession
) -> None:
    router = await start_launched(commanded(*SIM, "--tps", "20"))
    keeper = await until_phase(router, Phase.READY)
    before = keeper.pid
    url = router.url + "/v1/chat/completions"
    async with http.post(url, json=chat(stream=True, max_tokens=20)) as response:
        await response.content.readany()
        keeper.restart()
        await until(lambda: keeper.life.phase is Phase.DRAINING)
        text = (await response.read()).decode()
    assert text.rstrip().endswith("data: [DONE]")
    await until(lambda: keeper.life.starts == 2, timeout=30)
    await until_phase(router, Phase.READY)
    assert keeper.pid != before
    assert await complete(http, router) == (200, "sim-0")


async def test_a_server_that_an_operator_drains_stays_drained_over_a_restart(
    start_launched: StartLaunched,
) -> None:
    router = await start_launched(commanded(*SIM))
    keeper = await until_phase(router, Phase.READY)
    router.pool.drain("sim-0")
    keeper.restart()
    await until(lambda: keeper.life.starts == 2, timeout=30)
    await until_phase(router, Phase.READY)
    assert router.pool.backends["sim-0"].draining


async def test_one_that_failed_is_started_when_that_is_asked_for(
    start_launched: StartLaunched, tmp_path: Path
) -> None:
    words = (*AT_FIRST, str(tmp_path / "x"), "error: unrecognized arguments: --x", *SIM)
    router = await start_launched(commanded(*words))
    keeper = await until_phase(router, Phase.FAILED)
    keeper.restart()
    await until_phase(router, Phase.READY)
    assert keeper.life.reason == ""


async def test_so_many_start_at_the_same_time_as_was_asked_for(
    start_launched: StartLaunched, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    router = await start_launched(commanded(*WHEN_THERE, str(gate), *SIM, replicas=2), parallel=1)
    await until_phase(router, Phase.STARTING)
    assert keeper_of(router, "sim-1").life.phase is Phase.WAITING
    gate.touch()
    await until_phase(router, Phase.READY, "sim-1")
    assert keeper_of(router).begun < keeper_of(router, "sim-1").begun


async def test_what_ignores_sigterm_is_killed(
    start_launched: StartLaunched, quick: Callable[..., None]
) -> None:
    quick()
    router = await start_launched(commanded(*script(DEAF)))
    keeper = keeper_of(router)
    await until(lambda: keeper.journal.last == "deaf", timeout=PATIENCE)
    pid = keeper.pid
    assert pid is not None
    await router.stop(drain_timeout=0)
    assert not is_there(pid)
    assert "so it is killed" in keeper.journal.path.read_text("utf-8")


async def test_a_server_ends_with_all_that_it_has_started(
    start_launched: StartLaunched, quick: Callable[..., None]
) -> None:
    quick(most_failures=1)
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-uc', {DEAF!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print('child', child.pid); sys.exit(1)"
    )
    router = await start_launched(commanded(*script(code)))
    keeper = await until_phase(router, Phase.FAILED)
    line = next(line for line in keeper.journal.after(0) if line.startswith("child "))
    await until(lambda: is_dead(int(line.split()[1])))


async def test_more_servers_are_started_and_fewer_are_drained_first(
    start_launched: StartLaunched, http: aiohttp.ClientSession
) -> None:
    launch = commanded(*SIM, "--tps", "20")
    router = await start_launched(launch)
    supervisor = supervisor_of(router)
    await until_phase(router, Phase.READY)
    await supervisor.scale(launch, 2)
    second = await until_phase(router, Phase.READY, "sim-1")
    pid = second.pid
    assert pid is not None
    router.pool.drain("sim-0")
    url = router.url + "/v1/chat/completions"
    async with http.post(url, json=chat(stream=True, max_tokens=20)) as response:
        assert response.headers["x-router-backend"] == "sim-1"
        await supervisor.scale(launch, 1)
        assert second.leaving
        text = (await response.read()).decode()
    assert text.rstrip().endswith("data: [DONE]")
    await until(lambda: "sim-1" not in router.pool.backends, timeout=30)
    assert set(supervisor.keepers) == {"sim-0"}
    assert not is_there(pid)


async def test_servers_that_are_added_start_at_the_same_time(
    start_launched: StartLaunched, tmp_path: Path
) -> None:
    launch = commanded(*WHEN_THERE, str(tmp_path / "never"), *SIM)
    router = await start_launched(launch)
    await supervisor_of(router).scale(launch, 3)
    for number in range(3):
        await until_phase(router, Phase.STARTING, f"sim-{number}")


async def test_servers_that_do_not_fit_are_not_added(start_launched: StartLaunched) -> None:
    launch = commanded(*SIM, replicas=1)
    router = await start_launched(launch, there=gpus(1))
    with pytest.raises(CannotLaunch, match="has another server"):
        await supervisor_of(router).scale(launch, 2)
    assert set(supervisor_of(router).keepers) == {"sim-0"}


async def test_changes_made_while_it_runs_outlast_a_restart_and_a_reload(
    start_launched: StartLaunched, http: aiohttp.ClientSession
) -> None:
    router = await start_launched(commanded(*SIM))
    await until_phase(router, Phase.READY)
    url = router.url + "/router/backends/sim-0"
    async with http.patch(url, json={"weight": 0.5}) as response:
        assert response.status == 200
    await router.live.employ(router.live.launched)
    assert router.pool.backends["sim-0"].spec.weight == 0.5
    async with http.delete(url, json={}) as response:
        assert response.status == 409
        assert "router scale" in json.loads(await response.text())["error"]["message"]


async def test_the_log_of_each_server_is_on_the_disk(
    start_launched: StartLaunched, tmp_path: Path
) -> None:
    router = await start_launched(commanded(*script("print('hello'); raise SystemExit(2)")))
    await until_phase(router, Phase.FAILED)
    path = tmp_path / "state" / "mvllm-router" / str(router.port) / "sim-0.log"
    assert "hello" in path.read_text("utf-8")


async def test_stopping_while_servers_start_leaves_nothing(
    start_launched: StartLaunched,
) -> None:
    router = await start_launched(commanded(*script(SLEEPS), replicas=4))
    keepers = list(supervisor_of(router).keepers.values())
    await asyncio.sleep(0)  # wherever they are by now
    await router.stop(drain_timeout=0)
    assert [k.pid for k in keepers if k.pid is not None and is_there(k.pid)] == []

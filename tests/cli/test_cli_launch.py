"""`router launch` as a user runs it, and the commands for servers that were started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from cli_kit import Running, router, start, until_nobody_listens
from support import chat, until

from mvllm_router.cli.launch import clear_up
from mvllm_router.client import get
from mvllm_router.launch.guard import is_there

SIM = (sys.executable, "-m", "mvllm_router.sim", "--model", "tiny", "--port", "{port}")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")


@asynccontextmanager
async def launching(*words: str, cwd: Path, **env: str) -> AsyncIterator[Running]:
    """Run `router launch ...` until all servers are ready."""
    process = await start(
        "launch", "--port", "0", *words, cwd=cwd, XDG_STATE_HOME=str(cwd / "state"), **env
    )
    running = Running(process)
    try:
        await running.log_line("(Ctrl-C to stop)")
        yield running
    finally:
        if process.returncode is None:
            await running.stop(signal.SIGKILL)


def processes(url: str) -> list[int]:
    launches = get(url, "/router/launch")["launches"]
    return [server["process"] for launch in launches for server in launch["servers"]]


async def test_servers_are_started_serve_and_end_with_the_router(tmp_path: Path) -> None:
    async with launching(
        *("command", "--name", "sim", "--replicas", "2", "--", *SIM), cwd=tmp_path
    ) as running:
        await running.log_line("ready after")
        await running.log_line("ready after")
        async with aiohttp.ClientSession() as http:
            url = running.url + "/v1/chat/completions"
            async with http.post(url, json=chat(max_tokens=2)) as response:
                assert response.status == 200
                assert response.headers["x-router-backend"] in ("sim-0", "sim-1")
        found = processes(running.url)
        done = await running.stop()
        assert done.code == 0
        assert "2 servers, policy" in done.err
        assert [pid for pid in found if is_there(pid)] == []


async def test_a_router_that_is_killed_leaves_no_server_behind(tmp_path: Path) -> None:
    async with launching("command", "--name", "sim", "--", *SIM, cwd=tmp_path) as running:
        await running.log_line("ready after")
        (server,) = running.server_urls
        await running.stop(signal.SIGKILL)
    await until_nobody_listens(server)


async def test_what_is_left_when_the_guard_is_killed_too_is_ended_by_the_next_router(
    tmp_path: Path,
) -> None:
    words = ("command", "--name", "sim", "--", *SIM)
    async with launching(*words, cwd=tmp_path) as running:
        await running.log_line("ready after")
        (left,) = processes(running.url)
        (guard,) = children_of(running.process.pid, "launch.guard")
        running.process.send_signal(signal.SIGSTOP)  # else it would start another guard
        os.kill(guard, signal.SIGKILL)
        await running.stop(signal.SIGKILL)
    assert is_there(left)
    async with launching(*words, cwd=tmp_path) as running:
        assert f"which was killed has left: processes {left}" in "\n".join(running.lines)
        await running.log_line("ready after")
        await until(lambda: not is_there(left))  # whoever adopted it has noticed
        assert processes(running.url) != [left]
        await running.stop()
    assert lists_of_servers(tmp_path) == []


def test_a_user_without_a_home_has_left_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    clear_up()


def lists_of_servers(folder: Path) -> list[Path]:
    return list(folder.glob("state/mvllm-router/*/servers-*"))


def children_of(pid: int, word: str) -> list[int]:
    """Return the children of a process that have a word in their command."""
    done = subprocess.run(
        ["ps", "-Aww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(None, 2) for line in done.stdout.splitlines())
    return [int(row[0]) for row in rows if int(row[1]) == pid and word in row[2]]


async def test_run_starts_what_the_file_has_under_launch_beside_its_servers(tmp_path: Path) -> None:
    words = ", ".join(f'"{word}"' for word in SIM)
    (tmp_path / "servers.toml").write_text(
        f'[[servers]]\nurl = "http://127.0.0.1:1"\nname = "gone"\n'
        f'[[launch]]\nengine = "command"\nname = "sim"\nargs = [{words}]\n'
    )
    process = await start(
        *("run", "--port", "0"), cwd=tmp_path, XDG_STATE_HOME=str(tmp_path / "state")
    )
    running = Running(process)
    await running.log_line("2 servers, policy")
    await running.log_line("ready after")
    done = await running.stop()
    assert done.code == 0


async def test_when_no_server_can_be_started_it_ends_with_the_reason(tmp_path: Path) -> None:
    code = "print('x: error: unrecognized arguments: --y'); raise SystemExit(2)"
    done = await router(
        *("launch", "--port", "0", "command", "--", sys.executable, "-c", code),
        cwd=tmp_path,
        XDG_STATE_HOME=str(tmp_path / "state"),
    )
    assert done.code == 1
    assert "unrecognized arguments: --y (it ended with exit code 2)" in done.err
    assert done.err.endswith("error: no server could be started\n")


async def test_dry_run_prints_commands_that_can_be_copied_and_hides_the_key(tmp_path: Path) -> None:
    vllm = tmp_path / "vllm"
    vllm.write_text("#!/bin/sh\n")
    vllm.chmod(0o755)
    done = await router(
        *("launch", "vllm", "Qwen/Qwen3-8B", "--engine-path", str(vllm), "--gpus", "none"),
        *("--slots", "8", "--dry-run", "--", "--seed", "1 2"),
        cwd=tmp_path,
        ROUTER_SERVER_KEY="hush",
    )
    assert done.code == 0
    title, line = done.out.splitlines()
    assert title == "# qwen3-8b-0"
    before, _, after = line.partition(" --port ")
    environment = "CUDA_VISIBLE_DEVICES='' VLLM_API_KEY='***'"
    assert before == f"{environment} {vllm} serve Qwen/Qwen3-8B --host 127.0.0.1"
    assert after.partition(" ")[2] == "--max-num-seqs 8 --seed '1 2'"
    assert "hush" not in done.out + done.err
    assert os.listdir(tmp_path) == ["vllm"]  # no log of a server, nor anything else


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "nothing to launch. Begin in one of two ways"),
        (("-c", "empty.toml"), "empty.toml has no [[launch]]"),
        (("vlm", "x"), "did you mean `vllm`?"),
        (("vllm",), "the launch has no `model`"),
        (("--tp", "2"), "--tp is for an engine and a model on the command line"),
        (("vllm", "x", "--replicas", "0"), "`replicas` must be a whole number from 1 to 50"),
        (("vllm", "./missing"), "there is no model at"),
        (("llama.cpp", "missing.gguf"), "there is no model at"),
        (("command", "--", "no-such-program"), "there is no program no-such-program"),
        (("vllm", "x", "--engine-path", "/no/vllm"), "there is no program /no/vllm"),
    ],
)
async def test_mistakes_end_with_2_and_say_what_to_do(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.toml").write_text('servers = ["http://a:1"]\n')
    done = await router("launch", *words, cwd=tmp_path)
    assert done.code == 2
    assert said in done.err


async def test_logs_restart_and_scale_of_a_running_router(tmp_path: Path) -> None:
    words = ("command", "--name", "sim", "--replicas", "2", "--", *SIM)
    async with launching(*words, cwd=tmp_path) as running:
        await running.log_line("ready after")
        await running.log_line("ready after")
        url = ("--url", running.url)
        logs = await router("logs", "sim-0", "-n", "1", *url, cwd=tmp_path)
        assert logs.code == 0
        assert '"url": ' in logs.out
        before = processes(running.url)
        done = await router("restart", "--rolling", *url, cwd=tmp_path)
        assert (done.code, done.out) == (
            0,
            "sim-0 is restarted and ready\nsim-1 is restarted and ready\n",
        )
        assert not set(before) & set(processes(running.url))
        done = await router("scale", "sim", "1", *url, cwd=tmp_path)
        assert (done.code, done.out) == (0, "sim has 1 server\n")
        assert len(processes(running.url)) == 1
        done = await router("restart", "sim-9", *url, cwd=tmp_path)
        assert done.code == 2
        assert "No server `sim-9` was started here." in done.err
        assert (await router("restart", *url, cwd=tmp_path)).code == 2
        assert (await router("restart", "--rolling", "x", *url, cwd=tmp_path)).code == 2


async def test_following_a_log_goes_on_with_what_comes(tmp_path: Path) -> None:
    words = ("command", "--name", "sim", "--", *SIM)
    async with launching(*words, cwd=tmp_path) as running:
        await running.log_line("ready after")
        reading = await start("logs", "sim-0", "-f", "--url", running.url, cwd=tmp_path)
        assert reading.stdout is not None
        assert b"--- is started" in await reading.stdout.readline()
        os.kill(processes(running.url)[0], signal.SIGKILL)
        lines: list[bytes] = []
        while b"--- started" not in b"".join(lines):
            lines.append(await reading.stdout.readline())
            assert lines[-1]
        reading.kill()
        await reading.communicate()


async def test_restarting_one_by_one_loses_no_request(tmp_path: Path) -> None:
    words = ("command", "--name", "sim", "--replicas", "2", "--", *SIM)
    async with launching(*words, cwd=tmp_path) as running:
        await running.log_line("ready after")
        await running.log_line("ready after")
        rolling = await start("restart", "--rolling", "--url", running.url, cwd=tmp_path)
        statuses: list[int] = []
        async with aiohttp.ClientSession() as http:
            while rolling.returncode is None:
                url = running.url + "/v1/chat/completions"
                async with http.post(url, json=chat(max_tokens=2)) as response:
                    await response.read()
                    statuses.append(response.status)
        await rolling.communicate()
        assert rolling.returncode == 0
        assert len(statuses) > 10
        assert set(statuses) == {200}
        await until(lambda: len(processes(running.url)) == 2)

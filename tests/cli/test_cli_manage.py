"""`router drain`, `router enable`, `router reload`: what they wait for, print and end with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cli_kit import PATIENCE, Done, environment, finish, router, start
from support import StartRouter, StartSim, chat
from wire import Client

from mvllm_router.config import ServerSpec, load
from mvllm_router.server import Router
from mvllm_router.sim.engine import SimEngine

NOBODY = ServerSpec(url="http://127.0.0.1:9", name="gpu-1")


@asynccontextmanager
async def running_stream(router_: Router, engine: SimEngine) -> AsyncIterator[None]:
    """A stream that is under way on `engine`, which holds it."""
    engine.hold()
    async with Client(router_.url) as client:
        client.post(json.dumps(chat(stream=True, max_tokens=5)).encode())
        await engine.wait_for(lambda sim: sim.running == 1)
        yield


async def waiting_line(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    return (await asyncio.wait_for(process.stderr.readline(), PATIENCE)).decode().rstrip()


# --- drain


async def test_drain_ends_when_the_last_stream_does(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    engine = await start_sim()
    running = await start_router(engine)
    async with running_stream(running, engine):
        process = await start("drain", "s0", "--url", running.url, cwd=tmp_path)
        assert await waiting_line(process) == "s0: waiting for 1 request to finish"
        assert running.pool.backends["s0"].draining
        assert process.returncode is None
        engine.release()
        assert await finish(process) == Done(0, "s0 gets no new requests, nothing runs\n", "")
    assert engine.served == 1


async def test_drain_of_an_idle_server_returns_at_once_and_can_be_repeated(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim())
    for _ in range(2):
        done = await router("drain", "s0", "-u", running.url, cwd=tmp_path)
        assert done == Done(0, "s0 gets no new requests, nothing runs\n", "")


async def test_drain_ends_with_1_when_requests_outlast_the_timeout_and_says_what_to_do(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    engine = await start_sim()
    running = await start_router(engine)
    async with running_stream(running, engine):
        words = ("drain", "s0", "--url", running.url, "--timeout", "0.1")
        done = await router(*words, cwd=tmp_path)
        assert (done.code, done.out) == (1, "")
        assert done.err.splitlines()[1] == "error: 1 request still runs on s0 after 0.1 s"
        assert done.err.splitlines()[2].startswith("hint: it gets no new ones. ")
        done = await router(*words, "--json", cwd=tmp_path)
        assert done.code == 1
        assert json.loads(done.out)["in_flight"] == 1
    assert running.pool.backends["s0"].draining


async def test_drain_need_not_wait(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    engine = await start_sim()
    running = await start_router(engine)
    async with running_stream(running, engine):
        done = await router("drain", "s0", "--url", running.url, "--no-wait", cwd=tmp_path)
        assert done == Done(0, "s0 gets no new requests, 1 request still running\n", "")


async def test_drain_and_enable_print_the_server_for_programs(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim())
    for command, state in (("drain", "drain"), ("enable", "up")):
        done = await router(command, "s0", "--json", cwd=tmp_path, ROUTER_URL=running.url)
        assert (done.code, done.err) == (0, "")
        assert json.loads(done.out)["state"] == state
        assert json.loads(done.out)["draining"] is (command == "drain")


async def test_drain_ends_with_1_when_somebody_enables_the_server_meanwhile(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    engine = await start_sim()
    running = await start_router(engine)
    async with running_stream(running, engine):
        process = await start("drain", "s0", "--url", running.url, cwd=tmp_path)
        await waiting_line(process)
        running.pool.enable("s0")
        done = await finish(process)
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: s0 is not drained: it takes requests again\n"


async def test_drain_ends_with_1_when_the_server_is_removed_meanwhile(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    engine = await start_sim()
    running = await start_router(engine, NOBODY)
    async with running_stream(running, engine):
        process = await start("drain", "s0", "--url", running.url, cwd=tmp_path)
        await waiting_line(process)
        running.pool.remove("s0")
        done = await finish(process)
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: There is no server `s0`. There are: gpu-1\n"


@pytest.mark.skipif(os.name != "posix", reason="the signal is another one there")
async def test_ctrl_c_ends_the_waiting_and_not_the_draining(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    engine = await start_sim()
    running = await start_router(engine)
    async with running_stream(running, engine):
        process = await start("drain", "s0", "--url", running.url, cwd=tmp_path)
        await waiting_line(process)
        process.send_signal(signal.SIGINT)
        assert (await finish(process)).code == 130
        assert running.pool.backends["s0"].draining


@pytest.mark.skipif(os.name != "posix", reason="there is no pseudo-terminal")
async def test_a_terminal_is_shown_what_is_waited_for_in_one_line(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    import pty

    engine = await start_sim()
    running = await start_router(engine)
    outer, inner = pty.openpty()
    async with running_stream(running, engine):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mvllm_router", "drain", "s0", "--url", running.url,
            stdout=asyncio.subprocess.PIPE, stderr=inner, cwd=tmp_path,
            env=environment(TERM="xterm", COLUMNS="100"),
        )  # fmt: skip
        os.close(inner)
        loop = asyncio.get_running_loop()
        shown = b""
        while b"Ctrl-C" not in shown:
            shown += await asyncio.wait_for(loop.run_in_executor(None, os.read, outer, 65536), 20)
        engine.release()
        out, _ = await process.communicate()
    os.close(outer)
    assert "s0: waiting for 1 request to finish" in shown.decode()
    assert out == b"s0 gets no new requests, nothing runs\n"


# --- enable


async def test_enable_says_that_it_takes_requests_again(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim())
    running.pool.drain("s0")
    done = await router("enable", "s0", "--url", running.url, cwd=tmp_path)
    assert done == Done(0, "s0 takes requests again\n", "")
    assert not running.pool.backends["s0"].draining


async def test_enable_says_when_the_server_is_not_up_yet(
    start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router(NOBODY)
    done = await router("enable", "gpu-1", "--url", running.url, cwd=tmp_path)
    assert done.code == 0
    said = "gpu-1 takes requests again once it is up (down: connection refused)\n"
    assert done.out == said


# --- when it cannot be done


@pytest.mark.parametrize("command", ["drain", "enable"])
async def test_an_unknown_server_ends_with_2_and_names_those_there_are(
    command: str, start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router(NOBODY)
    done = await router(command, "gpu1", "--url", running.url, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: There is no server `gpu1`. Did you mean `gpu-1`? There are: gpu-1\n"
    )


@pytest.mark.parametrize("words", [("drain", "x"), ("enable", "x"), ("reload",)])
async def test_nobody_there_ends_with_3(words: tuple[str, ...], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = await router(*words, cwd=tmp_path, ROUTER_URL=f"127.0.0.1:{port}")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines() == [
        f"error: no router answers at 127.0.0.1:{port}: connection refused",
        "hint: name its address with --url or ROUTER_URL",
    ]


@pytest.mark.parametrize("words", [("drain", "x"), ("reload",)])
async def test_another_kind_of_server_ends_with_3(
    words: tuple[str, ...], start_sim: StartSim, tmp_path: Path
) -> None:
    done = await router(*words, "--url", (await start_sim()).url, cwd=tmp_path)
    assert (done.code, done.out) == (3, "")
    assert "is it a router?" in done.err


@pytest.mark.parametrize("words", [("drain", "gpu-1"), ("enable", "gpu-1"), ("reload",)])
async def test_the_key_of_a_client_ends_with_4_where_there_is_an_admin_key(
    words: tuple[str, ...], start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router(NOBODY, api_key="clients", admin_key="operators")
    for keys, said in (
        ({}, "An API key is needed"),
        ({"ROUTER_API_KEY": "clients"}, "This needs the admin key, not that of a client."),
        ({"ROUTER_ADMIN_KEY": "wrong"}, "The API key is wrong."),
    ):
        done = await router(*words, cwd=tmp_path, ROUTER_URL=running.url, **keys)
        assert (done.code, done.out) == (4, "")
        error, hint = done.err.splitlines()
        assert error.startswith(f"error: {running.url} answers: {said}")
        assert hint == "hint: set ROUTER_ADMIN_KEY or use --admin-key"
    assert not running.pool.backends["gpu-1"].draining


async def test_the_admin_key_goes_before_the_key_of_clients(
    start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router(NOBODY, api_key="clients", admin_key="schlüssel €")
    keys = {"ROUTER_API_KEY": "clients", "ROUTER_ADMIN_KEY": "schlüssel €"}
    assert (await router("drain", "gpu-1", cwd=tmp_path, ROUTER_URL=running.url, **keys)).code == 0
    words = ("enable", "gpu-1", "--url", running.url, "--admin-key", keys["ROUTER_ADMIN_KEY"])
    assert (await router(*words, cwd=tmp_path)).code == 0


async def test_without_an_admin_key_that_of_clients_is_enough_on_the_same_machine(
    start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router(NOBODY, api_key="clients")
    words = ("drain", "gpu-1", "--url", running.url, "--api-key", "clients")
    assert (await router(*words, cwd=tmp_path)).code == 0


@pytest.mark.parametrize(
    "words", [("drain",), ("enable",), ("drain", "x", "--timeout", "-1"), ("reload", "surplus")]
)
async def test_wrong_usage_ends_with_2(words: tuple[str, ...], tmp_path: Path) -> None:
    done = await router(*words, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")


# --- reload


@pytest.fixture
async def with_file(tmp_path: Path) -> AsyncIterator[tuple[Router, Path]]:
    """A router that reads its file only when it is asked to."""
    path = tmp_path / "servers.toml"
    write(path, "gpu-1")
    running = Router(load(path), lambda: load(path))
    await running.start()
    running.file_watch._look = forget  # type: ignore[method-assign]
    yield running, path
    await running.stop(1)


async def forget() -> None:
    """Look at no file."""


def write(path: Path, *names: str, more: str = "") -> None:
    servers = "".join(
        f'    {{ url = "http://127.0.0.1:{n}", name = "{name}" }},\n'
        for n, name in enumerate(names, 1)
    )
    path.write_text(f"[servers]\nservers = [\n{servers}]\n[config]\nport = 0\n{more}")


async def test_reload_prints_what_has_changed(
    with_file: tuple[Router, Path], tmp_path: Path
) -> None:
    running, path = with_file
    write(path, "gpu-2", "gpu-3", more='max_retries = 7\nlog_format = "json"\n')
    done = await router("reload", "--url", running.url, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "added: gpu-2, gpu-3",
        "removed: gpu-1",
        "settings: max_retries",
        "needs a restart: log_format",
    ]
    done = await router("reload", "--url", running.url, cwd=tmp_path)
    assert done == Done(0, "nothing has changed\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is launched there")
async def test_reload_prints_what_becomes_of_launches_and_what_is_left_to_do(
    with_file: tuple[Router, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    running, path = with_file
    table = '[[launch]]\nengine = "command"\nname = "own"\nargs = ["/bin/sleep", "600"]\n'
    write(path, "gpu-1", more=table)
    done = await router("reload", "--url", running.url, cwd=tmp_path)
    assert done.out.splitlines() == ["launches: own (added)"]
    write(path, "gpu-1", more=table + "slots = 4\n")
    done = await router("reload", "--url", running.url, cwd=tmp_path)
    assert done.out.splitlines() == [
        "launches: own (changed)",
        "`router restart --rolling own` lets its servers take the change",
    ]


async def test_reload_prints_which_keys_of_a_server_have_changed(
    with_file: tuple[Router, Path], tmp_path: Path
) -> None:
    running, path = with_file
    path.write_text(path.read_text().replace('name = "gpu-1"', 'name = "gpu-1", weight = 2.0'))
    done = await router("reload", "--url", running.url, "--json", cwd=tmp_path)
    assert json.loads(done.out)["changed"]["updated"] == {"gpu-1": ["weight"]}
    path.write_text(path.read_text().replace("2.0", '3.0, tags = ["a"]'))
    done = await router("reload", "--url", running.url, cwd=tmp_path)
    assert done.out == "updated: gpu-1 (weight, tags)\n"


async def test_reload_of_a_bad_file_ends_with_1_and_shows_its_problems(
    with_file: tuple[Router, Path], tmp_path: Path
) -> None:
    running, path = with_file
    write(path, "gpu-1", more="max_retires = 7\n")
    done = await router("reload", "--url", running.url, cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    lines = done.err.splitlines()
    assert lines[0] == "error: unknown key `max_retires`"
    assert lines[1] == f" --> {path}:7:1"
    assert lines[-1] == "  = did you mean `max_retries`?"
    done = await router("reload", "--url", running.url, "--json", cwd=tmp_path)
    assert done.code == 1
    assert json.loads(done.out)["problems"][0]["line"] == 7


async def test_reload_of_a_router_without_a_file_ends_with_1(
    start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router(NOBODY)
    done = await router("reload", "--url", running.url, cwd=tmp_path)
    assert done.code == 1
    assert done.err == "error: The router runs without a file: there is nothing to reload.\n"


# --- what they leave to be seen


async def test_status_shows_a_drained_server(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim(), await start_sim())
    running.pool.drain("s1")
    done = await router("status", running.url, cwd=tmp_path)
    rows = [line.split()[:3] for line in done.out.splitlines() if line.startswith(("s0 ", "s1 "))]
    assert rows == [["s0", "●", "up"], ["s1", "◐", "drain"]]
    assert done.out.splitlines()[-1] == "s1: drained"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_knows_the_servers_of_the_running_router(
    shell: str, start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router(NOBODY, ServerSpec(url="http://127.0.0.1:19", name="other"))
    done = await complete(shell, "router drain gp", tmp_path, ROUTER_URL=running.url)
    assert "gpu-1" in done.out
    assert "other" not in done.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_is_silent_when_no_router_answers(shell: str, tmp_path: Path) -> None:
    done = await complete(shell, "router drain gp", tmp_path, ROUTER_URL="127.0.0.1:9")
    assert (done.out.strip(), done.err) in (("", ""), ("_files", ""))


async def complete(shell: str, line: str, cwd: Path, **env: str) -> Done:
    more = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    if shell != "bash":
        more = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return await router(cwd=cwd, _ROUTER_COMPLETE=f"complete_{shell}", **more, **env)

"""`router run`: ways to begin, what is wrong with them, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import aiohttp
import pytest
from cli_kit import Running, finish, router, running, start
from support import StartSim, until

from mvllm_router.sim import Fault

posix = pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")


async def get(url: str) -> object:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.json()


async def capacities(router: Running) -> list[float]:
    stats = await get(f"{router.url}/load-stats")
    assert isinstance(stats, dict)
    return [server["max_capacity"] for server in stats["servers"]]


# --- beginning


async def test_nothing_to_route_to_names_the_three_ways_to_begin(tmp_path: Path) -> None:
    done = await router("run", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    for way in ("router run http://", "router init", "router run --demo"):
        assert way in done.err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("URLS", "--max-load", "16", "32"), [16, 32]),
        (("--max-load", "16", "32", "URLS"), [16, 32]),
        (("URLS", "--max-load", "16", "--max-load", "32"), [16, 32]),
        (("--max-load", "7", "URLS"), [7, 7]),
    ],
)
async def test_urls_need_no_file_and_take_their_load(
    words: tuple[str, ...], wanted: list[int], start_sim: StartSim, tmp_path: Path
) -> None:
    urls = [(await start_sim()).url for _ in wanted]
    given = [part for word in words for part in (urls if word == "URLS" else [word])]
    async with running(*given, cwd=tmp_path) as router:
        assert router.server_urls == urls
        assert "2 servers, policy least_load" in router.lines[-1]
        assert await capacities(router) == wanted
        assert (await router.stop()).out == ""


async def test_flags_come_before_the_environment_and_that_before_the_file(
    start_sim: StartSim, tmp_path: Path
) -> None:
    url = (await start_sim()).url
    text = f'[servers]\nservers = ["{url}"]\n[config]\npolicy = "random"\nlog_level = "error"\n'
    (tmp_path / "other.toml").write_text(text)
    env = {"ROUTER_CONFIG": "other.toml", "ROUTER_LOG_LEVEL": "warning"}
    async with running("--log-level", "info", cwd=tmp_path, **env) as router:
        assert "1 server, policy random" in router.lines[-1]


async def test_every_option_of_run_may_come_from_the_environment(
    start_sim: StartSim, tmp_path: Path
) -> None:
    url = (await start_sim()).url
    env = {"ROUTER_MAX_LOAD": "5", "ROUTER_CONSOLE": "1", "ROUTER_POLICY": "round_robin"}
    async with running(url, cwd=tmp_path, **env) as router:
        assert "policy round_robin" in router.lines[-1]
        assert await capacities(router) == [5]


async def test_servers_toml_in_the_folder_is_used_and_followed(
    start_sim: StartSim, tmp_path: Path
) -> None:
    urls = [(await start_sim()).url for _ in range(2)]
    file = tmp_path / "servers.toml"
    file.write_text(f'[servers]\nservers = ["{urls[0]}"]\n')
    async with running(cwd=tmp_path) as router:
        file.write_text(f'[servers]\nservers = ["{urls[1]}"]\n')
        await router.log_line("configuration reloaded, 1 server")
        assert router.server_urls == urls


# --- what is wrong


async def test_all_that_is_wrong_with_a_file_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "servers.toml").write_text(
        '[servers]\nservers = [{ url = "gpu1:8000" }, { url = "http://b", wieght = 2 }]\n'
        '[config]\nmax_retrys = 3\nport = "x"\n'
    )
    done = await router("run", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("error: ") == 4
    assert "servers.toml:2:" in done.err
    assert "did you mean `max_retries`?" in done.err
    assert "did you mean `weight`?" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("http://a", "--port", "99999"), "--port"),
        (("http://a", "--policy", "best"), "--policy"),
        (("http://a", "http://b", "--max-load", "1", "2", "3"), "3 values for 2 URLs"),
        (("http://a", "--max-load", "0"), "--max-load"),
        (("http://a", "--max-load", "2", "²"), "²"),
        (("http://a", "17"), "17"),
        (("-c", "none.toml"), "none.toml"),
        (("http://a", "--log-file", "no/such/folder/log"), "no/such/folder/log"),
    ],
)
async def test_wrong_options_end_with_2_and_name_the_culprit(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = await router("run", *words, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "error: " in done.err


async def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    done = await router("run", "http://a", cwd=tmp_path, ROUTER_PORT="many")
    assert done.code == 2
    assert "ROUTER_PORT" in done.err


async def test_a_port_in_use_is_one_clear_message(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = await router("run", "http://127.0.0.1:9", "--port", port, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    errors = [line for line in done.err.splitlines() if " INFO " not in line]
    assert errors == [
        f"error: cannot listen on 127.0.0.1:{port}: the port is in use",
        "hint: stop the other program, or choose another port with --port",
    ]


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (("--host", "0.0.0.0"), True),
        (("--host", "0.0.0.0", "--api-key", "k"), False),
        (("--host", "127.0.0.1"), False),
        (("--host", "localhost"), False),
    ],
)
async def test_an_open_address_without_a_key_is_warned_of_in_one_line(
    words: tuple[str, ...], warned: bool, tmp_path: Path
) -> None:
    async with running("http://127.0.0.1:9", *words, cwd=tmp_path) as router:
        done = await router.stop()
        warnings = [line for line in done.err.splitlines() if "without an API key" in line]
        assert len(warnings) == warned


async def test_keys_of_the_file_are_keys_too_and_an_empty_table_is_none(tmp_path: Path) -> None:
    file = tmp_path / "servers.toml"
    file.write_text('[[auth.keys]]\nname = "alice"\nkey = "k"\n')
    async with running("--host", "0.0.0.0", cwd=tmp_path) as router:
        done = await router.stop()
    assert "without an API key" not in done.err
    file.write_text("[auth]\nkeys = []\n")
    async with running("--host", "0.0.0.0", cwd=tmp_path) as router:
        done = await router.stop()
    assert "without an API key" in done.err
    assert "there is no key in [auth]" in done.err


# --- logs


async def test_logs_are_json_when_asked_for(tmp_path: Path) -> None:
    async with running("http://127.0.0.1:9", "--log-format", "json", cwd=tmp_path) as router:
        done = await router.stop()
    assert all(json.loads(line)["level"] for line in done.err.strip().splitlines())


@posix
async def test_logs_go_to_a_file_when_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "router.log"
    words = ("run", "http://127.0.0.1:9", "--port", "0", "--log-file", str(log))
    process = await start(*words, cwd=tmp_path)
    await until(lambda: log.exists() and "(Ctrl-C to stop)" in log.read_text())
    process.send_signal(signal.SIGTERM)
    done = await finish(process)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert log.read_text().rstrip().endswith("stopped")


# --- ending


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_lets_requests_finish_and_ends_with_0(
    number: int, start_sim: StartSim, tmp_path: Path
) -> None:
    engine = await start_sim()
    engine.hold()
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    async with running(engine.url, cwd=tmp_path) as router, aiohttp.ClientSession() as session:
        await router.log_line("up: health check passed")
        asked = asyncio.ensure_future(session.post(f"{router.url}/v1/chat/completions", json=body))
        await engine.wait_for(lambda e: e.running == 1)
        router.process.send_signal(number)
        await router.log_line("for 1 request")
        engine.release()
        async with await asked as response:
            assert response.status == 200
            assert (await response.json())["usage"]["completion_tokens"] == 5
        done = await router.stop(0)
    assert (done.code, done.out) == (0, "")
    assert done.err.rstrip().endswith("stopped")


@posix
async def test_a_second_signal_ends_it_at_once(start_sim: StartSim, tmp_path: Path) -> None:
    engine = await start_sim()
    engine.hold()
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    async with running(engine.url, cwd=tmp_path) as router, aiohttp.ClientSession() as session:
        await router.log_line("up: health check passed")
        asked = asyncio.ensure_future(session.post(f"{router.url}/v1/chat/completions", json=body))
        await engine.wait_for(lambda e: e.running == 1)
        router.process.send_signal(signal.SIGINT)
        await router.log_line("for 1 request")
        done = await router.stop(signal.SIGINT)
        assert (await asked).status == 503  # told, not just cut off
    assert done.code == 0


@posix
async def test_sighup_reads_the_file_again(tmp_path: Path) -> None:
    file = tmp_path / "servers.toml"
    file.write_text('[servers]\nservers = ["http://127.0.0.1:9"]\n')
    async with running(cwd=tmp_path) as router:
        file.write_text('[servers]\nservers = ["http://127.0.0.1:9", "http://127.0.0.1:7"]\n')
        router.process.send_signal(signal.SIGHUP)
        await router.log_line("configuration reloaded, 2 servers")
        done = await router.stop()
    assert done.code == 0


@posix
async def test_sighup_without_a_file_stops_gracefully(tmp_path: Path) -> None:
    async with running("http://127.0.0.1:9", cwd=tmp_path) as router:
        done = await router.stop(signal.SIGHUP)
    assert done.code == 0
    assert done.err.rstrip().endswith("stopped")


@posix
async def test_an_interrupted_command_ends_with_130(start_sim: StartSim, tmp_path: Path) -> None:
    engine = await start_sim()
    engine.inject(Fault.HANG, everywhere=True)
    (tmp_path / "servers.toml").write_text(f'[servers]\nservers = ["{engine.url}"]\n')
    process = await start("check", "--connect", cwd=tmp_path)
    await until(lambda: bool(engine.requests))
    process.send_signal(signal.SIGINT)
    done = await finish(process)
    assert done.code == 130
    assert done.err == ""

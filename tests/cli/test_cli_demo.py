"""`router run --demo`: works by itself, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
import typer
from cli_kit import nobody_listens, router, running, until_nobody_listens

from mvllm_router.cli import demo

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")


async def test_it_serves_traffic_over_three_servers_and_a_key(tmp_path: Path) -> None:
    async with running("--demo", "--api-key", "k", cwd=tmp_path) as router:
        assert len(router.server_urls) == 3
        headers = {"Authorization": "Bearer k"}
        async with aiohttp.ClientSession(headers=headers) as session:
            in_flight = 0
            while not in_flight:
                async with session.get(f"{router.url}/router/snapshot") as response:
                    in_flight = (await response.json())["in_flight"]
            async with session.get(f"{router.url}/v1/models") as response:
                models = {card["id"] for card in (await response.json())["data"]}
        assert models == {"demo-large", "demo-small"}


async def test_its_traffic_has_a_key_of_its_own_where_a_file_asks_for_keys(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[[auth.keys]]\nname = "alice"\nkey = "k"\n')
    async with running("--demo", "-c", "own.toml", cwd=tmp_path) as router:
        requests = {"demo": 0, "alice": 0}
        async with aiohttp.ClientSession(headers={"x-api-key": "k"}) as session:
            while not requests["demo"]:
                async with session.get(f"{router.url}/router/snapshot") as response:
                    keys = (await response.json())["keys"]
                requests = {key["name"]: key["requests"] for key in keys}
        assert requests["alice"] == 0


async def test_a_file_with_a_key_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[[auth.keys]]\nname = "demo"\nkey = "k"\n')
    done = await router("run", "--demo", "-c", "own.toml", cwd=tmp_path)
    assert done.code == 2
    assert "a key called `demo`" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_no_process_is_left_behind(number: int, tmp_path: Path) -> None:
    async with running("--demo", cwd=tmp_path) as router:
        urls = router.server_urls
        assert len(urls) == 3
        assert not any([await nobody_listens(url) for url in urls])
        done = await router.stop(number)
    assert done.code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    for url in urls:
        await until_nobody_listens(url)


async def test_it_is_stopped_too_when_the_port_is_in_use(tmp_path: Path) -> None:
    async with running("http://127.0.0.1:9", cwd=tmp_path) as other:
        port = other.url.rpartition(":")[2]
        done = await router("run", "--demo", "--port", port, cwd=tmp_path)
    assert done.code == 2
    assert "error: cannot listen" in done.err


async def test_a_file_with_the_name_of_a_simulated_server_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        '[servers]\nservers = [{ url = "http://127.0.0.1:9", name = "big-gpu" }]\n'
    )
    done = await router("run", "--demo", "-c", "own.toml", cwd=tmp_path)
    assert done.code == 2
    assert "`big-gpu`" in done.err


def test_a_child_that_does_not_start_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(typer.Exit) as caught, demo.start_demo():
        raise AssertionError("it has started")
    assert caught.value.exit_code == 1
    captured = capsys.readouterr()
    assert captured.err == "error: the simulated servers did not start (exit code 7)\n"


def test_a_child_that_does_not_end_by_itself_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho '{\"servers\": []}'\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(demo, "_GRACE", 0.1)
    with demo.start_demo() as started:
        assert started.servers == ()

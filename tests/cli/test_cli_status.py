"""`router status`: what it shows, in which width, and what it says when there is nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Done, environment, router
from support import StartRouter, StartSim

from mvllm_router.cli.status import fit, shorten
from mvllm_router.server import Router

LONG = "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"


async def status(router_: Router, *words: str, cwd: Path, **env: str) -> Done:
    return await router("status", router_.url, *words, cwd=cwd, **env)


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
async def test_the_table_fits_the_terminal_and_breaks_no_name(
    columns: int, start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    engines = [await start_sim("vllm", LONG, "tiny"), await start_sim("llama.cpp")]
    dead = await start_sim()
    await dead.stop()
    running = await start_router(*engines, dead)
    done = await status(running, cwd=tmp_path, COLUMNS=str(columns))
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert all(len(line) <= columns for line in lines)
    heading = next(n for n, line in enumerate(lines) if line.startswith("server "))
    rows = lines[heading + 1 : heading + 4]
    assert [row.split()[:3] for row in rows] == [
        ["s0", "●", "up"],
        ["s1", "●", "up"],
        ["s2", "○", "down"],
    ]
    assert "run/cap" in lines[heading]
    assert lines[-1] == "s2: connection refused"


async def test_numbers_stand_to_the_right_under_their_heading(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim("llama.cpp"), await start_sim())
    lines = (await status(running, cwd=tmp_path, COLUMNS="120")).out.splitlines()
    heading, *rows = lines[2:]
    end = heading.index("run/cap") + len("run/cap")
    assert [row[:end].split()[-1] for row in rows] == ["0/4", "0/16"]


async def test_the_router_itself_is_told_in_two_lines(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim())
    first, second, *_ = (await status(running, cwd=tmp_path)).out.splitlines()
    assert first.startswith(f"{running.url} running · up ")
    assert first.endswith(" · least_load")
    assert second == "servers 1/1 up · in flight 0 · queued 0 · requests 0 · errors 0"


async def test_a_router_without_servers_can_be_asked(
    start_router: StartRouter, tmp_path: Path
) -> None:
    done = await status(await start_router(), cwd=tmp_path)
    assert done.code == 0
    assert "servers 0/0 up" in done.out


async def test_markup_in_the_name_of_a_model_is_text(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim("vllm", "[/red]x[bold]"))
    done = await status(running, cwd=tmp_path)
    assert done.code == 0
    assert "[/red]x[bold]" in done.out


async def test_json_is_the_whole_snapshot(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim())
    done = await status(running, "--json", cwd=tmp_path)
    document = json.loads(done.out)
    assert document["address"] == running.url
    assert document["servers"][0]["engine"] == "vllm"


async def test_the_address_needs_no_scheme_and_may_come_from_the_environment(
    start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router()
    bare = running.url.removeprefix("http://")
    assert (await router("status", f"{bare}/", cwd=tmp_path)).code == 0
    assert (await router("status", cwd=tmp_path, ROUTER_URL=bare)).code == 0


# --- when there is nothing to show


async def test_nobody_there_ends_with_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = await router("status", f"http://127.0.0.1:{port}", cwd=tmp_path)
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines() == [
        f"error: no router answers at http://127.0.0.1:{port}: connection refused",
        "hint: start one with `router run`, or name its address",
    ]


async def test_another_kind_of_server_ends_with_3(start_sim: StartSim, tmp_path: Path) -> None:
    done = await router("status", (await start_sim()).url, cwd=tmp_path)
    assert done.code == 3
    assert "is it a router?" in done.err


@pytest.mark.parametrize(
    ("key", "said"),
    [("", "wants an API key"), ("wrong", "does not take this API key")],
)
async def test_a_wrong_key_ends_with_4(
    key: str, said: str, start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router(api_key="right")
    done = await status(running, cwd=tmp_path, ROUTER_API_KEY=key)
    assert (done.code, done.out) == (4, "")
    assert done.err.splitlines() == [
        f"error: {running.url} {said}",
        "hint: set ROUTER_API_KEY or use --api-key",
    ]


@pytest.mark.parametrize("key", ["right", "schlüssel €"])
async def test_the_right_key_opens_it(key: str, start_router: StartRouter, tmp_path: Path) -> None:
    running = await start_router(api_key=key)
    assert (await status(running, cwd=tmp_path, ROUTER_API_KEY=key)).code == 0
    assert (await status(running, "--api-key", key, cwd=tmp_path)).code == 0


# --- colour and pipes


@pytest.mark.skipif(os.name != "posix", reason="there is no pseudo-terminal")
@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_a_terminal_gets_colour_unless_it_is_not_wanted(
    env: dict[str, str],
    coloured: bool,
    start_router: StartRouter,
    start_sim: StartSim,
    tmp_path: Path,
) -> None:
    running = await start_router(await start_sim())
    assert ("\x1b[3" in await on_a_terminal("status", running.url, **env)) is coloured
    assert ("\x1b[3" in await on_a_terminal("status", "127.0.0.1:1", **env)) is coloured


async def on_a_terminal(*words: str, **env: str) -> str:
    """Run a command whose output is a terminal and return what that shows."""
    import pty

    outer, inner = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mvllm_router", *words,
        stdout=inner, stderr=inner, env=environment(TERM="xterm", **env),
    )  # fmt: skip
    os.close(inner)
    await process.wait()
    text = os.read(outer, 65536).decode()
    os.close(outer)
    return text


@pytest.mark.skipif(os.name != "posix", reason="pipes are those of POSIX")
@pytest.mark.parametrize("words", [(), ("--json",)])
async def test_a_reader_that_has_seen_enough_is_no_error(
    words: tuple[str, ...], start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim("vllm", *(f"model-{n}" for n in range(2000))))
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mvllm_router", "status", running.url, *words,
        stdout=writing, stderr=asyncio.subprocess.PIPE, env=environment(), cwd=tmp_path,
    )  # fmt: skip
    os.close(writing)
    _, err = await process.communicate()
    assert err == b""


async def test_a_terminal_without_the_glyphs_gets_others(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim())
    done = await status(running, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.code == 0
    assert "? up" in done.out


# --- fitting


def server(name: str, *models: str) -> dict[str, Any]:
    return {
        "name": name,
        "state": "up",
        "engine": "vllm",
        "models": list(models),
        "running": 1,
        "max_capacity": 16,
        "waiting": 0,
        "score": 0.06,
        "detailed_metrics": {"gpu_cache_usage_perc": 0.5},
        "ttft_seconds": {"p50": 0.25},
        "requests": 1_000_000,
        "errors": 0,
    }


def test_wide_terminals_show_all_and_narrow_ones_what_matters_most() -> None:
    servers = [server("gpu-server-1:8081", LONG, "tiny"), server("b")]
    shown = {}
    for width in (200, 100, 80, 60, 40):
        columns, _ = fit(servers, width)
        shown[width] = [column.heading for column in columns]
    assert len(shown[200]) == 11
    assert "score" not in shown[100]
    assert shown[80] == ["server", "state", "models", "run/cap", "wait", "requests", "errors"]
    assert shown[40] == ["server", "state", "run/cap", "wait"]
    for wide, narrow in zip((200, 100, 80, 60), (100, 80, 60, 40), strict=True):
        assert set(shown[narrow]) <= set(shown[wide])


def test_models_get_the_space_that_is_left() -> None:
    servers = [server("a", LONG, "tiny")]
    assert fit(servers, 200)[1] == len(f"{LONG}, tiny")
    assert 20 <= fit(servers, 100)[1] < len(LONG)


@pytest.mark.parametrize(
    ("names", "width", "wanted"),
    [
        ([], 10, "–"),
        (["tiny", "big"], 9, "tiny, big"),
        (["tiny", "big"], 8, "tiny +1"),
        (["tiny", "big", "more"], 12, "tiny, big +1"),
        (["tiny", "big", "more"], 11, "tiny +2"),
        ([LONG], 20, "Qwen/Qwen…t-2507-FP8"),
        ([LONG, "tiny"], 20, "Qwen/Qwe…2507-FP8 +1"),
    ],
)
def test_names_that_do_not_fit_are_counted_or_cut_in_the_middle(
    names: list[str], width: int, wanted: str
) -> None:
    assert shorten(names, width) == wanted
    assert len(wanted) <= max(width, 1)

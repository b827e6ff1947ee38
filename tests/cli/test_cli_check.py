"""`router init` and `router check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_kit import router
from support import StartSim

from mvllm_router.config import template


def servers(folder: Path, *entries: str) -> None:
    (folder / "servers.toml").write_text(f"[servers]\nservers = [{', '.join(entries)}]\n")


# --- init


async def test_init_writes_a_file_that_check_finds_nothing_wrong_with(tmp_path: Path) -> None:
    done = await router("init", cwd=tmp_path)
    assert (done.code, done.out) == (0, "")
    assert "router check --connect" in done.err
    assert (tmp_path / "servers.toml").read_text() == template()
    done = await router("check", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "servers.toml: no problems, 1 server " in done.out


async def test_init_replaces_no_file_unless_forced(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("mine")
    done = await router("init", "mine.toml", cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: mine.toml is there already\nhint: --force replaces it\n"
    assert file.read_text() == "mine"
    assert (await router("init", "mine.toml", "--force", cwd=tmp_path)).code == 0
    assert file.read_text() == template()


async def test_init_where_it_cannot_write_says_so(tmp_path: Path) -> None:
    done = await router("init", "no/folder/servers.toml", cwd=tmp_path)
    assert done.code == 1
    assert done.err.startswith("error: cannot write no/folder/servers.toml: No such file")


# --- check


@pytest.mark.parametrize("command", ["check", "check-config"])
async def test_a_file_without_problems_is_ok_and_its_servers_listed(
    command: str, tmp_path: Path
) -> None:
    servers(tmp_path, '{ url = "http://gpu1:8000", name = "big", max_concurrent_requests = 16 }')
    done = await router(command, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == "ok    big  auto, 16 at once"


async def test_problems_are_shown_with_place_and_caret_and_no_secret(tmp_path: Path) -> None:
    servers(tmp_path, '{ url = "http://gpu1", api_key = "geheim", wieght = 2 }')
    done = await router("check", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "--> servers.toml:2:" in done.err
    assert "^^^^^^" in done.err
    assert "did you mean `weight`?" in done.err
    assert "geheim" not in done.err


async def test_problems_are_there_for_programs(tmp_path: Path) -> None:
    servers(tmp_path, '{ url = "http://gpu1", wieght = 2 }')
    done = await router("check", "--json", cwd=tmp_path)
    assert done.code == 2
    document = json.loads(done.out)
    (problem,) = document["problems"]
    assert document["ok"] is False
    assert (problem["label"], problem["place"], problem["line"]) == ("error", "servers.toml", 2)
    assert problem["hint"] == "did you mean `weight`?"


async def test_a_key_without_effect_is_a_warning_and_ok(tmp_path: Path) -> None:
    (tmp_path / "servers.toml").write_text("[config]\nconfig_reload_interval = 5\n")
    done = await router("check", cwd=tmp_path)
    assert done.code == 0
    assert done.err.startswith("warning: `config_reload_interval` has no effect any more\n")
    document = json.loads((await router("check", "--json", cwd=tmp_path)).out)
    assert document["ok"] is True
    assert [problem["label"] for problem in document["problems"]] == ["warning"]


async def test_a_file_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    done = await router("check", cwd=tmp_path)
    assert done.code == 2
    assert "`router init` writes one" in done.err


async def test_keys_of_clients_are_counted_and_named_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "servers.toml"
    file.write_text(
        'servers = ["http://gpu1"]\n'
        'auth.keys = [{ name = "alice", key = "geheim" }, { name = "bob", key_env = "BOB_KEY" }]\n'
        '[config]\napi_key = "auch geheim"\n'
    )
    done = await router("check", cwd=tmp_path, BOB_KEY="geheim 3")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == (
        "servers.toml: no problems, 1 server, 3 keys of clients (--connect asks)"
    )
    as_json = await router("check", "--json", cwd=tmp_path, BOB_KEY="geheim 3")
    assert json.loads(as_json.out)["keys"] == ["alice", "bob", "default"]
    assert "geheim" not in done.out + as_json.out + as_json.err
    done = await router("check", cwd=tmp_path)
    assert done.code == 2
    assert "the environment variable `BOB_KEY` is not set" in done.err


async def test_a_table_of_keys_without_any_is_a_warning_and_ok(tmp_path: Path) -> None:
    (tmp_path / "servers.toml").write_text("[auth]\nkeys = []\n")
    done = await router("check", cwd=tmp_path)
    assert done.code == 0
    assert done.err.startswith("warning: there is no key in [auth], so that everybody may come in")
    assert done.out == "servers.toml: no servers\n"


# --- check --connect


async def test_each_engine_is_asked_and_told(start_sim: StartSim, tmp_path: Path) -> None:
    told = {
        "vllm": "vllm, 16 at once, tiny",
        "llama.cpp": "llama.cpp, 4 at once, tiny",
        "llama-cpp-python": "llama-cpp-python, 1 at once, tiny",
        "mlx": "mlx, 8 at once, tiny",
        "openai": "openai, 8 at once, tiny",
    }
    engines = [await start_sim(dialect) for dialect in told]
    entries = [f'{{ url = "{e.url}", name = "{n}" }}' for e, n in zip(engines, told, strict=True)]
    servers(tmp_path, *entries)
    done = await router("check", "--connect", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    lines = [f"ok    {name:<16}  {facts}" for name, facts in told.items()]
    assert done.out.splitlines() == [*lines, "servers.toml: 5 of 5 servers well"]


async def test_a_dead_server_and_a_wrong_key_end_with_1_and_say_why(
    start_sim: StartSim, tmp_path: Path
) -> None:
    dead, locked = await start_sim(), await start_sim("vllm", api_key="right")
    await dead.stop()
    servers(
        tmp_path,
        f'{{ url = "{dead.url}", name = "dead" }}',
        f'{{ url = "{locked.url}", name = "locked", api_key = "wrong" }}',
    )
    done = await router("check", "--connect", cwd=tmp_path)
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines() == [
        "down  dead    connection refused",
        "down  locked  /v1/models answered 401: it wants another api_key",
        "servers.toml: 0 of 2 servers well",
    ]


async def test_connect_is_there_for_programs(start_sim: StartSim, tmp_path: Path) -> None:
    engine = await start_sim("llama.cpp", slots=3)
    servers(tmp_path, f'{{ url = "{engine.url}", name = "a" }}')
    done = await router("check", "--connect", "--json", cwd=tmp_path)
    assert json.loads(done.out) == {
        "ok": True,
        "problems": [],
        "servers": [
            {
                "name": "a",
                "url": engine.url,
                "ok": True,
                "engine": "llama.cpp",
                "says": "",
                "capacity": 3.0,
                "models": ["tiny"],
            }
        ],
        "keys": [],
        "launches": [],
    }


async def test_what_is_launched_is_named(tmp_path: Path) -> None:
    text = '[[launch]]\nengine = "vllm"\nmodel = "Qwen/Qwen3-8B"\nreplicas = 2\n'
    (tmp_path / "servers.toml").write_text(text)
    done = await router("check", cwd=tmp_path)
    assert done.code == 0
    assert done.out == (
        "qwen3-8b is launched: vllm, Qwen/Qwen3-8B, 2 servers\n"
        "servers.toml: no servers, 1 launched with the router\n"
    )
    done = await router("check", "--json", cwd=tmp_path)
    assert json.loads(done.out)["launches"] == ["qwen3-8b"]

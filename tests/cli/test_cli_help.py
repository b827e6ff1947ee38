"""Help, versions, usage errors and completion: what a person meets first."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from cli_kit import Done, environment, finish, router

from mvllm_router import __version__

COMMANDS = (
    "run",
    "status",
    "explain",
    "drain",
    "enable",
    "add",
    "remove",
    "weight",
    "reload",
    "init",
    "check",
    "version",
)


def fits(text: str, columns: int) -> bool:
    return all(len(line) <= columns for line in text.splitlines())


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "words",
    [(), *((name,) for name in COMMANDS)],
    ids=lambda words: words[0] if words else "router",
)
async def test_help_is_there_for_every_command_and_fits(
    words: tuple[str, ...], columns: int, tmp_path: Path
) -> None:
    done = await router(*words, "-h", cwd=tmp_path, COLUMNS=str(columns))
    assert (done.code, done.err) == (0, "")
    assert "Usage:" in done.out
    assert fits(done.out, columns)


async def test_the_commands_are_listed_and_the_old_name_of_check_is_not(tmp_path: Path) -> None:
    done = await router("--help", cwd=tmp_path)
    assert all(f" {name} " in done.out for name in COMMANDS)
    assert "check-config" not in done.out
    assert "Exit codes: 0 ok" in done.out
    assert (await router("check-config", "--help", cwd=tmp_path)).code == 0


async def test_help_of_run_names_every_option_of_the_contract(tmp_path: Path) -> None:
    done = await router("run", "--help", cwd=tmp_path)
    options = "--config -c --demo --max-load --policy --host --port -p --api-key --console"
    for option in (
        *options.split(),
        "--tls-cert",
        "--tls-key",
        "--log-level",
        "--log-format",
        "--log-file",
    ):
        assert f"{option} " in done.out
    assert "router run http://gpu1:8000 http://gpu2:8000 --max-load 16 32" in done.out


async def test_no_command_shows_the_help(tmp_path: Path) -> None:
    done = await router(cwd=tmp_path)
    assert "Usage:" in done.out + done.err
    assert "Observe" in done.out + done.err


@pytest.mark.parametrize("words", [("statu",), ("run", "--polcy", "x"), ("version", "surplus")])
async def test_wrong_usage_ends_with_2_on_stderr(words: tuple[str, ...], tmp_path: Path) -> None:
    done = await router(*words, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "Error" in done.err


@pytest.mark.parametrize("flag", ["--version", "-V"])
async def test_the_version_is_one_line(flag: str, tmp_path: Path) -> None:
    assert await router(flag, cwd=tmp_path) == Done(0, f"mvllm-router {__version__}\n", "")


async def test_versions_are_there_for_people_and_for_programs(tmp_path: Path) -> None:
    document = json.loads((await router("version", "--json", cwd=tmp_path)).out)
    assert document["mvllm-router"] == __version__
    assert {"python", "platform", "aiohttp", "uvloop"} <= set(document)
    lines = (await router("version", cwd=tmp_path)).out.splitlines()
    assert [line.split(" ")[0] for line in lines] == list(document)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_knows_the_commands(shell: str, tmp_path: Path) -> None:
    more = {"COMP_WORDS": "router st", "COMP_CWORD": "1"}
    if shell != "bash":
        more = {"_TYPER_COMPLETE_ARGS": "router st", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = await router(cwd=tmp_path, _ROUTER_COMPLETE=f"complete_{shell}", **more)
    assert "status" in done.out
    assert "version" not in done.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
async def test_the_script_for_completion_is_shown(tmp_path: Path) -> None:
    """For the shell that it is called from."""
    command = f"{shlex.quote(sys.executable)} -m mvllm_router --show-completion; exit $?"
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        command,
        cwd=tmp_path,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    done = await finish(process)
    assert done.code == 0
    assert "_ROUTER_COMPLETE=complete_bash" in done.out

"""`router add`, `remove`, `weight` and `explain`: what they do, print and end with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cli_kit import Done, router
from support import StartRouter, StartSim, until

from mvllm_router.config import ServerSpec, load
from mvllm_router.server import Router

NOBODY = ServerSpec(url="http://127.0.0.1:9", name="gpu-1")
FILE = '[servers]\nservers = [\n    { url = "http://127.0.0.1:9", name = "gpu-1" },\n]\n'
HOLDS = "It holds until the router is started anew; --write puts it into its file as well.\n"


@pytest.fixture
async def filed(tmp_path: Path) -> AsyncIterator[Router]:
    """A router with a file."""
    path = tmp_path / "servers.toml"
    path.write_text(f"{FILE}[config]\nport = 0\n")
    running = Router(load(path, environ={}), lambda: load(path, environ={}))
    await running.start()
    await running.watches.checked()
    yield running
    await running.stop(1)


def text_of(running: Router) -> str:
    assert running.config.path is not None
    return running.config.path.read_text()


async def test_add_takes_a_server_in_with_all_that_was_said_of_it(
    start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router()
    words = "--name gpu3 --engine vllm --weight 0.5 --max-load 32 --model a --model b --tag x"
    done = await router(
        *("add", "https://127.0.0.1:7", *words.split(), "--no-tls-verify"),
        cwd=tmp_path,
        ROUTER_URL=running.url,
        ROUTER_SERVER_KEY="hush",
    )
    assert done == Done(0, f"gpu3 is added (checking: not checked yet)\n{HOLDS}", "")
    assert running.config.servers == (
        ServerSpec(
            url="https://127.0.0.1:7",
            name="gpu3",
            engine="vllm",
            max_concurrent_requests=32,
            weight=0.5,
            models=("a", "b"),
            api_key="hush",
            tls_verify=False,
            tags=("x",),
        ),
    )


async def test_what_is_added_weighed_and_removed_can_be_written(
    filed: Router, tmp_path: Path
) -> None:
    path = tmp_path / "servers.toml"
    more = ("--write", "--url", filed.url)
    done = await router("add", "http://127.0.0.1:7", "--name", "gpu3", *more, cwd=tmp_path)
    assert done.out.splitlines()[1] == f"written to {path}"
    assert '{ url = "http://127.0.0.1:7", name = "gpu3" }' in text_of(filed)
    done = await router("weight", "gpu3", "0.5", *more, cwd=tmp_path)
    weighed = "gpu3 has the weight 0.5: it counts as 4 requests at once"
    assert done == Done(0, f"{weighed}\nwritten to {path}\n", "")
    assert 'name = "gpu3", weight = 0.5 }' in text_of(filed)
    done = await router("remove", "gpu3", *more, cwd=tmp_path)
    said = f"gpu3 is removed; what runs on it finishes\nwritten to {path}\n"
    assert done == Done(0, said, "")
    assert text_of(filed) == f"{FILE}[config]\nport = 0\n"
    assert filed.live.overlay.count == 0


async def test_without_write_the_file_stays_and_that_is_said(filed: Router, tmp_path: Path) -> None:
    done = await router("weight", "gpu-1", "2", "--url", filed.url, cwd=tmp_path)
    assert done.out.endswith(HOLDS)
    assert filed.pool.backends["gpu-1"].spec.weight == 2.0
    done = await router("remove", "gpu-1", "--url", filed.url, cwd=tmp_path)
    assert done.out.endswith(HOLDS)
    assert list(filed.pool.backends) == []
    assert text_of(filed).startswith(FILE)


async def test_they_print_the_answer_for_programs(
    start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router(NOBODY)
    more = ("--json", "--url", running.url)
    done = await router("add", "http://127.0.0.1:7", *more, cwd=tmp_path)
    assert (done.code, json.loads(done.out)["name"]) == (0, "127.0.0.1:7")
    done = await router("weight", "gpu-1", "3", *more, cwd=tmp_path)
    assert (done.code, json.loads(done.out)["weight"]) == (0, 3)
    done = await router("remove", "gpu-1", *more, cwd=tmp_path)
    assert (done.code, json.loads(done.out)) == (0, {"removed": "gpu-1"})
    done = await router("explain", *more, cwd=tmp_path)
    assert done.code == 1
    assert json.loads(done.out)["candidates"][0]["name"] == "127.0.0.1:7"


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ("add http://127.0.0.1:7 --weight 0", 2, "`weight` must be a number from 0.001 to 1000"),
        ("add ftp://x", 2, "http://"),
        ("add http://127.0.0.1:9", 1, "The server `gpu-1` has this URL already."),
        ("add http://127.0.0.1:7 --write", 1, "The router runs without a file"),
        ("weight gpu-1 5000", 2, "`weight` must be a number from 0.001 to 1000"),
        ("weight gpu-2 1", 2, "There is no server `gpu-2`. Did you mean `gpu-1`?"),
        ("weight gpu-1 heavy", 2, "Error"),
        ("weight gpu-1 nan", 2, "nan is not a finite number"),
        ("add http://127.0.0.1:7 --weight 1e400", 2, "inf is not a finite number"),
        ("remove gpu-2", 2, "There is no server `gpu-2`. Did you mean `gpu-1`?"),
    ],
)
async def test_what_is_not_done_is_said_with_the_exit_code_for_it(
    words: str, code: int, error: str, start_router: StartRouter, tmp_path: Path
) -> None:
    running = await start_router(NOBODY)
    done = await router(*words.split(), "--url", running.url, cwd=tmp_path)
    assert (done.code, done.out) == (code, "")
    assert error in done.err
    assert running.live.overlay.count == 0


@pytest.mark.parametrize("words", ["add http://x", "remove a", "weight a 1", "explain"])
async def test_without_a_router_or_its_key_they_end_with_3_or_4(
    words: str, start_router: StartRouter, tmp_path: Path
) -> None:
    done = await router(*words.split(), cwd=tmp_path, ROUTER_URL="127.0.0.1:9")
    assert (done.code, done.out) == (3, "")
    running = await start_router(api_key="client", admin_key="admin")
    done = await router(*words.split(), cwd=tmp_path, ROUTER_URL=running.url)
    assert (done.code, done.out) == (4, "")
    assert "--admin-key" in done.err


async def test_explain_shows_each_server_with_its_arithmetic_and_why(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim("vllm", "tiny", "large"), NOBODY)
    await until(lambda: running.pool.backends["s0"].scrape is not None)
    done = await router("explain", "large", cwd=tmp_path, ROUTER_URL=running.url, COLUMNS="100")
    assert (done.code, done.err) == (0, "")
    headline, heading, best, other = done.out.splitlines()
    assert headline == "large would go to s0 · least_load"
    assert heading.split() == ["server", "(running", "+", "0.5·waiting)/capacity", "why"]
    assert best.split()[:2] == ["●", "s0"]
    assert "(0 + 0.5·0)/16 = 0.00" in best
    assert best.rstrip().endswith("the only one that can be asked")
    assert other.split()[:2] == ["○", "gpu-1"]
    assert other.rstrip().endswith("down: connection refused")


async def test_explain_breaks_long_names_rather_than_lose_why(
    start_router: StartRouter, tmp_path: Path
) -> None:
    name = "gpu-node-with-quite-a-long-name.cluster.example.local:8000"
    running = await start_router(ServerSpec(url="http://127.0.0.1:9", name=name))
    await running.watches.checked()
    env = {"cwd": tmp_path, "ROUTER_URL": running.url}
    narrow = (await router("explain", **env, COLUMNS="80")).out.splitlines()
    assert all(len(line.rstrip()) <= 80 for line in narrow)
    why = narrow[1].index("why")
    assert "".join(line[why:] for line in narrow[2:]).split()[:2] == ["down:", "connection"]
    assert "".join(line[3:why].split()[0] for line in narrow[2:] if line[3:why].strip()) == name
    piped = (await router("explain", **env, COLUMNS="")).out.splitlines()
    assert len(piped) == 3
    assert piped[2].split()[1] == name
    assert piped[2].rstrip().endswith("down: connection refused")


@pytest.mark.parametrize("number", ["NaN", "1e400"])
async def test_a_body_with_a_number_that_json_lacks_is_not_sent(
    number: str, tmp_path: Path
) -> None:
    (tmp_path / "body.json").write_text(f'{{"temperature": {number}}}')
    done = await router("explain", "--body", "body.json", cwd=tmp_path)
    assert done.code == 2
    assert "body.json is not JSON" in done.err


async def test_explain_ends_with_1_and_the_reason_when_nobody_could_take_it(
    start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim())
    done = await router("explain", "huge", cwd=tmp_path, ROUTER_URL=running.url)
    assert done.code == 1
    assert done.out.startswith("huge would go to nowhere")
    assert done.err == "error: The model `huge` does not exist. There are: tiny\n"


@pytest.mark.parametrize(
    ("line", "there"), [("router explain ti", "tiny"), ("router remove s", "s0")]
)
async def test_completion_knows_models_and_servers(
    line: str, there: str, start_router: StartRouter, start_sim: StartSim, tmp_path: Path
) -> None:
    running = await start_router(await start_sim())
    more = {"COMP_WORDS": line, "COMP_CWORD": "2", "ROUTER_URL": running.url}
    done = await router(cwd=tmp_path, _ROUTER_COMPLETE="complete_bash", **more)
    assert there in done.out

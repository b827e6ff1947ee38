"""Each real engine starts, answers and lists its model, and the fixtures leave nothing behind.

Requests go straight to the engines: what is not true here cannot be true through the router.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from conftest import EngineServer, StartLlamaServer, StartVllm

GET_ENGINES = Path(__file__).parents[2] / "scripts" / "get-engines"
SERVERS = ["vllm_server", "llama_server", "llama_cpp_python_server", "mlx_server"]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> EngineServer:
    started: EngineServer = request.getfixturevalue(request.param)
    return started


def fetch(server: EngineServer, path: str, body: dict[str, Any] | None = None) -> str:
    """GET, or POST of `body` as JSON; raises HTTPError for an error status."""
    request = urllib.request.Request(
        server.url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        content: bytes = answer.read()
    return content.decode()


def is_open(server: EngineServer) -> bool:
    address = urlsplit(server.url)
    with socket.socket() as probe:
        return probe.connect_ex((address.hostname, address.port)) == 0


def stream_events(text: str) -> list[str]:
    """The data of each event, the comments left out."""
    lines = text.splitlines()
    return [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]


def test_a_completion_runs_to_max_tokens_in_plain_ascii(server: EngineServer) -> None:
    body = {"model": server.model, "prompt": "Dafi kenu", "max_tokens": 40, "temperature": 1.5}
    answer = json.loads(fetch(server, "/v1/completions", body))
    assert answer["usage"]["completion_tokens"] == 40
    assert answer["choices"][0]["finish_reason"] == "length"
    assert len(answer["choices"][0]["text"]) >= 40
    assert answer["choices"][0]["text"].isascii()


def test_a_chat_stream_carries_text_and_ends_with_done(server: EngineServer) -> None:
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": "Dafi kenu"}],
        "max_tokens": 12,
        "stream": True,
    }
    *chunks, last = stream_events(fetch(server, "/v1/chat/completions", body))
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    assert last == "[DONE]"
    assert "".join(delta.get("content") or "" for delta in deltas).isascii()
    assert sum(bool(delta.get("content")) for delta in deltas) > 1


def test_the_model_list_names_what_requests_ask_for(server: EngineServer) -> None:
    listed = json.loads(fetch(server, "/v1/models"))["data"]
    assert [model["id"] for model in listed] == [server.model]


def test_the_same_question_has_the_same_answer_at_temperature_0(server: EngineServer) -> None:
    body = {"model": server.model, "prompt": "Dafi kenu", "max_tokens": 12, "temperature": 0}
    texts = [json.loads(fetch(server, "/v1/completions", body))["choices"][0] for _ in range(2)]
    assert texts[0]["text"] == texts[1]["text"]


def test_vllm_and_llama_server_report_their_load(
    vllm_server: EngineServer, llama_server: EngineServer
) -> None:
    assert 'vllm:num_requests_running{engine="0",model_name="tiny"}' in fetch(
        vllm_server, "/metrics"
    )
    assert "llamacpp:requests_processing" in fetch(llama_server, "/metrics")


def test_a_llama_server_has_the_slots_and_the_name_asked_for(
    start_llama_server: StartLlamaServer,
) -> None:
    server = start_llama_server(slots=2, extra=["--no-slots"], model="other")
    properties = json.loads(fetch(server, "/props"))
    assert properties["total_slots"] == 2
    assert properties["endpoint_slots"] is False
    assert json.loads(fetch(server, "/v1/models"))["data"][0]["id"] == server.model == "other"


def test_a_vllm_with_its_own_flags_starts_and_dies_with_all_its_children(
    start_vllm: StartVllm,
) -> None:
    server = start_vllm(max_num_seqs=2, extra=["--max-model-len", "512"], model="other")
    listed = json.loads(fetch(server, "/v1/models"))["data"]
    assert [(model["id"], model["max_model_len"]) for model in listed] == [("other", 512)]
    children = group_members(server)
    assert len(children) > 1
    server.stop()
    assert group_members(server) == []


def group_members(server: EngineServer) -> list[str]:
    """The live processes of the server's group; one that has ended may still be listed as Z."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pgid=,stat=,args="], check=True, capture_output=True, text=True
    ).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    wanted = str(server.process.pid)
    return [row[-1] for row in rows if row[0] == wanted and not row[1].startswith("Z")]


def test_stop_ends_a_server_that_is_answering(start_llama_server: StartLlamaServer) -> None:
    server = start_llama_server()
    with ask_for_a_long_answer(server) as connection:
        assert b"200" in connection.recv(100)
        server.stop()
    assert server.process.returncode is not None
    assert not is_open(server)


def ask_for_a_long_answer(server: EngineServer) -> socket.socket:
    address = urlsplit(server.url)
    connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=60)
    body = json.dumps({"prompt": "a", "max_tokens": 2000, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_stopping_twice_or_after_a_kill_is_harmless(start_llama_server: StartLlamaServer) -> None:
    server = start_llama_server()
    server.signal_group(signal.SIGKILL)
    server.stop()
    server.stop()
    assert server.process.returncode == -signal.SIGKILL


def test_an_engine_that_does_not_start_fails_with_its_last_words(
    start_llama_server: StartLlamaServer,
) -> None:
    with pytest.raises(pytest.fail.Exception, match="--no-such-flag"):
        start_llama_server(extra=["--no-such-flag"])


def run_pytest_without_engines(engines: Path, required: str) -> str:
    """The report of a run of this file's llama-server test with an empty folder of engines."""
    arguments = ["-m", "pytest", __file__, "-k", "slots_and_the_name", "-p", "no:cacheprovider"]
    environ = {"MVLLM_ENGINES": str(engines), "MVLLM_REQUIRE_ENGINES": required}
    result = subprocess.run(
        [sys.executable, *arguments], env=os.environ | environ, capture_output=True, text=True
    )
    return result.stdout


def test_a_missing_engine_skips_its_tests_and_says_how_to_get_it(tmp_path: Path) -> None:
    report = run_pytest_without_engines(tmp_path, required="vllm")
    assert "1 skipped" in report
    assert "llama-server is not installed: scripts/get-engines llama-server" in report


def test_a_missing_engine_that_is_required_fails_its_tests(tmp_path: Path) -> None:
    report = run_pytest_without_engines(tmp_path, required="vllm, llama-server")
    assert "1 failed" in report
    assert "llama-server is not installed: scripts/get-engines llama-server" in report


def test_an_installation_cut_short_does_not_pass_for_whole(tmp_path: Path) -> None:
    folder = tmp_path / "llama-server"
    folder.mkdir()
    (folder / ".installed").write_text("recipe\nversion\n")
    assert "llama-server      installed (version)" in list_engines(tmp_path)
    (tmp_path / ".llama-server.unfinished").touch()
    assert "llama-server      unfinished" in list_engines(tmp_path)
    assert "1 skipped" in run_pytest_without_engines(tmp_path, required="")


def list_engines(engines: Path) -> str:
    return subprocess.run(
        [sys.executable, str(GET_ENGINES), "--list"],
        env=os.environ | {"MVLLM_ENGINES": str(engines)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout

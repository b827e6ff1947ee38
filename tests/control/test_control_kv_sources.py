"""Where a server publishes, from what it says of that."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mvllm_router.control.kv_sources import KvSource, read_sources

# As vLLM 0.32 answers.
TOLD: dict[str, Any] = {
    "enable_kv_cache_events": True,
    "publisher": "zmq",
    "endpoint": "tcp://*:5557",
    "replay_endpoint": "tcp://*:6557",
    "buffer_steps": 10000,
    "hwm": 100000,
    "max_queue_size": 100000,
    "topic": "kv@srv1@tiny",
}


def read(url: str = "http://gpu1:8000", **changes: Any) -> list[KvSource]:
    return read_sources(json.dumps({"0": {**TOLD, **changes}}).encode(), url)


def test_the_host_is_that_of_the_server_and_each_rank_has_its_port() -> None:
    ranks = {"0": TOLD, "1": {**TOLD, "endpoint": "tcp://*:5558", "replay_endpoint": None}}
    assert read_sources(json.dumps(ranks).encode(), "https://gpu1:8000/vllm") == [
        KvSource("0", "tcp://gpu1:5557", "tcp://gpu1:6557", b"kv@srv1@tiny"),
        KvSource("1", "tcp://gpu1:5558", "", b"kv@srv1@tiny"),
    ]


@pytest.mark.parametrize("bound", ["*", "0.0.0.0", "[::]"])
def test_any_address_means_that_of_the_server_also_where_it_has_colons(bound: str) -> None:
    [source] = read("http://[fd00::7]:8000", endpoint=f"tcp://{bound}:5557", topic=None)
    assert source.events == "tcp://[fd00::7]:5557"
    assert source.topic == b""


@pytest.mark.parametrize("bound", ["10.0.0.3", "[fd00::8]", "node-3.local"])
def test_an_address_of_its_own_is_taken(bound: str) -> None:
    assert read(endpoint=f"tcp://{bound}:41234")[0].events == f"tcp://{bound}:41234"


def test_one_that_does_not_publish_has_none() -> None:
    assert read_sources(b"{}", "http://gpu1:8000") == []
    assert read(enable_kv_cache_events=False) == []
    assert read(publisher="null") == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "ipc:///tmp/kv",
        "inproc://kv",
        "tcp://*:0",
        "tcp://*",
        "tcp://*:5557/x",
        "udp://*:1",
        5,
        None,
    ],
)
def test_what_cannot_be_connected_to_is_said(endpoint: object) -> None:
    with pytest.raises(ValueError, match="none of the form tcp://host:port"):
        read(endpoint=endpoint)
    if endpoint is not None:
        with pytest.raises(ValueError, match="none of the form tcp://host:port"):
            read(replay_endpoint=endpoint)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"0": 1}', b"<html>"])
def test_an_answer_of_another_kind_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_sources(body, "http://gpu1:8000")


def test_a_server_has_no_more_ranks_than_can_be_followed() -> None:
    ranks = {str(n): TOLD for n in range(1000)}
    assert len(read_sources(json.dumps(ranks).encode(), "http://gpu1:8000")) == 64

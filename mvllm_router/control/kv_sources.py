"""Where a vLLM server publishes what is in its caches: its answer to `GET /kv_event_sources`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from mvllm_router.engines.recognise import read_json

PATH = "/kv_event_sources"
# Data-parallel ranks of one server that are followed.
_MOST = 64
_ENDPOINT = re.compile(r"tcp://(?P<host>[\w.*-]+|\[[\w.:%*]+\]):(?P<port>[1-9]\d{0,4})", re.ASCII)
# What a publisher binds that takes any of its machine's addresses.
_ANY = ("*", "0.0.0.0", "[::]")


@dataclass(frozen=True, slots=True)
class KvSource:
    """What one engine publishes: addresses to connect to, and what its messages begin with.

    `replay` is where those that were missed can be asked for, "" for nowhere.
    """

    rank: str
    events: str
    replay: str
    topic: bytes


def read_sources(body: bytes, url: str) -> list[KvSource]:
    """Return what the server at `url` publishes, by its answer; nothing if it does not.

    Raises:
        ValueError: it is no such answer, or it publishes in a way that cannot be followed.
    """
    document = read_json(body)
    if not isinstance(document, dict):
        raise ValueError(f"{PATH} does not answer with an object")
    host = urlsplit(url).hostname or ""
    host = f"[{host}]" if ":" in host else host
    found = []
    for rank, told in list(document.items())[:_MOST]:
        if not isinstance(told, dict):
            raise ValueError(f"{PATH} does not say how it publishes")
        if told.get("enable_kv_cache_events") and told.get("publisher") == "zmq":
            found.append(_source(str(rank), told, host))
    return found


def _source(rank: str, told: dict[str, object], host: str) -> KvSource:
    replay, topic = told.get("replay_endpoint"), told.get("topic") or ""
    return KvSource(
        rank,
        _address(told.get("endpoint"), host),
        _address(replay, host) if replay else "",
        str(topic).encode("utf-8", "replace"),
    )


def _address(endpoint: object, host: str) -> str:
    """Return where to connect for what binds `endpoint`."""
    found = _ENDPOINT.fullmatch(endpoint) if isinstance(endpoint, str) else None
    if found is None:
        raise ValueError("it publishes on an address that is none of the form tcp://host:port")
    at = host if found["host"] in _ANY else found["host"]
    return f"tcp://{at}:{found['port']}"

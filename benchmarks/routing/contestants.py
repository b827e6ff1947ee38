"""What is compared: this router and others, each set up as its users would for the same servers."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import proxies
from fleet import Server
from proxies import Running

_SETTLE = 5.0  # seconds of traffic before the counting begins
_LEARNING = 30.0  # for what finds out by itself how much a server can do
_MANY = 1_000_000

Start = Callable[[Sequence[Server]], AbstractContextManager[Running]]


@dataclass(frozen=True)
class Contestant:
    """A router with its settings, and the seconds of traffic that it has before it counts."""

    start: Start
    program: str  # that has to be installed
    settle: float = _SETTLE


def find(name: str) -> Contestant:
    """Return a contestant by its name; one of this router's may have a policy, after a colon.

    Raises ValueError where there is none of that name.
    """
    ours, _, policy = name.partition(":")
    if ours in _OURS:
        entry, config, settle = _OURS[ours]
        settings = {**config, **({"policy": f'"{policy}"'} if policy else {})}
        return Contestant(_router(entry, settings), "router", settle)
    if name not in _OTHERS:
        raise ValueError(f"no contestant is called {name!r}; there are {', '.join(NAMES)}")
    return _OTHERS[name]


# --- this router

Entry = Callable[[Server], str]  # its keys in servers.toml
Settings = dict[str, object]


def _router(entry: Entry, settings: Settings) -> Start:
    @contextlib.contextmanager
    def start(servers: Sequence[Server]) -> Iterator[Running]:
        entries = (f'{{ url = "{one.url}"{entry(one)} }},' for one in servers)
        lines = ["[servers]", "servers = [", *entries, "]", "[config]"]
        lines += [f"{key} = {value}" for key, value in settings.items()]
        port = proxies.free_port()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "servers.toml"
            file.write_text("\n".join(lines) + "\n")
            command = [*proxies.ROUTER, "run", "-c", str(file), "-p", str(port)]
            command += ["--log-level", "error", "--console"]
            with proxies.served(command, proxies.at(port)) as running:
                yield running

    return start


def _nothing(server: Server) -> str:
    return ""


def _capacity(server: Server) -> str:
    return f", max_concurrent_requests = {server.kind.slots}"


def _capacity_and_speed(server: Server) -> str:
    return f"{_capacity(server)}, weight = {server.kind.speed}"


_QUEUE: Settings = {"max_queue": _MANY, "queue_timeout": 300}
_OURS: dict[str, tuple[Entry, Settings, float]] = {
    "router": (_capacity, {}, _SETTLE),
    "router-queue": (_capacity_and_speed, _QUEUE, _SETTLE),
    "router-unset": (_nothing, {}, _LEARNING),
}


# --- others


def _haproxy(words: Callable[[Server], str], balance: str = "leastconn") -> Contestant:
    def start(servers: Sequence[Server]) -> AbstractContextManager[Running]:
        more = [words(one) for one in servers]
        return proxies.haproxy([one.url for one in servers], more, balance)

    return Contestant(start, "haproxy")


def _weight(server: Server) -> str:
    """HAProxy's weights are whole numbers up to 256."""
    return f"weight {round(2 * server.kind.slots * server.kind.speed)}"


def _weight_and_queue(server: Server) -> str:
    return f"{_weight(server)} maxconn {server.kind.slots}"


def _nginx(servers: Sequence[Server]) -> AbstractContextManager[Running]:
    return proxies.nginx([one.url for one in servers], "least_conn; ")


def _rust(name: str, policy: str) -> Contestant:
    start = proxies.rust(name, policy)
    return Contestant(lambda servers: start([one.url for one in servers]), name)


_OTHERS = {
    "haproxy-queue": _haproxy(_weight_and_queue),
    "haproxy": _haproxy(_weight),
    "haproxy-sticky": _haproxy(_weight, "hdr(x-session-id)"),  # whatever the load is
    "nginx": Contestant(_nginx, "nginx"),
    "vllm-router-p2c": _rust("vllm-router", "power_of_two"),
    "vllm-router-cache": _rust("vllm-router", "cache_aware"),
    "sglang-router-p2c": _rust("sglang-router", "power_of_two"),
    "sglang-router-cache": _rust("sglang-router", "cache_aware"),
}
NAMES = (*_OURS, *_OTHERS)
FOR_CHATS = ("haproxy-sticky",)  # has nothing to go by where requests are single

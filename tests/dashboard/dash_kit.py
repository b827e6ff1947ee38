"""What the dashboard's tests share: documents of a router, and one that answers with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from textual.pilot import Pilot

from mvllm_router.client import NotAuthorised, Refused
from mvllm_router.dashboard.app import Dashboard
from mvllm_router.dashboard.document import Document
from mvllm_router.dashboard.lines import Line

# Monday, 1 June 2026, 12:00:00 UTC.
WALL = 1780315200.0
STATES = ("up", "up", "up", "drain", "resting", "down", "open", "half-open", "loading")
REASONS = {"down": "connection refused", "open": "5 failures in a row", "resting": "it is busy"}


def server(number: int, **more: Any) -> dict[str, Any]:
    """Return the entry of one server; the numbers follow from its own."""
    running = (7 * number) % 30
    document: dict[str, Any] = {
        "url": f"http://10.0.0.{number % 250}:8000",
        "name": f"gpu-{number:02}",
        "engine": "llama.cpp" if number % 3 == 2 else "vllm",
        "engine_version": "0.11.0",
        "models": ["Qwen3-32B-FP8", "llama-3.3-70b"] if number % 2 else ["Qwen3-32B-FP8"],
        "current_load": running + number % 3,
        "max_capacity": 32,
        "running": running,
        "waiting": number % 3,
        "score": round((running + 0.5 * (number % 3)) / 32, 4),
        "health_status": "healthy",
        "in_flight": running // 2,
        "detailed_metrics": {"gpu_cache_usage_perc": None if number % 3 == 2 else running / 32},
        "state": "up",
        "state_seconds": 7860.0,
        "reason": "health check passed",
        "progress": "up",
        "circuit": {
            "state": "closed",
            "failures": 0,
            "opens_at": 5,
            "trial_in_seconds": 0.0,
            "openings": 0,
        },
        "resting_seconds": 0.0,
        "weight": 1.0,
        "max_concurrent_requests": 32,
        "tags": ["zone=a"],
        "requests": 1000 + number,
        "errors": number % 3,
        "retries": number % 2,
        "prompt_tokens": 120_000,
        "completion_tokens": 90_000,
        "tokens_out": 90_000,
        "ttft_seconds": {"p50": 0.07 + number / 1000, "p99": 0.2 + number / 1000},
        "inter_token_seconds": {"p50": 0.011, "p99": 0.02},
        "duration_seconds": {"p50": 1.2, "p99": 4.1},
        "sample_age_seconds": 0.4,
        "etag": '"1"',
    }
    return {**document, **more}


def in_state(number: int, state: str) -> dict[str, Any]:
    """Return a server in a state; one that is not used has nothing to show."""
    more: dict[str, Any] = {"state": state, "progress": state, "reason": REASONS.get(state, "")}
    if state in ("down", "open", "loading"):
        more |= {"running": 0, "waiting": 0, "current_load": 0, "in_flight": 0, "score": 0.0}
        more |= {"ttft_seconds": {"p50": None, "p99": None}, "sample_age_seconds": None}
        more |= {"detailed_metrics": {"gpu_cache_usage_perc": None}}
    return server(number, **more)


def servers(count: int) -> list[dict[str, Any]]:
    """Return servers of all states; from the ninth on they are up."""
    return [in_state(n, STATES[n] if n < len(STATES) else "up") for n in range(count)]


def snapshot(second: int = 0, count: int = 3, **more: Any) -> dict[str, Any]:
    """Return the router's document `second` seconds after the first one."""
    document: dict[str, Any] = {
        "version": "0.1.0",
        "pid": 77,
        "uptime_seconds": 7980.0 + second,
        "address": "http://127.0.0.1:8888",
        "policy": "least_load",
        "config": "servers.toml",
        "state": "running",
        "in_flight": 40 + second % 9,
        "queued": 3 if second % 60 > 50 else 0,
        "requests": {"total": 1000 + 42 * second, "errors": second // 10, "client_left": 0},
        "tokens_out": 100_000 + 2600 * second,
        "ttft_seconds": {"p50": 0.063, "p99": 0.9 if second % 100 > 90 else 0.206},
        "events_number": 4,
        "requests_number": 6,
        "live_changes": 0,
        "servers": [
            {**one, "tokens_out": 90_000 + (100 + 10 * n) * second}
            for n, one in enumerate(servers(count))
        ],
        "events": [],
    }
    return {**document, **more}


def tried(name: str, outcome: str = "") -> dict[str, str]:
    return {"server": name, "outcome": outcome}


def request(number: int, **more: Any) -> dict[str, Any]:
    """Return one entry of the list of requests."""
    document: dict[str, Any] = {
        "number": number,
        "at": WALL + number,
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "Qwen3-32B-FP8",
        "status": 200,
        "tried": [{"server": "gpu-01", "outcome": ""}],
        "server": "gpu-01",
        "attempts": 1,
        "why": "lowest score, 0.31 of 3",
        "ttft_seconds": 0.092,
        "duration_seconds": 1.15,
        "prompt_tokens": 40,
        "completion_tokens": 328,
        "stream": True,
        "error": "",
    }
    return {**document, **more}


REQUESTS = [
    request(1),
    request(
        2,
        tried=[tried("gpu-06", "connection refused"), tried("gpu-00")],
        why="the one before failed",
        completion_tokens=12,
    ),
    request(3, status=429, tried=[], server=None, ttft_seconds=None, error="the queue is full"),
    request(4, status=499, completion_tokens=None),
    request(
        5,
        status=502,
        tried=[tried("gpu-06", "reset"), tried("gpu-01", "timeout")],
        server=None,
        error="every attempt failed",
    ),
    request(6, key="alice", path="/v1/embeddings", model="bge-m3", completion_tokens=None),
]  # fmt: skip
EVENTS = [
    {"number": 1, "at": WALL, "kind": "up", "backend": "gpu-00", "message": "up: passed"},
    {"number": 2, "at": WALL + 3, "kind": "down", "backend": "gpu-05", "message": "down: refused"},
    {"number": 3, "at": WALL + 5, "kind": "admin", "backend": "gpu-03", "message": "drained"},
    {"number": 4, "at": WALL + 9, "kind": "reload", "backend": "", "message": "added: gpu-07"},
]  # fmt: skip
CONFIG: dict[str, Any] = {
    "path": "/etc/router/servers.toml",
    "etag": '"c"',
    "settings": {
        "port": {"value": 8888, "from": "default", "place": None, "live": False},
        "policy": {"value": "least_load", "from": "file", "place": "/etc/router/servers.toml:12",
                   "live": True},
        "api_key": {"value": "***", "from": "environment", "place": "ROUTER_API_KEY", "live": True},
    },
    "servers": [
        {"name": "gpu-00", "url": "http://10.0.0.0:8000", "api_key": "***", "weight": 1.0,
         "max_concurrent_requests": 32, "from": "file", "place": "/etc/router/servers.toml:3"},
        {"name": "gpu-01", "url": "http://10.0.0.1:8000", "weight": 2.0, "from": "admin API"},
    ],
}  # fmt: skip
EXPLAINED: dict[str, Any] = {
    "model": "Qwen3-32B-FP8",
    "policy": "least_load",
    "chosen": "gpu-00",
    "candidates": [
        {"name": "gpu-00", "eligible": True, "reason": "the lowest score", "score": 0.0,
         "arithmetic": "(0 + 0.5·0) / 32 = 0.00"},
        {"name": "gpu-01", "eligible": True, "reason": "", "score": 0.23,
         "arithmetic": "(7 + 0.5·1) / 32 = 0.23"},
        {"name": "gpu-03", "eligible": False, "reason": "it drains", "score": 0.66,
         "arithmetic": "(21 + 0.5·0) / 32 = 0.66"},
    ],
}  # fmt: skip


class FakeRouter:
    """Answers as a router does, and keeps what it is asked to change."""

    url = "http://127.0.0.1:8888"

    def __init__(self, count: int = 3, **more: Any) -> None:
        """`more` goes into every snapshot."""
        self.count = count
        self.more = more
        self.second = 0
        self.requests = REQUESTS
        self.events = EVENTS
        self.config = CONFIG
        self.explained = EXPLAINED
        self.logs: dict[str, list[str]] = {}  # of servers that it has started
        self.weights: dict[str, float] = {}  # that were changed; the snapshot tells them later
        self.sent: list[tuple[str, str, Mapping[str, Any]]] = []
        self.matches: list[str | None] = []
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.refusal: Exception | None = None
        self.lacking: tuple[str, ...] = ()
        self.barred: tuple[str, ...] = ()
        self.answers = asyncio.Event()
        self.answers.set()

    async def get(self, path: str) -> Document:
        self.asked.append(path)
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        route = path.partition("?")[0].removeprefix("/router/")
        if route in self.lacking:
            raise Refused(f"no route {path}", 404, {})
        if route in self.barred:
            raise NotAuthorised("this needs the admin key")
        if route == "snapshot":
            return snapshot(self.second, self.count, **self.more)
        if route.startswith("logs/"):
            return self._log(route.removeprefix("logs/"), int(path.rpartition("=")[2]))
        if route.startswith("backends/"):
            return {"weight": self.weights.get(route.removeprefix("backends/"), 1.0)}
        answers: dict[str, Document] = {
            "requests": {"requests": self.requests, "newest": 6},
            "events": {"events": self.events, "newest": 4},
            "config": self.config,
        }
        return answers[route]

    def _log(self, name: str, after: int) -> Document:
        if name not in self.logs:
            raise Refused(f"No server `{name}` was started here.", 404, {})
        return {"lines": self.logs[name][after:], "newest": len(self.logs[name])}

    async def send(
        self, method: str, path: str, body: Mapping[str, Any], match: str | None = None
    ) -> Document:
        if path == "/router/explain":
            if "explain" in self.lacking:
                raise Refused("no such route", 404, {})
            return self.explained
        self.sent.append((method, path, body))
        self.matches.append(match)
        await self.answers.wait()
        if self.refusal is not None:
            raise self.refusal
        if "weight" in body:
            self.weights[path.rpartition("/")[2]] = body["weight"]
        return {"changed": {"added": ["gpu-09"]}} if path == "/router/reload" else {"state": "up"}

    async def close(self) -> None:
        pass


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Running:
    """A dashboard in the test's loop."""

    def __init__(
        self, app: Dashboard, pilot: Pilot[None], router: FakeRouter, clock: Clock
    ) -> None:
        self.app, self.pilot, self.router, self.clock = app, pilot, router, clock

    async def press(self, *keys: str) -> None:
        """Press keys, and wait until what they do is on the screen."""
        await self.pilot.press(*keys)
        await self.settle()

    async def pass_time(self, seconds: int) -> None:
        """Let the router and the clock go on, and the dashboard look once each second."""
        for _ in range(seconds):
            self.router.second += 1
            self.clock.now += 1
            await self.app.look()
        self.app.show()
        await self.settle()

    async def settle(self) -> None:
        # Twice: what is drawn for the sizes of the widgets comes after these are known.
        await self.pilot.pause()
        for worker in list(self.app.workers):
            if worker.group == "change":
                await worker.wait()
        self.app.show()
        await self.pilot.pause()
        self.app.show()
        await self.pilot.pause()

    def screen(self) -> list[str]:
        """Return what is on the terminal, line by line."""
        return screen_of(self.app)

    def text(self) -> str:
        return "\n".join(self.screen())


@asynccontextmanager
async def dashboard(
    router: FakeRouter | None = None, size: tuple[int, int] = (120, 36), **more: Any
) -> AsyncIterator[Running]:
    """Run a dashboard in front of a router that answers with documents; it looks when told to."""
    router = router or FakeRouter()
    clock = Clock()
    app = Dashboard(router, interval=3600, clock=clock, wall=lambda: WALL, **more)
    async with app.run_test(size=size, notifications=True) as pilot:
        running = Running(app, pilot, router, clock)
        await app.look()
        await running.settle()
        yield running


def screen_of(app: Dashboard) -> list[str]:
    """Return what is on the terminal, line by line."""
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


def text_of(line: Line) -> str:
    return "".join(text for text, _ in line)


def texts(lines: list[Line]) -> list[str]:
    return [text_of(line) for line in lines]

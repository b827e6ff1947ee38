"""The servers of a run: how many requests each takes at once, how fast it is, what it counts."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxies import said, started

MODEL = "tiny"
# A server at full speed: 38 such slots would be an NVIDIA card with a small model.
TOKENS_PER_SECOND = 80.0  # of one request
PREFILL_SECONDS = 0.005  # for any prompt
PREFILL_TOKENS_PER_SECOND = 10_000.0
KV_TOKENS = 12_288  # for each slot: not enough for each server to know every chat
CONTEXT = 131_072  # tokens; traces have prompts as long as that


@dataclass(frozen=True)
class Kind:
    """One of the servers: its slots, and its speed as a share of the full one."""

    slots: int
    speed: float = 1.0

    def spec(self) -> str:
        """What starts it as a simulated engine."""
        words = {
            "slots": self.slots,
            "tps": TOKENS_PER_SECOND * self.speed,
            "prefill": PREFILL_SECONDS / self.speed,
            "prefill-tps": PREFILL_TOKENS_PER_SECOND * self.speed,
            "kv": KV_TOKENS * self.slots,
            "context": CONTEXT,
        }
        return ":".join([f"vllm:{MODEL}", *(f"{word}={value}" for word, value in words.items())])


# The second and the fourth are half as fast, so that 38 slots do the work of 25.5.
UNEVEN = (Kind(3), Kind(5, 0.5), Kind(10), Kind(20, 0.5))


def full_slots(kinds: Sequence[Kind]) -> float:
    """Return how many slots at full speed these servers are."""
    return sum(kind.slots * kind.speed for kind in kinds)


def service_seconds(prompt_tokens: int, answer_tokens: int) -> float:
    """Return how long a slot at full speed works on a request, nothing of it being cached."""
    read = PREFILL_SECONDS + prompt_tokens / PREFILL_TOKENS_PER_SECOND
    return read + (answer_tokens - 1) / TOKENS_PER_SECOND


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    url: str
    kind: Kind


@contextlib.contextmanager
def simulated(kinds: Sequence[Kind]) -> Iterator[list[Server]]:
    """Run simulated servers with empty caches for as long as the context lasts."""
    program = str(Path(__file__).with_name("serve.py"))
    command = [sys.executable, program, *(kind.spec() for kind in kinds)]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        urls = json.loads(said(process))["urls"]
        yield [Server(url, kind) for url, kind in zip(urls, kinds, strict=True)]


def change_speed(server: Server, factor: float) -> None:
    """Let a simulated server go on `factor` times as fast as it began."""
    data = json.dumps({"factor": factor}).encode()
    urllib.request.urlopen(f"{server.url}/sim/speed", data, timeout=5).close()


@dataclass(frozen=True)
class Counts:
    """What a server's metrics have counted, in tokens: made, looked up in the cache, and found."""

    made: float = 0.0
    looked_up: float = 0.0
    found: float = 0.0

    def since(self, before: Counts) -> Counts:
        return Counts(
            self.made - before.made,
            self.looked_up - before.looked_up,
            self.found - before.found,
        )


_COUNTERS = (
    "(?:vllm:generation_tokens_total|llamacpp:tokens_predicted_total)",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
)


def counts(server: Server) -> Counts:
    """Ask a server for its counters; llama.cpp has none of its cache."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return Counts(*(_sum(text, name) for name in _COUNTERS))


def _sum(text: str, name: str) -> float:
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))

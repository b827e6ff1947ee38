"""`router run --demo`: simulated servers and their traffic, in a process of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mvllm_router.config import ServerSpec


@dataclass(frozen=True, slots=True)
class Demo:
    """The simulated servers; `go` starts the traffic against the router's address."""

    servers: tuple[ServerSpec, ...]
    go: Callable[[str], None]


@contextlib.contextmanager
def start_demo(api_key: str | None = None) -> Iterator[Demo]:
    """Run the simulated servers for as long as the context lasts, and never longer.

    They end when their standard input closes, which it does however this process ends.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "mvllm_router.sim.demo"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the router, which drains before they end
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin = process.stdin

    def go(router_url: str) -> None:
        stdin.write(json.dumps({"url": router_url, "api_key": api_key}) + "\n")
        stdin.flush()

    with process:  # closes the pipes and waits
        told = json.loads(process.stdout.readline())
        specs = tuple(ServerSpec(url=s["url"], name=s["name"]) for s in told["servers"])
        yield Demo(specs, go)
        stdin.close()

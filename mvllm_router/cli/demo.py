"""`router run --demo`: simulated servers and their traffic, in a process of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from mvllm_router import itself
from mvllm_router.cli.output import Exit, fail
from mvllm_router.config import ServerSpec

# Seconds that the child gets to end by itself.
_GRACE = 5.0


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
        itself.command("mvllm_router.sim.demo"),
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

    try:
        yield Demo(_servers(process, process.stdout), go)
    finally:
        _end(process)


def _servers(process: subprocess.Popen[str], stdout: IO[str]) -> tuple[ServerSpec, ...]:
    """Read what the child says when it is ready; it says nothing when it could not start."""
    line = stdout.readline()
    if not line:
        code = process.wait()
        fail(f"the simulated servers did not start (exit code {code})", Exit.FAILED)
    return tuple(ServerSpec(url=s["url"], name=s["name"]) for s in json.loads(line)["servers"])


def _end(process: subprocess.Popen[str]) -> None:
    with process:  # closes its pipes
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()

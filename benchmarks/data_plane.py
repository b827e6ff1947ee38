"""CPU time of the router per request and per streamed event, beside other proxies, in one run.

    python benchmarks/data_plane.py [--rounds 5] [--seconds 4] [--json]

The figures are CPU microseconds of the proxy's process, from the kernel's accounting, so
they hold on a busy machine too; rounds alternate between the proxies and the median counts.
nginx is measured as well where it is installed. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

HERE = Path(__file__).parent
CLIENTS = 64  # connections that send small requests, one at a time each
STREAMS = 40  # connections that stream; each gets 200 events a second
EVENTS_PER_STREAM = 65  # benchmarks/backend.py sends 64 and [DONE]
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

_MESSAGES = '"model":"tiny","messages":[{"role":"user","content":"' + "hello " * 20 + '"}]'
SMALL = ("{" + _MESSAGES + "}").encode()
STREAM = ('{"stream":true,' + _MESSAGES + "}").encode()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and its children have used."""
    total = 0.0
    for process in [pid, *_children(pid)]:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return total


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


# --- the proxies


@contextlib.contextmanager
def started(command: list[str], stdin: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a command for as long as the context lasts."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=stdin, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_until_ready(url: str) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def router(backend: str) -> Iterator[tuple[str, int]]:
    port = free_port()
    command = [sys.executable, "-m", "mvllm_router", "run", backend, "-p", str(port)]
    with started([*command, "--log-level", "warning"]) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{url}/ready")
        yield url, process.pid


@contextlib.contextmanager
def plain_aiohttp(backend: str) -> Iterator[tuple[str, int]]:
    with started([sys.executable, str(HERE / "plain_proxy.py"), backend]) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process.pid


_NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server {backend}; keepalive 256; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_buffering off; keepalive_requests 1000000000; }} }}
}}
"""


@contextlib.contextmanager
def nginx(backend: str) -> Iterator[tuple[str, int]]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "nginx.conf"
        address = urlsplit(backend).netloc
        configuration.write_text(_NGINX.format(folder=folder, backend=address, port=port))
        with started(["nginx", "-c", str(configuration), "-e", f"{folder}/error"]) as process:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(f"{url}/v1/models")
            yield url, process.pid


PROXIES = {"router": router, "plain aiohttp": plain_aiohttp, "nginx": nginx}


# --- the load


async def load(url: str, body: bytes, connections: int, seconds: float, mark: bytes) -> int:
    """Send `body` over and over on each connection; return how many answers came."""
    parts = urlsplit(url)
    end = time.monotonic() + seconds
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        b"user-agent: bench\r\naccept: */*\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )

    async def client() -> int:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        answers = 0
        while time.monotonic() < end:
            writer.write(request)
            await reader.readuntil(mark)
            answers += 1
        writer.close()
        return answers

    return sum(await asyncio.gather(*(client() for _ in range(connections))))


def measure(url: str, pid: int, kind: str, seconds: float) -> float:
    """Return CPU microseconds of the process per request, or per event of streams."""
    body, connections, mark, parts = {
        "request": (SMALL, CLIENTS, b'"total_tokens":18}}', 1),
        "event": (STREAM, STREAMS, b"\r\n0\r\n\r\n", EVENTS_PER_STREAM),
    }[kind]
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(load(url, body, connections, 0.5, mark))  # warm up
        before = cpu_seconds(pid)
        answers = loop.run_until_complete(load(url, body, connections, seconds, mark))
        return (cpu_seconds(pid) - before) / (answers * parts) * 1e6
    finally:
        loop.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=4.0)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    names = [name for name in PROXIES if name != "nginx" or shutil.which("nginx")]
    figures: dict[str, dict[str, list[float]]] = {n: {"request": [], "event": []} for n in names}
    with started([sys.executable, str(HERE / "backend.py")], subprocess.PIPE) as backend:
        assert backend.stdout is not None
        backend_url = backend.stdout.readline().strip()
        with contextlib.ExitStack() as stack:
            running = {n: stack.enter_context(PROXIES[n](backend_url)) for n in names}
            for number in range(chosen.rounds):
                for kind in ("request", "event"):
                    for name, (url, pid) in running.items():
                        figures[name][kind].append(measure(url, pid, kind, chosen.seconds))
                print(f"round {number + 1} of {chosen.rounds} done", file=sys.stderr)
    report(figures, as_json=chosen.json)


def report(figures: dict[str, dict[str, list[float]]], *, as_json: bool) -> None:
    medians = {
        name: {kind: round(statistics.median(values), 1) for kind, values in kinds.items()}
        for name, kinds in figures.items()
    }
    if as_json:
        print(json.dumps(medians, indent=2))
        return
    print(
        f"{'CPU microseconds':<16}{'per request':>14}{'per event':>12}{'against plain aiohttp':>26}"
    )
    plain = medians["plain aiohttp"]
    for name, figure in medians.items():
        ratios = " / ".join(f"{figure[kind] / plain[kind]:.2f}" for kind in ("request", "event"))
        print(f"{name:<16}{figure['request']:>14}{figure['event']:>12}{ratios:>26}")


if __name__ == "__main__":
    main()

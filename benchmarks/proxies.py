"""Starts the router and what it is compared with, each in front of the same backends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent
# Peers that pip installs, each in an environment of its own: `benchmarks/get-peers` makes them.
PEERS = Path(os.environ.get("MVLLM_PEERS", Path.home() / ".cache/mvllm-router/peers"))
ROUTER = (sys.executable, "-m", "mvllm_router")
_PATIENCE = 60.0  # seconds until a proxy answers
_DASHBOARD_BEGINS = 3.0  # seconds until it shows all there is


@dataclass(frozen=True)
class Running:
    """A proxy that runs: where it listens, and the processes whose CPU time counts."""

    url: str
    pid: int
    key: str = ""


Start = Callable[[Sequence[str]], "contextlib.AbstractContextManager[Running]"]


@contextlib.contextmanager
def started(command: Sequence[str], **more: object) -> Iterator[subprocess.Popen[str]]:
    """Run a command for as long as the context lasts."""
    process = subprocess.Popen(command, text=True, **more)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextlib.contextmanager
def backends(count: int) -> Iterator[list[str]]:
    command = [sys.executable, str(HERE / "backend.py"), str(count)]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield [said(process) for _ in range(count)]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


_HELLO = b'{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":"hello"}]}'


def wait_until_ready(url: str, key: str = "") -> None:
    end = time.monotonic() + _PATIENCE
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", _HELLO, headers)
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def served(command: Sequence[str], url: str, key: str = "", **more: object) -> Iterator[Running]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with started(command, **quiet, **more) as process:
        wait_until_ready(url, key)
        yield Running(url, process.pid, key)


@contextlib.contextmanager
def router(urls: Sequence[str], key: str = "") -> Iterator[Running]:
    port = free_port()
    command = [*ROUTER, "run", *urls, "-p", str(port)]
    environ = {**os.environ, **({"ROUTER_API_KEY": key} if key else {})}
    with served([*command, "--log-level", "error"], at(port), key, env=environ) as running:
        yield running


@contextlib.contextmanager
def router_with_key(urls: Sequence[str]) -> Iterator[Running]:
    with router(urls, key="sk-benchmark") as running:
        yield running


@contextlib.contextmanager
def dashboard(url: str) -> Iterator[subprocess.Popen[str]]:
    """Show a router's dashboard on a terminal that nobody looks at."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
    command = [*ROUTER, "top", url]
    environ = {**os.environ, "TERM": "xterm-256color"}
    with started(command, stdin=its, stdout=its, stderr=its, env=environ) as process:
        os.close(its)
        reader = threading.Thread(target=_read_all, args=(ours,), daemon=True)
        reader.start()
        time.sleep(_DASHBOARD_BEGINS)
        yield process
    reader.join()
    os.close(ours)


def _read_all(file: int) -> None:
    with contextlib.suppress(OSError):  # the end of a terminal
        while os.read(file, 65536):
            pass


@contextlib.contextmanager
def plain_aiohttp(urls: Sequence[str]) -> Iterator[Running]:
    command = [sys.executable, str(HERE / "plain_proxy.py"), urls[0]]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        yield Running(said(process), process.pid)


_NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_max_body_size 64m; client_body_buffer_size 8m;
  upstream up {{ {servers} keepalive 256; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_buffering off; keepalive_requests 1000000000; }} }}
}}
"""


@contextlib.contextmanager
def nginx(urls: Sequence[str], method: str = "") -> Iterator[Running]:
    """Run nginx; `method` says how it chooses a server, as `least_conn;` does."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nginx.conf"
        servers = method + " ".join(f"server {urlsplit(url).netloc};" for url in urls)
        file.write_text(_NGINX.format(folder=folder, servers=servers, port=port))
        with served(["nginx", "-c", str(file), "-e", f"{folder}/error"], at(port)) as running:
            yield running


# Without http-no-delay it holds the events of a stream back.
_HAPROXY = """
global
  maxconn 8192
  nbthread 1
defaults
  mode http
  option http-no-delay
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout queue 300s
  timeout client 300s
  timeout server 300s
frontend front
  bind 127.0.0.1:{port}
  default_backend back
backend back
  balance {balance}
  hash-type consistent
{servers}
"""


@contextlib.contextmanager
def haproxy(
    urls: Sequence[str], more: Sequence[str] | None = None, balance: str = "leastconn"
) -> Iterator[Running]:
    """Run HAProxy; `more` are words for each server, such as `weight 3`."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "haproxy.cfg"
        servers = (
            f"  server s{n} {urlsplit(url).netloc} {words}"
            for n, (url, words) in enumerate(zip(urls, more or [""] * len(urls), strict=True))
        )
        file.write_text(_HAPROXY.format(servers="\n".join(servers), port=port, balance=balance))
        with served(["haproxy", "-db", "-f", str(file)], at(port)) as running:
            yield running


_RUST = {
    "sglang-router": ("python", "-m", "sglang_router.launch_router"),
    "vllm-router": ("vllm-router",),
}


def rust(name: str, policy: str = "round_robin") -> Start:
    """Return what starts one of the routers in Rust, which share their options."""

    @contextlib.contextmanager
    def start(urls: Sequence[str]) -> Iterator[Running]:
        port = free_port()
        command = _RUST[name]
        program = str(PEERS / name / "bin" / command[0])
        options = ["--host", "127.0.0.1", "--port", str(port), "--policy", policy]
        options += ["--prometheus-port", str(free_port()), "--log-level", "error"]
        line = [program, *command[1:], "--worker-urls", *urls, *options]
        with served(line, at(port)) as running:
            yield running

    return start


_LITELLM = """
model_list:
{servers}
"""
_LITELLM_SERVER = """\
  - model_name: tiny
    litellm_params: {{model: openai/tiny, api_base: {url}/v1, api_key: none}}
"""


@contextlib.contextmanager
def litellm(urls: Sequence[str]) -> Iterator[Running]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        servers = "".join(_LITELLM_SERVER.format(url=url) for url in urls)
        file.write_text(_LITELLM.format(servers=servers))
        program = str(PEERS / "litellm" / "bin" / "litellm")
        line = [program, "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
        environ = {**os.environ, "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
        with served([*line, "--telemetry", "False"], at(port), env=environ) as running:
            yield running


@contextlib.contextmanager
def mvllm(urls: Sequence[str]) -> Iterator[Running]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        entries = "".join(f'{{ url = "{url}", max_concurrent_requests = 100 }},\n' for url in urls)
        Path(folder, "servers.toml").write_text(f"[servers]\nservers = [\n{entries}]\n")
        program = str(PEERS / "mvllm" / "bin" / "mvllm")
        line = [program, "run", "--config", "servers.toml", "--host", "127.0.0.1"]
        options = ["--port", str(port), "--console", "--log-level", "ERROR"]
        with served([*line, *options], at(port), cwd=folder) as running:
            yield running


def at(port: int) -> str:
    return f"http://127.0.0.1:{port}"


STARTS: dict[str, Start] = {
    "router": router,
    "nginx": nginx,
    "haproxy": haproxy,
    "sglang-router": rust("sglang-router"),
    "vllm-router": rust("vllm-router"),
    "plain aiohttp": plain_aiohttp,
    "litellm": litellm,
    "mvllm": mvllm,
}
# So dear that they are measured only where they are named.
ON_REQUEST = ("litellm", "mvllm")
RUST = tuple(_RUST)


def is_here(name: str) -> bool:
    """Tell whether a peer is installed."""
    if name in (*RUST, *ON_REQUEST):
        return (PEERS / name).is_dir()
    return name in ("router", "plain aiohttp") or shutil.which(name) is not None

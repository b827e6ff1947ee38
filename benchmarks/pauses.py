"""How long the router's event loop does nothing else, under load: the longest pauses.

    python benchmarks/pauses.py [--servers 512] [--streams 1000] [--seconds 20]

The router runs as always, before so many servers whose metrics (90 kB each) it reads once a
second, while so many streams bring 5,000 events a second and its own metrics are asked for once a
second. A heartbeat of a millisecond in its loop notes how late it comes. "wall" is what a client
may have waited, also because the machine had no processor for the router; "CPU" is what the
router itself did meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

_BEAT = 0.001  # seconds
_EVENTS_A_SECOND = 5000
_SETTLE = 5.0  # seconds until all servers were asked for the first time
_SHARES = (0.5, 0.99, 0.999, 1.0)


def serve(report: Path, arguments: list[str]) -> None:
    """Run the router in this process, and write the lateness of each beat to `report`."""
    from mvllm_router import server
    from mvllm_router.cli import main

    beats: list[tuple[float, float, float]] = []  # when, seconds late, CPU seconds since the last

    def beat(due: float, cpu: float) -> None:
        now, used = time.monotonic(), time.thread_time()
        beats.append((now, max(0.0, now - due), used - cpu))
        asyncio.get_running_loop().call_later(_BEAT, beat, now + _BEAT, used)

    start = server.Router.start

    async def start_with_heart(self: server.Router) -> None:
        await start(self)
        beat(time.monotonic(), time.thread_time())

    server.Router.start = start_with_heart  # type: ignore[method-assign]
    sys.argv = ["router", "run", *arguments]
    try:
        main()
    finally:
        report.write_text(json.dumps(beats))


def measure(servers: int, streams: int, seconds: float) -> None:
    import loads
    from proxies import backends, free_port, started, wait_until_ready

    with tempfile.TemporaryDirectory() as folder, backends(servers) as urls:
        report, port = Path(folder) / "report", free_port()
        entries = "".join(f'    {{ url = "{url}", engine = "vllm" }},\n' for url in urls)
        file = Path(folder) / "servers.toml"
        file.write_text(f"[servers]\nservers = [\n{entries}]\n")
        url = f"http://127.0.0.1:{port}"
        words = ["-c", str(file), "-p", str(port), "--log-level", "error"]
        command = [sys.executable, __file__, "--serve", str(report), *words]
        with started(command, stderr=subprocess.DEVNULL):
            wait_until_ready(url)
            time.sleep(_SETTLE)
            begun = time.monotonic()
            with _Scraped(f"{url}/metrics"):
                pause = streams / _EVENTS_A_SECOND
                ramp = 64 * pause
                done = loads.stream(url, "", streams, seconds, events=64, pause=pause, ramp=ramp)
            ended = time.monotonic()
        beats = [beat for beat in json.loads(report.read_text()) if begun < beat[0] < ended]
    rate = done.events / done.seconds
    print(f"{servers} servers, {streams} streams, {rate:,.0f} events/s, {len(beats):,} beats")
    for name, column in (("wall", 1), ("CPU", 2)):
        ordered = sorted(beat[column] * 1000 for beat in beats)
        at = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in _SHARES)
        figures = ", ".join(f"{_label(s)} {v:.1f}" for s, v in zip(_SHARES, at, strict=True))
        print(f"{name} ms: {figures}")


def _label(share: float) -> str:
    return "longest" if share == 1 else f"p{share * 100:g}"


class _Scraped:
    """Asks for a page once a second for as long as the context lasts."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._scrape)

    def _scrape(self) -> None:
        while not self._ended.wait(1.0):
            urllib.request.urlopen(self._url).read()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        return serve(Path(sys.argv[2]), sys.argv[3:])
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--servers", type=int, default=512)
    options.add_argument("--streams", type=int, default=1000)
    options.add_argument("--seconds", type=float, default=20.0)
    chosen = options.parse_args()
    return measure(chosen.servers, chosen.streams, chosen.seconds)


if __name__ == "__main__":
    main()

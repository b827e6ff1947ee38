"""What the router costs beside other proxies, measured in one run.

    python benchmarks [--rounds 3] [--seconds 3] [--only router,nginx] [--what small,event]
                      [--json FILE] [--svg FILE]

CPU microseconds are those of the proxy's processes, from the kernel's accounting, so that they
hold on a busy machine too. Rounds alternate between the proxies; the median counts, and the
lowest and the highest stand beside it in the JSON. Peers that are not installed are left out,
and said to be. Linux only: it reads /proc. Needs wrk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

sys.path.insert(0, str(Path(__file__).parents[1]))

import loads
import picture
from kernel import cpu_seconds, memory
from medians import Figures, Summary, summary
from proxies import (
    ON_REQUEST,
    RUST,
    STARTS,
    Running,
    Start,
    backends,
    is_here,
    router,
    router_with_key,
)

_SETTLE = 0.5  # seconds in which a proxy warms up
_SHORT, _LONG = 32 * 1024, 4 * 1024 * 1024  # bytes of a prompt, and of one with a picture
_SCRAPES = 0.2  # seconds between two reads of /metrics
_HELD = 1000  # streams


# --- what is measured

Load = Callable[[Running, float], loads.Done]


def _hammered(size: int, connections: int) -> Load:
    body = loads.chat(size)
    return lambda proxy, seconds: loads.hammer(proxy.url, proxy.key, body, connections, seconds)


def _streamed(connections: int, events: int, pause: float, ramp: float = 0.0) -> Load:
    return lambda proxy, seconds: loads.stream(
        proxy.url, proxy.key, connections, seconds, events=events, pause=pause, ramp=ramp
    )


def cpu_per(unit: str, load: Load) -> Callable[[Running, float], Figures]:
    """CPU microseconds for each of the "answers" or "events", how many came, and how late."""

    def measure(proxy: Running, seconds: float) -> Figures:
        load(proxy, _SETTLE)
        before = cpu_seconds(proxy.pid)
        done = load(proxy, seconds)
        used = cpu_seconds(proxy.pid) - before
        count = getattr(done, unit)
        figures = {"us": used / count * 1e6, "a second": count / done.seconds}
        return {**figures, **_waits(done)} if done.waits else figures

    return measure


def latency(rate: float) -> Callable[[Running, float], Figures]:
    """Milliseconds from when a request was due to the end of its answer."""

    def measure(proxy: Running, seconds: float) -> Figures:
        loads.paced(proxy.url, proxy.key, rate, _SETTLE)
        return _waits(loads.paced(proxy.url, proxy.key, rate, seconds))

    return measure


def _waits(done: loads.Done) -> Figures:
    waits = sorted(done.waits)
    return {"p50 ms": _part(waits, 0.5) * 1e3, "p99 ms": _part(waits, 0.99) * 1e3}


def _part(waits: list[float], share: float) -> float:
    return waits[min(len(waits) - 1, int(len(waits) * share))]


def memory_of_streams(proxy: Running, seconds: float) -> Figures:
    """MB that so many open streams take."""
    before = memory(proxy.pid)
    loop, those = loads.held(proxy.url, proxy.key, _HELD)
    figure = memory(proxy.pid) - before
    for _, writer in those:
        writer.transport.abort()
    loop.run_until_complete(_a_moment())
    loop.close()
    return {"MB": figure}


async def _a_moment() -> None:
    import asyncio

    await asyncio.sleep(1)


def scraped(measure: Callable[[Running, float], Figures]) -> Callable[[Running, float], Figures]:
    """The same while somebody reads /metrics and /load-stats all the time."""

    def measured(proxy: Running, seconds: float) -> Figures:
        over = Event()

        def scrape() -> None:
            while not over.wait(_SCRAPES):
                for path in ("/metrics", "/load-stats"):
                    urllib.request.urlopen(proxy.url + path, timeout=20).read()

        thread = Thread(target=scrape)
        thread.start()
        try:
            return measure(proxy, seconds)
        finally:
            over.set()
            thread.join()

    return measured


@dataclass(frozen=True)
class What:
    """Something to measure: how, in front of how many backends, and for the router alone or not."""

    title: str
    measure: Callable[[Running, float], Figures]
    unit: str
    backends: int = 1
    start: Start | None = None  # the router alone, started like this


_SMALL = cpu_per("answers", _hammered(0, 64))
_EVENTS = cpu_per("events", _streamed(40, 64, 0.005))
# All events come in one moment, as of one engine with one batch; or one by one, as of many engines.
_IN_STEP = cpu_per("events", _streamed(50, 100, 0.01))
_OUT_OF_STEP = cpu_per("events", _streamed(50, 100, 0.01, ramp=0.51))
WHATS = {
    "small": What("CPU per small request", _SMALL, "us"),
    "event": What("CPU per event, 40 streams of 64 at 5 ms", _EVENTS, "us"),
    "32k": What("CPU per prompt of 32 kB", cpu_per("answers", _hammered(_SHORT, 32)), "us"),
    "4m": What("CPU per prompt of 4 MB", cpu_per("answers", _hammered(_LONG, 4)), "us"),
    "latency": What("p99 at 1,000 requests a second", latency(1000), "p99 ms"),
    "lateness": What("p99 of an event at 5,000 a second, 50 at once", _IN_STEP, "p99 ms"),
    "lateness apart": What("p99 of an event at 5,000 a second, apart", _OUT_OF_STEP, "p99 ms"),
    "memory": What("memory of 1,000 streams", memory_of_streams, "MB"),
    "2": What("small, 2 backends", _SMALL, "us", 2, router),
    "16": What("small, 16 backends", _SMALL, "us", 16, router),
    "128": What("small, 128 backends", _SMALL, "us", 128, router),
    "512": What("small, 512 backends", _SMALL, "us", 512, router),
    "key": What("small, with keys", _SMALL, "us", 1, router_with_key),
    "scraped": What("small, while /metrics is read", scraped(_SMALL), "us", 1, router),
}


# --- the run

Samples = dict[str, list[Figures]]  # by proxy


def measured(what: What, names: list[str], rounds: int, seconds: float) -> Samples:
    """Measure each proxy once a round, in turn."""
    samples: Samples = {}
    with contextlib.ExitStack() as stack:
        urls = stack.enter_context(backends(what.backends))
        starts = {"router": what.start} if what.start else {name: STARTS[name] for name in names}
        running = {name: stack.enter_context(start(urls)) for name, start in starts.items()}
        if what.start is None and what.unit.endswith("ms"):
            running["direct"] = Running(urls[0], 0)
        for _ in range(rounds):
            for name, proxy in list(running.items()):
                try:
                    samples.setdefault(name, []).append(_one(what, proxy, seconds))
                except RuntimeError as error:
                    print(f"{name} is left out, since it fails: {error}", file=sys.stderr)
                    del running[name], samples[name]
    return samples


def _one(what: What, proxy: Running, seconds: float) -> Figures:
    if proxy.pid == 0:  # the backend itself, without anything in between
        proxy = Running(proxy.url, os.getpid())
    return what.measure(proxy, seconds)


def line_of(what: What, figures: dict[str, Summary]) -> str:
    """Return one row of the report: the median of each proxy, and ratios to the router's."""
    parts = [f"{name} {each[what.unit]['median']:.2f}" for name, each in figures.items()]
    ours = figures.get("router", {}).get(what.unit, {}).get("median")
    rust = [figures[name][what.unit]["median"] for name in RUST if name in figures]
    if ours is not None and rust:
        parts.append(f"| {ours / min(rust):.2f} x Rust")
    if ours is not None and "nginx" in figures:
        parts.append(f"| {ours / figures['nginx'][what.unit]['median']:.2f} x nginx")
    return f"{what.title} ({what.unit}): " + ", ".join(parts).replace(", |", " |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--only", help="proxies, of: " + ", ".join(STARTS))
    options.add_argument("--what", help="of: " + ", ".join(WHATS))
    options.add_argument("--json", type=Path, metavar="FILE")
    options.add_argument("--svg", type=Path, metavar="FILE")
    chosen = options.parse_args()
    usual = [name for name in STARTS if name not in ON_REQUEST]
    wanted = chosen.only.split(",") if chosen.only else usual
    names = [name for name in wanted if is_here(name)]
    for name in wanted:
        if name not in names:
            print(f"{name} is not installed, and left out", file=sys.stderr)
    keys = chosen.what.split(",") if chosen.what else list(WHATS)
    results = {}
    for key in keys:
        what, begun = WHATS[key], time.monotonic()
        samples = measured(what, names, chosen.rounds, chosen.seconds)
        results[key] = {name: summary(each) for name, each in samples.items()}
        print(line_of(what, results[key]), flush=True)
        print(f"  {time.monotonic() - begun:.0f} s", file=sys.stderr)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    if chosen.json:
        document = {"machine": machine, "rounds": chosen.rounds, "results": results}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")
    if chosen.svg:
        chosen.svg.write_text(picture.svg(results, machine))


if __name__ == "__main__":
    main()

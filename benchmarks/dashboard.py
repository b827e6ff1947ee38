#!/usr/bin/env python3
"""What the dashboard costs: CPU time of one refresh, by number of servers and size of terminal.

    python benchmarks/dashboard.py               2, 50 and 500 servers
    python benchmarks/dashboard.py --rounds 100

Headless: what a terminal takes to show it is not in it. At one refresh a second, 100 ms are 10 % of
one core. Before that, what a refresh costs the router itself: the snapshot of servers that stand
still, and of those where two requests a second end; and what it takes in a second to look back on
the last minute, with a dashboard and with none, since that is when its times are worked out.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "dashboard")]

import msgspec  # noqa: E402
from dash_kit import FakeRouter, dashboard  # noqa: E402

from mvllm_router.api.entries import Entries  # noqa: E402
from mvllm_router.api.snapshot import About, snapshot_document  # noqa: E402
from mvllm_router.config import ServerSpec  # noqa: E402
from mvllm_router.pool import Pool, Sample  # noqa: E402
from mvllm_router.pool.stats import NOTE_EVERY  # noqa: E402
from mvllm_router.proxy.queue import RANKS, Waiting  # noqa: E402
from mvllm_router.server import _look_for_garbage_rarely  # noqa: E402

SIZES = ((80, 24), (120, 36), (200, 60))
SERVERS = (2, 50, 500)
NOBODY_WAITS = Waiting(0, {}, dict.fromkeys(RANKS, 0))


async def refresh(count: int, size: tuple[int, int], rounds: int) -> float:
    """Return the CPU seconds of one refresh in which every server has changed."""
    async with dashboard(FakeRouter(count), size) as running:
        await running.pass_time(300)  # a full chart
        begun = time.process_time()
        for _ in range(rounds):
            running.router.second += 1
            running.clock.now += 1
            await running.app.look()
            running.app.show()
            await asyncio.sleep(0.02)  # it paints at most 60 times a second
        spent = time.process_time() - begun
        idle = time.process_time()
        for _ in range(rounds):
            running.router.second += 1
            await running.router.get("/router/snapshot")  # making the document is not the dashboard
        return (spent - (time.process_time() - idle)) / rounds


class Served:
    """A pool of `count` servers with a minute of traffic behind it."""

    def __init__(self, count: int) -> None:
        self._random = random.Random(1)
        self.pool = Pool()
        for number in range(count):
            url = f"http://10.0.{number // 250}.{number % 250}:8000"
            spec = ServerSpec(url, f"gpu-{number:03}", "vllm", 32, tags=("a100",))
            backend = self.pool.add(spec)
            self.pool.health(backend, lambda health: health.check_passed(time.time(), 0.01))
            self.pool.told_models(backend, {"qwen3-8b": {}})
        for second in range(70):
            self.serve()
            self.note(second)
        for second in range(round(NOTE_EVERY)):
            self.scrape(second)

    def serve(self) -> None:
        """Let two requests end at each server."""
        for backend in self.pool.backends.values():
            stats = backend.stats
            for _ in range(2):
                stats.requests[200] += 1
                stats.events += 64
                stats.ttft.observe(self._random.random())
                stats.inter_token.observe(self._random.random() / 20)
                stats.duration.observe(self._random.random() * 10)

    def note(self, second: int) -> None:
        """Look back on the moment for a part of the servers, as the router does."""
        every = round(NOTE_EVERY)
        for backend in list(self.pool.backends.values())[second % every :: every]:
            backend.stats.lately.note()

    def scrape(self, second: int) -> None:
        """Read the metrics of a hundred servers a second, as the router does, of all if few."""
        backends = list(self.pool.backends.values())
        turns = max(1, len(backends) // 100)
        for backend in backends[second % turns :: turns]:
            sample = Sample(self._random.randint(0, 32), 0, self._random.random(), 1e6, 1e6)
            self.pool.scraped(backend, sample, 0, 60.0)


def snapshot_ms(count: int, rounds: int, *, busy: bool) -> float:
    """Return the CPU milliseconds that a snapshot takes, from the pool to the bytes."""
    served, about, spent = Served(count), About("", "least_load", None, time.time()), []
    _look_for_garbage_rarely()
    loop, entries = asyncio.new_event_loop(), Entries(served.pool)
    for second in range(rounds):
        if busy:
            served.serve()
        served.scrape(second)
        served.note(second)
        begun = time.thread_time()
        written = loop.run_until_complete(entries.write({}))
        msgspec.json.encode(snapshot_document(served.pool, about, written, NOBODY_WAITS, False))
        spent.append(time.thread_time() - begun)
    loop.close()
    return statistics.median(spent) * 1000


def looking_back_ms(count: int, rounds: int, *, asked: bool) -> float:
    """Return the CPU milliseconds that it takes in a second, with somebody who asks or nobody."""
    served, spent = Served(count), []
    for second in range(rounds):
        served.serve()
        for backend in served.pool.backends.values() if asked else ():
            backend.stats.lately.quantiles()
        begun = time.thread_time()
        served.note(second)
        spent.append(time.thread_time() - begun)
    return statistics.median(spent) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30, help="refreshes of each kind (30)")
    rounds = parser.parse_args().rounds
    heads = ("still", "served", "look back", "for none")
    print("CPU ms per snapshot" + "".join(f"{head:>10}" for head in heads))
    for count in SERVERS:
        kinds = [snapshot_ms(count, rounds, busy=busy) for busy in (False, True)]
        kinds += [looking_back_ms(count, rounds, asked=asked) for asked in (True, False)]
        print(f"{count:>4} servers       " + "".join(f"{kind:>10.2f}" for kind in kinds))
    print("CPU ms per refresh " + "".join(f"{f'{w}x{h}':>10}" for w, h in SIZES))
    for count in SERVERS:
        cells = [asyncio.run(refresh(count, size, rounds)) for size in SIZES]
        print(f"{count:>4} servers       " + "".join(f"{cell * 1000:>10.1f}" for cell in cells))


if __name__ == "__main__":
    main()

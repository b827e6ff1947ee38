#!/usr/bin/env python3
"""What the dashboard costs: CPU time of one refresh, by number of servers and size of terminal.

    python benchmarks/dashboard.py               2, 50 and 500 servers
    python benchmarks/dashboard.py --rounds 100

Headless: what a terminal takes to show it is not in it. At one refresh a second, 100 ms are 10 % of
one core.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "dashboard")]

from dash_kit import FakeRouter, dashboard  # noqa: E402

SIZES = ((80, 24), (120, 36), (200, 60))
SERVERS = (2, 50, 500)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30, help="refreshes of each kind (30)")
    rounds = parser.parse_args().rounds
    print("CPU ms per refresh " + "".join(f"{f'{w}x{h}':>10}" for w, h in SIZES))
    for count in SERVERS:
        cells = [asyncio.run(refresh(count, size, rounds)) for size in SIZES]
        print(f"{count:>4} servers       " + "".join(f"{cell * 1000:>10.1f}" for cell in cells))


if __name__ == "__main__":
    main()

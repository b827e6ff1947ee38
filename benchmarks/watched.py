"""What it costs the router that a dashboard looks on, in turn with none that does.

    python benchmarks/watched.py [--pairs 20] [--seconds 3]

One router, one server, one dashboard, which is stopped and goes on (SIGSTOP, SIGCONT) for every
other part of the run: so what the machine does otherwise falls on both alike. CPU time is the
router's, by the kernel's accounting; the p99 also shows what router, server and client wait for a
processor that the dashboard has. `--asked` shows what the router alone has to do with it: instead
of a dashboard a process asks for what one asks for, and draws nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import loads
from kernel import cpu_seconds
from medians import Figures
from proxies import Running, backends, dashboard, router, started

_RATE = 1000.0  # requests a second
_CONNECTIONS = 64
_SETTLE = 0.5  # seconds, after each turn
_REQUESTS = 100  # of which a dashboard asks at once

Turn = Callable[[bool], None]  # let the dashboard look on, or not


def measure(proxy: Running, seconds: float) -> Figures:
    """Return CPU microseconds of a request, of as many as there can be, and p99 in ms at a rate."""
    before = cpu_seconds(proxy.pid)
    done = loads.hammer(proxy.url, proxy.key, loads.chat(0), _CONNECTIONS, seconds)
    cpu = (cpu_seconds(proxy.pid) - before) / done.answers
    waits = sorted(loads.paced(proxy.url, proxy.key, _RATE, seconds).waits)
    return {"CPU us": cpu * 1e6, "p99 ms": waits[int(len(waits) * 0.99)] * 1e3}


@contextmanager
def in_turn(looking: AbstractContextManager[subprocess.Popen[str]]) -> Iterator[Turn]:
    """Let a process go on for as long as it has its turn."""
    with looking as process:
        try:
            yield lambda on: os.kill(process.pid, signal.SIGCONT if on else signal.SIGSTOP)
        finally:  # what is stopped does not end
            os.kill(process.pid, signal.SIGCONT)


def ask(url: str) -> None:
    """Ask once a second for what a dashboard asks for, and do nothing with it."""
    newest = 0
    while True:
        snapshot = json.loads(_get(url + "/router/snapshot"))
        _get(f"{url}/router/requests?limit={_REQUESTS}&after={newest}")
        newest = snapshot["requests_number"]
        time.sleep(1)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as response:
        return bytes(response.read())


def compare(proxy: Running, turn: Turn, pairs: int, seconds: float) -> dict[bool, list[Figures]]:
    """Measure with and without, so many times, each first every other time."""
    found: dict[bool, list[Figures]] = {True: [], False: []}
    for number in range(pairs):
        for on in (True, False) if number % 2 else (False, True):
            turn(on)
            time.sleep(_SETTLE)
            found[on].append(measure(proxy, seconds))
        print(f"\r{number + 1} of {pairs}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=20, help="of parts with and without (20)")
    parser.add_argument("--seconds", type=float, default=3.0, help="each figure of a part (3)")
    parser.add_argument("--asked", action="store_true", help="ask as a dashboard, and draw nothing")
    parser.add_argument("--ask", metavar="URL", help="be who asks so, without an end")
    options = parser.parse_args()
    if options.ask:
        ask(options.ask)
    with backends(1) as urls, router(urls) as proxy:
        measure(proxy, _SETTLE)
        asking = started([sys.executable, __file__, "--ask", proxy.url])
        with in_turn(asking if options.asked else dashboard(proxy.url)) as turn:
            found = compare(proxy, turn, options.pairs, options.seconds)
    print(f"{'medians':<8}{'without':>10}{'with':>10}{'ratio':>8}  half of the pairs between")
    for name in found[True][0]:
        pairs = zip(found[True], found[False], strict=True)
        ratios = sorted(one[name] / other[name] for one, other in pairs)
        without, looked = (statistics.median(f[name] for f in found[on]) for on in (False, True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        ratio = statistics.median(ratios)
        print(f"{name:<8}{without:>10.3f}{looked:>10.3f}{ratio:>8.3f}  {low:.2f} and {high:.2f}")


if __name__ == "__main__":
    main()

"""How well routers choose: open-loop traffic on uneven servers, one router after the other.

    python benchmarks/routing [--loads 50,80,95,120] [--seconds 30] [--rounds 1]
                              [--workload poisson|burst|chats|hot|trace] [--trace FILE]
                              [--only router,haproxy-queue] [--change half@30] [--slo 0.25]
                              [--json FILE] [--svg FILE]

All get the same requests at the same times, drawn from a seed, in front of new servers with empty
caches. A load of 100 % is what the servers can do if they have nothing cached. Traffic that comes
before the counting begins is for warming up, and for learning. Times are in milliseconds, from
when a request was due. Peers that are not installed are left out, and said to be.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1]))  # what all benchmarks share
sys.path.insert(1, str(Path(__file__).parents[2]))

import uvloop
from client import Call, Sender
from contestants import NAMES, Contestant, find
from drawing import svg
from figures import Figures, Summary, Window, figures, summary, table
from fleet import UNEVEN, Counts, Server, change_speed, counts, full_slots, simulated
from proxies import is_here
from traces import read, replay
from workloads import LONGEST_SETTLE, WORKLOADS, Drawn, Request, draw, most_hits, rate_for

_CHANGES = {"half": 0.5, "double": 2.0}


@dataclass(frozen=True)
class Change:
    """A server becomes `factor` times as fast, at a second of the counting."""

    factor: float
    when: float

    def server(self, servers: Sequence[Server]) -> Server:
        """Return the one that changes: the largest of those at full speed."""
        return max(servers, key=lambda one: (one.kind.speed, one.kind.slots))


def change_of(words: str) -> Change:
    """Read `half@30`."""
    word, _, when = words.partition("@")
    return Change(_CHANGES[word], float(when))


async def _put(
    url: str, servers: Sequence[Server], requests: Sequence[Request], change: Change | None
) -> tuple[list[Call], list[Counts]]:
    """Send the requests; return what came of them, and what the servers counted from 0 on."""
    before: list[Counts] = []

    async def look() -> None:
        before[:] = [await asyncio.to_thread(counts, server) for server in servers]

    things = [(0.0, look)]
    if change is not None:

        async def do() -> None:
            assert change is not None
            await asyncio.to_thread(change_speed, change.server(servers), change.factor)

        things.append((change.when, do))
    calls = await Sender(url).send(requests, things)
    after = [counts(server) for server in servers]
    return calls, [late.since(early) for late, early in zip(after, before, strict=True)]


def run(
    contestant: Contestant, requests: Sequence[Request], window: Window, change: Change | None
) -> Figures:
    """Measure one contestant once, with servers of its own."""
    gc.collect()
    gc.freeze()
    loop = uvloop.new_event_loop()
    try:
        with simulated(UNEVEN) as servers, contestant.start(servers) as running:
            calls, counted = loop.run_until_complete(_put(running.url, servers, requests, change))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    return figures(calls, counted, window)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--loads", default="80", help="percent, set apart by commas")
    options.add_argument("--seconds", type=float, default=30.0, help="that are counted")
    options.add_argument("--settle", type=float, help="seconds before; else as each needs")
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--seed", default="1")
    options.add_argument("--workload", choices=[*WORKLOADS, "trace"], default="poisson")
    options.add_argument("--trace", type=Path, metavar="FILE", help="Mooncake's or Azure's format")
    options.add_argument("--only", help="of: " + ", ".join(NAMES) + "; router:POLICY and the like")
    options.add_argument("--change", type=change_of, metavar="half@SECOND")
    options.add_argument("--slo", type=float, default=0.25, help="seconds to a good first token")
    options.add_argument("--json", type=Path, metavar="FILE")
    options.add_argument("--svg", type=Path, metavar="FILE")
    chosen = options.parse_args()
    if (chosen.workload == "trace") != (chosen.trace is not None):
        options.error("--workload trace and --trace FILE go together")
    if chosen.settle is not None and chosen.settle > LONGEST_SETTLE:
        options.error(f"--settle is {LONGEST_SETTLE:.0f} at most")
    return chosen


def _contestants(only: str | None) -> dict[str, Contestant]:
    found = {name: find(name) for name in (only.split(",") if only else NAMES)}
    for name, each in list(found.items()):
        if not is_here(each.program):
            print(f"{name} is left out: {each.program} is not installed", file=sys.stderr)
            del found[name]
    return found


def measured(
    chosen: argparse.Namespace, load: float, contestants: dict[str, Contestant]
) -> dict[str, Summary]:
    """Measure all at one load, in alternating rounds."""
    drawn = _workload(chosen)
    rate = rate_for(load, drawn, full_slots(UNEVEN))
    when = chosen.change.when if chosen.change else None
    window = Window(chosen.seconds, chosen.slo, when)
    longest = max(each.settle for each in contestants.values())
    hits = most_hits(draw(drawn, rate, _seed(chosen, 0), longest, chosen.seconds))
    print(f"\n{chosen.workload}, {load:.0%}: {rate:.1f} requests a second, hits at most {hits:.0%}")
    samples: dict[str, list[Figures]] = {}
    for number in range(chosen.rounds):
        for name, each in contestants.items():
            settle = each.settle if chosen.settle is None else chosen.settle
            requests = draw(drawn, rate, _seed(chosen, number), settle, chosen.seconds)
            begun = time.monotonic()
            got = run(each, requests, window, chosen.change)
            samples.setdefault(name, []).append(got)
            late = f"requests were sent {got['late p99']:.1f} ms late (p99)"
            print(f"  {name}: {time.monotonic() - begun:.0f} s, {late}", file=sys.stderr)
    return {name: summary(each) for name, each in samples.items()}


def _workload(chosen: argparse.Namespace) -> Drawn:
    return replay(read(chosen.trace)) if chosen.trace else WORKLOADS[chosen.workload]


def _seed(chosen: argparse.Namespace, number: int) -> str:
    return f"{chosen.seed} {number} {chosen.workload}"


def main() -> None:
    chosen = _options()
    contestants = _contestants(chosen.only)
    results = {}
    for load in chosen.loads.split(","):
        results[load] = measured(chosen, float(load) / 100, contestants)
        print(table(results[load]), flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    if chosen.json:
        setup = {"workload": chosen.workload, "seconds": chosen.seconds, "rounds": chosen.rounds}
        document = {"machine": machine, **setup, "slo": chosen.slo, "results": results}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n")
    if chosen.svg:
        chosen.svg.write_text(svg(results, f"{chosen.workload}; {machine}"))


if __name__ == "__main__":
    main()

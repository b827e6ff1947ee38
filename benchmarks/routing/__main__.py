"""How well routers choose: open-loop traffic on uneven servers, one router after the other.

    python benchmarks/routing [--loads 50,80,95,120] [--seconds 30] [--rounds 1]
                              [--workload poisson|burst|chats|hot|trace] [--trace FILE]
                              [--only router,haproxy-queue] [--change half@30] [--slo 0.25]
                              [--json FILE] [--svg FILE] [--real [RATE]]

All get the same requests at the same times, drawn from a seed, in front of new servers with empty
caches. A load of 100 % is what the servers can do if they have nothing cached. Traffic that comes
before the counting begins is for warming up, and for learning. Times are in milliseconds, from
when a request was due. Peers that are not installed are left out, and said to be.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[1]))  # what all benchmarks share
sys.path.insert(1, str(Path(__file__).parents[2]))

from chats import SMALL, WORKLOADS
from contestants import FOR_CHATS, NAMES, Contestant, find
from drawing import svg
from figures import Window, table
from fleet import UNEVEN, Server, full_slots, simulated
from medians import Figures, Summary, summary
from proxies import is_here
from traces import read, replay
from trial import change_of, run
from workloads import LONGEST_SETTLE, Drawn, Request, draw, most_hits, rate_for

_WARM = 30.0  # seconds until caches are as they stay
_REAL_RATE = 3.0  # requests a second

Fleet = Callable[[], AbstractContextManager[Sequence[Server]]]
Mark = Callable[[Sequence[Request], str], list[Request]]


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
    options.add_argument(
        "--real",
        type=float,
        nargs="?",
        const=_REAL_RATE,
        metavar="RATE",
        help="chats on two vLLMs and llama-server, so many requests a second (%(const)g)",
    )
    chosen = options.parse_args()
    if chosen.real and chosen.change:
        options.error("--change is for simulated servers")
    if chosen.real:
        chosen.workload = "chats"
    if (chosen.workload == "trace") != (chosen.trace is not None):
        options.error("--workload trace and --trace FILE go together")
    if chosen.settle is not None and chosen.settle > LONGEST_SETTLE:
        options.error(f"--settle is {LONGEST_SETTLE:.0f} at most")
    return chosen


def _contestants(only: str | None, *, chats: bool) -> dict[str, Contestant]:
    names = only.split(",") if only else [name for name in NAMES if chats or name not in FOR_CHATS]
    found = {name: find(name) for name in names}
    for name, each in list(found.items()):
        if not is_here(each.program):
            print(f"{name} is left out: {each.program} is not installed", file=sys.stderr)
            del found[name]
    return found


def _workload(chosen: argparse.Namespace) -> Drawn:
    if chosen.real:
        return SMALL
    return replay(read(chosen.trace)) if chosen.trace else WORKLOADS[chosen.workload]


class Measuring:
    """What stays the same for all contestants."""

    def __init__(self, chosen: argparse.Namespace, contestants: dict[str, Contestant]) -> None:
        self._chosen = chosen
        self._contestants = contestants
        self._drawn = _workload(chosen)
        when = chosen.change.when if chosen.change else None
        self._window = Window(chosen.seconds, chosen.slo, when)

    def of_load(self, load: float) -> dict[str, Summary]:
        """Measure all on simulated servers, `load` being a share of what these can do."""
        rate = rate_for(load, self._drawn, full_slots(UNEVEN))
        print(f"\n{self._chosen.workload}, {load:.0%}: {self._about(rate)}", flush=True)
        return self._measured(rate, lambda: simulated(UNEVEN))

    def of_real(self) -> dict[str, Summary]:
        """Measure all on real engines, which take a minute to start."""
        import real

        with real.servers() as servers:
            rate = self._chosen.real
            print(f"\nreal engines, chats: {self._about(rate)}", flush=True)
            return self._measured(rate, lambda: nullcontext(servers), real.marked)

    def _about(self, rate: float) -> str:
        hits = most_hits(draw(self._drawn, rate, self._seed(0), _WARM, self._window.seconds))
        return f"{rate:.1f} requests a second, hits at most {hits:.0%}"

    def _seed(self, number: int) -> str:
        return f"{self._chosen.seed} {number} {self._chosen.workload}"

    def _settle(self, contestant: Contestant) -> float:
        if self._chosen.settle is not None:
            return float(self._chosen.settle)
        return contestant.settle if self._chosen.workload in ("poisson", "burst") else _WARM

    def _measured(self, rate: float, fleet: Fleet, mark: Mark | None = None) -> dict[str, Summary]:
        """Measure in alternating rounds."""
        samples: dict[str, list[Figures]] = {}
        left = dict(self._contestants)
        for number in range(self._chosen.rounds):
            for name, each in list(left.items()):
                settle, seconds = self._settle(each), self._window.seconds
                requests = draw(self._drawn, rate, self._seed(number), settle, seconds)
                if mark is not None:
                    requests = mark(requests, f"{name} {number}")
                begun = time.monotonic()
                try:
                    got = run(each, fleet(), requests, self._window, self._chosen.change)
                except OSError as error:
                    print(f"{name} is left out, since it fails: {error}", file=sys.stderr)
                    del left[name]
                    continue
                samples.setdefault(name, []).append(got)
                late = f"requests were sent {got['late p99']:.1f} ms late (p99)"
                print(f"  {name}: {time.monotonic() - begun:.0f} s, {late}", file=sys.stderr)
        if not samples:
            sys.exit("nothing is left to measure")
        return {name: summary(each) for name, each in samples.items()}


def main() -> None:
    chosen = _options()
    measuring = Measuring(
        chosen, _contestants(chosen.only, chats=chosen.workload in ("chats", "hot"))
    )
    results = {}
    for load in ["real"] if chosen.real else chosen.loads.split(","):
        results[load] = measuring.of_real() if chosen.real else measuring.of_load(float(load) / 100)
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

"""What a choice costs: CPU microseconds of each policy, with 4 and with 512 servers in memory.

    python benchmarks/routing/choosing.py [--only least_load,round_robin]

Servers are half busy, and each choice is followed by the place taken, and by another one given
back, so that scores change as they do in a router; what this takes by itself is not counted. The
median of some rounds counts, and the bar stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from random import Random

sys.path.insert(1, str(Path(__file__).parents[1]))  # what all benchmarks share
sys.path.insert(1, str(Path(__file__).parents[2]))

from chats import WORKLOADS
from workloads import Request, draw

from mvllm_router.config import ServerSpec
from mvllm_router.policies import POLICIES, Choice, Supposed, Wish, make
from mvllm_router.pool import Backend, Pool

_BARS = {4: 5.0, 512: 25.0}  # servers: microseconds
_SLOTS = 16
_ROUNDS, _CHOICES = 15, 2000
_SHAPES = {"small": "poisson", "chat": "chats"}  # what is asked: the workload that it is from

Choose = Callable[[Sequence[Backend], Wish, float], Choice]


def pool_of(count: int) -> Pool:
    """Return a pool of so many servers that are up, in random order of size."""
    pool, dice = Pool(), Random(count)
    for number in range(count):
        slots = dice.choice((_SLOTS // 2, _SLOTS, 2 * _SLOTS))
        name = f"s{number}"
        spec = ServerSpec(f"http://{name}:8000", name=name, max_concurrent_requests=slots)
        backend = pool.add(spec)
        pool.health(backend, lambda health: health.check_passed(1.0, 0.01))
    return pool


def wishes(shape: str) -> list[Supposed]:
    """Return what a router would see of some requests."""
    some = draw(WORKLOADS[_SHAPES[shape]], 30.0, "choosing", 0.0, 20.0)
    return [_wish(each) for each in some]


def _wish(request: Request) -> Supposed:
    headers = {"x-session-id": request.session} if request.session else {}
    return Supposed("tiny", request.body, headers)


def microseconds(choose: Choose, pool: Pool, some: Sequence[Wish]) -> float:
    """Return what a choice takes, without what is done with it."""
    seconds = _seconds(choose, pool, some)
    candidates = pool.candidates(None)
    any_of = cycle([(one, "") for one in Random(1).choices(candidates, k=len(candidates))])
    without = _seconds(lambda candidates, wish, now: next(any_of), pool, some)
    return (seconds - without) / _CHOICES * 1e6


def _seconds(choose: Choose, pool: Pool, some: Sequence[Wish]) -> float:
    candidates, now = pool.candidates(None), time.monotonic()
    first = (choose(candidates, some[n % len(some)], now) for n in range(_busy(candidates)))
    leases = deque(pool.lease(*choice) for choice in first)
    begun = time.thread_time()
    for number in range(_CHOICES):
        wish = some[number % len(some)]
        leases.append(pool.lease(*choose(pool.candidates(None), wish, now)))
        leases.popleft().release()
    used = time.thread_time() - begun
    while leases:
        leases.popleft().release()
    return used


def _busy(candidates: Sequence[Backend]) -> int:
    """Return how many requests leave half of the servers' places free."""
    return int(sum(backend.capacity for backend in candidates) / 2)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", help="of: " + ", ".join(POLICIES))
    chosen = options.parse_args()
    shapes = {shape: wishes(shape) for shape in _SHAPES}
    for shape, some in shapes.items():
        size = statistics.fmean(len(wish.body) for wish in some)
        print(f"{shape}: {size:,.0f} bytes on average")
    for name in chosen.only.split(",") if chosen.only else POLICIES:
        for count, bar in _BARS.items():
            for shape, some in shapes.items():
                pool, policy = pool_of(count), make(name)
                rounds = [microseconds(policy.choose, pool, some) for _ in range(_ROUNDS)]
                took = statistics.median(rounds)
                verdict = "" if took < bar else f"  over the bar of {bar:.0f}"
                print(f"{name:12} {count:4} servers, {shape:6}{took:8.2f} us{verdict}", flush=True)


if __name__ == "__main__":
    main()

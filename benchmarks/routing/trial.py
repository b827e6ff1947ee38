"""One trial: a contestant, its servers, the requests, and what came of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import uvloop
from client import Call, Sender
from contestants import Contestant
from figures import Window, figures
from fleet import Counts, Server, change_speed, counts
from medians import Figures
from workloads import Request

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
    """Read `half@30`. Raises ValueError for other words."""
    word, _, when = words.partition("@")
    if word not in _CHANGES:
        raise ValueError(f"{words!r} does not begin with {' or '.join(_CHANGES)}")
    return Change(_CHANGES[word], float(when))


def run(
    contestant: Contestant,
    fleet: AbstractContextManager[Sequence[Server]],
    requests: Sequence[Request],
    window: Window,
    change: Change | None,
) -> Figures:
    """Measure one contestant once.

    Raises OSError where it does not answer.
    """
    gc.collect()
    gc.freeze()
    loop = uvloop.new_event_loop()
    try:
        with fleet as servers, contestant.start(servers) as running:
            calls, counted = loop.run_until_complete(_put(running.url, servers, requests, change))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    return figures(calls, counted, window)


async def _put(
    url: str, servers: Sequence[Server], requests: Sequence[Request], change: Change | None
) -> tuple[list[Call], list[Counts]]:
    """Send the requests; return what came of them, and what the servers counted from 0 on."""
    before: list[Counts] = []

    async def look() -> None:
        before[:] = [await asyncio.to_thread(counts, server) for server in servers]

    things: list[tuple[float, Callable[[], Awaitable[None]]]] = [(0.0, look)]
    if change is not None:
        slow = change.server(servers), change.factor
        things.append((change.when, lambda: asyncio.to_thread(change_speed, *slow)))
    calls = await Sender(url).send(requests, things)
    after = [counts(server) for server in servers]
    return calls, [late.since(early) for late, early in zip(after, before, strict=True)]

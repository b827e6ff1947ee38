"""`router run --demo`: three uneven simulated servers and a trickle of requests.

`python -m mvllm_router.sim.demo` is the child process for both. It prints one JSON line,
{"servers": [{"url": ..., "name": ...}, ...]}, then waits for one JSON line on stdin,
{"url": "http://router", "api_key": null}, and sends requests there until stdin ends.
"""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp

from mvllm_router.sim.engine import SimEngine
from mvllm_router.sim.process import ParentPipe, announce, run, stop_on_signals
from mvllm_router.sim.profile import Profile

DEMO_PROFILES: dict[str, Profile] = {
    "big-gpu": Profile(
        dialect="vllm",
        models=("demo-large",),
        slots=16,
        tokens_per_second=60,
        prefill_seconds=0.15,
        slowdown=0.03,
    ),
    "old-gpu": Profile(
        dialect="vllm",
        models=("demo-large", "demo-small"),
        slots=8,
        tokens_per_second=25,
        prefill_seconds=0.4,
        slowdown=0.05,
    ),
    "workstation": Profile(
        dialect="llama.cpp",
        models=("demo-small",),
        slots=4,
        tokens_per_second=40,
        prefill_seconds=0.2,
        slowdown=0.08,
    ),
}
DEMO_RATE = 2.0  # requests per second: busy, with a queue now and then, but not too much
DEMO_MODELS = ("demo-large", "demo-small")
_STREAMED = 0.75  # share of the requests
_TOKENS = (40, 300)
_TOPICS = (
    "Explain what a token is",
    "Write a haiku about queues",
    "Summarise the meeting notes",
    "Translate this letter",
    "Why does a cache help?",
    "Plan a weekend in the mountains",
)


@dataclass
class Tally:
    """What became of the requests of a trickle."""

    sent: int = 0
    served: int = 0
    failed: int = 0


async def trickle(
    url: str, *, rate: float, stop: asyncio.Event, api_key: str | None, seed: int = 0
) -> Tally:
    """Send chat requests to a router until `stop` is set; errors are counted and no more.

    Args:
        url: the router's address.
        rate: requests per second on average; the gaps between them are random.
        stop: ends the trickle and all requests that are still under way.
        api_key: sent as a bearer token when given.
        seed: of the gaps and the requests.
    """
    dice = random.Random(seed)
    tally = Tally()
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    timeout = aiohttp.ClientTimeout(total=None)
    # The router is one on this machine, whose certificate may be for another name.
    connector = aiohttp.TCPConnector(limit=0, ssl=False)
    tasks: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession(
        headers=headers, timeout=timeout, connector=connector
    ) as session:
        while not await _is_set_within(stop, dice.expovariate(rate)):
            work = _send(session, f"{url}/v1/chat/completions", _request(dice), tally)
            task = asyncio.get_running_loop().create_task(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await _cancel(tasks)
    return tally


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    remaining = list(tasks)
    for task in remaining:
        task.cancel()
    await asyncio.gather(*remaining, return_exceptions=True)


def _request(dice: random.Random) -> dict[str, Any]:
    topic = f"{dice.choice(_TOPICS)} (no. {dice.randrange(1000)})."
    request: dict[str, Any] = {
        "model": dice.choice(DEMO_MODELS),
        "messages": [{"role": "user", "content": topic}],
        "max_tokens": dice.randint(*_TOKENS),
    }
    if dice.random() < _STREAMED:
        request["stream"] = True
    return request


async def _send(
    session: aiohttp.ClientSession, url: str, request: dict[str, Any], tally: Tally
) -> None:
    tally.sent += 1
    try:
        async with session.post(url, json=request) as response:
            async for _ in response.content.iter_any():
                pass
    except (aiohttp.ClientError, OSError):
        tally.failed += 1
        return
    if response.status == 200:
        tally.served += 1
    else:
        tally.failed += 1


async def _main() -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    pipe = ParentPipe(stop)
    async with AsyncExitStack() as stack:
        servers = []
        for seed, (name, profile) in enumerate(DEMO_PROFILES.items()):
            engine = await stack.enter_async_context(SimEngine(profile, seed=seed))
            servers.append({"url": engine.url, "name": name})
        announce({"servers": servers})
        router = await _router(pipe, stop)
        if router is not None:
            key = router.get("api_key")
            await trickle(router["url"], rate=DEMO_RATE, stop=stop, api_key=key)


async def _router(pipe: ParentPipe, stop: asyncio.Event) -> dict[str, Any] | None:
    """The router's address from stdin; None when the process is to end before it comes."""
    line = asyncio.ensure_future(pipe.line())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait((line, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not line.done():
        line.cancel()
        return None
    text = line.result()
    router: dict[str, Any] | None = json.loads(text) if text else None
    return router


if __name__ == "__main__":
    run(_main())

"""The simulated servers of a fleet, in a process of their own that ends with its standard input.

    python serve.py SPEC...       each SPEC is one of `python -m mvllm_router.sim --engine SPEC`

One JSON line says where they listen. All have the same seed: whichever is asked, the answer is the
same, as with one model at temperature 0, and may stand in the prompt of the next turn.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mvllm_router.sim import SimEngine
from mvllm_router.sim.__main__ import parse_engine
from mvllm_router.sim.process import ParentPipe, announce, run

SEED = 0


async def serve(specs: list[str]) -> None:
    """Serve until the end of standard input."""
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # some routers knock with HTTP/2 first
    ended = asyncio.Event()
    ParentPipe(ended)
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(SimEngine(parse_engine(spec), seed=SEED))
            for spec in specs
        ]
        announce({"urls": [engine.url for engine in engines]})
        await ended.wait()


if __name__ == "__main__":
    run(serve(sys.argv[1:]))

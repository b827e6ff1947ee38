"""A router that may open few files: it serves as many as it can, tells the others, and recovers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cli_kit import Running, environment
from support import StartSim, chat, until
from wire import RawClient

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the limit is set by a shell")

FILES = 128
CLIENTS = 32  # half of what is left of them


@asynccontextmanager
async def limited(url: str, cwd: Path) -> AsyncIterator[Running]:
    """Run a router that may open `FILES` files."""
    words = (sys.executable, "-m", "mvllm_router", "run", "--port", "0", url)
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh", *words),
        cwd=cwd,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    router = Running(process)
    try:
        await router.log_line("(Ctrl-C to stop)")
        await router.log_line("up: health check passed")
        yield router
    finally:
        if process.returncode is None:
            await router.stop()


async def stream(url: str, begun: asyncio.Event | None = None) -> str:
    """Ask for a long stream; return the status and whether all of it came."""
    client = await RawClient.connect(url)
    client.post(
        json.dumps(chat(stream=True, max_tokens=40)).encode(),
        b"/v1/chat/completions",
        b"connection: close",
    )
    head = await client.head()
    if begun is not None:
        begun.set()
    whole = b"data: [DONE]" in await asyncio.wait_for(client.reader.read(-1), 60)
    client.writer.close()
    return f"{head[9:12].decode()} {'whole' if whole else 'short'}"


async def test_more_clients_than_files_get_an_error_and_do_not_harm_the_others(
    start_sim: StartSim, tmp_path: Path
) -> None:
    engine = await start_sim(tokens_per_second=40.0, slots=100)
    async with limited(engine.url, tmp_path) as router:
        begun = [asyncio.Event() for _ in range(20)]
        first = [asyncio.create_task(stream(router.url, event)) for event in begun]
        for event in begun:
            await event.wait()
        engine.hold()  # so that none of them ends before all others have come
        later = [asyncio.create_task(stream(router.url)) for _ in range(100)]
        await until(lambda: sum(task.done() for task in later) == 120 - CLIENTS)
        engine.release()
        assert await asyncio.gather(*first) == ["200 whole"] * 20
        assert Counter(await asyncio.gather(*later)) == {
            "200 whole": CLIENTS - 20,
            "503 short": 120 - CLIENTS,
        }
        # Nothing of it is left: the server is up, and there are places again.
        after = Counter(await asyncio.gather(*(stream(router.url) for _ in range(20))))
        assert after == {"200 whole": 20}
        done = await router.stop()
    assert done.code == 0
    assert "connections refused: 32 is the most" in done.err

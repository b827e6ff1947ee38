"""`router run --announce`: how a router tells the dashboard before it that it listens.

It prints one JSON line on stdout, {"url": ..., "key": ...}, and stops when its standard input
closes, which it does however the dashboard ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvllm_router.server import Router

_CHUNK = 4096


def announcer() -> Callable[[Router], None]:
    """Return what tells the dashboard, once the router listens, and stops the router with it.

    The key that it tells is made for this run, and goes through the pipe and nowhere else: the
    dashboard goes on whatever keys a reload brings.
    """
    key = secrets.token_urlsafe()

    def tell(router: Router) -> None:
        router.app.gate.trust(key)
        print(json.dumps({"url": router.url, "key": key}), flush=True)
        loop = asyncio.get_running_loop()
        reader = threading.Thread(target=_read, args=(loop, router), name="parent", daemon=True)
        reader.start()

    return tell


def _read(loop: asyncio.AbstractEventLoop, router: Router) -> None:
    """Read until the end of stdin; from the descriptor, whose lock nobody misses at the end."""
    while os.read(sys.stdin.fileno(), _CHUNK):
        pass
    try:
        loop.call_soon_threadsafe(router.ask_to_stop)
    except RuntimeError:
        return  # the loop is closed: the router has ended

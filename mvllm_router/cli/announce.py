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
from dataclasses import replace
from typing import TYPE_CHECKING

from mvllm_router.config import Config, KeySpec, key_digest

if TYPE_CHECKING:
    from mvllm_router.server import Router

_NAME = "dashboard"  # of the key that is made where the file's own are not kept
_CHUNK = 4096


def with_key(
    config: Config, reread: Callable[[], Config]
) -> tuple[Config, Callable[[], Config], str]:
    """Return a key for the dashboard, and configurations that know it where they know any.

    Of the keys of `[auth]` only digests are kept, so that beside them one is made for this run.
    """
    settings = config.settings
    known = settings.admin_key or settings.api_key
    if known:
        return config, reread, known
    key = secrets.token_urlsafe()
    digest = key_digest(key)

    def with_spec(config: Config) -> Config:
        if not config.keys:
            return config  # everybody may look; a key would shut out all others
        taken = {one.name for one in config.keys}
        names = (_NAME, *(f"{_NAME}-{number}" for number in range(2, len(taken) + 3)))
        free = next(name for name in names if name not in taken)
        return replace(config, keys=(*config.keys, KeySpec(free, digest)))

    return with_spec(config), lambda: with_spec(reread()), key


def announcer(key: str) -> Callable[[Router], None]:
    """Return what tells the dashboard, once the router listens, and stops the router with it."""

    def tell(router: Router) -> None:
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

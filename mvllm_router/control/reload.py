"""Watches the configuration file and says when its content has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from watchfiles import awatch

log = logging.getLogger(__name__)

# Milliseconds: how long changes are gathered before they are acted on. An editor's save is
# several of them; a change has to be live within 2 s.
_DEBOUNCE = 300
_STEP = 50
# Seconds between looks at the file that are taken in any case: not all file systems tell.
_LOOK = 1.0


class FileWatch:
    """Calls `changed` after each change of a file's content.

    The folder is watched, not the file: editors replace files, and Kubernetes replaces a
    link that the file is reached through.
    """

    def __init__(self, path: Path, changed: Callable[[], Awaitable[None]]) -> None:
        self._path = path
        self._changed = changed
        self._seen = content_hash(path)
        self.ready = asyncio.Event()  # from here on no change is missed

    async def run(self) -> None:
        """Watch until cancelled."""
        self.ready.set()
        try:
            await self._watch()
        except OSError as error:  # the system has no watch left, or the folder went away
            log.warning("%s: cannot be watched (%s), looking once a second", self._path, error)
            while True:
                await asyncio.sleep(_LOOK)
                await self._look()

    async def _watch(self) -> None:
        folder = self._path.absolute().parent
        changes = awatch(
            folder,
            debounce=_DEBOUNCE,
            step=_STEP,
            recursive=False,
            yield_on_timeout=True,
            rust_timeout=int(_LOOK * 1000),
        )
        async for _ in changes:
            await self._look()

    async def _look(self) -> None:
        now = content_hash(self._path)
        if now is not None and now != self._seen:
            self._seen = now
            try:
                await self._changed()
            except Exception:
                log.exception("%s: the change was not taken in", self._path)


def content_hash(path: Path) -> bytes | None:
    """Return a hash of the file's content; None while there is none.

    An empty file is one that somebody is about to write.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return sha256(content).digest() if content.strip() else None

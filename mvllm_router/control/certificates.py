"""Watches certificates and keys: the router's own, and those that it uses with servers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from mvllm_router.config import ServerSpec
from mvllm_router.pool.events import Events
from mvllm_router.tls import Certificate, TlsError, changed_files

# Seconds between two looks at the files.
TICK = 2.0


class CertificateWatch:
    """Sees to it that what the files hold is in use, without a restart."""

    def __init__(
        self,
        own: Certificate | None,
        servers: Callable[[], Sequence[ServerSpec]],
        reload: Callable[[], Awaitable[object]],
        events: Events,
    ) -> None:
        """Prepare to watch.

        Args:
            own: the router's certificate, if it has one.
            servers: those of the configuration that is in use.
            reload: reads the configuration again, and with it the files of servers.
            events: tells how it went.
        """
        self._own = own
        self._servers = servers
        self._reload = reload
        self._events = events
        self._tried: tuple[str, ...] = ()  # contents that led to a reload, which may have failed

    async def look(self) -> float:
        """Look once at all files; return the seconds until the next look."""
        self.renew()
        changed = changed_files(self._servers())
        if changed and changed != self._tried:
            self._tried = changed
            await self._reload()
        return TICK

    def renew(self) -> None:
        """Show new clients what the router's own files hold; connections keep what they have."""
        try:
            if self._own is not None and self._own.renew():
                self._events.add("tls", "", "the new certificate is in use")
        except TlsError as error:
            message = f"the new certificate is refused, the old one stays: {error}"
            self._events.add("tls", "", message, logging.ERROR)

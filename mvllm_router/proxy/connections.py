"""The connections to one backend: those that wait for work, and new ones."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from mvllm_router.config import ServerSpec
from mvllm_router.errors import OutOfConnections
from mvllm_router.files import is_out_of_files
from mvllm_router.front.outlet import Outbox
from mvllm_router.proxy.connection import Connection
from mvllm_router.proxy.failure import Failure
from mvllm_router.tls import TlsError, client_context, explain

# Seconds. uvicorn and llama-server close a connection that idles for 5 s; being first
# keeps requests from meeting a connection that is closing under them.
IDLE_LIMIT = 4.0
# Seconds after which a client may try again when there is no file left for a connection.
_RETRY_AFTER = 2
# What may stand in a path as it is (RFC 3986), with what is escaped already.
_PATH = "/%:@!$&'()*+,;=~-._"


class CannotConnect(Exception):
    """A connection could not be opened."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(f"{failure.value} ({detail})" if detail else failure.value)
        self.failure = failure
        self.detail = detail


class Connections:
    """Opens, lends, takes back and closes connections to one backend.

    The last one given back is the first one lent, so that surplus ones grow old and go.
    """

    def __init__(self, spec: ServerSpec, monotonic: Callable[[], float], outbox: Outbox) -> None:
        self._monotonic = monotonic
        self.outbox = outbox
        self._idle: list[Connection] = []
        self._closing = False
        self._generation = 0  # counts the rules of TLS that connections were opened under
        self._spec: ServerSpec | None = None
        self.adopt(spec)

    def adopt(self, spec: ServerSpec) -> None:
        """Use another key, other headers or TLS settings from now on; the address stays."""
        if self._spec is not None and _tls_of(spec) != _tls_of(self._spec):
            self._close_idle()  # they were opened under the other rule
            self._generation += 1
        self._spec = spec
        url = urlsplit(spec.url)
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._is_tls = url.scheme == "https"
        # What stands between the method and the path.
        self.path_prefix = b" " + quote(url.path.rstrip("/"), safe=_PATH).encode("ascii")
        self.fixed_lines = _fixed_lines(spec, url.netloc)
        self.name_line = f"x-router-backend: {spec.name}\r\n".encode("latin-1")
        # Of these a client's own are left out: the configured ones count.
        self.fixed_names = frozenset(name.lower().encode() for name, _ in spec.headers)

    def idle(self) -> Connection | None:
        """Return a connection that is open and was used a short time ago, if there is one."""
        oldest = self._monotonic() - IDLE_LIMIT
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    async def open(self, timeout: float) -> Connection:
        """Open a new connection within `timeout` seconds.

        Raises:
            CannotConnect: nobody listens, the name is unknown, TLS fails, or it took too long.
            OutOfConnections: the system lets us open no more; that is not the backend's fault.
        """
        try:
            return await asyncio.wait_for(self._opening(), timeout)
        except asyncio.TimeoutError:
            raise CannotConnect(Failure.CONNECT_TIMEOUT, f"after {timeout:g} s") from None
        # also unknown names and impossible names
        except (OSError, UnicodeError, TlsError) as error:
            if _is_refusal(error):
                raise CannotConnect(Failure.REFUSED, "") from None
            if is_out_of_files(error):
                raise OutOfConnections(
                    "The router has as many files open as it may.", retry_after=_RETRY_AFTER
                ) from None
            raise CannotConnect(Failure.UNREACHABLE, explain(error)) from None

    async def _opening(self) -> Connection:
        assert self._spec is not None
        tls = client_context(self._spec) if self._is_tls else None
        generation = self._generation
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self), self._host, self._port, ssl=tls
        )
        connection.generation = generation
        return connection

    def put_back(self, connection: Connection) -> None:
        """Take a connection back that has done its work."""
        if self._closing or connection.generation != self._generation:
            return connection.abort()
        connection.idle_since = self._monotonic()
        return self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """Drop a connection that the backend closed while it was idle."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close_old(self) -> None:
        """Close the idle connections that the backend is about to close."""
        oldest = self._monotonic() - IDLE_LIMIT
        for connection in [c for c in self._idle if c.idle_since < oldest]:
            self._idle.remove(connection)
            connection.abort()

    def close(self) -> None:
        """Close the idle connections now and the busy ones as they are given back."""
        self._closing = True
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().abort()


def _is_refusal(error: Exception) -> bool:
    """Tell whether nobody listens, at none of the addresses that a name stands for."""
    text = str(error)  # asyncio says no more of several addresses than a text
    refused = text.count(f"[Errno {errno.ECONNREFUSED}] ")
    return isinstance(error, ConnectionRefusedError) or 0 < refused == text.count("[Errno ")


def _fixed_lines(spec: ServerSpec, host: str) -> bytes:
    lines = list(spec.headers)
    if not any(name.lower() == "host" for name, _ in lines):
        lines.insert(0, ("host", host))
    if spec.api_key:
        lines.append(("authorization", f"Bearer {spec.api_key}"))
    return "".join(f"{name}: {value}\r\n" for name, value in lines).encode()


def _tls_of(spec: ServerSpec) -> tuple[bool, str, str, str, str]:
    return spec.tls_verify, spec.tls_ca, spec.tls_cert, spec.tls_key, spec.tls_files

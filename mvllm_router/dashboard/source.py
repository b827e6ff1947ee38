"""Asks a running router over HTTP, in the event loop and never for longer than a few seconds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Protocol

import aiohttp

from mvllm_router.client import NotAuthorised, Unreachable, address_of, judge
from mvllm_router.dashboard.document import Document

# Seconds that an answer may take: a picture that is older is of no use. A change of the file may
# take longer, since the router waits for its disk and for running reloads.
_LOOK, _CHANGE = 5.0, 30.0
_MAX_ANSWER = 32 * 1024 * 1024  # bytes; a server takes 2000 of them


class Source(Protocol):
    """What the dashboard needs of a router. All of it may raise the errors of `client`."""

    url: str

    async def get(self, path: str) -> Document: ...

    async def send(
        self, method: str, path: str, body: Mapping[str, Any], match: str | None = None
    ) -> Document: ...

    async def close(self) -> None: ...


class HttpSource:
    """A router at an address, asked on connections that are kept."""

    def __init__(self, url: str, key: str | None = None, *, verify: bool = True) -> None:
        """Ask the router at `url`.

        Args:
            key: the router's admin key or, where that is not needed, a client's.
            verify: check its certificate.

        Raises:
            Unreachable: `url` is no address.
        """
        self.url = address_of(url)
        self._key = key.strip() if key else None
        self._verify = verify
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str) -> Document:
        """Return the JSON object at `path`.

        Raises:
            Unreachable, NotAuthorised, Refused: as `client.send` does.
        """
        return await self._ask("GET", path, None, {}, _LOOK)

    async def send(
        self, method: str, path: str, body: Mapping[str, Any], match: str | None = None
    ) -> Document:
        """Ask for a change; `match` is the state (ETag) that it is meant for.

        Raises:
            Unreachable, NotAuthorised, Refused: as `client.send` does.
        """
        headers = {"If-Match": match} if match else {}
        return await self._ask(method, path, body, headers, _CHANGE)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: dict[str, str],
        seconds: float,
    ) -> Document:
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._client().request(
                method,
                self.url + path,
                json=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,  # the key is for nobody else
            ) as response:
                status, answer = response.status, await _read(response)
        except asyncio.TimeoutError:
            raise Unreachable(f"no answer in {seconds:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"no router answers: {_reason(error)}") from None
        except ValueError:  # its text would show the key
            raise Unreachable(f"{self.url}, or the key, cannot be sent") from None
        return judge(self.url, status, _object(answer), self._key)

    def _client(self) -> aiohttp.ClientSession:
        """Return the session; made late, since it needs a running loop."""
        if self._session is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._session = aiohttp.ClientSession(
                headers=headers, connector=aiohttp.TCPConnector(limit=8, ssl=self._verify)
            )
        return self._session


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, up to what a router could possibly say."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(1 << 16):
        size += len(part)
        if size > _MAX_ANSWER:
            raise aiohttp.ClientPayloadError(f"more than {_MAX_ANSWER} bytes: is it a router?")
        parts.append(part)
    return b"".join(parts)


def _object(answer: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _reason(error: Exception) -> str:
    """Say in a few words why nobody was reached."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted (SSL_CERT_FILE=ca.pem trusts a CA of your own)"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def hint_for(error: Exception) -> str:
    """Say what to do about an error of the router's address or key; "" where that is not known."""
    if isinstance(error, NotAuthorised):
        return "set ROUTER_API_KEY or ROUTER_ADMIN_KEY, or use --api-key or --admin-key"
    return getattr(error, "hint", "")

"""Asks backends small questions, with their own keys, headers and TLS settings."""

from __future__ import annotations

import asyncio
import ssl
import time

import aiohttp

from mvllm_router.config import ServerSpec
from mvllm_router.config.problems import printable
from mvllm_router.control.bounds import bounded
from mvllm_router.control.pace import Pace
from mvllm_router.engines.recognise import Answer
from mvllm_router.files import is_out_of_files
from mvllm_router.tls import TlsError, client_context, explain

# Bytes. vLLM's metrics are 50 to 90 KB for each of the engines behind an address; the event
# loop takes 5 ms for this much of them.
_LONGEST_ANSWER = 2 * 1024 * 1024
# Bytes of its head and of what frames its body.
_FRAMING = 256 * 1024
_LONGEST_REASON = 200  # characters
# Seconds between two readings of metrics, whosever they are: each takes the event loop a
# millisecond. So more than a hundred servers are asked less often than a setting says.
_BETWEEN_SCRAPES = 0.01


class NoAnswer(Exception):
    """A question was not answered.

    `refused` is certain: nobody listens there. `not_asked`: the router had no file left to ask
    it with, which says nothing about the server.
    """

    def __init__(
        self,
        reason: str,
        *,
        refused: bool = False,
        timed_out: bool = False,
        not_asked: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refused = refused
        self.timed_out = timed_out
        self.not_asked = not_asked


class Prober:
    """One HTTP client for all backends. Not for requests of clients: those are relayed.

    `pace` says when the metrics of the next backend may be read.
    """

    def __init__(self) -> None:
        self.pace = Pace(_BETWEEN_SCRAPES, time.monotonic)
        self._session = aiohttp.ClientSession(
            connector=bounded(
                aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0), _LONGEST_ANSWER + _FRAMING
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # A kilobyte of compressed nothing can be a megabyte: no compressed answer is read.
            headers={"User-Agent": "mvllm-router", "Accept-Encoding": "identity"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, spec: ServerSpec, path: str, timeout: float) -> Answer:
        """GET `path` of a server within `timeout` seconds.

        Raises:
            NoAnswer: it could not be reached, was too slow, or did not speak HTTP.
        """
        return await self._ask("GET", spec, path, timeout, None)

    async def post(self, spec: ServerSpec, path: str, body: bytes, timeout: float) -> Answer:
        """POST a JSON document; otherwise as `get`.

        Raises:
            NoAnswer: it could not be reached, was too slow, or did not speak HTTP.
        """
        return await self._ask("POST", spec, path, timeout, body)

    async def _ask(
        self, method: str, spec: ServerSpec, path: str, timeout: float, body: bytes | None
    ) -> Answer:
        headers = _headers(spec)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        try:
            is_tls = spec.url.startswith("https:")
            async with self._session.request(
                method,
                spec.url + path,
                data=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
                ssl=client_context(spec) if is_tls else True,
                allow_redirects=False,
            ) as response:
                answer = await _limited(response)
                lines = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, lines, answer)
        except asyncio.TimeoutError:
            raise NoAnswer(f"no answer in {timeout:g} s", timed_out=True) from None
        except (aiohttp.ClientSSLError, TlsError) as error:
            reason = f"no TLS connection ({explain(error.__cause__ or error)})"
            raise NoAnswer(_in_one_line(reason)) from None
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.os_error, ConnectionRefusedError)
            not_asked = is_out_of_files(error.os_error)
            reason = "connection refused" if refused else f"cannot connect ({error.os_error})"
            raise NoAnswer(_in_one_line(reason), refused=refused, not_asked=not_asked) from None
        except aiohttp.ClientResponseError:
            raise NoAnswer("what it answers is not HTTP") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswer(_in_one_line(_broken_off(error, spec))) from None


def _broken_off(error: Exception, spec: ServerSpec) -> str:
    """Say why an answer is not whole."""
    if isinstance(error.__cause__, ssl.SSLError):
        return f"no TLS connection ({explain(error.__cause__)})"
    hint = ""
    if isinstance(error, aiohttp.ServerDisconnectedError) and _lacks_certificate(spec):
        hint = "; it may ask for a client certificate"  # many servers do not say so
    return f"no whole answer ({error}{hint})"


def _lacks_certificate(spec: ServerSpec) -> bool:
    return spec.url.startswith("https:") and not spec.tls_cert


def _in_one_line(text: str) -> str:
    """Make an error fit for a log and for JSON: it may quote whatever a server sent."""
    return printable(" ".join(text.split()))[:_LONGEST_REASON]


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise ValueError(f"it is encoded as {encoding}, which nobody asked for")
    pieces, size = [], 0
    async for piece in response.content.iter_chunked(65536):
        size += len(piece)
        if size > _LONGEST_ANSWER:
            raise ValueError(f"the answer is longer than {_LONGEST_ANSWER} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _headers(spec: ServerSpec) -> dict[str, str]:
    headers = dict(spec.headers)
    if spec.api_key:
        headers["Authorization"] = f"Bearer {spec.api_key}"
    return headers

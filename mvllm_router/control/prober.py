"""Asks backends small questions, with their own keys, headers and TLS settings."""

from __future__ import annotations

import asyncio

import aiohttp

from mvllm_router.config import ServerSpec
from mvllm_router.config.problems import printable
from mvllm_router.engines.recognise import Answer

# vLLM's metrics are 50 to 90 KB; whatever sends megabytes is no answer of an engine.
_LONGEST_ANSWER = 8 * 1024 * 1024
_LONGEST_REASON = 200  # characters


class NoAnswer(Exception):
    """A question was not answered; `refused` is certain: nobody listens there."""

    def __init__(self, reason: str, *, refused: bool = False, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refused = refused
        self.timed_out = timed_out


class Prober:
    """One HTTP client for all backends. Not for requests of clients: those are relayed."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "mvllm-router"},
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, spec: ServerSpec, path: str, timeout: float) -> Answer:
        """GET `path` of a server within `timeout` seconds.

        Raises:
            NoAnswer: it could not be reached, was too slow, or did not speak HTTP.
        """
        try:
            async with self._session.get(
                spec.url + path,
                headers=_headers(spec),
                timeout=aiohttp.ClientTimeout(total=timeout),
                ssl=spec.tls_verify,
                allow_redirects=False,
            ) as response:
                body = await _limited(response)
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, headers, body)
        except asyncio.TimeoutError:
            raise NoAnswer(f"no answer in {timeout:g} s", timed_out=True) from None
        except aiohttp.ClientSSLError as error:
            reason = f"no TLS connection ({error.__cause__ or error})"
            raise NoAnswer(_in_one_line(reason)) from None
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.os_error, ConnectionRefusedError)
            reason = "connection refused" if refused else f"cannot connect ({error.os_error})"
            raise NoAnswer(_in_one_line(reason), refused=refused) from None
        except aiohttp.ClientResponseError:
            raise NoAnswer("what it answers is not HTTP") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswer(_in_one_line(f"no whole answer ({error})")) from None


def _in_one_line(text: str) -> str:
    """Make an error fit for a log and for JSON: it may quote whatever a server sent."""
    return printable(" ".join(text.split()))[:_LONGEST_REASON]


async def _limited(response: aiohttp.ClientResponse) -> bytes:
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

"""Who may come in: the API key that clients have to present."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256

from mvllm_router.errors import Unauthorized

# Load balancers and probes need them. To who has no key they name no server.
OPEN_PATHS = frozenset(("/", "/health", "/ready"))


class Caller:
    """Who asks: a key by its name, and what it may do."""

    def __init__(self, name: str) -> None:
        self.name = name

    def admit(self, model: str | None) -> None:
        """Take a place for one request for `model`; every `admit` is followed by one `release`."""

    def release(self) -> None:
        """Give the place back."""

    def used(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count what an answer cost."""


ANYBODY = Caller("")


class Gate:
    """Lets requests in that carry the key. Only its hash is kept."""

    def __init__(self, key: str | None) -> None:
        """Let everybody in when `key` is empty or None."""
        self._digest = _hash(key) if key else None

    def check(self, path: str, headers: Mapping[str, str]) -> Caller | None:
        """Let the request pass or raise.

        Returns:
            Who asks; None for one that came in only because the path is open.

        Raises:
            Unauthorized: the path needs the key, and the request has none or a wrong one.
        """
        if self._digest is None:
            return ANYBODY
        key = presented_key(headers)
        if key is not None and hmac.compare_digest(_hash(key), self._digest):
            return ANYBODY
        if path in OPEN_PATHS:
            return None
        if key is None:
            raise Unauthorized("An API key is needed: `Authorization: Bearer <key>`.")
        raise Unauthorized("The API key is wrong.")


def _hash(key: str) -> bytes:
    # Headers are read with surrogate escapes: a client can send bytes that are no UTF-8.
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def presented_key(headers: Mapping[str, str]) -> str | None:
    """Return the key of a request, from `Authorization: Bearer` or `x-api-key`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key")

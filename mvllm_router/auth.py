"""Who may come in: the API key that clients have to present."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256

from mvllm_router.errors import Unauthorized

# Load balancers and probes need them. To who has no key they name no server.
OPEN_PATHS = frozenset(("/", "/health", "/ready"))


class Gate:
    """Lets requests in that carry the key. Only its hash is kept."""

    def __init__(self, key: str | None) -> None:
        """Let everybody in when `key` is empty or None."""
        self._digest = _hash(key) if key else None

    def check(self, path: str, headers: Mapping[str, str]) -> bool:
        """Let the request pass or raise.

        Returns:
            True if the client may know all; False if it came in only because the path is open.

        Raises:
            Unauthorized: the path needs the key, and the request has none or a wrong one.
        """
        if self._digest is None:
            return True
        key = presented_key(headers)
        if key is not None and hmac.compare_digest(_hash(key), self._digest):
            return True
        if path in OPEN_PATHS:
            return False
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

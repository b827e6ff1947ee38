"""Lets requests in by the key that they carry. Of keys only digests are kept."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Collection, Mapping

from mvllm_router.auth.caller import ANYBODY, Caller, Holder
from mvllm_router.config import Config, KeySpec, is_loopback, key_digest
from mvllm_router.errors import Forbidden, Unauthorized

# Load balancers and probes need them. To who has no key they name no server.
OPEN_PATHS = frozenset(("/", "/health", "/ready"))
# Open as well where the setting `open_metrics` says so.
METRICS_PATHS = frozenset(("/metrics", "/load-stats"))

# Below it are the routes for operators.
_OPERATORS = "/router/"
# Who sends one of these comes through a proxy or from a web page, so that a connection from this
# machine does not mean a person at this machine.
_FROM_ELSEWHERE = ("forwarded", "x-forwarded-for", "x-real-ip", "via", "origin")


class Gate:
    """Knows every key. It lets everybody in when there are none."""

    def __init__(self, config: Config, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing counted; `monotonic` gives the time in seconds, for limits."""
        self._monotonic = monotonic
        # Not asked again at a reload: the router goes on listening where it does.
        self._on_loopback = is_loopback(config.settings.host)
        self._holders: dict[bytes, Holder] = {}
        self._starter: bytes | None = None
        self.adopt(config)

    def trust(self, key: str) -> None:
        """Let who has this key do all that operators may, whatever keys reloads bring.

        It is for who has started the router and for nobody else, made anew at each start.
        """
        self._starter = key_digest(key)

    def adopt(self, config: Config) -> None:
        """Follow a reload. A key that stays, by its name, keeps its counts and what it used."""
        settings = config.settings
        before = {holder.name: holder for holder in self._holders.values()}
        self._holders = {key.digest: self._holder(key, before) for key in config.client_keys}
        self._admin = key_digest(settings.admin_key) if settings.admin_key else None
        self._open = OPEN_PATHS | METRICS_PATHS if settings.open_metrics else OPEN_PATHS

    def _holder(self, key: KeySpec, before: Mapping[str, Holder]) -> Holder:
        holder = before.get(key.name)
        if holder is None:
            return Holder(key, self._monotonic)
        holder.adopt(key)
        return holder

    @property
    def holders(self) -> Collection[Holder]:
        """Each key with what it has had so far."""
        return self._holders.values()

    def check(self, path: str, headers: Mapping[str, str]) -> Caller | None:
        """Let the request pass or raise.

        Returns:
            Who asks; None for one that came in only because the path is open.

        Raises:
            Unauthorized: the path needs a key, and the request has none or a wrong one.
        """
        if not self._holders:
            return ANYBODY
        key = presented_key(headers)
        digest = None if key is None else key_digest(key)
        # How long the look-up takes may tell how much of a digest agrees with a known one. That is
        # of no use: nobody can make keys whose SHA-256 comes nearer and nearer to another one.
        holder = None if digest is None else self._holders.get(digest)
        if holder is not None:
            return holder
        if path.startswith(_OPERATORS) and digest is not None and self._is_operator(digest):
            return ANYBODY
        if path in self._open:
            return None
        raise _unauthorized(key)

    def check_admin(self, headers: Mapping[str, str]) -> None:
        """Let a request pass that changes the router, or tells of all clients, or raise.

        Raises:
            Unauthorized: it needs a key, and the request has none or a wrong one.
            Forbidden: it needs the admin key, and there is none or the request has another one.
        """
        key = presented_key(headers)
        digest = None if key is None else key_digest(key)
        if digest is not None and self._is_operator(digest):
            return
        is_client = not self._holders or digest in self._holders
        if self._admin is None:
            if not is_client:
                raise _unauthorized(key)
            if not self._on_loopback or any(name in headers for name in _FROM_ELSEWHERE):
                raise Forbidden(_NO_ADMIN_KEY)
        elif self._holders and is_client:
            raise Forbidden("This needs the admin key, not that of a client.")
        else:
            raise _unauthorized(key)

    def _is_operator(self, digest: bytes) -> bool:
        known = (self._admin, self._starter)
        return any(one is not None and hmac.compare_digest(digest, one) for one in known)


_NO_ADMIN_KEY = (
    "Without an admin key the router can be changed only from the machine that it runs on, by a "
    "router that listens on loopback, and not through a proxy or from a web page. The setting "
    "`admin_key` (ROUTER_ADMIN_KEY) allows it to who has that key."
)


def _unauthorized(key: str | None) -> Unauthorized:
    if key is None:
        return Unauthorized("An API key is needed: `Authorization: Bearer <key>`.")
    return Unauthorized("The API key is wrong.")


def presented_key(headers: Mapping[str, str]) -> str | None:
    """Return the key of a request, from `Authorization: Bearer` or `x-api-key`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key")

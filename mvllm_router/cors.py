"""Which web pages may call the router from a browser (the CORS part of the Fetch standard)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ANY = "*"
# What a page may read of an answer, beside what every page may.
_EXPOSED = "x-request-id, x-router-backend, x-router-attempts, x-router-reason, retry-after"
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
# Seconds that a browser may go by what a preflight said.
_MAX_AGE = "600"
_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}")


@dataclass(frozen=True, slots=True)
class Permit:
    """What answers to one origin say; `lines` are `headers` as bytes, each with its line end."""

    headers: Mapping[str, str]
    lines: bytes


class Cors:
    """Permits by origin."""

    def __init__(self, origins: Sequence[str]) -> None:
        """`origins` are spelt as browsers do it (see config.items); "*" stands for any."""
        self._permits = {origin: _permit(origin) for origin in origins}
        self._for_any = self._permits.get(_ANY)

    def permit(self, origin: str | None) -> Permit | None:
        """The permit for the `Origin` of a request; None for one that has none."""
        if origin is None:
            return None
        return self._permits.get(origin) or self._for_any

    def preflight(self, method: str, headers: Mapping[str, str]) -> Mapping[str, str] | None:
        """The headers that answer a browser which asks before it sends a request.

        None when the request is no such question, or its origin has no permit.
        """
        permit = self.permit(headers.get("origin"))
        if method != "OPTIONS" or permit is None or "access-control-request-method" not in headers:
            return None
        more = {"access-control-allow-methods": _METHODS, "access-control-max-age": _MAX_AGE}
        # Named one by one, since a * would leave out `authorization`.
        names = headers.get("access-control-request-headers", "")
        if _NAMES.fullmatch(names):
            more["access-control-allow-headers"] = names
        return {**permit.headers, **more}


def _permit(origin: str) -> Permit:
    headers = {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": _EXPOSED,
        "vary": "Origin",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return Permit(headers, lines.encode("ascii"))

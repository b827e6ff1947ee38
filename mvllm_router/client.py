"""Speaks to a running router over HTTP, as every other program could."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any


class Unreachable(Exception):
    """No router answers at the address."""


class NotAuthorised(Exception):
    """The router wants another API key."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A router never redirects, and the key is for nobody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def get(url: str, path: str, api_key: str | None = None, timeout: float = 5.0) -> dict[str, Any]:
    """Return the JSON object at `path` of the router at `url`.

    Raises:
        Unreachable: nobody answers within `timeout` seconds, or something else does.
        NotAuthorised: the key is missing or wrong.
    """
    try:
        document = json.loads(_read(_request(url, path, api_key), timeout))
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (401, 403):
                wants = "does not take this API key" if api_key else "wants an API key"
                raise NotAuthorised(f"{url} {wants}") from None
            raise Unreachable(f"{url} answered {error.code}: is it a router?") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"no router answers at {url}: {_reason(error)}") from None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Unreachable(f"{url} did not answer with JSON: is it a router?")
    return document


def _request(url: str, path: str, api_key: str | None) -> urllib.request.Request:
    address = (url if "://" in url else f"http://{url}").rstrip("/") + path
    headers = {}
    if api_key:
        # http.client sends Latin-1; the router reads UTF-8.
        key = api_key.strip().encode().decode("latin-1")
        headers["Authorization"] = f"Bearer {key}"
    try:
        request = urllib.request.Request(address, headers=headers)
    except ValueError:
        raise Unreachable(f"{url} is no address of a router") from None
    if request.type not in ("http", "https"):
        raise Unreachable(f"{url} is no address of a router")
    return request


def _read(request: urllib.request.Request, timeout: float) -> bytes:
    # No proxy from the environment stands between an operator and the router.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    with opener.open(request, timeout=timeout) as response:
        body: bytes = response.read()
        return body


def _reason(error: Exception) -> str:
    """Say in a few words why nobody was reached."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__

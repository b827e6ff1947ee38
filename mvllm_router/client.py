"""Speaks to a running router over HTTP, as every other program could."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, cast

DEFAULT_URL = "http://127.0.0.1:8888"


class Unreachable(Exception):
    """No router answers at the address."""


class NotAuthorised(Exception):
    """The router wants another API key."""


def get(url: str, path: str, api_key: str | None = None, timeout: float = 5.0) -> dict[str, Any]:
    """Return the JSON object at `path` of the router at `url`.

    Raises:
        Unreachable: nobody answers within `timeout` seconds, or something else does.
        NotAuthorised: the key is missing or wrong.
    """
    address = (url if "://" in url else f"http://{url}").rstrip("/") + path
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        request = urllib.request.Request(address, headers=headers)
        # No proxy from the environment stands between an operator and the router.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=timeout) as response:
            return cast("dict[str, Any]", json.load(response))
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (401, 403):
                raise NotAuthorised(f"{url} wants an API key") from None
            raise Unreachable(f"{url} answered {error.code}: is it a router?") from None
    except (OSError, ValueError) as error:  # ValueError: no JSON, or no URL
        reason = getattr(error, "reason", error)
        raise Unreachable(f"no router answers at {url} ({reason})") from None

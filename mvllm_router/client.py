"""Speaks to a running router over HTTP, as every other program could."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_MAX_ANSWER = 32 * 1024 * 1024  # bytes; a server takes 2000 of them
_DONE = (200, 201)
_NOT_AUTHORISED = (401, 403)
_DONE = (200, 201)  # and: something new is there
# Of OpenSSL: the certificate is another host's, or another address's.
_OTHER_NAME = (62, 64)


class Unreachable(Exception):
    """No router answers at the address. `hint` says what to do, "" where that is not known."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NotAuthorised(Exception):
    """The router wants another API key."""


class Refused(Exception):
    """The router answered that it does not do that, and why.

    `status` is that of HTTP, `document` its whole answer.
    """

    def __init__(self, message: str, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.document = document


class _AsItIs(urllib.request.HTTPErrorProcessor):
    """Gives back every answer. A redirect is not followed: the key is for nobody else."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response

    https_response = http_response


def get(url: str, path: str, api_key: str | None = None, timeout: float = 5.0) -> dict[str, Any]:
    """Return the JSON object at `path` of the router at `url`.

    Raises:
        Unreachable: nobody answers within `timeout` seconds, or something else does.
        NotAuthorised: the key is missing or wrong.
    """
    try:
        return send("GET", url, path, key=api_key, timeout=timeout)
    except Refused as error:
        raise Unreachable(f"{url} answered {error.status}: is it a router?") from None
    except NotAuthorised:
        raise NotAuthorised(f"{url} {_wants(api_key)}") from None


def send(
    method: str,
    url: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    key: str | None = None,
    timeout: float = 30.0,
) -> dict[str, Any]:
    """Return the JSON object that the router at `url` answers to a request with a JSON body.

    Raises:
        Unreachable: nobody answers within `timeout` seconds, or something else does.
        NotAuthorised: the key is missing or wrong, or does not allow it.
        Refused: it was understood, and not done.
    """
    status, document = _ask(_request(method, url, path, body, key), url, timeout)
    return judge(url, status, document, key)


def judge(
    url: str, status: int, document: dict[str, Any] | None, key: str | None
) -> dict[str, Any]:
    """Return the object that a router answered with, or raise what `send` does."""
    said = _said(document)
    if status in _NOT_AUTHORISED:
        raise NotAuthorised(f"{url} answers: {said}" if said else f"{url} {_wants(key)}")
    if document is not None and said:
        raise Refused(said, status, document)
    if status not in _DONE:
        raise Unreachable(f"{url} answered {status}: is it a router?")
    if document is None:
        raise Unreachable(f"{url} did not answer with JSON: is it a router?")
    return document


def _wants(key: str | None) -> str:
    return "does not take this API key" if key else "wants an API key"


def _said(document: Mapping[str, Any] | None) -> str:
    """Return the message of an error in OpenAI's shape; empty for anything else."""
    error = (document or {}).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else ""


def _request(
    method: str, url: str, path: str, body: Mapping[str, Any] | None, key: str | None
) -> urllib.request.Request:
    address = address_of(url) + path
    headers = {}
    if key:
        # http.client sends Latin-1; the router reads UTF-8.
        headers["Authorization"] = f"Bearer {key.strip().encode().decode('latin-1')}"
    if body is not None:
        headers["Content-Type"] = "application/json"
    # As clients of OpenAI's API write it: a policy that looks at prompts compares their text.
    data = None if body is None else _as_json(body)
    return urllib.request.Request(address, data, headers, method=method)


def address_of(url: str) -> str:
    """Return the address of a router, http:// where that was left out, without a slash at its end.

    Raises:
        Unreachable: it is none.
    """
    address = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of an IPv6 address, or a port
        is_address = False
    if not is_address:
        raise Unreachable(f"{url} is no address of a router")
    return address


def _as_json(body: Mapping[str, Any]) -> bytes:
    # Without NaN and Infinity, which JSON does not have and the router refuses with the whole body.
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def _ask(
    request: urllib.request.Request, url: str, timeout: float
) -> tuple[int, dict[str, Any] | None]:
    """Return the status of an answer, and the JSON object in it if there is one."""
    # No proxy from the environment stands between an operator and the router.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _AsItIs)
    try:
        with opener.open(request, timeout=timeout) as response:
            status: int = response.status
            body: bytes = response.read(_MAX_ANSWER + 1)
    except (OSError, http.client.HTTPException) as error:
        message = f"no router answers at {url}: {_reason(error)}"
        raise Unreachable(message, _hint(error, request.type)) from None
    except ValueError:  # its text would show the key
        raise Unreachable(f"{url}, or the key, has signs in it that cannot be sent") from None
    if len(body) > _MAX_ANSWER:
        raise Unreachable(f"{url} answered with more than {_MAX_ANSWER} bytes: is it a router?")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    return status, document if isinstance(document, dict) else None


def _reason(error: Exception) -> str:
    """Say in a few words why nobody was reached."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, ssl.SSLError):
        from mvllm_router.tls import explain  # few need it, and it takes a while to load

        return explain(cause)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _hint(error: Exception, scheme: str) -> str:
    """Say what to do about an address that is right but for TLS."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in _OTHER_NAME:
            return "name the router as its certificate does"
        return "SSL_CERT_FILE=ca.pem in the environment trusts a CA of your own"
    if isinstance(cause, ssl.SSLError):
        return "does it speak http:// without TLS?"
    if isinstance(cause, http.client.RemoteDisconnected) and scheme == "http":
        return "does it speak https://?"
    return ""

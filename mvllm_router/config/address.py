"""Addresses of servers: one spelling for each, and a name made from it."""

from __future__ import annotations

import re
import zlib

from mvllm_router.config.problems import mask_url, printable
from mvllm_router.config.rules import Mismatch

MAX_NAME_LENGTH = 64
# Fit for an HTTP header value and for a metrics label; at least one letter or digit, so that no
# name is `..` in a URL path. Brackets come from IPv6 addresses.
NAME = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z0-9._:\[\]-]{1,64}", re.ASCII)

_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<rest>.*)", re.I)
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?")
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9_.-])?")
_UNSAFE = re.compile(r"[^A-Za-z0-9._:\[\]-]+")
# What people paste from a client's settings or from a curl line.
_ENDPOINT = re.compile(r"(/v1)?/(chat/completions|completions|embeddings|models)$")


def normalise_url(url: str) -> str:
    """The one spelling of a server's base address.

    Scheme and host in lower case; no default port, no final slash, no final `/v1`; another path
    prefix is kept. Raises Mismatch, with the URL's secrets masked, for what is no such address.
    """
    url = url.strip()
    match = _match(url)
    scheme = match["scheme"].lower()
    host, port = _host_and_port(match["authority"], url)
    colon_port = "" if port is None or port == _DEFAULT_PORTS[scheme] else f":{port}"
    return f"{scheme}://{host}{colon_port}{_prefix(match['path'], url)}"


def default_name(url: str) -> str:
    """The name of a server that was given none: `host:port`, and the path prefix where it has one.

    `url` must come from normalise_url.
    """
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host_only = authority.endswith("]") or ":" not in authority
    name = f"{authority}:{_DEFAULT_PORTS[scheme]}" if host_only else authority
    return safe_name(name + slash + path)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    import ipaddress  # costs start-up time, and only a running router needs it

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def safe_name(text: str) -> str:
    """`text` with what a name may not hold replaced by dashes, shortened where it is too long."""
    name = _UNSAFE.sub("-", text.replace("/", "-"))
    if len(name) <= MAX_NAME_LENGTH:
        return name
    # The sum keeps two long names apart that differ only in what was cut.
    return f"{name[: MAX_NAME_LENGTH - 9]}-{zlib.crc32(text.encode()):08x}"


def _match(url: str) -> re.Match[str]:
    if not url:
        raise Mismatch("the URL is empty", 'write it like "http://gpu1:8000"')
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise Mismatch("the URL has white space in it")
    match = _URL.fullmatch(url)
    if match is None:
        raise Mismatch(
            f"the URL `{_safe(url)}` does not begin with http:// or https://", _scheme_hint(url)
        )
    if "@" in match["authority"]:
        raise Mismatch(
            f"the URL `{_safe(url)}` holds a user or a password",
            "put the server's key into `api_key`, or what else it asks for into `headers`",
        )
    if match["rest"]:
        raise Mismatch(
            f"the URL `{_safe(url)}` has a query or a fragment",
            "give only the server's base address; a key belongs into `api_key`",
        )
    return match


def _scheme_hint(url: str) -> str | None:
    scheme, separator, _ = url.partition("://")
    if separator:
        shown = f"servers speak http or https, not {printable(scheme)}"
        return shown if "@" not in scheme else None
    if re.match(r"https?[:/]", url, re.I):
        return 'write it like "http://gpu1:8000"'
    return f"did you mean http://{_safe(url)}?"


def _host_and_port(authority: str, url: str) -> tuple[str, int | None]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise Mismatch(
            f"the host in the URL `{_safe(url)}` is not valid",
            "an IPv6 address stands in brackets, as in http://[::1]:8000",
        )
    return _host(match["host"].lower(), url), _port(match["port"], url)


def _host(host: str, url: str) -> str:
    if not host:
        raise Mismatch(f"the URL `{_safe(url)}` names no host")
    if host.startswith("["):
        return f"[{_ipv6(host[1:-1], url)}]"
    if not _HOST.fullmatch(host):
        hint = None if host.isascii() else "write the host in its ASCII form (xn--...)"
        raise Mismatch(f"the host in the URL `{_safe(url)}` is not valid", hint)
    return host


def _ipv6(host: str, url: str) -> str:
    import ipaddress  # only few addresses are IPv6

    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError as error:
        raise Mismatch(f"the IPv6 address in the URL `{_safe(url)}` is not valid") from error


def _port(port: str | None, url: str) -> int | None:
    if not port:
        return None
    number = int(port) if re.fullmatch("[0-9]{1,5}", port) else 0
    if not 1 <= number <= 65535:
        raise Mismatch(f"the port in the URL `{_safe(url)}` is not a number from 1 to 65535")
    return number


def _prefix(path: str, url: str) -> str:
    path = path.rstrip("/")
    if endpoint := _ENDPOINT.search(path):
        raise Mismatch(
            f"the URL `{_safe(url)}` is that of one endpoint",
            f"give the server's base address, without {endpoint[0]}",
        )
    return path[: -len("/v1")].rstrip("/") if path.endswith("/v1") else path


def _safe(url: str) -> str:
    return printable(mask_url(url))

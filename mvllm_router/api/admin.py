"""What changes a running router: /router/backends/{name} and /router/reload.

Who may do it is checked before (`Gate.check_admin`). A change needs a body of the type
`application/json`, also where it is empty: a page in an operator's browser cannot send that to
another site without asking first, and the router allows no such thing.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mvllm_router.api.own import Asked
from mvllm_router.api.snapshot import backend_document
from mvllm_router.config import ConfigDiff
from mvllm_router.config.problems import Problem, did_you_mean, printable
from mvllm_router.errors import BadRequest, NotFound, RouterError, TooLarge
from mvllm_router.front.request import Request
from mvllm_router.front.response import Response, json_response
from mvllm_router.pool import Backend, Pool

_MAX_BODY = 64 * 1024  # bytes
# Servers named in an error before it is cut short.
_NAMED = 20
# Characters of a client's text that an error repeats.
_SHOWN = 100
# What is told of each problem of a file; its line of the file is in the message.
_PROBLEM = ("label", "message", "place", "line", "column", "hint")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """How a reload ended. `refused` says why nothing was changed; empty when it went well.

    `problems` are those of the file, when it is the file that is wrong.
    """

    changed: ConfigDiff = field(default_factory=ConfigDiff)
    refused: str = ""
    problems: tuple[Problem, ...] = ()


Reload = Callable[[], Awaitable[Reloaded]]
Change = Callable[[Pool, str], object]


class ReloadRefused(BadRequest):
    """The configuration was not taken in; its problems stand beside the error, one by one."""

    def __init__(self, reloaded: Reloaded) -> None:
        super().__init__(reloaded.refused)
        self._problems = reloaded.problems

    def body(self) -> bytes:
        problems = [{key: getattr(one, key) for key in _PROBLEM} for one in self._problems]
        return json.dumps({**self.document(), "problems": problems}).encode()


class Admin:
    """Answers the routes that change something, and shows what they change."""

    def __init__(self, pool: Pool, reload: Reload) -> None:
        self._pool = pool
        self._reload = reload

    async def show(self, asked: Asked) -> Response:
        """GET /router/backends/{name}: the server's entry of the snapshot."""
        return self._entry(self._backend(asked.name))

    async def change(self, asked: Asked) -> Response:
        """PATCH /router/backends/{name}: all that the body asks for, or nothing."""
        changes = changes_of(read_object(asked.request))
        backend = self._backend(asked.name)
        for change in changes:
            change(self._pool, backend.name)
        return self._entry(backend)

    async def reload(self, asked: Asked) -> Response:
        """POST /router/reload: reads the file again, as SIGHUP does."""
        _only_known(read_object(asked.request), ())
        reloaded = await self._reload()
        if reloaded.refused:
            raise ReloadRefused(reloaded)
        if not reloaded.changed:
            self._pool.events.add("reload", "", "configuration read again, nothing has changed")
        return json_response({"changed": changed_document(reloaded.changed)})

    def _entry(self, backend: Backend) -> Response:
        return json_response(backend_document(self._pool, backend))

    def _backend(self, name: str) -> Backend:
        backend = self._pool.backends.get(name)
        if backend is None:
            raise _no_server(name, list(self._pool.backends))
        return backend


def changed_document(diff: ConfigDiff) -> dict[str, object]:
    """Return what a reload changed: names only, of servers, their fields, clients and settings."""
    return {
        "added": list(diff.added),
        "removed": list(diff.removed),
        "updated": {name: list(keys) for name, keys in diff.changed.items()},
        "keys": list(diff.keys),
        "settings": list(diff.live),
        "needs_restart": list(diff.needs_restart),
    }


# --- what a body may ask for


def _state(value: object) -> Change:
    change = _STATES.get(value) if isinstance(value, str) else None
    if change is None:
        raise BadRequest('`state` has to be "drain" or "enabled".', param="state")
    return change


_STATES: Mapping[str, Change] = {"drain": Pool.drain, "enabled": Pool.enable}
# The keys of a change, and what makes a change of the value of each.
_KEYS: Mapping[str, Callable[[object], Change]] = {"state": _state}


def changes_of(document: Mapping[str, Any]) -> list[Change]:
    """Return the changes that a body asks for.

    Raises:
        BadRequest: a key is unknown, a value is not what is expected, or there is nothing.
    """
    _only_known(document, _KEYS)
    if not document:
        raise BadRequest('The body asks for no change. Expected: {"state": "drain" | "enabled"}.')
    return [_KEYS[key](value) for key, value in document.items()]


def _only_known(document: Mapping[str, Any], known: Collection[str]) -> None:
    for key in document:
        if key not in known:
            expected = ", ".join(f"`{name}`" for name in known) or "none"
            hint = _hint(key, known)
            raise BadRequest(f"Unknown key `{_short(key)}`.{hint} Expected: {expected}")


def check_size(size: int) -> None:
    """Refuse a body of so many bytes if that is too large for a change.

    Raises:
        TooLarge: it is.
    """
    if size > _MAX_BODY:
        raise TooLarge(f"The request body is larger than {_MAX_BODY} bytes.")


def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object that a change is asked by; no body at all is an empty one.

    Raises:
        BadRequest, TooLarge: the client's mistakes.
    """
    content_type = request.fields.get("content-type", "").partition(";")[0]
    if content_type.strip().lower() != "application/json":
        raise BadRequest("A change needs the header `content-type: application/json`.")
    check_size(request.size)
    try:
        document = json.loads(request.body) if request.body else {}
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadRequest("The request body has to be a JSON object.")
    return document


# --- errors


def _no_server(name: str, there: list[str]) -> RouterError:
    names = ", ".join(there[:_NAMED]) + (", ..." if len(there) > _NAMED else "")
    hint = _hint(name, there)
    return NotFound(f"There is no server `{_short(name)}`.{hint} There are: {names or 'none'}")


def _hint(word: str, known: Collection[str]) -> str:
    near = did_you_mean(word[:_SHOWN], list(known))
    return f" D{near[1:]}" if near else ""


def _short(text: str) -> str:
    """A client's text, fit for a log: bounded, and nothing in it that a terminal acts on."""
    return printable(text[:_SHOWN])

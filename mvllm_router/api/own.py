"""The router's own routes: which methods each takes, and what answers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from mvllm_router.auth import Caller
from mvllm_router.errors import MethodNotAllowed
from mvllm_router.front.request import Request
from mvllm_router.front.response import Response, json_response

_READING = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a route of the router's own.

    `name` is what stood in the place of `{name}`, percent-decoded: compare it, and do not repeat
    it. `caller` is None for a client that came in only because the path is open.
    """

    request: Request
    name: str
    caller: Caller | None


# None: it has written its answer itself, which ends with the connection.
Handler = Callable[[Asked], Awaitable["Response | None"]]


@dataclass(frozen=True, slots=True)
class Own:
    """One route: `read` answers GET and HEAD, `writes` the methods that change something.

    `asks` answers POST where that changes nothing: a question that has a body. What is
    `for_operators` tells of all clients, and is asked for as what changes something.
    """

    read: Handler | None = None
    writes: Mapping[str, Handler] = field(default_factory=dict)
    asks: Handler | None = None
    for_operators: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        asks = ("POST",) if self.asks else ()
        return (*(_READING if self.read else ()), *asks, *self.writes)

    def handler(self, method: str, path: str) -> Handler:
        """Return what answers `method`.

        Raises:
            MethodNotAllowed: nothing does; `path` is named in the message.
        """
        found = self.read if method in _READING else self.writes.get(method)
        if method == "POST" and self.asks:
            found = self.asks
        if found is None:
            allow = ", ".join(self.methods)
            raise MethodNotAllowed(f"{path[:200]} takes {allow}, not {method}.", allow=allow)
        return found


class Found(NamedTuple):
    """A route, and what stands in its path in the place of `{...}`."""

    own: Own
    name: str


class OwnRoutes:
    """Finds routes by path. A path that ends with `{...}` stands for all that begin like it."""

    def __init__(self, table: Mapping[str, Own]) -> None:
        self.table = table
        self._exact = {path: route for path, route in table.items() if "{" not in path}
        self._named = [
            (path[: path.index("{")], route) for path, route in table.items() if "{" in path
        ]

    def find(self, path: str) -> Found | None:
        """Return the route at `path`, and what stands there in the place of `{...}`."""
        exact = self._exact.get(path)
        if exact is not None:
            return Found(exact, "")
        for prefix, route in self._named:
            if path.startswith(prefix) and len(path) > len(prefix):
                return Found(route, unquote(path[len(prefix) :]))
        return None


def showing(document: Callable[[], object]) -> Own:
    """Return a route that shows a document as JSON."""

    async def read(asked: Asked) -> Response:
        return json_response(document())

    return Own(read)

"""Which paths are relayed, and under which bounded names they are counted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class Route:
    """A relayed path.

    `label` is what metrics call it; `path` is where it goes on the server; `json` tells
    that it takes a JSON object, so that anything else is refused at once; `end_is_marked`
    that the last event of its streams is known, so that one that was cut can be told.
    """

    label: str
    path: str
    json: bool
    end_is_marked: bool = False


_JSON_ROUTES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/rerank",
    "/v1/score",
    "/rerank",
    "/score",
    "/pooling",
    "/tokenize",
    "/detokenize",
)
_SHORT = ("chat/completions", "completions", "embeddings")

_END_IS_MARKED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")

# The relayed paths that have a name of their own.
KNOWN = {path: Route(path, path, True, path in _END_IS_MARKED) for path in _JSON_ROUTES}
KNOWN |= {f"/{name}": KNOWN[f"/v1/{name}"] for name in _SHORT}


# Segments that servers and proxies on the way resolve, and so would leave /v1/ by. Some leave out
# what follows a semicolon before they do, others what follows a control character or a space.
_DOT_SEGMENT = re.compile(r"[/\\]\.{1,2}(?:[;\x00-\x20][^/\\]*)?(?:[/\\]|$)")
# A server decodes a path once, a proxy in front of it perhaps too; no honest path needs more.
_MOST_DECODED = 4


def relayed(path: str) -> Route | None:
    """Return how `path` (without its query) is relayed; None if it is not."""
    route = KNOWN.get(path)
    if route is None and path.startswith("/v1/") and not _leads_out(path):
        return Route("/v1/*", path, False)
    return route


def _leads_out(path: str) -> bool:
    """Tell whether somebody who decodes and resolves `path` could come out of /v1/."""
    if "#" in path:  # what follows is no part of it
        return True
    for _ in range(_MOST_DECODED):
        if _DOT_SEGMENT.search(path):
            return True
        encoded, path = path, unquote(path)
        if path == encoded:
            return False
    return True

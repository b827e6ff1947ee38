"""Every request comes here: the router's own routes are answered, the others are relayed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from aiohttp import web

from mvllm_router import __version__
from mvllm_router.api.health import health_document, server_models_document
from mvllm_router.api.load_stats import load_stats_document
from mvllm_router.api.metrics import CONTENT_TYPE, metrics_text, registry
from mvllm_router.api.models import model_document, models_document
from mvllm_router.api.snapshot import About, snapshot_document
from mvllm_router.auth import Gate
from mvllm_router.config import Settings
from mvllm_router.errors import MethodNotAllowed, NoBackend, NotFound, RouterError
from mvllm_router.pool import Pool
from mvllm_router.proxy.ask import new_request_id
from mvllm_router.proxy.front import error_response
from mvllm_router.proxy.headers import usable_request_id
from mvllm_router.proxy.relay import Relay
from mvllm_router.proxy.routes import relayed

log = logging.getLogger(__name__)

_MODEL = "/v1/models/"


class App:
    """Answers clients. A reload replaces `gate`, `settings` and `about`."""

    def __init__(
        self, pool: Pool, relay: Relay, gate: Gate, settings: Settings, about: About
    ) -> None:
        self.pool = pool
        self.relay = relay
        self.gate = gate
        self.settings = settings
        self.about = about
        self.draining = False
        self._registry = registry(self.pool)
        # What answers each path; only /health asks whether the client may know all.
        self._own: dict[str, Callable[[bool], web.StreamResponse]] = {
            "/": lambda _: self._root(),
            "/health": self._health,
            "/ready": lambda _: self._ready(),
            "/load-stats": lambda _: _json(load_stats_document(self.pool)),
            "/server-models": lambda _: _json(server_models_document(self.pool)),
            "/metrics": lambda _: self._metrics(),
            "/v1/models": lambda _: _json(models_document(self.pool)),
            "/router/snapshot": lambda _: self._snapshot(),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; an error of the router's own becomes its OpenAI-shaped answer."""
        path = _path(request.raw_path)
        request_id = usable_request_id(request.headers.get("x-request-id")) or new_request_id()
        begun = time.monotonic()
        try:
            caller = self.gate.check(path, request.headers)
            own = self._own_answer(request.method, path, may_know_all=caller is not None)
            if own is not None:
                return _marked(own, request_id)
            route = relayed(path)
            if route is None:
                raise NotFound(f"There is no route {request.method} {path[:200]}.")
            assert caller is not None  # no relayed path is open
            return await self.relay.serve(request, route, request_id, caller)
        except RouterError as error:
            known = relayed(path)
            seconds = time.monotonic() - begun
            self.pool.stats.finished(known.label if known else "other", error.status, seconds)
            log.log(
                logging.DEBUG if error.status < 500 else logging.WARNING,
                "%s %s %s -> %d %s",
                request_id,
                request.method,
                path[:200],
                error.status,
                error.message,
            )
            return _marked(error_response(error), request_id)

    def _own_answer(
        self, method: str, path: str, *, may_know_all: bool
    ) -> web.StreamResponse | None:
        own = self._own.get(path)
        name = path[len(_MODEL) :] if own is None and path.startswith(_MODEL) else ""
        if own is None and not name:
            return None
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed(f"{path[:200]} takes GET, not {method}.")
        return own(may_know_all) if own else _json(model_document(self.pool, unquote(name)))

    def _health(self, may_know_all: bool) -> web.Response:
        return _json(health_document(self.pool, self.settings, detailed=may_know_all))

    def _root(self) -> web.Response:
        status = "draining" if self.draining else "running"
        return _json({"service": "mvllm-router", "version": __version__, "status": status})

    def _ready(self) -> web.Response:
        ready = not self.draining and bool(self.pool.candidates(None))
        if ready:
            return _json({"status": "ready"})
        why = "The router is stopping." if self.draining else "No server can take a request."
        return error_response(NoBackend(why, retry_after=2))

    def _metrics(self) -> web.Response:
        return web.Response(
            body=metrics_text(self._registry), headers={"Content-Type": CONTENT_TYPE}
        )

    def _snapshot(self) -> web.Response:
        waiting = self.relay.dispatch.waiting
        return _json(snapshot_document(self.pool, self.about, waiting, self.draining))


def _path(target: str) -> str:
    """Return the path of a request target, also of one in absolute form."""
    if not target.startswith("/"):
        target = urlsplit(target).path or "/"
    return target.partition("?")[0]


def _json(document: object) -> web.Response:
    return web.Response(
        body=json.dumps(document, ensure_ascii=False).encode(),
        content_type="application/json",
        charset="utf-8",
    )


def _marked(response: web.StreamResponse, request_id: str) -> web.StreamResponse:
    response.headers["x-request-id"] = request_id
    response.headers["server"] = "mvllm-router"
    return response

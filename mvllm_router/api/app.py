"""Every request comes here: the router's own routes are answered, the others are relayed."""

from __future__ import annotations

import logging
import time
from urllib.parse import urlsplit

from aiohttp import web

from mvllm_router import __version__
from mvllm_router.api.admin import Admin, Reload
from mvllm_router.api.health import health_document, server_models_document
from mvllm_router.api.load_stats import load_stats_document
from mvllm_router.api.metrics import CONTENT_TYPE, metrics_text, registry
from mvllm_router.api.models import model_document, models_document
from mvllm_router.api.own import Asked, Own, OwnRoutes, WrongMethod, json_response, showing
from mvllm_router.api.snapshot import About, snapshot_document
from mvllm_router.auth import ANYBODY, Caller, Gate
from mvllm_router.config import Settings
from mvllm_router.errors import NoBackend, NotFound, RouterError
from mvllm_router.pool import Pool
from mvllm_router.proxy.ask import new_request_id
from mvllm_router.proxy.front import client_address, error_response
from mvllm_router.proxy.headers import usable_request_id
from mvllm_router.proxy.relay import Relay
from mvllm_router.proxy.routes import relayed

log = logging.getLogger(__name__)


class App:
    """Answers clients. A reload replaces `settings` and `about`."""

    def __init__(
        self,
        pool: Pool,
        relay: Relay,
        gate: Gate,
        settings: Settings,
        about: About,
        reload: Reload,
    ) -> None:
        """Make the routes; `reload` reads the configuration again for the one that asks for it."""
        self.pool = pool
        self.relay = relay
        self.gate = gate
        self.settings = settings
        self.about = about
        self.draining = False
        self.own = OwnRoutes(self._table(Admin(pool, reload)))
        self._registry = registry(self.pool, gate, lambda: relay.dispatch.waiting)

    def _table(self, admin: Admin) -> dict[str, Own]:
        return {
            "/": showing(self._root),
            "/health": Own(self._health),
            "/ready": Own(self._ready),
            "/load-stats": showing(lambda: load_stats_document(self.pool)),
            "/server-models": showing(lambda: server_models_document(self.pool)),
            "/metrics": Own(self._metrics),
            "/v1/models": Own(self._models),
            "/v1/models/{id}": Own(self._model),
            "/router/snapshot": showing(self._snapshot),
            "/router/backends/{name}": Own(admin.show, {"PATCH": admin.change}),
            "/router/reload": Own(writes={"POST": admin.reload}),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; an error of the router's own becomes its OpenAI-shaped answer."""
        path = _path(request.raw_path)
        request_id = usable_request_id(request.headers.get("x-request-id")) or new_request_id()
        begun = time.monotonic()
        try:
            own = self.own.find(path)
            if own is not None:
                return _marked(await self._own_answer(request, path, *own), request_id)
            caller = self.gate.check(path, request.headers)
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
                "%s %s %s %s -> %d %s",
                request_id,
                client_address(request),
                request.method,
                path[:200],
                error.status,
                error.message,
            )
            response = error_response(error)
            if isinstance(error, WrongMethod):
                response.headers["allow"] = error.allow
            return _marked(response, request_id)

    async def _own_answer(
        self, request: web.BaseRequest, path: str, route: Own, name: str
    ) -> web.StreamResponse:
        caller: Caller | None = ANYBODY
        if request.method in route.writes:
            self.gate.check_admin(request.headers)
        else:
            caller = self.gate.check(path, request.headers)
        handler = route.handler(request.method, path)
        return await handler(Asked(request, name, caller))

    async def _health(self, asked: Asked) -> web.Response:
        detailed = asked.caller is not None
        return json_response(health_document(self.pool, self.settings, detailed=detailed))

    def _root(self) -> dict[str, str]:
        status = "draining" if self.draining else "running"
        return {"service": "mvllm-router", "version": __version__, "status": status}

    async def _ready(self, asked: Asked) -> web.Response:
        ready = not self.draining and bool(self.pool.candidates(None))
        if ready:
            return json_response({"status": "ready"})
        why = "The router is stopping." if self.draining else "No server can take a request."
        return error_response(NoBackend(why, retry_after=2))

    async def _metrics(self, asked: Asked) -> web.Response:
        return web.Response(
            body=metrics_text(self._registry), headers={"Content-Type": CONTENT_TYPE}
        )

    async def _models(self, asked: Asked) -> web.Response:
        return json_response(models_document(self.pool, asked.caller or ANYBODY))

    async def _model(self, asked: Asked) -> web.Response:
        return json_response(model_document(self.pool, asked.name, asked.caller or ANYBODY))

    def _snapshot(self) -> dict[str, object]:
        waiting = self.relay.dispatch.waiting
        keys = self.gate.holders
        return snapshot_document(self.pool, self.about, waiting, self.draining, keys)


def _path(target: str) -> str:
    """Return the path of a request target, also of one in absolute form."""
    if not target.startswith("/"):
        target = urlsplit(target).path or "/"
    return target.partition("?")[0]


def _marked(response: web.StreamResponse, request_id: str) -> web.StreamResponse:
    response.headers["x-request-id"] = request_id
    response.headers["server"] = "mvllm-router"
    return response

"""Every request comes here: the router's own routes are answered, the others are relayed."""

from __future__ import annotations

import logging
import time

import msgspec

from mvllm_router import __version__
from mvllm_router.api import requests
from mvllm_router.api.admin import Admin
from mvllm_router.api.config import config_document
from mvllm_router.api.entries import Entries
from mvllm_router.api.events import EventStreams
from mvllm_router.api.explain import explain_document
from mvllm_router.api.health import health_document, server_models_document
from mvllm_router.api.launched import Launched
from mvllm_router.api.load_stats import load_stats_document
from mvllm_router.api.metric_values import Sources
from mvllm_router.api.metrics import CONTENT_TYPE, Metrics
from mvllm_router.api.models import model_document, models_document
from mvllm_router.api.own import Asked, Found, Own, OwnRoutes, showing
from mvllm_router.api.query import Query
from mvllm_router.api.snapshot import About, snapshot_document
from mvllm_router.api.wanted import check_size, only_known, part_of, read_object
from mvllm_router.auth import ANYBODY, Gate
from mvllm_router.config import Settings
from mvllm_router.control.live import Live
from mvllm_router.errors import BadRequest, NoBackend, NotFound, RouterError
from mvllm_router.front.request import Request
from mvllm_router.front.response import JSON, Response, error_response, json_response
from mvllm_router.front.steps import in_task
from mvllm_router.policies import Supposed
from mvllm_router.policies.session import HEADER as SESSION
from mvllm_router.pool import Pool
from mvllm_router.pool.requests import CLIENT_LEFT
from mvllm_router.proxy.ask import new_request_id
from mvllm_router.proxy.headers import usable_request_id
from mvllm_router.proxy.relay import Relay
from mvllm_router.proxy.routes import KNOWN, Route, relayed

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
        live: Live,
    ) -> None:
        """Make the routes; `live` carries out what operators ask for."""
        self.pool = pool
        self.relay = relay
        self.gate = gate
        self.settings = settings
        self.about = about
        self.live = live
        self.draining = False
        self.events = EventStreams(pool.events)
        self.launched = Launched(pool)
        self._entries = Entries(pool)
        self.own = OwnRoutes(self._table(Admin(pool, live, self.launched)))
        self._metrics = Metrics(
            Sources(pool, gate, relay.dispatch.who_waits, self.launched.keepers)
        )

    def _table(self, admin: Admin) -> dict[str, Own]:
        return {
            "/": showing(self._root),
            "/health": Own(self._health),
            "/ready": Own(self._ready),
            "/load-stats": showing(lambda: load_stats_document(self.pool)),
            "/server-models": showing(lambda: server_models_document(self.pool)),
            "/metrics": Own(self._show_metrics),
            "/v1/models": Own(self._models),
            "/v1/models/{id}": Own(self._model),
            "/router/snapshot": Own(self._snapshot),
            "/router/requests": Own(self._requests, for_operators=True),
            "/router/events": Own(self.events.show),
            "/router/config": Own(self._config, for_operators=True),
            "/router/explain": Own(asks=self._explain),
            "/router/backends": Own(writes={"POST": admin.add}),
            "/router/backends/{name}": Own(
                admin.show, {"PATCH": admin.change, "DELETE": admin.remove}
            ),
            "/router/reload": Own(writes={"POST": admin.reload}),
            "/router/launch": showing(self.launched.document),
            "/router/launch/{name}": Own(self.launched.show, {"PATCH": self.launched.change}),
            "/router/logs/{name}": Own(self.launched.log, for_operators=True),
        }

    def opened(self, request: Request) -> None:
        """Learn who asks, before the body is there: it need not come from a stranger."""
        given = request.fields.first.get(b"x-request-id")
        used = usable_request_id(given) if given else None
        request.id = used or new_request_id()
        request.id_is_ours = used is None
        request.route = route = self._route(request.path)
        if isinstance(route, Route):
            request.label = route.label
            self.pool.stats.in_flight += 1
        if request.error is None:
            try:
                self._let_in(request)
            except RouterError as error:
                request.error = error

    def _route(self, path: str) -> Route | Found | None:
        return KNOWN.get(path) or self.own.find(path) or relayed(path)

    def _let_in(self, request: Request) -> None:
        route = request.route
        own = route.own if isinstance(route, Found) else None
        if own is not None and (request.method in own.writes or own.for_operators):
            self.gate.check_admin(request.fields)
        else:
            request.caller = self.gate.check(request.path, request.fields)
        if own is not None:
            check_size(request.announced)

    def ended(self, request: Request, *, client_left: bool) -> None:
        """Forget a request that was opened."""
        if request.label:
            self.pool.stats.in_flight -= 1
            if client_left:
                self.pool.stats.client_left[request.label] += 1
                self._keep(request, CLIENT_LEFT, time.monotonic(), "the client left")

    async def answer(self, request: Request) -> Response | None:
        """Answer one request; an error of the router's own becomes its OpenAI-shaped answer."""
        try:
            if request.error is not None:
                raise request.error
            route = request.route
            if isinstance(route, Route):
                await self.relay.serve(request, route)
                return None
            if isinstance(route, Found):
                return await self._own_answer(request, route)
            raise NotFound(f"There is no route {request.method} {request.path[:200]}.")
        except RouterError as error:
            return self._refusal(request, error)

    async def _own_answer(self, request: Request, found: Found) -> Response | None:
        handler = found.own.handler(request.method, request.path)
        await in_task()
        response = await handler(Asked(request, found.name, request.caller))
        if response is not None:
            response.headers["x-request-id"] = request.id
        return response

    def _refusal(self, request: Request, error: RouterError) -> Response:
        now = time.monotonic()
        self.pool.stats.finished(request.label or "other", error.status, now - request.arrived)
        self._keep(request, error.status, now, error.message)
        log.log(
            logging.DEBUG if error.status < 500 else logging.WARNING,
            "%s %s %s %s -> %d %s",
            request.id,
            request.address,
            request.method,
            request.path[:200],
            error.status,
            error.message,
        )
        response = error_response(error)
        response.headers["x-request-id"] = request.id
        return response

    def _keep(self, request: Request, status: int, now: float, error: str) -> None:
        """Keep a request that ends without an answer of a server."""
        key = request.caller.name if request.caller else ""
        self.pool.requests.add(request, now, status, key, error)

    async def _health(self, asked: Asked) -> Response:
        detailed = asked.caller is not None
        return json_response(health_document(self.pool, self.settings, detailed=detailed))

    def _root(self) -> dict[str, str]:
        status = "draining" if self.draining else "running"
        return {"service": "mvllm-router", "version": __version__, "status": status}

    async def _ready(self, asked: Asked) -> Response:
        ready = not self.draining and bool(self.pool.candidates(None))
        if ready:
            return json_response({"status": "ready"})
        why = "The router is stopping." if self.draining else "No server can take a request."
        return error_response(NoBackend(why, retry_after=2))

    async def _show_metrics(self, asked: Asked) -> Response:
        return Response(await self._metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def _models(self, asked: Asked) -> Response:
        return json_response(models_document(self.pool, asked.caller or ANYBODY))

    async def _model(self, asked: Asked) -> Response:
        return json_response(model_document(self.pool, asked.name, asked.caller or ANYBODY))

    async def _requests(self, asked: Asked) -> Response:
        query = Query(asked.request.query)
        limit = query.number("limit", requests.LIMIT, most=requests.MOST)
        after = query.number("after", 0)
        return _long_json(await requests.requests_document(self.pool, limit, after))

    async def _config(self, asked: Asked) -> Response:
        response = json_response(config_document(self.live))
        response.headers["etag"] = self.live.etag
        return response

    async def _explain(self, asked: Asked) -> Response:
        document = read_object(asked.request)
        only_known(document, ("model", "path", "body", "session"))
        model, path = document.get("model"), document.get("path")
        if not isinstance(model, (str, type(None))):
            raise BadRequest("`model` has to be a name.", param="model")
        if path is not None and not (isinstance(path, str) and relayed(path)):
            raise BadRequest("`path` is none that is relayed.", param="path")
        session = document.get("session") or ""
        if not isinstance(session, str):
            raise BadRequest("`session` has to be a text.", param="session")
        body = part_of(asked.request, "body")
        wish = Supposed(model, body, {SESSION: session} if session else {})
        return json_response(explain_document(self.pool, self.relay.dispatch, wish))

    async def _snapshot(self, asked: Asked) -> Response:
        document = snapshot_document(
            self.pool,
            self.about,
            await self._entries.write(self.launched.memory()),
            self.relay.dispatch.who_waits(),
            self.draining,
            self.gate.holders,
            self.live.overlay.count,
        )
        return _long_json(document)


def _long_json(document: object) -> Response:
    """Return what a dashboard asks for each second, several times as fast as `json_response`."""
    return Response(msgspec.json.encode(document), headers={"content-type": JSON})

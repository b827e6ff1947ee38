"""Servers that the router started itself: /router/launch and /router/logs."""

from __future__ import annotations

import time

from mvllm_router.api.own import Asked
from mvllm_router.api.query import Query
from mvllm_router.api.wanted import check_size, hint_at, only_known, read_object, short
from mvllm_router.config import LAUNCH_KEYS
from mvllm_router.config.rules import Mismatch
from mvllm_router.errors import BadRequest, Conflict, NotFound
from mvllm_router.front.response import Response, json_response
from mvllm_router.launch.faults import CannotLaunch
from mvllm_router.launch.journal import KEPT
from mvllm_router.launch.keeper import Keeper
from mvllm_router.launch.life import Phase
from mvllm_router.launch.supervisor import Supervisor
from mvllm_router.pool import Pool

_LINES = 100
_REPLICAS = next(key.rule for key in LAUNCH_KEYS if key.name == "replicas")
_EXPECTED = 'Expected: {"restart": true} for a server, {"replicas": 2} for a launch.'

Document = dict[str, object]


class Launched:
    """Answers what concerns launched servers; `supervisor` is None where nothing is launched."""

    def __init__(self, pool: Pool) -> None:
        self.supervisor: Supervisor | None = None
        self._pool = pool

    def keepers(self) -> list[Keeper]:
        """Return who looks after servers, for the metrics."""
        return list(self.supervisor.keepers.values()) if self.supervisor else []

    def memory(self) -> dict[str, Document]:
        """Return what the snapshot says besides of servers that were started here, by name."""
        return {keeper.name: memory_document(keeper) for keeper in self.keepers()}

    def document(self) -> Document:
        """GET /router/launch: all launches and their servers."""
        supervisor = self.supervisor
        if supervisor is None:
            return {"launches": []}
        return {"launches": [self._launch(supervisor, name) for name in supervisor.launches]}

    async def show(self, asked: Asked) -> Response:
        """GET /router/launch/{name}: one launch, or one server."""
        supervisor = self._supervisor()
        if asked.name in supervisor.launches:
            return json_response(self._launch(supervisor, asked.name))
        return json_response(server_document(self._keeper(asked.name)))

    async def change(self, asked: Asked) -> Response:
        """PATCH /router/launch/{name}: restarts a server, or gives a launch more or fewer."""
        document = read_object(asked.request)
        only_known(document, ("restart", "replicas"))
        supervisor = self._supervisor()
        if "replicas" in document and asked.name in supervisor.launches:
            return await self._scale(asked, supervisor, document["replicas"])
        if document == {"restart": True} and asked.name not in supervisor.launches:
            keeper = self._keeper(asked.name)
            if keeper.leaving:
                raise Conflict(f"`{keeper.name}` is being ended.")
            keeper.restart()
            self._note(asked, keeper.name, "restart")
            return json_response(server_document(keeper))
        raise BadRequest(f"The body does not say what is to be done. {_EXPECTED}")

    async def log(self, asked: Asked) -> Response:
        """GET /router/logs/{name}: the last lines that a server printed."""
        check_size(asked.request.announced)
        keeper = self._keeper(asked.name)
        query = Query(asked.request.query)
        limit = query.number("limit", _LINES, most=KEPT)
        lines = keeper.journal.after(query.number("after", keeper.journal.count - limit))
        document = {"lines": list(lines), "newest": keeper.journal.count}
        return json_response({**document, "file": str(keeper.journal.path)})

    async def _scale(self, asked: Asked, supervisor: Supervisor, replicas: object) -> Response:
        assert _REPLICAS is not None
        try:
            count = _REPLICAS.check(replicas)
            assert isinstance(count, int)
            await supervisor.scale(supervisor.launches[asked.name], count)
        except Mismatch as mismatch:
            raise BadRequest(f"{mismatch.message}.", param="replicas") from None
        except CannotLaunch as error:
            raise Conflict(f"{error.whole}.") from None
        self._note(asked, "", f"{asked.name} has {count} servers")
        return json_response(self._launch(supervisor, asked.name))

    def _launch(self, supervisor: Supervisor, name: str) -> Document:
        launch = supervisor.launches[name]
        keepers = supervisor.of(name)
        return {
            "name": name,
            "engine": launch.engine,
            "model": launch.model,
            "replicas": sum(not keeper.leaving for keeper in keepers),
            "servers": [server_document(keeper) for keeper in keepers],
        }

    def _note(self, asked: Asked, name: str, what: str) -> None:
        text = f"{what}, asked for from {asked.request.address}"
        self._pool.events.add("admin", name, text)

    def _supervisor(self) -> Supervisor:
        if self.supervisor is None:
            raise NotFound("This router has started no servers: `router launch` does.")
        return self.supervisor

    def _keeper(self, name: str) -> Keeper:
        keepers = self._supervisor().keepers
        if name not in keepers:
            there = ", ".join(keepers) or "none"
            hint = hint_at(name, list(keepers))
            raise NotFound(f"No server `{short(name)}` was started here.{hint} There are: {there}")
        return keepers[name]


def server_document(keeper: Keeper) -> Document:
    """Return what is to be known of a server. What it printed is not part of it."""
    life = keeper.life
    return {
        "name": keeper.name,
        "url": keeper.spec.url,
        "phase": keeper.phase,
        "stage": keeper.stage if life.phase is Phase.STARTING else "",
        "since_seconds": round(time.monotonic() - life.since, 1),
        "process": keeper.pid,
        **memory_document(keeper),
        "gpus": [gpu.uuid or str(gpu.number) for gpu in keeper.place.gpus],
        "starts": life.starts,
        "failures": life.failures,
        "reason": life.reason,
        "outdated": keeper.is_outdated,
    }


def memory_document(keeper: Keeper) -> Document:
    """Return what all processes of a server take; null where that is not known."""
    return {"memory_bytes": keeper.memory, "gpu_memory_bytes": keeper.gpu_memory}

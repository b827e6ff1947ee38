"""What changes a running router: /router/backends, /router/backends/{name} and /router/reload.

Who may do it is checked before (`Gate.check_admin`). A change is live at once and lies over the
file until the router is started anew, unless it is asked to be written there.
"""

from __future__ import annotations

from mvllm_router.api.edits import adding, changing, removing
from mvllm_router.api.entries import server_entry
from mvllm_router.api.launched import Launched
from mvllm_router.api.own import Asked
from mvllm_router.api.wanted import (
    ConfigRefused,
    Wanted,
    check_match,
    hint_at,
    only_known,
    read_object,
    server_of,
    short,
    wanted_of,
    write_of,
)
from mvllm_router.config import ConfigDiff, ServerSpec
from mvllm_router.control.live import Change, Live
from mvllm_router.errors import Conflict, NotFound, RouterError
from mvllm_router.front.response import Response, json_response
from mvllm_router.pool import Backend, Pool

# Servers named in an error before it is cut short.
_NAMED = 20


class Admin:
    """Answers the routes that change something, and shows what they change."""

    def __init__(self, pool: Pool, live: Live, launched: Launched) -> None:
        self._pool = pool
        self._live = live
        self._launched = launched

    async def show(self, asked: Asked) -> Response:
        """GET /router/backends/{name}: the server's entry of the snapshot."""
        return self._entry(self._backend(asked.name))

    async def add(self, asked: Asked) -> Response:
        """POST /router/backends: takes a server in."""
        document = read_object(asked.request)
        spec, write = server_of(document), write_of(document)

        def plan() -> Change:
            check_match(asked.request, self._live.etag)
            self._check_new(spec)
            edit = adding(self._live, spec) if write else None
            overlay = self._live.overlay.with_server(spec)
            return Change(overlay, edit, lambda: self._note(asked, spec.name, "added", write))

        await self._live.change(plan)
        return self._entry(self._backend(spec.name), write, status=201)

    async def change(self, asked: Asked) -> Response:
        """PATCH /router/backends/{name}: all that the body asks for, or nothing."""
        wanted = wanted_of(read_object(asked.request))
        self._backend(asked.name)  # who waits for a turn should know that it exists

        def plan() -> Change:
            backend = self._matching(asked)
            said = _changes(backend, wanted)
            overlay = self._live.overlay
            if wanted.values:
                overlay = overlay.with_values(backend.name, wanted.values)
            edit = changing(self._live, overlay, backend.name) if wanted.write else None

            def then() -> None:
                self._turn(backend.name, wanted)
                if said or wanted.write:
                    self._note(asked, asked.name, said or "its live changes", wanted.write)

            return Change(overlay, edit, then)

        await self._live.change(plan)
        return self._entry(self._backend(asked.name), wanted.write)

    async def remove(self, asked: Asked) -> Response:
        """DELETE /router/backends/{name}: what the server has in flight finishes."""
        document = read_object(asked.request)
        only_known(document, ("write",))
        write = write_of(document)

        def plan() -> Change:
            nonlocal write
            live = self._live
            if any(asked.name == spec.name for spec in live.launched):
                raise Conflict(f"This router has started `{asked.name}`: use `router scale`.")
            if not (write and asked.name in live.overlay.removed):  # else it is gone already
                self._matching(asked)
            edit = removing(live, asked.name) if write else None
            write = edit is not None
            overlay = live.overlay.without_server(asked.name)
            return Change(overlay, edit, lambda: self._note(asked, asked.name, "removed", write))

        await self._live.change(plan)
        return json_response({"removed": asked.name, **self._written(write)})

    async def reload(self, asked: Asked) -> Response:
        """POST /router/reload: reads the file again, as SIGHUP does."""
        only_known(read_object(asked.request), ())
        live = self._live
        reloaded = await live.reload(lambda: check_match(asked.request, live.etag))
        if reloaded.refused:
            raise ConfigRefused(reloaded.refused, reloaded.problems)
        if not reloaded.changed:
            self._pool.events.add("reload", "", "configuration read again, nothing has changed")
        self._note(asked, "", "reload", write=False)
        response = json_response({"changed": changed_document(reloaded.changed)})
        response.headers["etag"] = live.etag
        return response

    def _check_new(self, spec: ServerSpec) -> None:
        """Refuse a server that is there.

        Raises:
            Conflict: one has its name or its address.
        """
        for other in self._live.config.servers:
            if other.name == spec.name:
                raise Conflict(f"There is a server `{spec.name}` already.", param="name")
            if other.url == spec.url:
                raise Conflict(f"The server `{other.name}` has this URL already.", param="url")

    def _turn(self, name: str, wanted: Wanted) -> None:
        if wanted.turn is not None:
            wanted.turn(self._pool, name)

    def _note(self, asked: Asked, name: str, what: str, write: bool) -> None:
        written = f", written to {self._live.config.path}" if write else ""
        text = f"{what}{written}, asked for from {asked.request.address}"
        self._pool.events.add("admin", name, text)

    def _written(self, write: bool) -> dict[str, str]:
        return {"written": str(self._live.config.path)} if write else {}

    def _entry(self, backend: Backend, write: bool = False, *, status: int = 200) -> Response:
        memory = self._launched.memory().get(backend.name, {})
        document = server_entry(self._pool, backend) | memory | self._written(write)
        response = json_response(document)
        response.status = status
        response.headers["etag"] = backend.etag
        return response

    def _matching(self, asked: Asked) -> Backend:
        """Return the server that is meant, in the state that who asks has seen.

        Raises:
            NotFound, PreconditionFailed: there is none, or it is another one by now.
        """
        backend = self._backend(asked.name)
        check_match(asked.request, backend.etag)
        return backend

    def _backend(self, name: str) -> Backend:
        backend = self._pool.backends.get(name)
        if backend is None:
            raise _no_server(name, list(self._pool.backends))
        return backend


def changed_document(diff: ConfigDiff) -> dict[str, object]:
    """Return what a reload changed: names only, of servers, their fields, clients and so on."""
    return {
        "added": list(diff.added),
        "removed": list(diff.removed),
        "updated": {name: list(keys) for name, keys in diff.changed.items()},
        "keys": list(diff.keys),
        "settings": list(diff.live),
        "launches": dict(diff.launches),
        "needs_restart": list(diff.needs_restart),
    }


def _changes(backend: Backend, wanted: Wanted) -> str:
    """Say what will differ; nothing when all is as it is wanted already."""
    said = []
    if wanted.state is not None and backend.draining != (wanted.state == "drain"):
        said.append(wanted.state)
    for key, value in wanted.values.items():
        before = getattr(backend.spec, key)
        if before != value:
            said.append(f"{key} {_shown(before)} -> {_shown(value)}")
    return ", ".join(said)


def _shown(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _no_server(name: str, there: list[str]) -> RouterError:
    names = ", ".join(there[:_NAMED]) + (", ..." if len(there) > _NAMED else "")
    hint = hint_at(name, there)
    return NotFound(f"There is no server `{short(name)}`.{hint} There are: {names or 'none'}")

"""`router add`, `router remove`, `router weight`: which servers a running router has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import quote

import typer

from mvllm_router.cli.manage import Remote
from mvllm_router.cli.output import Exit, as_json, fail
from mvllm_router.client import Refused
from mvllm_router.config.problems import printable

_NOT_KEPT = "until the router is started anew; --write puts it into its file as well"


def add_server(
    router: Remote, url: str, keys: Mapping[str, Any], *, write: bool, as_document: bool
) -> None:
    """Let the router take a server in; `keys` are those of its entry that were given."""
    body = {"url": url, **{key: value for key, value in keys.items() if value is not None}}
    server = _asked(router, "POST", "/router/backends", {**body, "write": write})
    if as_document:
        return as_json(server)
    state = f"{server.get('state')}: {server.get('reason')}"
    typer.echo(printable(f"{server.get('name')} is added ({state})"))
    return _where(server)


def remove_server(router: Remote, name: str, *, write: bool, as_document: bool) -> None:
    """Let the router do without a server; what runs on it finishes."""
    answer = _asked(router, "DELETE", _path(name), {"write": write})
    if as_document:
        return as_json(answer)
    typer.echo(f"{printable(name)} is removed; what runs on it finishes")
    return _where(answer)


def weigh_server(
    router: Remote, name: str, weight: float, *, write: bool, as_document: bool
) -> None:
    """Let a server get a larger or a smaller share of the requests."""
    server = _asked(router, "PATCH", _path(name), {"weight": weight, "write": write})
    if as_document:
        return as_json(server)
    capacity = f"it counts as {server.get('max_capacity')} requests at once"
    typer.echo(printable(f"{name} has the weight {server.get('weight')}: {capacity}"))
    return _where(server)


def _where(answer: Mapping[str, Any]) -> None:
    written = answer.get("written")
    typer.echo(f"written to {printable(str(written))}" if written else f"It holds {_NOT_KEPT}.")


def _path(name: str) -> str:
    return f"/router/backends/{quote(name, safe='')}"


def _asked(router: Remote, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        answer = router.ask(method, path, body)
    except Refused as error:
        _refused(error)
    if not {"name", "removed"} & answer.keys():
        router.is_none()
    return answer


def _refused(error: Refused) -> NoReturn:
    """End with 2 for what was asked for in the wrong way, with 1 for what cannot be done."""
    said = error.document.get("error")
    is_usage = error.status == 404 or (
        error.status == 400
        and ("problems" in error.document or bool(isinstance(said, dict) and said.get("param")))
    )
    fail(
        "\n".join(map(printable, str(error).splitlines())), Exit.USAGE if is_usage else Exit.FAILED
    )

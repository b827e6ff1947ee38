"""`router logs`, `router restart`, `router scale`: servers that a running router has started."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import typer

from mvllm_router.cli.manage import Remote, progress
from mvllm_router.cli.output import Exit, count, fail
from mvllm_router.client import Refused
from mvllm_router.config.problems import printable

# Seconds between two looks.
_TICK = 0.5
_NOT_FOUND = 404
_SETTLED = ("ready", "failed")


def show_log(router: Remote, name: str, lines: int, *, follow: bool) -> None:
    """Print the last lines of a server's log, and with `follow` those that come, for ever."""
    path = f"/router/logs/{quote(name, safe='')}"
    document = _asked(router, "GET", f"{path}?limit={max(1, lines)}")
    _print(document["lines"][-lines:] if lines else [])
    while follow:
        time.sleep(_TICK)
        document = _asked(router, "GET", f"{path}?after={document['newest']}")
        _print(document["lines"])


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        typer.echo(printable(line))


def restart_servers(router: Remote, name: str | None, *, rolling: bool) -> None:
    """Restart one server, or with `rolling` those of the launch `name`, of all for None."""
    if name is None and not rolling:
        fail("name a server, or use --rolling for all", Exit.USAGE)
    names = _names(router, name) if rolling else [str(name)]
    for one in names:
        _restart(router, one)


def _names(router: Remote, launch: str | None) -> list[str]:
    launches = _asked(router, "GET", "/router/launch")["launches"]
    chosen = [one for one in launches if launch in (None, one["name"])]
    if not chosen:
        there = ", ".join(one["name"] for one in launches) or "none"
        fail(printable(f"there is no launch `{launch}`; there are: {there}"), Exit.USAGE)
    return [server["name"] for one in chosen for server in one["servers"]]


def _restart(router: Remote, name: str) -> None:
    path = f"/router/launch/{quote(name, safe='')}"
    server = _asked(router, "GET", path)
    starts = server.get("starts", 0)
    _asked(router, "PATCH", path, {"restart": True})
    with progress() as show:
        while server.get("starts", 0) == starts or server["phase"] not in _SETTLED:
            show(f"{name}: {server.get('stage') or server['phase']}")
            time.sleep(_TICK)
            server = _asked(router, "GET", path)
            if server["phase"] == "failed":
                break
    if server["phase"] == "failed":
        fail(
            printable(f"{name} failed: {server['reason']}"), Exit.FAILED, hint=f"router logs {name}"
        )
    typer.echo(printable(f"{name} is restarted and ready"))


def scale_launch(router: Remote, name: str, servers: int) -> None:
    """Give a launch so many servers, and wait until they are up and the others gone."""
    path = f"/router/launch/{quote(name, safe='')}"
    launch = _asked(router, "PATCH", path, {"replicas": servers})
    with progress() as show:
        while not _is_settled(launch):
            states = (f"{s['name']} {s['stage'] or s['phase']}" for s in launch["servers"])
            show(", ".join(states))
            time.sleep(_TICK)
            launch = _asked(router, "GET", path)
    failed = [s for s in launch["servers"] if s["phase"] == "failed"]
    if failed:
        text = "\n".join(f"{s['name']} failed: {s['reason']}" for s in failed)
        fail("\n".join(map(printable, text.splitlines())), Exit.FAILED)
    typer.echo(printable(f"{name} has {count(len(launch['servers']), 'server')}"))


def _is_settled(launch: Mapping[str, Any]) -> bool:
    servers = launch["servers"]
    return len(servers) == launch["replicas"] and all(s["phase"] in _SETTLED for s in servers)


def _asked(
    router: Remote, method: str, path: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    try:
        answer = router.ask(method, path, body)
    except Refused as error:
        fail(printable(str(error)), Exit.USAGE if error.status == _NOT_FOUND else Exit.FAILED)
    if not {"launches", "servers", "phase", "lines"} & answer.keys():
        router.is_none()
    return answer

"""`router drain`, `router enable`, `router reload`: what changes a running router."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote

import typer

from mvllm_router.cli.output import Exit, as_json, count, fail, problems
from mvllm_router.client import NotAuthorised, Refused, Unreachable, get, send
from mvllm_router.config.problems import printable

Server = Mapping[str, Any]  # an entry of the snapshot

# Seconds between two looks at a server that is being emptied.
_TICK = 0.5
# Seconds that completion may take; a shell waits for it.
_PATIENCE_OF_A_SHELL = 1.0
_NOT_FOUND = 404


@dataclass(frozen=True)
class Remote:
    """A running router, and the key for what changes it. Its methods end the command on failure."""

    url: str
    key: str | None = field(repr=False)

    def server(self, name: str) -> Server:
        return self._server("GET", name, None, unknown=Exit.FAILED)

    def change(self, name: str, state: str) -> Server:
        return self._server("PATCH", name, {"state": state}, unknown=Exit.USAGE)

    def _server(
        self, method: str, name: str, body: Mapping[str, Any] | None, *, unknown: Exit
    ) -> Server:
        """Return the entry of a server; `unknown` is the exit code when there is none."""
        try:
            server = self.ask(method, f"/router/backends/{quote(name, safe='')}", body)
        except Refused as error:
            fail(printable(str(error)), unknown if error.status == _NOT_FOUND else Exit.FAILED)
        if not {"state", "reason", "draining", "in_flight"} <= server.keys():
            self.is_none()
        return server

    def is_none(self) -> NoReturn:
        fail(f"{self.url} answers, but not as a router does", Exit.UNREACHABLE)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what the router answers.

        Raises:
            Refused: it does not do it.
        """
        try:
            return send(method, self.url, path, body, self.key)
        except Unreachable as error:
            hint = error.hint or "name its address with --url or ROUTER_URL"
            fail(str(error), Exit.UNREACHABLE, hint=hint)
        except NotAuthorised as error:
            hint = "set ROUTER_ADMIN_KEY or use --admin-key"
            fail(printable(str(error)), Exit.NOT_AUTHORISED, hint=hint)


def drain_server(
    router: Remote, name: str, *, timeout: float, wait: bool, as_document: bool
) -> None:
    """Let a server get no new requests, and wait until it has none.

    Args:
        timeout: seconds to wait at most; the command then ends with 1.
        wait: False returns at once.
    """
    server = router.change(name, "drain")
    if wait:
        server = _wait(router, name, server, timeout)
    if as_document:
        as_json(server)
    running = server["in_flight"]
    if running and wait:
        what = "request still runs" if running == 1 else "requests still run"
        fail(f"{running} {what} on {name} after {timeout:g} s", Exit.FAILED, hint=_STILL_RUNNING)
    if not as_document:
        left = f", {count(running, 'request')} still running" if running else ", nothing runs"
        typer.echo(f"{name} gets no new requests{left}")


_STILL_RUNNING = (
    "it gets no new ones. The same command goes on waiting, `router enable` ends the draining; "
    "a stop of the server itself cuts them off"
)


def enable_server(router: Remote, name: str, *, as_document: bool) -> None:
    """Let a server get requests again."""
    server = router.change(name, "enabled")
    if as_document:
        return as_json(server)
    if server["state"] == "up":
        typer.echo(f"{name} takes requests again")
    else:
        why = printable(f"{server['state']}: {server['reason']}")
        typer.echo(f"{name} takes requests again once it is up ({why})")
    return None


def reload_config(router: Remote, *, as_document: bool) -> None:
    """Let the router read its file again, and print what has changed."""
    try:
        document = router.ask("POST", "/router/reload", {})
    except Refused as error:
        if as_document:
            as_json(error.document)
        if error.document.get("problems"):
            problems("\n".join(map(printable, str(error).splitlines())))
            raise typer.Exit(Exit.FAILED) from None
        fail(printable(str(error)), Exit.FAILED)
    if "changed" not in document:
        router.is_none()
    if as_document:
        return as_json(document)
    typer.echo("\n".join(_changes(document["changed"])) or "nothing has changed")
    return None


def _changes(changed: Mapping[str, Any]) -> Iterator[str]:
    updated = [f"{name} ({', '.join(keys)})" for name, keys in changed["updated"].items()]
    launches = changed.get("launches", {})  # of an older router there are none
    for what, names in (
        ("added", changed["added"]),
        ("removed", changed["removed"]),
        ("updated", updated),
        ("keys", changed["keys"]),
        ("settings", changed["settings"]),
        ("launches", [f"{name} ({how})" for name, how in launches.items()]),
        ("needs a restart", changed["needs_restart"]),
    ):
        if names:
            yield printable(f"{what}: {', '.join(names)}")
    for name in (name for name, how in launches.items() if how == "changed"):
        yield printable(f"`router restart --rolling {name}` lets its servers take the change")


# --- waiting


def _wait(router: Remote, name: str, server: Server, timeout: float) -> Server:
    """Return the server's entry once it is empty, or what it is when the time is over."""
    end = time.monotonic() + timeout
    with progress() as show:
        while server["in_flight"] and (left := end - time.monotonic()) > 0:
            show(f"{name}: waiting for {count(server['in_flight'], 'request')} to finish")
            time.sleep(min(_TICK, left))
            server = router.server(name)
            if not server["draining"]:
                fail(f"{name} is not drained: it takes requests again", Exit.FAILED)
    return server


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Give a function that shows a line: in place on a terminal, else whenever it is another."""
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    from rich.console import Console
    from rich.text import Text

    hint = Text(" (Ctrl-C ends the waiting, not the draining)", "dim")
    with Console(stderr=True).status("") as status:
        yield lambda line: status.update(Text(printable(line)) + hint)


class _Lines:
    """Prints a line unless it is the one before."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, line: str) -> None:
        if line != self._last:
            typer.echo(printable(line), err=True)
        self._last = line


# --- completion


def server_names(url: str, key: str | None) -> list[str]:
    """Return the names of a running router's servers; none when it does not answer at once."""
    return _of_servers(url, key, lambda server: [server["name"]])


def model_names(url: str, key: str | None) -> list[str]:
    """Return the names of the models that a running router's servers have, as `server_names`."""
    return sorted(set(_of_servers(url, key, lambda server: server["models"])))


def _of_servers(url: str, key: str | None, names: Callable[[Server], list[object]]) -> list[str]:
    try:
        snapshot = get(url, "/router/snapshot", key, timeout=_PATIENCE_OF_A_SHELL)
        return [str(name) for server in snapshot["servers"] for name in names(server)]
    except (Unreachable, NotAuthorised, LookupError, TypeError):
        return []

"""What a person asks the router to change: requests of its admin API. Plain, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from mvllm_router.client import Refused
from mvllm_router.config import ConfigError, server_from
from mvllm_router.config.problems import printable
from mvllm_router.dashboard.document import Document, entries, look_up, number, text
from mvllm_router.dashboard.lines import cut

_WEIGHT_STEP = 0.1
_LEAST_WEIGHT = 0.01
_CHANGED_MEANWHILE = 412  # its ETag is another one by now
_DIGITS = 9  # of a number of requests: int() itself fails at some thousand
_QUOTED = 24  # columns of what was typed that a message shows


@dataclass(frozen=True, slots=True)
class Change:
    """One request; `done` says what has happened when it went well. `match` is an ETag."""

    method: str
    path: str
    body: Mapping[str, Any]
    done: str
    server: str = ""
    match: str | None = field(default=None)


class Mistyped(ValueError):
    """What was typed is no such value; the message says what is expected."""


def path_of(name: str) -> str:
    """Return the route of a server."""
    return f"/router/backends/{quote(name, safe='')}"


def drain(name: str) -> Change:
    body = {"state": "drain"}
    return Change("PATCH", path_of(name), body, "gets no new requests; those that run finish", name)


def enable(name: str) -> Change:
    return Change("PATCH", path_of(name), {"state": "enabled"}, "takes requests again", name)


def weigh(name: str, server: Document, steps: int) -> Change:
    """Raise or lower a weight by tenths; it stays above nothing."""
    before = number(server, "weight") or 1.0
    weight = max(min(before, _LEAST_WEIGHT), round(before + steps * _WEIGHT_STEP, 2))
    return Change("PATCH", path_of(name), {"weight": weight}, f"has the weight {weight:g}", name)


def resize(name: str, server: Document, values: Mapping[str, str], *, write: bool) -> Change:
    """Change capacity and weight to what was typed; what was left as it is, is left out.

    An empty capacity is the engine's own.

    Raises:
        Mistyped: it is no number, or nothing was changed.
    """
    body: dict[str, Any] = {}
    words = []
    capacity = _count(values["capacity"]) if values["capacity"] else None
    if capacity != number(server, "max_concurrent_requests"):
        body["max_concurrent_requests"] = capacity
        words.append(f"the capacity {capacity or 'of its engine'}")
    if values["weight"] and _weight(values["weight"]) != number(server, "weight"):
        body["weight"] = _weight(values["weight"])
        words.append(f"the weight {body['weight']:g}")
    if not body:
        raise Mistyped("nothing was changed")
    body |= _writing(write)
    match = look_up(server, "etag")
    tag = match if isinstance(match, str) else None
    return Change("PATCH", path_of(name), body, f"has {' and '.join(words)}", name, tag)


def add(values: Mapping[str, str], *, write: bool) -> Change:
    """Add a server.

    Raises:
        Mistyped: a number is none, or the router would not take the rest either.
    """
    url = values["url"]
    if not url:
        raise Mistyped("an address is needed, such as http://gpu1:8000")
    body: dict[str, Any] = {"url": url if "://" in url else f"http://{url}"}
    for key in ("name", "engine", "api_key"):
        if values.get(key):
            body[key] = values[key]
    if values.get("capacity"):
        body["max_concurrent_requests"] = _count(values["capacity"])
    _check(body)
    body |= _writing(write)
    return Change("POST", "/router/backends", body, "was added", values.get("name") or url)


def _check(server: Mapping[str, Any]) -> None:
    # By the router's own rules, while what was typed can still be mended.
    try:
        server_from(server, environ={})
    except ConfigError as error:
        found = [
            f"{one.message} ({one.hint})" if one.hint else one.message for one in error.problems
        ]
        raise Mistyped("; ".join(found)) from None


def remove(name: str, *, write: bool) -> Change:
    return Change("DELETE", path_of(name), _writing(write), "was removed", name)


def reload() -> Change:
    return Change("POST", "/router/reload", {}, "configuration read again")


def _writing(write: bool) -> dict[str, Any]:
    return {"write": True} if write else {}


def _count(typed: str) -> int:
    if not typed.isdecimal() or len(typed) > _DIGITS or int(typed) < 1:
        raise Mistyped(f"`{cut(typed, _QUOTED)}` is no number of requests: 1 or more")
    return int(typed)


def _weight(typed: str) -> float:
    try:
        weight = float(typed)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise Mistyped(f"`{cut(typed, _QUOTED)}` is no weight: a number above 0")
    return weight


def outcome(change: Change, answer: Document) -> str:
    """Say what a change came to, in one line for a toast and for the events."""
    words = f"{change.server} {change.done}".strip()
    changed = look_up(answer, "changed")
    if isinstance(changed, Mapping):
        words += f": {_changed(changed)}"
    if isinstance(written := look_up(answer, "written"), str):
        words += f"; written to {written}"
    return words


def why_not(error: Exception) -> str:
    """Say why a change was not made: the mistakes of a file in a line each, with their places."""
    if isinstance(error, Refused) and error.status == _CHANGED_MEANWHILE:
        return "somebody else has changed it meanwhile; open the dialog again"
    said = str(error).splitlines()
    if len(said) > 1 and isinstance(error, Refused):
        problems = entries(error.document, "problems")
        said = [_placed(one) for one in problems if text(one, "label") != "warning"] or said
    return "\n".join(map(printable, said))


def _placed(problem: Document) -> str:
    numbers = [number(problem, key) for key in ("line", "column")]
    file = text(problem, "place").rpartition("/")[2]
    place = ":".join([file, *(f"{n:.0f}" for n in numbers if n is not None)])
    hint = text(problem, "hint")
    return f"{place}: {text(problem, 'message')}" + (f" ({hint})" if hint else "")


def _changed(changed: Mapping[str, Any]) -> str:
    parts = []
    for key, value in changed.items():
        if value:
            names = ", ".join(map(str, value))
            parts.append(f"{key.replace('_', ' ')}: {names}")
    return "; ".join(parts) or "nothing has changed"

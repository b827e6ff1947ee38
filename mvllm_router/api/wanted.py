"""What the body of a change may ask for, and what is said to one that asks for something else.

A change needs a body of the type `application/json`, also where it is empty: a page in an
operator's browser cannot send that to another site without asking first, and the router allows no
such thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mvllm_router.config import ConfigError, Mismatch, ServerSpec, server_from
from mvllm_router.config.problems import Problem, did_you_mean, printable
from mvllm_router.config.server_keys import SERVER_RULES
from mvllm_router.errors import BadRequest, PreconditionFailed, TooLarge
from mvllm_router.front.request import Request
from mvllm_router.pool import Pool

_MAX_BODY = 64 * 1024  # bytes
# Characters of a client's text that an error repeats.
_SHOWN = 100
# What is told of each problem of a configuration; its line of the file is in the message.
_PROBLEM = ("label", "message", "place", "line", "column", "hint")
# Keys of a server's entry that only a file may have: they name files and variables of the machine
# that the router runs on.
SERVER_KEYS = (
    "url",
    "name",
    "engine",
    "weight",
    "max_concurrent_requests",
    "models",
    "tags",
    "api_key",
    "headers",
    "tls_verify",
)
_EXPECTED = (
    'Expected: {"state": "drain" | "enabled"}, {"weight": 2.0}, {"max_concurrent_requests": 16}, '
    "or several of these."
)

TurnState = Callable[[Pool, str], object]
_STATES: Mapping[str, TurnState] = {"drain": Pool.drain, "enabled": Pool.enable}


class ConfigRefused(BadRequest):
    """A configuration was not taken in; its problems stand beside the error, one by one."""

    def __init__(self, message: str, problems: Collection[Problem]) -> None:
        super().__init__(message)
        self._problems = problems

    def body(self) -> bytes:
        problems = [{key: getattr(one, key) for key in _PROBLEM} for one in self._problems]
        return json.dumps({**self.document(), "problems": problems}).encode()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be changed of a server: None leaves `state` as it is."""

    state: str | None = None
    values: Mapping[str, object] = field(default_factory=dict)
    write: bool = False  # also into the file

    @property
    def turn(self) -> TurnState | None:
        return None if self.state is None else _STATES[self.state]


def wanted_of(document: Mapping[str, Any]) -> Wanted:
    """Return the change of a server that a body asks for.

    Raises:
        BadRequest: a key is unknown, a value is not what is expected, or there is nothing.
    """
    only_known(document, ("state", "weight", "max_concurrent_requests", "write"))
    if not document:
        raise BadRequest(f"The body asks for no change. {_EXPECTED}")
    state = document.get("state")
    if "state" in document and (not isinstance(state, str) or state not in _STATES):
        raise BadRequest('`state` has to be "drain" or "enabled".', param="state")
    values = {
        key: _value(key, document[key])
        for key in ("weight", "max_concurrent_requests")
        if key in document
    }
    return Wanted(state, values, write_of(document))


def _value(key: str, value: object) -> object:
    if key == "max_concurrent_requests" and value is None:
        return None  # the server is asked again, or its engine's default holds
    try:
        return SERVER_RULES[key].check(value)
    except Mismatch as mismatch:
        hint = f" ({mismatch.hint})" if mismatch.hint else ""
        raise BadRequest(f"{mismatch.message}{hint}.", param=key) from None


def write_of(document: Mapping[str, Any]) -> bool:
    """Return whether a change is to be in the file, too.

    Raises:
        BadRequest: it is neither true nor false.
    """
    write = document.get("write", False)
    if not isinstance(write, bool):
        raise BadRequest("`write` has to be true or false.", param="write")
    return write


def server_of(document: Mapping[str, Any]) -> ServerSpec:
    """Return the server that a body describes, by the rules of the file.

    Raises:
        BadRequest: it breaks them.
    """
    only_known(document, (*SERVER_KEYS, "write"))
    entry = {key: value for key, value in document.items() if key != "write"}
    try:
        return server_from(entry, place="the body", environ={})
    except ConfigError as error:
        messages = [f"{p.message} ({p.hint})" if p.hint else p.message for p in error.problems]
        raise ConfigRefused(f"{'; '.join(messages)}.", error.problems) from None


def only_known(document: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a key that is not among `known`.

    Raises:
        BadRequest: it says which there are.
    """
    for key in document:
        if key not in known:
            expected = ", ".join(f"`{name}`" for name in known) or "none"
            hint = hint_at(key, known)
            raise BadRequest(f"Unknown key `{short(key)}`.{hint} Expected: {expected}")


def check_size(size: int) -> None:
    """Refuse a body of so many bytes if that is too large for a change.

    Raises:
        TooLarge: it is.
    """
    if size > _MAX_BODY:
        raise TooLarge(f"The request body is larger than {_MAX_BODY} bytes.")


def check_match(request: Request, etag: str) -> None:
    """Refuse a change of what is another thing by now than who asks for it has seen.

    Args:
        etag: that of the thing as it is.

    Raises:
        PreconditionFailed: the request has an `If-Match` without this tag.
    """
    expected = request.fields.get("if-match")
    if expected is None:
        return
    tags = [tag.strip() for tag in expected.split(",")]
    if etag not in tags and "*" not in tags:
        raise PreconditionFailed(
            "It has been changed since you read it: `If-Match` names another state. Read it again."
        )


def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object that a change is asked by; no body at all is an empty one.

    Raises:
        BadRequest, TooLarge: the client's mistakes.
    """
    content_type = request.fields.get("content-type", "").partition(";")[0]
    if content_type.strip().lower() != "application/json":
        raise BadRequest("A change needs the header `content-type: application/json`.")
    check_size(request.size)
    try:
        # Unlike the one of `json` it takes no half of a surrogate pair: no answer could repeat it.
        document = msgspec.json.decode(request.body) if request.body else {}
    except (msgspec.DecodeError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise BadRequest("The request body has to be a JSON object.")
    return document


def part_of(request: Request, name: str) -> bytes:
    """Return the value of a key of the JSON object that `read_object` read, as it was written.

    b"" where there is none.
    """
    fields = msgspec.json.decode(request.body, type=dict[str, msgspec.Raw])
    return bytes(fields[name]) if name in fields else b""


def hint_at(word: str, known: Collection[str]) -> str:
    """Return " Did you mean ...?" for a word near to a known one, else nothing."""
    near = did_you_mean(word[:_SHOWN], list(known))
    return f" D{near[1:]}" if near else ""


def short(text: str) -> str:
    """A client's text, fit for a log: bounded, and nothing in it that a terminal acts on."""
    return printable(text[:_SHOWN])

"""What the router reads of a request's body: the model's name and the priority, nothing else."""

from __future__ import annotations

import re
from typing import Any, TypeGuard
from urllib.parse import parse_qs

import msgspec

from mvllm_router.errors import BadRequest


class Wanted(msgspec.Struct):
    """The only fields that are decoded; the parser skips the rest without making objects.

    Once checked, `model` is a name or None, and `priority` a whole number or None.
    """

    model: Any = None
    priority: Any = None


_wanted = msgspec.json.Decoder(Wanted)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])

# A multipart form field called "model", as audio uploads have it; not a file of that name.
# It begins with a literal, which is looked for ten times faster in 30 MB of audio, and it gives
# up after a few header lines, so that no body can keep it busy.
_FORM_MODEL = re.compile(
    rb'(name=(?<=[; \t]name=)"?model"?[ \t]*\r\n(?:[^\r\n]{1,500}\r\n){0,8}\r\n)'
    rb"([^\r\n]{1,256})(?=\r\n)"
)

_BEGINS_OBJECT = re.compile(rb"[ \t\r\n]*\{")

# What msgspec raises for text that is not JSON, not an object, or not UTF-8, and for JSON that
# is nested a thousand levels deep.
_NOT_READABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


# The whole numbers that every reader of JSON agrees on (RFC 8259, section 6).
_MOST = 2**53 - 1
_WHOLE_NUMBER = re.compile(rb"[+-]?[0-9]{1,16}")


def wanted_of_object(body: bytes) -> Wanted:
    """Return what a request says whose route takes a JSON object and nothing else.

    Raises:
        BadRequest: the body is none, or its priority is no whole number.
    """
    try:
        wanted = _wanted.decode(body)
    except _NOT_READABLE as error:
        raise BadRequest(f"The request body is not a JSON object: {error}") from None
    wanted.model = _name(wanted.model)
    if wanted.priority is not None and not _is_priority(wanted.priority):
        raise _no_priority("`priority`")
    return wanted


def wanted_of(body: bytes, content_type: str, query: str) -> Wanted:
    """Return what any other request says; what is no priority there may be something else.

    Args:
        body: the whole body.
        content_type: as the client sent it, "" if it did not.
        query: the query string without its question mark; it counts where no server would look
            for the model in the body.

    Raises:
        BadRequest: a form names several models.
    """
    if content_type.lower().startswith("multipart/"):
        return Wanted(_model_of_form(body))
    try:
        wanted = _wanted.decode(body) if body else Wanted()
    except _NOT_READABLE:
        wanted = Wanted()
    name = _name(wanted.model)
    wanted.model = name or (parse_qs(query).get("model", [None])[0] if query else None)
    if not _is_priority(wanted.priority):
        wanted.priority = None
    return wanted


def priority_of_header(value: bytes) -> int:
    """Return the priority that a header gives.

    Raises:
        BadRequest: it is no whole number.
    """
    priority = int(value) if _WHOLE_NUMBER.fullmatch(value) else None
    if not _is_priority(priority):
        raise _no_priority("The header `x-priority`")
    return priority


def _is_priority(value: object) -> TypeGuard[int]:
    return type(value) is int and -_MOST <= value <= _MOST


def _no_priority(what: str) -> BadRequest:
    text = f"{what} has to be a whole number, with at most 53 bits; lower is earlier."
    return BadRequest(text, param="priority")


def _name(model: object) -> str | None:
    # vLLM, too, takes an empty name for none.
    return model if model and isinstance(model, str) else None


def _model_of_form(body: bytes) -> str | None:
    names = {found[2] for found in _FORM_MODEL.finditer(body)}
    if len(names) > 1:  # servers differ in which one they take; a key may allow only one of them
        raise BadRequest("The form names more than one model.", param="model")
    return names.pop().decode("utf-8", "replace") if names else None


def with_model(body: bytes, model: str) -> bytes:
    """Return `body`, in which a model was found, with another one in its place.

    Every other value of a JSON object or a form stays as it is, byte for byte; a body that
    names no model (the query did) is returned as it is.

    Raises:
        BadRequest: a JSON object has a key that cannot be read.
    """
    if not _BEGINS_OBJECT.match(body):
        # A form may say it more than once, if it says the same.
        return _FORM_MODEL.sub(lambda found: found[1] + model.encode(), body)
    try:
        fields: dict[str, Any] = dict(_fields.decode(body))
    except _NOT_READABLE as error:
        raise BadRequest(f"The request body is not a JSON object: {error}") from None
    fields["model"] = model
    return msgspec.json.encode(fields)

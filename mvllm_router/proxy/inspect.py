"""What the router reads of a request's body: the model's name, and nothing else."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

import msgspec

from mvllm_router.errors import BadRequest


class _Wanted(msgspec.Struct):
    """The only field that is decoded; the parser skips the rest without making objects."""

    model: Any = None


_wanted = msgspec.json.Decoder(_Wanted)
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


def model_of(body: bytes, content_type: str, query: str, *, must_be_json: bool) -> str | None:
    """Return the model that a request names, or None.

    Args:
        body: the whole body.
        content_type: as the client sent it, "" if it did not.
        query: the query string without its question mark.
        must_be_json: the route takes a JSON object and nothing else.

    Raises:
        BadRequest: it has to be a JSON object and is not.
    """
    if content_type.lower().startswith("multipart/"):
        found = _FORM_MODEL.search(body)
        return found[2].decode("utf-8", "replace") if found else None
    if body or must_be_json:
        try:
            model = _wanted.decode(body).model
        except _NOT_READABLE as error:
            if must_be_json:
                raise BadRequest(f"The request body is not a JSON object: {error}") from None
            model = None
        if model and isinstance(model, str):  # vLLM, too, takes an empty name for none
            return model
    return parse_qs(query).get("model", [None])[0] if query else None


def with_model(body: bytes, model: str) -> bytes:
    """Return `body`, in which `model_of` found a model, with another one in its place.

    Every other value of a JSON object or a form stays as it is, byte for byte; a body that
    names no model (the query did) is returned as it is.

    Raises:
        BadRequest: a JSON object has a key that cannot be read.
    """
    if not _BEGINS_OBJECT.match(body):
        return _FORM_MODEL.sub(lambda found: found[1] + model.encode(), body, count=1)
    try:
        fields: dict[str, Any] = dict(_fields.decode(body))
    except _NOT_READABLE as error:
        raise BadRequest(f"The request body is not a JSON object: {error}") from None
    fields["model"] = model
    return msgspec.json.encode(fields)

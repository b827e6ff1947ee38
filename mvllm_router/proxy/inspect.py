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

# A multipart form field called "model", as audio uploads have it.
_FORM_MODEL = re.compile(rb'name="?model"?[ \t]*\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,256})\r\n')


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
    if content_type.startswith("multipart/"):
        found = _FORM_MODEL.search(body)
        return found[1].decode("utf-8", "replace") if found else None
    if body or must_be_json:
        try:
            model = _wanted.decode(body).model
        except msgspec.DecodeError as error:
            if must_be_json or "json" in content_type:
                raise BadRequest(f"The request body is not a JSON object: {error}") from None
            model = None
        if isinstance(model, str):
            return model
    return parse_qs(query).get("model", [None])[0] if query else None


def with_model(body: bytes, model: str) -> bytes:
    """Return the JSON object `body` with another model; every other value stays as it is."""
    fields: dict[str, Any] = dict(_fields.decode(body))
    fields["model"] = model
    return msgspec.json.encode(fields)

"""Tells which engine a server is from a few answers, asking as little as possible.

The first question is GET /health, which harms no engine; a second one is asked only where
the first leaves a doubt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from mvllm_router.engines.base import shown_version


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, headers with lower-case names, and the beginning of a body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


FIRST = "/health"

# What a JSON document may have in it: the event loop waits for as long as it is read, and an
# aggregator's list of 400 models is half of this. Bytes, and commas: there is one for each value.
_LONGEST_JSON = 1024 * 1024
_MOST_COMMAS = 50_000


def read_json(body: bytes) -> object:
    """Read the JSON of an answer.

    Raises:
        ValueError: it is none, or so long that no engine means it.
        RecursionError: it is nested too deeply.
    """
    if len(body) > _LONGEST_JSON or body.count(b",") > _MOST_COMMAS:
        raise ValueError("the document is too long")
    document: object = json.loads(body)
    return document


def next_question(answers: Mapping[str, Answer]) -> str | None:
    """Return the path to ask next, or None when `conclusion` has all that it needs."""
    health = answers[FIRST]
    server = health.headers.get("server", "").lower()
    if "llama.cpp" in server or server.startswith("basehttp"):
        return None
    if health.status == 404:
        return "/openapi.json" if "/openapi.json" not in answers else None
    return "/version" if "/version" not in answers else None


def conclusion(answers: Mapping[str, Answer]) -> str:
    """Return the engine's name; "openai" for whatever is not one of the known ones."""
    health = answers[FIRST]
    server = health.headers.get("server", "").lower()
    if "llama.cpp" in server:
        return "llama.cpp"
    if server.startswith("basehttp") and _object(health).get("status") in ("ok", "unavailable"):
        return "mlx"
    if "llama.cpp Python API" in _title(answers.get("/openapi.json")):
        return "llama-cpp-python"
    version = answers.get("/version")
    if health.body == b"" and version and "version" in _object(version):
        return "vllm"
    return "openai"


def version_of(answers: Mapping[str, Answer]) -> str | None:
    """Return the version of the engine, where one of the answers tells it."""
    version = answers.get("/version")
    return shown_version(_object(version).get("version")) if version else None


def _title(answer: Answer | None) -> str:
    info = _object(answer).get("info") if answer else None
    return str(info.get("title", "")) if isinstance(info, dict) else ""


def _object(answer: Answer) -> dict[str, object]:
    try:
        document = read_json(answer.body) if answer.status in (200, 503) else None
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}

"""Each engine is known by its answers, and is asked as little as possible to find out."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from mvllm_router.engines.recognise import (
    FIRST,
    Answer,
    conclusion,
    next_question,
    version_of,
)

JSON = {"content-type": "application/json"}
UVICORN = {**JSON, "server": "uvicorn"}
LLAMA_CPP = {"content-type": "application/json; charset=utf-8", "server": "llama.cpp"}
MLX = {**JSON, "server": "BaseHTTP/0.6 Python/3.11.7"}
NOT_FOUND = Answer(404, UVICORN, b'{"detail":"Not Found"}')
LOADING = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
PYTHON_API = json.dumps(
    {"openapi": "3.1.0", "info": {"title": "🦙 llama.cpp Python API", "version": "0.3.36"}}
).encode()

SERVERS: dict[str, tuple[str, Mapping[str, Answer], list[str]]] = {
    # name: (engine, its answers (all others are 404), what it is asked)
    "vLLM": (
        "vllm",
        {
            "/health": Answer(200, {"server": "uvicorn", "content-length": "0"}, b""),
            "/version": Answer(200, UVICORN, b'{"version":"0.32.0"}'),
        },
        ["/health", "/version"],
    ),
    "vLLM whose engine has died": (
        "vllm",
        {
            "/health": Answer(503, {"server": "uvicorn", "content-length": "0"}, b""),
            "/version": Answer(200, UVICORN, b'{"version":"0.32.0"}'),
        },
        ["/health", "/version"],
    ),
    "llama-server": (
        "llama.cpp",
        {"/health": Answer(200, LLAMA_CPP, b'{"status":"ok"}')},
        ["/health"],
    ),
    "llama-server that loads": (
        "llama.cpp",
        {path: Answer(503, LLAMA_CPP, LOADING) for path in ("/health", "/version")},
        ["/health"],
    ),
    "llama_cpp.server": (
        "llama-cpp-python",
        {"/openapi.json": Answer(200, UVICORN, PYTHON_API)},
        ["/health", "/openapi.json"],
    ),
    "mlx_lm.server": (
        "mlx",
        {"/health": Answer(200, MLX, b'{"status": "ok"}')},
        ["/health"],
    ),
    "mlx_lm.server whose worker has died": (
        "mlx",
        {"/health": Answer(503, MLX, b'{"status": "unavailable"}')},
        ["/health"],
    ),
    "some server on Python's http.server": (
        "openai",
        {"/health": Answer(200, MLX, b"fine")},
        ["/health"],
    ),
    "an unknown server with a health page": (
        "openai",
        {"/health": Answer(200, UVICORN, b'{"status":"ok"}')},
        ["/health", "/version"],
    ),
    "an unknown server with health and version": (
        "openai",
        {
            "/health": Answer(200, UVICORN, b'{"status":"ok"}'),
            "/version": Answer(200, UVICORN, b'{"version":"1.0"}'),
        },
        ["/health", "/version"],
    ),
    "an unknown server with an empty health page": (
        "openai",
        {"/health": Answer(200, {}, b"")},
        ["/health", "/version"],
    ),
    "an empty health page and a version that is none": (
        "openai",
        {"/health": Answer(200, {}, b""), "/version": Answer(200, JSON, b'"1.0"')},
        ["/health", "/version"],
    ),
    "another FastAPI server": (
        "openai",
        {"/openapi.json": Answer(200, UVICORN, b'{"info":{"title":"FastAPI"}}')},
        ["/health", "/openapi.json"],
    ),
    "an openapi.json that is odd": (
        "openai",
        {"/openapi.json": Answer(200, UVICORN, b'{"info":["llama.cpp Python API"]}')},
        ["/health", "/openapi.json"],
    ),
    "a server that knows no path": ("openai", {}, ["/health", "/openapi.json"]),
    "a server that wants a key for everything": (
        "openai",
        {path: Answer(401, JSON, b'{"error":"Unauthorized"}') for path in ("/health", "/version")},
        ["/health", "/version"],
    ),
    "a server whose health page is not UTF-8": (
        "openai",
        {"/health": Answer(200, {}, b"\xff\xfe"), "/version": Answer(200, {}, b"\xff")},
        ["/health", "/version"],
    ),
    "a server behind a proxy that is down": (
        "openai",
        {"/health": Answer(502, {"server": "nginx"}, b"<html>Bad Gateway</html>")},
        ["/health", "/version"],
    ),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_recognised_with_as_few_questions_as_possible(name: str) -> None:
    engine, answers, expected = SERVERS[name]
    asked = [FIRST]
    got = {FIRST: answers.get(FIRST, NOT_FOUND)}
    while (question := next_question(got)) is not None:
        assert question not in asked, "it asks in circles"
        # /v1/models cuts streams of llama_cpp.server; /slots wakes a sleeping llama-server.
        assert question in ("/version", "/openapi.json"), "it may harm a server"
        asked.append(question)
        got[question] = answers.get(question, NOT_FOUND)
    assert conclusion(got) == engine
    assert asked == expected


@pytest.mark.parametrize(
    ("body", "version"),
    [
        (b'{"version": "0.11.0"}', "0.11.0"),
        (b'{"version": 11}', None),
        (b'{"version": ""}', None),
        (b'{"version": "\\u001b[2J"}', None),
        (b'{"version": "%b"}' % (b"9" * 1000), None),
        (b"[]", None),
        (b"{", None),
    ],
)
def test_a_version_is_taken_only_if_it_can_be_shown(body: bytes, version: str | None) -> None:
    assert version_of({FIRST: Answer(200), "/version": Answer(200, {}, body)}) == version
    assert version_of({FIRST: Answer(200)}) is None

"""Each dialect answers in the shape of the server it stands for."""

from __future__ import annotations

import uuid
from typing import Any

import aiohttp
import pytest
from sim_client import Raw, chat, content, events

from mvllm_router.sim import Profile, SimEngine, answer_text

# llama-server closes after each stream, whether it was asked to or not.
LAST = {"Connection": "close"}
GENERATING = ("vllm", "llama.cpp", "llama-cpp-python", "mlx", "openai")


def profile(dialect: Any, **fields: Any) -> Profile:
    return Profile(dialect, ("tiny", "alias"), **fields)


@pytest.mark.parametrize("dialect", GENERATING)
async def test_stream_and_whole_answer_have_the_same_text(
    dialect: str, client: aiohttp.ClientSession
) -> None:
    async with SimEngine(profile(dialect), seed=3) as engine:
        url = f"{engine.url}/v1/chat/completions"
        async with client.post(url, json=chat(max_tokens=9)) as response:
            whole = await response.json()
        async with client.post(url, json=chat(max_tokens=9, stream=True)) as response:
            assert response.content_type == "text/event-stream"
            streamed = events(await response.text())
    assert streamed[-1] == "[DONE]"
    assert content(streamed) == whole["choices"][0]["message"]["content"] != ""
    assert whole["usage"]["completion_tokens"] == 9
    assert whole["choices"][0]["finish_reason"] == "length"
    assert engine.served == engine.started == 2


@pytest.mark.parametrize("dialect", GENERATING)
@pytest.mark.parametrize("length", [{}, {"max_tokens": 40}])
async def test_a_client_can_tell_every_text_beforehand(
    dialect: str, length: dict[str, int], client: aiohttp.ClientSession
) -> None:
    async with SimEngine(profile(dialect), seed=5) as engine:
        url = f"{engine.url}/v1/chat/completions"
        turns = [{"role": "system", "content": "é"}, {"role": "user", "content": "why?"}]
        talk = {"model": "tiny", "messages": turns, **length}
        async with client.post(url, json=talk) as response:
            answer = await response.json()
        assert answer["choices"][0]["message"]["content"] == answer_text(5, talk)
        plain = {"model": "tiny", "prompt": "why?", **length}
        async with client.post(f"{engine.url}/v1/completions", json=plain) as response:
            answer = await response.json()
        assert answer["choices"][0]["text"] == answer_text(5, plain)


def test_a_request_without_a_prompt_has_no_text() -> None:
    with pytest.raises(ValueError, match="no prompt"):
        answer_text(0, {"model": "tiny"})


@pytest.mark.parametrize("dialect", GENERATING)
async def test_another_seed_gives_another_text(dialect: str, client: aiohttp.ClientSession) -> None:
    texts = set()
    for seed in (1, 2):
        async with (
            SimEngine(profile(dialect), seed=seed) as engine,
            client.post(f"{engine.url}/v1/chat/completions", json=chat(max_tokens=9)) as response,
        ):
            texts.add((await response.json())["choices"][0]["message"]["content"])
    assert len(texts) == 2


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp", "mlx", "openai"])
async def test_usage_event_comes_only_when_asked_for(
    dialect: str, client: aiohttp.ClientSession
) -> None:
    async with SimEngine(profile(dialect)) as engine:
        for options, expected in (({}, 0), ({"stream_options": {"include_usage": True}}, 1)):
            body = chat(max_tokens=3, stream=True, **options)
            url = f"{engine.url}/v1/chat/completions"
            async with client.post(url, json=body, headers=LAST) as response:
                parsed = events(await response.text())
            usages = [event["usage"] for event in parsed[:-1] if event.get("usage")]
            assert [usage["completion_tokens"] for usage in usages] == [3] * expected


async def test_vllm_events_in_their_order(client: aiohttp.ClientSession) -> None:
    body = chat(max_tokens=40, stream=True, stream_options={"include_usage": True})
    async with (
        SimEngine(profile("vllm")) as engine,
        client.post(f"{engine.url}/v1/chat/completions", json=body) as response,
    ):
        first, *tokens, last, usage, done = events(await response.text())
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(event["choices"][0]["finish_reason"] is None for event in tokens)
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["choices"][0]["delta"]["content"]
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 40)
    assert done == "[DONE]"
    # Nobody may count events as tokens.
    assert 20 <= len(tokens) + 1 < 40


async def test_llamacpp_ends_with_an_event_without_text(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile("llama.cpp")) as engine:
        url = f"{engine.url}/v1/chat/completions"
        async with client.post(url, json=chat(max_tokens=4, stream=True)) as response:
            first, *tokens, last, _done = events(await response.text())
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert len(tokens) == 4
    assert last["choices"][0] == {"finish_reason": "length", "index": 0, "delta": {}}
    assert last["timings"]["predicted_n"] == 4


@pytest.mark.parametrize(
    ("dialect", "status", "error"),
    [
        ("vllm", 404, {"type": "NotFoundError", "param": "model", "code": 404}),
        ("openai", 404, {"code": "model_not_found"}),
        ("mlx", 404, "Cannot find an appropriate cached snapshot folder for the model."),
        ("llama.cpp", 200, None),
        ("llama-cpp-python", 200, None),
    ],
)
async def test_unknown_model(
    dialect: str, status: int, error: Any, client: aiohttp.ClientSession
) -> None:
    async with (
        SimEngine(profile(dialect)) as engine,
        client.post(f"{engine.url}/v1/chat/completions", json=chat(model="nope")) as response,
    ):
        answer = await response.json()
    assert response.status == status
    if isinstance(error, dict):
        assert {name: answer["error"][name] for name in error} == error
    else:
        assert answer.get("error") == error


@pytest.mark.parametrize(
    ("dialect", "status"),
    [("vllm", 400), ("llama.cpp", 400), ("llama-cpp-python", 500), ("mlx", 400), ("openai", 400)],
)
@pytest.mark.parametrize("body", [b"{bad", b"", b"[1]", b"\xff"])
async def test_bodies_that_are_no_json_object(
    dialect: str, status: int, body: bytes, client: aiohttp.ClientSession
) -> None:
    async with (
        SimEngine(profile(dialect)) as engine,
        client.post(f"{engine.url}/v1/chat/completions", data=body) as response,
    ):
        assert response.status == status
    assert (engine.failed, engine.running) == (1, 0)


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("vllm", b'{"detail":"Not Found"}'),
        (
            "llama.cpp",
            b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}',
        ),
        ("llama-cpp-python", b'{"detail":"Not Found"}'),
        ("mlx", b"Not Found"),
    ],
)
async def test_paths_that_do_not_exist(
    dialect: str, body: bytes, client: aiohttp.ClientSession
) -> None:
    async with (
        SimEngine(profile(dialect)) as engine,
        client.get(f"{engine.url}/nope") as response,
    ):
        assert (response.status, await response.read()) == (404, body)


@pytest.mark.parametrize(
    ("dialect", "status", "body"),
    [
        ("vllm", 200, b""),
        ("llama.cpp", 200, b'{"status":"ok"}'),
        ("mlx", 200, b'{"status": "ok"}'),
        ("llama-cpp-python", 404, b'{"detail":"Not Found"}'),
    ],
)
async def test_health(
    dialect: str, status: int, body: bytes, client: aiohttp.ClientSession
) -> None:
    async with (
        SimEngine(profile(dialect)) as engine,
        client.get(f"{engine.url}/health") as response,
    ):
        assert (response.status, await response.read()) == (status, body)


@pytest.mark.parametrize("dialect", GENERATING)
async def test_models_are_listed(dialect: str, client: aiohttp.ClientSession) -> None:
    async with (
        SimEngine(profile(dialect)) as engine,
        client.get(f"{engine.url}/v1/models") as response,
    ):
        cards = (await response.json())["data"]
    # llama-server has one model, whose other names are aliases.
    expected = ["tiny"] if dialect == "llama.cpp" else ["tiny", "alias"]
    assert [card["id"] for card in cards] == expected


async def test_vllm_key_guards_v1_alone(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile("vllm", api_key="secret")) as engine:
        async with client.get(f"{engine.url}/v1/models") as response:
            assert (response.status, await response.read()) == (401, b'{"error":"Unauthorized"}')
        async with client.get(f"{engine.url}/metrics") as response:
            assert response.status == 200
        key = {"Authorization": "Bearer secret"}
        async with client.post(
            f"{engine.url}/v1/chat/completions", json=chat(), headers=key
        ) as response:
            assert response.status == 200


async def test_llamacpp_key_guards_all_but_health(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile("llama.cpp", api_key="secret")) as engine:
        for path, key, status in (
            ("/health", {}, 200),
            ("/metrics", {}, 401),
            ("/props", {"X-Api-Key": "secret"}, 200),
            ("/v1/models", {"Authorization": "Bearer wrong"}, 401),
        ):
            async with client.get(engine.url + path, headers=key) as response:
                assert response.status == status, path


async def test_too_long_prompt_is_refused_before_the_stream(
    client: aiohttp.ClientSession,
) -> None:
    long = {"model": "tiny", "prompt": "word " * 200, "stream": True, "max_tokens": 1}
    answers = {}
    for dialect in ("vllm", "llama.cpp", "llama-cpp-python"):
        async with (
            SimEngine(profile(dialect, context=64)) as engine,
            client.post(f"{engine.url}/v1/completions", json=long) as response,
        ):
            answers[dialect] = (response.status, await response.text())
    assert answers["vllm"][0] == answers["llama.cpp"][0] == 400
    assert '"param":"input_tokens"' in answers["vllm"][1]
    assert "exceed_context_size_error" in answers["llama.cpp"][1]
    assert answers["llama-cpp-python"] == (200, "")


@pytest.mark.parametrize(
    ("dialect", "body", "field", "back"),
    [("vllm", "prompt", "tokens", "prompt"), ("llama.cpp", "content", "tokens", "content")],
)
async def test_tokenize_and_back(
    dialect: str, body: str, field: str, back: str, client: aiohttp.ClientSession
) -> None:
    async with SimEngine(profile(dialect)) as engine:
        async with client.post(f"{engine.url}/tokenize", json={body: "naïve text"}) as response:
            ids = (await response.json())[field]
        async with client.post(f"{engine.url}/detokenize", json={"tokens": ids}) as response:
            assert (await response.json())[back] == "naïve text"


async def test_embeddings_where_the_server_has_them(client: aiohttp.ClientSession) -> None:
    body = {"model": "tiny", "input": ["a", "b"]}
    for dialect, on, status in (
        ("vllm", False, 404),
        ("vllm", True, 200),
        ("llama.cpp", False, 501),
        ("llama.cpp", True, 200),
        ("openai", False, 200),
        ("mlx", False, 404),
    ):
        async with (
            SimEngine(profile(dialect, embeddings=on)) as engine,
            client.post(f"{engine.url}/v1/embeddings", json=body) as response,
        ):
            assert response.status == status, dialect
            if status == 200:
                data = (await response.json())["data"]
                assert [item["index"] for item in data] == [0, 1]
                assert data[0]["embedding"] != data[1]["embedding"]


async def test_vllm_pooling_server_generates_nothing(client: aiohttp.ClientSession) -> None:
    async with (
        SimEngine(profile("vllm", embeddings=True)) as engine,
        client.post(f"{engine.url}/v1/chat/completions", json=chat()) as response,
    ):
        assert response.status == 404


async def test_mlx_speaks_http_1_0_and_closes() -> None:
    async with SimEngine(profile("mlx")) as engine:
        raw = await Raw.open(engine.url)
        raw.post("/v1/chat/completions", chat(max_tokens=2, stream=True))
        answer = (await raw.reader.read()).decode()  # to the end of the connection
        raw.close()
    head, body = answer.split("\r\n\r\n", 1)
    assert head.startswith("HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11.7\r\n")
    assert "content-length" not in head.lower()
    assert "transfer-encoding" not in head.lower()
    assert body.startswith(": keepalive ")
    assert body.endswith("data: [DONE]\n\n")


async def test_vllm_keeps_the_connection_after_an_error_and_llamacpp_closes_it() -> None:
    for dialect, header in (("vllm", False), ("llama.cpp", True)):
        async with SimEngine(profile(dialect)) as engine:
            raw = await Raw.open(engine.url)
            raw.get("/nope")
            head, _ = await raw.answer()
            assert ("connection: close" in head.lower()) is header
            if header:
                assert await raw.reader.read() == b""
            else:
                raw.get("/health")
                assert (await raw.head()).startswith("HTTP/1.1 200")
            raw.close()


async def test_llamacpp_closes_after_a_stream_though_it_promises_to_stay() -> None:
    async with SimEngine(profile("llama.cpp")) as engine:
        raw = await Raw.open(engine.url)
        raw.post("/v1/chat/completions", chat(max_tokens=2, stream=True))
        assert "Keep-Alive: timeout=5" in await raw.head()
        assert (await raw.reader.read()).endswith(b"\r\n0\r\n\r\n")
        raw.close()


@pytest.mark.parametrize("dialect", ["vllm", "llama-cpp-python"])
async def test_fastapi_tells_the_method_and_the_path_that_were_meant(
    dialect: str, client: aiohttp.ClientSession
) -> None:
    async with SimEngine(profile(dialect)) as engine:
        async with client.delete(f"{engine.url}/v1/models") as response:
            assert (response.status, response.headers["allow"]) == (405, "GET")
        async with client.get(f"{engine.url}/v1/models/", allow_redirects=False) as response:
            place = f"{engine.url}/v1/models"
            assert (response.status, response.headers["location"]) == (307, place)


async def test_llamacpp_closes_with_the_hundredth_answer() -> None:
    async with SimEngine(profile("llama.cpp")) as engine:
        raw = await Raw.open(engine.url)
        heads = []
        for _ in range(100):
            raw.get("/health")
            heads.append((await raw.answer())[0])
        assert await raw.reader.read() == b""
        raw.close()
    assert [("Connection: close" in head) for head in heads] == [False] * 99 + [True]


async def test_llama_cpp_python_wants_a_uuid_as_request_id(client: aiohttp.ClientSession) -> None:
    async with SimEngine(profile("llama-cpp-python")) as engine:
        url = f"{engine.url}/v1/chat/completions"
        async with client.post(url, json=chat(), headers={"X-Request-Id": "abc-1"}) as response:
            assert (response.status, await response.read()) == (400, b"")
        own = str(uuid.uuid4())
        async with client.post(url, json=chat(), headers={"X-Request-Id": own}) as response:
            assert (response.status, response.headers["x-request-id"]) == (200, own)
        async with client.get(f"{engine.url}/openapi.json") as response:
            assert (await response.json())["info"]["title"] == "🦙 llama.cpp Python API"


async def test_vllm_takes_the_request_id_for_its_own(client: aiohttp.ClientSession) -> None:
    async with (
        SimEngine(profile("vllm")) as engine,
        client.post(
            f"{engine.url}/v1/chat/completions", json=chat(), headers={"X-Request-Id": "abc-1"}
        ) as response,
    ):
        assert (await response.json())["id"] == "chatcmpl-abc-1"


async def test_answers_have_no_headers_of_the_http_library(
    client: aiohttp.ClientSession,
) -> None:
    names = {}
    for dialect in ("vllm", "llama.cpp"):
        async with (
            SimEngine(profile(dialect)) as engine,
            client.post(f"{engine.url}/v1/chat/completions", json=chat()) as response,
        ):
            names[dialect] = [name.decode() for name, _ in response.raw_headers]
    assert names["vllm"] == ["date", "server", "content-length", "content-type", "vary"]
    assert names["llama.cpp"] == [
        "Server",
        "Access-Control-Allow-Origin",
        "Content-Type",
        "Content-Length",
        "Keep-Alive",
    ]


async def test_default_length_ends_by_itself(client: aiohttp.ClientSession) -> None:
    async with (
        SimEngine(profile("vllm")) as engine,
        client.post(f"{engine.url}/v1/chat/completions", json=chat()) as response,
    ):
        answer = await response.json()
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "stop"

"""The simulated engines beside the real ones: the same bytes go to both, the answers are compared.

Not compared, as it tells a router nothing: texts, ids, times and numbers of tokens, the case of
header names, the order of headers and of JSON members, and how events are packed into chunks.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from exchanges import PATIENCE, Ask, Shape, exchange, read_body, read_head
from wire import Client

from mvllm_router import engines
from mvllm_router.engines.recognise import FIRST, Answer, conclusion, next_question
from mvllm_router.pool import Sample
from mvllm_router.sim import Profile, SimEngine

if TYPE_CHECKING:
    from conftest import EngineServer, StartLlamaServer

SLOTS = 4
FIXTURES = {
    "vllm": "vllm_server",
    "llama.cpp": "llama_server",
    "llama-cpp-python": "llama_cpp_python_server",
    "mlx": "mlx_server",
}
CONTEXT = {"vllm": 1024, "llama.cpp": 2048, "llama-cpp-python": 4096, "mlx": 8192}  # of a slot
MEASURED = ("vllm", "llama.cpp")  # have /metrics
READ = {  # what the router reads there
    "vllm": [
        *("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"),
        *("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
    ],
    "llama.cpp": [
        *("llamacpp:requests_processing", "llamacpp:requests_deferred"),
        *("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"),
    ],
}

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
UUID = "6f1a3b54-7d7e-4d33-9f57-1f8e4bb1c111"


ASKS = {
    "health": Ask("GET", "/health"),
    "models": Ask("GET", "/v1/models"),
    "version": Ask("GET", "/version"),
    "props": Ask("GET", "/props"),
    "load": Ask("GET", "/load"),
    "openapi": Ask("GET", "/openapi.json"),
    "metrics": Ask("GET", "/metrics"),
    "chat": Ask("POST", CHAT, {}),
    "chat_stream": Ask("POST", CHAT, {"stream": True}),
    "chat_stream_usage": Ask("POST", CHAT, WITH_USAGE),
    "completion": Ask("POST", COMPLETIONS, {}),
    "completion_stream": Ask("POST", COMPLETIONS, {"stream": True}),
    "completion_stream_usage": Ask("POST", COMPLETIONS, WITH_USAGE),
    "close": Ask("POST", CHAT, {}, lines=("Connection: close",)),
    "close_stream": Ask("POST", CHAT, {"stream": True}, lines=("Connection: close",)),
    "request_id": Ask("POST", CHAT, {}, lines=(f"X-Request-Id: {UUID}",)),
    "request_id_no_uuid": Ask("POST", CHAT, {}, lines=("X-Request-Id: abc-1",)),
    "max_completion_tokens": Ask("POST", CHAT, {"max_completion_tokens": 2}),
    "no_model": Ask("POST", CHAT, {"model": None}),
    "unknown_model": Ask("POST", CHAT, {"model": "nope"}),
    "unknown_model_stream": Ask("POST", CHAT, {"model": "nope", "stream": True}),
    "bad_json": Ask("POST", CHAT, raw=b"{bad"),
    "empty_body": Ask("POST", CHAT, raw=b""),
    "list_body": Ask("POST", CHAT, raw=b"[1]"),
    "no_messages": Ask("POST", CHAT, {"messages": None}),
    "no_messages_stream": Ask("POST", CHAT, {"messages": None, "stream": True}),
    "no_prompt": Ask("POST", COMPLETIONS, {"prompt": None}),
    "wrong_messages": Ask("POST", CHAT, {"messages": "x"}),
    "wrong_max_tokens": Ask("POST", CHAT, {"max_tokens": "x"}),
    "no_tokens": Ask("POST", CHAT, {"max_tokens": 0}),
    "too_long": Ask("POST", COMPLETIONS, {"prompt": "word " * 2_500}),
    "too_long_stream": Ask("POST", COMPLETIONS, {"prompt": "word " * 2_500, "stream": True}),
    "no_embeddings": Ask("POST", "/v1/embeddings", {"input": "x"}),
    "no_route": Ask("GET", "/nope"),
    "no_route_post": Ask("POST", "/v1/nope", {}),
    "get_on_post": Ask("GET", CHAT),
    "post_on_get": Ask("POST", "/v1/models", {}),
    "delete": Ask("DELETE", "/v1/models"),
    "head": Ask("HEAD", "/v1/models"),
    "options": Ask("OPTIONS", CHAT),
    "trailing_slash": Ask("GET", "/v1/models/"),
}
# What is not asked of one of them.
SPARED = {
    ("mlx", "too_long"): "it has no limit and reads the prompt for minutes",
    ("mlx", "too_long_stream"): "as before",
    ("mlx", "delete"): "Python's own HTML page for methods that it does not know",
    ("mlx", "head"): "as before",
    ("llama-cpp-python", "no_tokens"): "it answers until its context is full",
}
# What is chance with the real one.
UNSTEADY = {
    ("llama-cpp-python", "too_long_stream"): ("kept",),  # unless the next request comes at once
}
# What the simulation leaves out of 200s, or makes up, by beginnings of paths in the JSON.
GAPS = {
    "openapi": (".paths", ".components", "spacing"),
    "props": (
        ".default_generation_settings.params.",
        *(".chat_template", ".bos_token", ".eos_token", ".media_marker"),
        *(".ui", ".cors_proxy_enabled"),
    ),
}


def without_gaps(shapes: list[Shape], name: str) -> list[Shape]:
    gaps = GAPS.get(name, ())
    return [frozenset(leaf for leaf in shape if not leaf[0].startswith(gaps)) for shape in shapes]


@pytest.fixture(params=FIXTURES)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def real(request: pytest.FixtureRequest, dialect: str) -> EngineServer:
    started: EngineServer = request.getfixturevalue(FIXTURES[dialect])
    return started


@pytest.fixture
async def sim(dialect: Any, real: EngineServer) -> AsyncIterator[SimEngine]:
    models, context = (real.model,), CONTEXT[dialect]
    profile = Profile(dialect, models, slots=SLOTS, context=context, tokens_per_second=1000)
    async with SimEngine(profile) as engine:
        yield engine


asked = pytest.mark.parametrize(
    ("dialect", "name"),
    [(dialect, name) for dialect in FIXTURES for name in ASKS if (dialect, name) not in SPARED],
    indirect=["dialect"],
)
measured = pytest.mark.parametrize("dialect", MEASURED, indirect=True)


@asked
async def test_both_answer_alike(
    name: str, dialect: str, real: EngineServer, sim: SimEngine
) -> None:
    await compare(name, real, sim, unsteady=UNSTEADY.get((dialect, name), ()))


async def compare(
    name: str, real: EngineServer, sim: SimEngine, unsteady: tuple[str, ...] = ()
) -> None:
    data = ASKS[name].wire(real.model)
    truth, imitation = await exchange(real.url, data), await exchange(sim.url, data)
    assert imitation.outside(unsteady) == truth.outside(unsteady)
    if not truth.header("content-type").startswith("text/plain; version"):  # has a test of its own
        assert without_gaps(imitation.inside(), name) == without_gaps(truth.inside(), name)


@pytest.mark.parametrize("dialect", ["llama.cpp"], indirect=True)
async def test_both_refuse_alike_without_the_key(
    dialect: Any, start_llama_server: StartLlamaServer
) -> None:
    real = await asyncio.to_thread(start_llama_server, extra=["--api-key", "secret"])
    profile = Profile(dialect, (real.model,), context=CONTEXT[dialect], api_key="secret")
    async with SimEngine(profile) as sim:
        for name in ("health", "models", "props", "metrics", "chat", "chat_stream", "no_route"):
            await compare(name, real, sim)


async def test_both_are_recognised_by_the_same_questions(
    dialect: str, real: EngineServer, sim: SimEngine
) -> None:
    assert await recognise(sim.url) == await recognise(real.url)
    assert (await recognise(sim.url))[0] == dialect


async def recognise(url: str) -> tuple[str, list[str]]:
    answers: dict[str, Answer] = {}
    path: str | None = FIRST
    while path is not None:
        got = await exchange(url, Ask("GET", path).wire(""))
        headers = {name.lower(): value for name, value in got.headers}
        answers[path] = Answer(got.status, headers, got.body)
        path = next_question(answers)
    return conclusion(answers), list(answers)


async def test_both_tell_the_router_their_models_and_capacity(
    dialect: str, real: EngineServer, sim: SimEngine
) -> None:
    engine = engines.get(dialect)
    for url in (real.url, sim.url):
        models = engines.read_models(await document(url, "/v1/models"))
        assert list(models or ()) == [real.model]
        if engine.capacity_path:
            assert engine.read_capacity(await document(url, engine.capacity_path)) == SLOTS


async def document(url: str, path: str) -> object:
    return json.loads((await exchange(url, Ask("GET", path).wire(""))).body)


async def test_both_close_a_connection_after_as_many_answers(
    dialect: str, real: EngineServer, sim: SimEngine
) -> None:
    answers = await answers_on_one_connection(real.url)
    assert await answers_on_one_connection(sim.url) == answers
    assert answers == {"llama.cpp": 100, "mlx": 1}.get(dialect, 105)


async def answers_on_one_connection(url: str) -> int:
    """How many come before it is closed; 105 where it stays open."""
    async with Client(url) as client:
        for count in range(105):
            client.send(Ask("GET", "/health").wire(""))
            try:
                _, headers = await asyncio.wait_for(read_head(client), PATIENCE)
            except (ConnectionError, asyncio.IncompleteReadError):
                return count
            await read_body(client, headers)
    return 105


@measured
async def test_metrics_of_the_simulation_have_the_names_types_and_labels_of_the_real_ones(
    dialect: str, real: EngineServer, sim: SimEngine
) -> None:
    for url in (real.url, sim.url):  # some have no samples before the first request
        assert (await exchange(url, ASKS["chat"].wire(real.model))).status == 200
    truth, imitation = families(await metrics(real.url)), families(await metrics(sim.url))
    imitation.pop("vllm:cache_config_info", None)  # has a label for each of vLLM's options
    assert imitation == {name: truth.get(name) for name in imitation}
    assert set(READ[dialect]) <= set(imitation)


def families(text: str) -> dict[str, set[str]]:
    """What is said of each name: its type, or the names of the labels of its samples."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            found.setdefault(name, set()).add(kind)
        elif not line.startswith("#"):
            name, labels = re.findall(r"^([^{ ]+)(.*)", line)[0]
            found.setdefault(name, set()).add(",".join(sorted(re.findall(r'(\w+)="', labels))))
    return found


async def metrics(url: str) -> str:
    return (await exchange(url, ASKS["metrics"].wire(""))).body.decode()


@pytest.mark.parametrize("dialect", ["vllm"], indirect=True)
async def test_both_find_the_same_blocks_of_a_prompt_in_their_prefix_cache(
    real: EngineServer, sim: SimEngine
) -> None:
    """The full blocks but for that of the last token, and only behind the same beginning."""
    word = "all the same words over and over "
    for url in (real.url, sim.url):
        block = await block_size(url)
        text = f"{random.random()} " + word * 12  # what no other test has asked
        while (size := await tokens_of(url, real.model, text)) < 4 * block:
            text += word
        assert await found(url, real.model, text) == (size, 0)
        assert await found(url, real.model, text) == (size, (size - 1) // block * block)
        half = text[: len(text) // 2]
        shared = await tokens_of(url, real.model, half)
        _, hit = await found(url, real.model, half + "and then something else")
        assert hit % block == 0
        assert shared - 2 * block < hit <= shared  # a token at the seam may be another
        assert (await found(url, real.model, f"x{text}"))[1] == 0  # not at the same place


async def block_size(url: str) -> int:
    labels = re.findall(r"^vllm:cache_config_info{(.*)}", await metrics(url), re.MULTILINE)[0]
    return int(re.findall(r'block_size="(\d+)"', labels)[0])


async def tokens_of(url: str, model: str, text: str) -> int:
    body = json.dumps({"model": model, "prompt": text}).encode()
    answer = await exchange(url, Ask("POST", "/tokenize", raw=body).wire(model))
    count: int = json.loads(answer.body)["count"]
    return count


async def found(url: str, model: str, text: str) -> tuple[float, float]:
    """Tokens that were looked up and found in the prefix cache for one completion."""
    before = await looked_up_and_found(url)
    fields = {"prompt": text, "max_tokens": 1}
    assert (await exchange(url, Ask("POST", COMPLETIONS, fields).wire(model))).status == 200
    while True:  # it is counted a moment after the answer
        after = await looked_up_and_found(url)
        if after != before:
            return after[0] - before[0], after[1] - before[1]
        await asyncio.sleep(0.01)


async def looked_up_and_found(url: str) -> tuple[float, float]:
    text = await metrics(url)
    return total(text, "prefix_cache_queries"), total(text, "prefix_cache_hits")


def total(text: str, name: str) -> float:
    return sum(map(float, re.findall(rf"^vllm:{name}_total\S* (\S+)$", text, re.MULTILINE)))


@measured
async def test_both_report_the_requests_that_run_and_wait(
    dialect: str, real: EngineServer, sim: SimEngine
) -> None:
    said = []
    for url in (real.url, sim.url):
        idle = await load(url, dialect, running=0, waiting=0)
        async with streams(url, dialect, real.model, 2):
            await load(url, dialect, running=2, waiting=0)
        async with streams(url, dialect, real.model, SLOTS + 3):
            busy = await load(url, dialect, running=SLOTS, waiting=3)
        await load(url, dialect, running=0, waiting=0)
        said.append([{k for k, v in s.items() if v is not None} for s in (idle, busy)])
    assert said[0] == said[1]


async def load(url: str, dialect: str, **wanted: float) -> dict[str, float | None]:
    """Wait until the router would read these numbers; return all that it reads then."""
    read = engines.get(dialect).read_metrics

    async def ask() -> dict[str, float | None]:
        while True:
            sample: Sample = read(await metrics(url))
            values = dataclasses.asdict(sample)
            if wanted.items() <= values.items():
                return values
            await asyncio.sleep(0.01)

    return await asyncio.wait_for(ask(), PATIENCE)


@asynccontextmanager
async def streams(url: str, dialect: str, model: str, count: int) -> AsyncIterator[None]:
    """Keep so many long streams under way; one that ends is asked for again."""
    data = long_answer(dialect, stream=True).wire(model)

    async def ask() -> None:
        while True:
            async with Client(url) as client:
                client.send(data)
                while await client.reader.read(65536):
                    pass

    tasks = [asyncio.create_task(ask()) for _ in range(count)]
    yield
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError)
        for end in await asyncio.gather(*tasks, return_exceptions=True)
    )


def long_answer(dialect: str, *, stream: bool) -> Ask:
    fields = {"max_tokens": tokens_of_a_long_answer(dialect), "stream": stream}
    return Ask("POST", COMPLETIONS, fields, lines=("Connection: close",))


def tokens_of_a_long_answer(dialect: str) -> int:
    return CONTEXT[dialect] - 100  # room for the prompt


@pytest.mark.parametrize("stream", [True, False])
@measured
async def test_both_notice_or_overlook_alike_that_a_client_has_left(
    stream: bool, dialect: str, real: EngineServer, sim: SimEngine
) -> None:
    noticed = [
        await stops_when_its_client_leaves(url, dialect, real.model, stream)
        for url in (real.url, sim.url)
    ]
    # llama-server looks after plain requests only when nothing is asked for a second.
    assert noticed == [stream or dialect == "vllm"] * 2


async def stops_when_its_client_leaves(url: str, dialect: str, model: str, stream: bool) -> bool:
    before = await tokens_made(url, dialect)
    async with Client(url) as client:
        client.send(long_answer(dialect, stream=stream).wire(model))
        await load(url, dialect, running=1)
    await load(url, dialect, running=0, waiting=0)
    made = await tokens_made(url, dialect) - before
    return made < 0.9 * tokens_of_a_long_answer(dialect)


async def tokens_made(url: str, dialect: str) -> float:
    name = {"vllm": "vllm:generation_tokens_total", "llama.cpp": "llamacpp:n_decode_total"}[dialect]
    found = re.findall(rf"^{name}\S* (\S+)", await metrics(url), re.MULTILINE)
    return sum(map(float, found))


@pytest.mark.parametrize("dialect", ["llama-cpp-python"], indirect=True)
async def test_another_request_cuts_the_stream_of_both(
    dialect: str, real: EngineServer, sim: SimEngine
) -> None:
    truth = await cut_stream(real.url, dialect, real.model)
    assert await cut_stream(sim.url, dialect, real.model) == truth
    assert truth == ("chunked, cut", b"data: [DONE]", [])


async def cut_stream(url: str, dialect: str, model: str) -> tuple[str, bytes, list[bytes]]:
    """How a stream ends that another request meets: framing, last event, and finish reasons."""
    async with Client(url) as client:
        client.send(long_answer(dialect, stream=True).wire(model))
        _, headers = await asyncio.wait_for(read_head(client), PATIENCE)
        await client.until(b"\n\n\r\n")  # one event
        assert (await exchange(url, ASKS["models"].wire(model))).status == 200
        framing, body = await asyncio.wait_for(read_body(client, headers), PATIENCE)
    last = body.strip().rpartition(b"\n")[2]
    return framing, last, re.findall(rb'"finish_reason": ?"\w+"', body)

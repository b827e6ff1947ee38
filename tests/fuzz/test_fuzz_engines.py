"""Whatever a server says of itself, its figures are plausible and its documents can be shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import pytest
from fuzz_checks import check_document, check_metrics, check_server, recognised
from fuzz_corpus import ANSWERS, METRICS, body_of
from fuzz_inputs import examples, json_values, mutated, with_keys
from hypothesis import given
from hypothesis import strategies as st

from mvllm_router.engines import ENGINES, get, read_models
from mvllm_router.engines.recognise import FIRST, Answer, read_json

NAMES = sorted(ENGINES)
# Running, waiting, KV cache, prompt tokens, generation tokens.
FIGURES = {
    "llama-server-idle": (0, 0, None, 0, 0),
    "llama-server-after": (0, 0, None, 77, 138),
    "llama-server-busy": (4, 1, None, 12, 1915),
    "vllm-idle": (0, 0, 0, 0, 0),
    "vllm-loaded": (4, 6, 0.00024415552707079957, 795, 219),
    "vllm-two-engines-idle": (None, None, None, 0, 0),
    "vllm-two-engines-loaded": (4, 6, 0.02006688963210701, 329, 16),
}


def engine_of(name: str) -> str:
    return "vllm" if name.startswith("vllm") else "llama.cpp"


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


# --- metrics

WANTED = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "llamacpp:requests_processing",
    "llamacpp:requests_deferred",
    "llamacpp:tokens_predicted_total",
)
_labels = st.sampled_from(
    ("", '{engine="0"}', '{engine="1",a="}"}', "{", '{a="', "_by_reason", "_created", '{a="\\""}')
)
_values = st.one_of(
    st.floats().map(str),
    st.integers().map(str),
    st.sampled_from(
        ("+Inf", "-Inf", "NaN", "1e308", "-1e308", "1e15", "-1", "0x1", "1_0", "", "9" * 400)
    ),
)
_lines = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from((*WANTED, "# HELP vllm:num_requests_running", "other")),
    _labels,
    st.sampled_from((" ", "\t", "", "  ")),
    _values,
    st.sampled_from(("\n", " 1700000000\n", "\r\n", "")),
)
real_texts = st.sampled_from(sorted(METRICS.values()))
metrics_texts = st.one_of(
    st.lists(_lines, max_size=12).map("".join),
    st.lists(_lines, max_size=6).map(lambda lines: json.dumps("".join(lines))),
    mutated(real_texts.map(str.encode)).map(lambda text: text.decode("utf-8", "replace")),
    st.text(max_size=60),
)


@pytest.mark.parametrize("name", FIGURES)
def test_the_figures_of_real_servers_are_read(name: str) -> None:
    assert set(FIGURES) == set(METRICS)
    assert astuple(get(engine_of(name)).read_metrics(METRICS[name])) == FIGURES[name]


@pytest.mark.parametrize("name", FIGURES)
def test_metrics_cut_anywhere_say_the_same_or_less(name: str) -> None:
    engine, text, whole = get(engine_of(name)), METRICS[name], FIGURES[name]
    for at in range(0, len(text), 61):
        for got, figure in zip(astuple(engine.read_metrics(text[:at])), whole, strict=True):
            assert got is None or (figure is not None and got <= figure)


@examples(300)
@given(st.sampled_from(NAMES), metrics_texts)
def test_any_text_of_metrics_gives_plausible_figures(
    loop: asyncio.AbstractEventLoop, name: str, text: str
) -> None:
    check_metrics(loop, name, text.encode("utf-8", "surrogatepass"))


# --- models and capacity

model_lists = st.one_of(
    with_keys("data", "id", "aliases", "object"),
    st.builds(
        lambda names: {"data": [{"id": name, "aliases": [name, 7, None]} for name in names]},
        st.lists(json_values, max_size=6),
    ),
    st.builds(
        lambda slots: {"total_slots": slots},
        st.one_of(st.integers(-2, 2), st.integers(), st.floats(), st.booleans(), st.text()),
    ),
)


@examples(150)
@given(st.one_of(model_lists, with_keys("total_slots", "slots", "data")))
def test_any_document_gives_models_that_can_be_shown_and_a_capacity_or_none(document: Any) -> None:
    check_document(document)


def test_a_list_of_models_without_end_is_cut() -> None:
    entry = {"id": "m", "aliases": [f"a{number}" for number in range(100_000)]}
    many = {"data": [{"id": f"m{number}"} for number in range(100_000)]}
    assert len(read_models({"data": [entry]}) or {}) < 100
    assert len(read_models(many) or {}) < 10_000


@examples(200)
@given(st.sampled_from(NAMES), st.text(max_size=200))
def test_any_request_id_is_taken_or_not(name: str, request_id: str) -> None:
    assert get(name).accepts_request_id(request_id) in (True, False)


def test_the_real_models_and_slots_are_read() -> None:
    def of(name: str) -> object:
        return read_json(body_of(ANSWERS[name]))

    assert set(read_models(of("vllm-models")) or ()) == {"tiny-random"}
    assert set(read_models(of("llama-server-models")) or ()) == {"tiny-edge"}
    assert get("llama.cpp").read_capacity(of("llama-server-props")) == 4


# --- recognising


def as_answer(name: str) -> Answer:
    """Return a real answer as the prober gives it."""
    first, *lines = ANSWERS[name].partition(b"\r\n\r\n")[0].decode().split("\r\n")
    fields = [line.partition(":") for line in lines]
    headers = {key.lower(): value.strip() for key, _, value in fields}
    return Answer(int(first.split(" ")[1]), headers, body_of(ANSWERS[name]))


NOT_FOUND = Answer(404, {"server": "uvicorn"}, b'{"detail":"Not Found"}')
SERVERS = {
    "vllm": {"/health": as_answer("vllm-health"), "/version": as_answer("vllm-version")},
    "llama.cpp": {"/health": as_answer("llama-server-health")},
    "mlx": {"/health": as_answer("mlx-health")},
    "llama-cpp-python": {
        "/health": NOT_FOUND,
        "/openapi.json": as_answer("llama-cpp-python-openapi"),
    },
    "openai": {"/health": NOT_FOUND, "/openapi.json": NOT_FOUND},
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_real_engine_is_recognised(name: str) -> None:
    assert recognised(SERVERS[name], NOT_FOUND) == name


# What Python reads and others do not, or what it cannot read either.
STRANGE = (
    b"",
    b"{}",
    b"[" * 4000,
    b'{"a":' * 4000,
    b"9" * 5000,
    b"NaN",
    b"\xff",
    b'{"version": NaN, "status": "ok", "total_slots": 0, "data": [{"id": "a", "x": 1e999}]}',
    b'{"version": 1, "status": [], "info": {"title": 5}, "data": [{"id": "\\ud800"}]}',
    b'{"data": [{"id": "a", "x": "\\ud800"}], "total_slots": -1}',
)
bodies = st.one_of(
    st.sampled_from([body_of(answer) for _, answer in sorted(ANSWERS.items())]),
    mutated(st.sampled_from([body_of(answer) for _, answer in sorted(ANSWERS.items())]), 2),
    with_keys("status", "version", "info", "title", "data", "id", "total_slots", "aliases").map(
        lambda value: json.dumps(value).encode()
    ),
    st.sampled_from(STRANGE),
    st.binary(max_size=40),
)
any_answer = st.builds(
    Answer,
    st.sampled_from((200, 200, 200, 204, 301, 401, 404, 500, 501, 503)),
    st.dictionaries(
        st.sampled_from(("server", "content-type")),
        st.sampled_from(("llama.cpp", "BaseHTTP/0.6 Python/3.11", "uvicorn", "", "\udcff")),
        max_size=2,
    ),
    bodies,
)
PATHS = ("/health", "/version", "/openapi.json", "/v1/models", "/props", "/metrics")
any_server = st.dictionaries(st.sampled_from(PATHS), any_answer)


@pytest.mark.parametrize("name", [*NAMES, "auto"])
def test_a_server_that_answers_strange_things_is_checked_like_any_other(
    name: str, loop: asyncio.AbstractEventLoop
) -> None:
    for body in STRANGE:
        for server in ("llama.cpp", "BaseHTTP/0.6", "uvicorn"):
            for status in (200, 404, 503):
                health = Answer(status, {"server": server}, body)
                rest = dict.fromkeys(PATHS, Answer(200, {"server": server}, body))
                check_server(loop, {**rest, FIRST: health}, name)


@examples(150)
@given(any_server, any_answer)
def test_any_answers_name_one_of_the_engines(answers: dict[str, Answer], first: Answer) -> None:
    assert recognised({**answers, FIRST: first}, NOT_FOUND) in ENGINES


@examples(150)
@given(any_server, st.sampled_from((*NAMES, "auto")))
def test_a_check_of_any_server_leaves_documents_that_can_be_read(
    loop: asyncio.AbstractEventLoop, answers: dict[str, Answer], engine: str
) -> None:
    check_server(loop, answers, engine)

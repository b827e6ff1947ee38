"""What engines answer to other questions: slots, models, request ids; and their names."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from mvllm_router import engines
from mvllm_router.config import ENGINE_PLUGINS
from mvllm_router.config.server_keys import ENGINE_NAMES
from mvllm_router.engines import ENGINES, Engine, get, is_uuid, read_models
from mvllm_router.engines.mlx import MLX
from mvllm_router.engines.recognise import read_json

HEX = "198c1920e5d643f0ba18034639b82f44"


@pytest.mark.parametrize(
    ("document", "slots"),
    [
        ({"default_generation_settings": {"n_ctx": 2048}, "total_slots": 4, "role": "x"}, 4),
        ({"total_slots": 0}, None),
        ({"total_slots": -1}, None),
        ({"total_slots": "4"}, None),
        ({"total_slots": 4.5}, None),
        ({"total_slots": None}, None),
        ({"role": "router"}, None),
        ({}, None),
        ([], None),
        (None, None),
        ("total_slots", None),
    ],
)
def test_the_slots_of_llama_server_are_its_capacity(document: object, slots: int | None) -> None:
    assert get("llama.cpp").read_capacity(document) == slots


@pytest.mark.parametrize("name", ["vllm", "openai", "mlx", "llama-cpp-python"])
def test_the_others_do_not_tell_their_capacity(name: str) -> None:
    assert get(name).capacity_path is None
    assert get(name).read_capacity({"total_slots": 4}) is None


def test_models_are_read_with_all_that_a_server_says_of_them() -> None:
    vllm = {"id": "tiny-random", "object": "model", "created": 1, "max_model_len": 2048}
    lora = {"id": "my-lora", "object": "model", "parent": "tiny-random"}
    assert read_models({"object": "list", "data": [vllm, lora]}) == {
        "tiny-random": vllm,
        "my-lora": lora,
    }


def test_an_empty_list_of_models_is_an_answer() -> None:
    assert read_models({"object": "list", "data": []}) == {}


@pytest.mark.parametrize(
    "document",
    [None, [], "models", 3, {}, {"data": None}, {"data": {"id": "m"}}, {"error": "Unauthorized"}],
)
def test_what_is_no_list_of_models_is_no_answer(document: object) -> None:
    assert read_models(document) is None


def test_entries_that_are_no_models_are_left_out() -> None:
    entries: list[Any] = [
        {"id": "m"},
        {"id": 3},
        {"id": None},
        {},
        "m2",
        None,
        ["m3"],
        {"name": "m4"},
    ]
    assert read_models({"data": entries}) == {"m": {"id": "m"}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEX, True),
        ("198c1920-e5d6-43f0-ba18-034639b82f44", True),
        ("198C1920-E5D6-43F0-BA18-034639B82F44", True),
        ("my-req-43", False),
        ("", False),
        (HEX[:-1], False),
        (HEX + "0", False),
        ("g" * 32, False),
    ],
)
def test_a_uuid_is_known_with_and_without_dashes(text: str, expected: bool) -> None:
    assert is_uuid(text) is expected


def test_only_the_python_server_is_choosy_about_request_ids() -> None:
    for name in ENGINES:
        assert get(name).accepts_request_id(HEX)
        assert get(name).accepts_request_id("my-req-43") is (name != "llama-cpp-python")


def test_how_each_engine_is_asked() -> None:
    table = {
        name: (get(name).health_path, get(name).metrics_path, get(name).capacity_path)
        for name in ENGINES
    }
    assert table == {
        "vllm": ("/health", "/metrics", None),
        "llama.cpp": ("/health", "/metrics", "/props"),
        "llama-cpp-python": ("/openapi.json", None, None),
        "mlx": ("/health", None, None),
        "openai": ("/v1/models", None, None),
    }


def test_llama_server_is_scraped_more_slowly_than_once_a_second() -> None:
    assert get("llama.cpp").min_scrape_interval > 1.0
    assert get("vllm").min_scrape_interval == 0.0


def test_only_the_python_server_takes_one_at_a_time() -> None:
    assert [name for name in ENGINES if get(name).one_at_a_time] == ["llama-cpp-python"]
    assert get("llama-cpp-python").default_capacity == 1


def test_each_name_makes_its_engine_and_the_configuration_knows_it() -> None:
    for name, place in ENGINES.items():
        engine = get(name)
        assert engine.name == name
        assert f"{type(engine).__module__}:{type(engine).__qualname__}" == place
        assert engine.default_capacity >= 1
    assert {"auto", *ENGINES} == set(ENGINE_NAMES)


def test_there_is_one_of_each() -> None:
    assert get("vllm") is get("vllm")


def test_an_installed_engine_is_found_by_its_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = EntryPoint("mine", "mvllm_router.engines.mlx:MLX", ENGINE_PLUGINS)
    asked: list[dict[str, str]] = []

    def entry_points(**select: str) -> list[EntryPoint]:
        asked.append(select)
        return [mine]

    monkeypatch.setattr(engines, "entry_points", entry_points)
    monkeypatch.setattr(engines, "_made", {})
    assert isinstance(get("mine"), MLX)
    assert get("mine") is get("mine")
    assert type(get("openai")) is Engine
    assert asked == [{"group": "mvllm_router.engines", "name": "mine"}]


def test_one_that_is_not_recognised_yet_is_spoken_to_as_any_openai_server() -> None:
    assert type(get("auto")) is Engine


@pytest.mark.parametrize("name", ["sglang", ""])
def test_a_name_that_nobody_has_is_refused_naming_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"no engine is called '{name}'; there are vllm, llama"):
        get(name)


def test_further_names_of_a_model_are_names() -> None:
    entry = {"id": "tiny.gguf", "aliases": ["tiny", "small", 7], "object": "model"}
    assert read_models({"data": [entry]}) == {"tiny.gguf": entry, "tiny": entry, "small": entry}


@pytest.mark.parametrize(
    "name", ["", "a\nb", "a\x1b[2J", "a\x00", "\u202eelif", "\x9b1m", "x" * 1025]
)
def test_a_name_that_cannot_be_shown_is_no_model(name: str) -> None:
    assert read_models({"data": [{"id": name, "aliases": [name]}, {"id": "m"}]}) == {
        "m": {"id": "m"}
    }


@pytest.mark.parametrize("name", ["x" * 1024, "größer 模型", "/models/a b.gguf", "org/m:q4_K"])
def test_any_other_name_is_one(name: str) -> None:
    assert read_models({"data": [{"id": name}]}) == {name: {"id": name}}


def test_a_list_without_end_is_cut() -> None:
    entries = [{"id": f"m{number}"} for number in range(100_000)]
    found = read_models({"data": entries})
    assert found is not None
    assert list(found) == [f"m{number}" for number in range(4096)]


def test_one_entry_is_not_shown_under_thousands_of_names() -> None:
    entry = {"id": "m", "meta": "x" * 1000, "aliases": [f"a{number}" for number in range(5000)]}
    assert len(read_models({"data": [entry]}) or ()) == 17


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [' + b"1.5," * 60_000 + b"1]}",
        b'"' + b"x" * 2**20 + b'"',
        b"[" * 500_000,
        b"[" * 900 + b"\xff",
        b"1" * 5000,
        b"",
    ],
    ids=["values", "text", "nesting", "no utf-8", "a long number", "nothing"],
)
def test_a_document_that_no_engine_means_is_not_read(body: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        read_json(body)


def test_a_long_list_of_models_is_read() -> None:
    entries = [{"id": f"org/m{n}", "about": "Some words, " * 40, "n": n} for n in range(500)]
    document = {"object": "list", "data": entries}
    assert read_json(json.dumps(document).encode()) == document

"""GET /v1/models: one list over all servers that are up, with what they themselves tell."""

from __future__ import annotations

from typing import Any

import pytest
from pool_kit import add_up, checked, new_pool, refuse, spec

from mvllm_router.api.models import model_cards, model_document, models_document
from mvllm_router.auth import Holder
from mvllm_router.config import KeySpec
from mvllm_router.errors import ModelNotFound
from mvllm_router.pool import Pool


def add(pool: Pool, name: str, cards: dict[str, dict[str, Any]], **more: Any) -> None:
    backend = pool.add(spec(name, **more))
    pool.told_models(backend, cards)
    checked(pool, backend)


def card(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "object": "model", "owned_by": "vllm", "created": 7, **more}


def test_the_first_server_that_lists_a_model_gives_its_entry() -> None:
    pool = new_pool()
    add(pool, "a", {"tiny": card("tiny", max_model_len=4096, permission=[{"x": 1}])})
    add(pool, "b", {"tiny": card("tiny", max_model_len=8192), "big": card("big")})
    assert models_document(pool) == {
        "object": "list",
        "data": [card("tiny", max_model_len=4096, permission=[{"x": 1}]), card("big")],
    }


def test_an_alias_is_an_entry_with_the_metadata_of_what_it_stands_for() -> None:
    pool = new_pool()
    add(pool, "a", {"big": card("big", max_model_len=4096)}, aliases={"gpt-4o": "big"})
    assert model_cards(pool) == {
        "big": card("big", max_model_len=4096),
        "gpt-4o": card("gpt-4o", max_model_len=4096),
    }


def test_only_the_models_of_an_override_are_there_with_metadata_where_it_is_known() -> None:
    pool = new_pool()
    add(pool, "a", {"tiny": card("tiny"), "other": card("other")}, models=("tiny", "unlisted"))
    assert model_cards(pool) == {
        "tiny": card("tiny"),
        "unlisted": {"id": "unlisted", "object": "model", "created": 0, "owned_by": "auto"},
    }


def test_servers_that_are_down_or_do_not_say_add_nothing() -> None:
    pool = new_pool()
    refuse(pool, add_up(pool, "a", "tiny"))
    add_up(pool, "b")
    assert models_document(pool) == {"object": "list", "data": []}


def test_models_of_removed_servers_vanish() -> None:
    pool = new_pool()
    add_up(pool, "a", "tiny")
    pool.remove("a")
    assert model_cards(pool) == {}


def test_one_model_is_found_by_its_name_or_alias() -> None:
    pool = new_pool()
    add(pool, "a", {"Qwen/Qwen3-8B": card("Qwen/Qwen3-8B")}, aliases={"q": "Qwen/Qwen3-8B"})
    assert model_document(pool, "Qwen/Qwen3-8B") == card("Qwen/Qwen3-8B")
    assert model_document(pool, "q") == card("q")


def test_a_caller_is_shown_only_the_models_it_may_use() -> None:
    pool = new_pool()
    add(pool, "a", {"big": card("big"), "tiny": card("tiny")}, aliases={"gpt-4o": "big"})
    alice = Holder(KeySpec("alice", b"digest", models=("gpt-4o", "absent")), pool.monotonic)
    assert models_document(pool, alice)["data"] == [card("gpt-4o")]
    assert model_document(pool, "gpt-4o", alice) == card("gpt-4o")
    for name in ("big", "absent"):
        with pytest.raises(ModelNotFound) as caught:
            model_document(pool, name, alice)
        assert caught.value.message.endswith("There are: gpt-4o")


@pytest.mark.parametrize(
    ("models", "there"),
    [((), "none"), (("a", "b"), "a, b"), (tuple(f"m{n:02}" for n in range(30)), "m19, ...")],
)
def test_an_unknown_model_is_an_error_that_names_those_there_are(
    models: tuple[str, ...], there: str
) -> None:
    pool = new_pool()
    add_up(pool, "a", *models)
    with pytest.raises(ModelNotFound) as caught:
        model_document(pool, "nope" * 1000)
    error = caught.value
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert error.message.endswith(there)
    assert len(error.message) < 500

"""Who may be asked for a model: those that have it, else who may have it, else the least bad."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pool_kit import add_up, checked, eject, new_pool, refuse, spec

from mvllm_router.pool import Backend, Pool


def names(backends: list[Backend]) -> list[str]:
    return [backend.name for backend in backends]


def test_only_those_that_list_the_model() -> None:
    pool = new_pool()
    add_up(pool, "a", "m1", "m2")
    add_up(pool, "b", "m2")
    assert names(pool.candidates("m1")) == ["a"]
    assert names(pool.candidates("m2")) == ["a", "b"]
    assert names(pool.candidates("m3")) == []


def test_no_model_means_any_server_that_is_up() -> None:
    pool = new_pool()
    add_up(pool, "a", "m1")
    add_up(pool, "b")
    pool.add(spec("c"))
    assert names(pool.candidates(None)) == ["a", "b"]


def test_those_that_do_not_say_are_asked_only_when_no_one_lists_it() -> None:
    pool = new_pool()
    add_up(pool, "listing", "m1")
    add_up(pool, "silent")
    assert names(pool.candidates("m1")) == ["listing"]
    assert names(pool.candidates("m2")) == ["silent"]


def test_an_empty_list_is_a_list_and_not_silence() -> None:
    pool = new_pool()
    backend = add_up(pool, "a")
    pool.told_models(backend, {})
    assert names(pool.candidates("m1")) == []


def test_an_alias_is_one_more_name_and_leads_to_the_servers_own() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "Qwen/Qwen3-8B", aliases={"gpt-4o": "Qwen/Qwen3-8B"})
    assert names(pool.candidates("gpt-4o")) == ["a"]
    assert names(pool.candidates("Qwen/Qwen3-8B")) == ["a"]
    assert backend.own_name("gpt-4o") == "Qwen/Qwen3-8B"
    assert backend.own_name("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"


def test_an_alias_alone_does_not_tell_what_else_a_silent_server_has() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", aliases={"gpt-4o": "x"})
    assert backend.model_names() is None
    assert names(pool.candidates("anything")) == ["a"]


def test_a_list_in_the_file_overrides_what_the_server_lists() -> None:
    pool = new_pool()
    add_up(pool, "a", "m1", "m2", models=("m2", "unlisted"), aliases={"short": "m2"})
    assert names(pool.candidates("m1")) == []
    for model in ("m2", "unlisted", "short"):
        assert names(pool.candidates(model)) == ["a"]


def test_a_list_in_the_file_speaks_for_a_server_that_does_not() -> None:
    pool = new_pool()
    add_up(pool, "a", models=("m1",))
    assert names(pool.candidates("m1")) == ["a"]
    assert names(pool.candidates("m2")) == []


def test_an_ejected_server_is_asked_only_when_no_other_is_left() -> None:
    pool = new_pool()
    good, bad = add_up(pool, "good", "m"), add_up(pool, "bad", "m")
    eject(pool, bad)
    assert names(pool.candidates("m")) == ["good"]
    refuse(pool, good)
    assert names(pool.candidates("m")) == ["bad"]
    assert names(pool.candidates(None)) == ["bad"]


def test_an_ejected_server_without_the_model_is_no_resort() -> None:
    pool = new_pool()
    eject(pool, add_up(pool, "a", "other"))
    assert names(pool.candidates("m")) == []


def test_a_server_that_checks_find_dead_is_no_resort() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    refuse(pool, backend)
    assert names(pool.candidates("m")) == []


def test_an_ejected_server_that_turns_out_dead_is_a_resort_no_longer() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    eject(pool, backend)
    assert names(pool.candidates("m")) == ["a"]
    refuse(pool, backend)
    assert names(pool.candidates("m")) == [], "the answer from before the check was kept"


def _goes_up(pool: Pool, backend: Backend) -> None:
    refuse(pool, backend)
    checked(pool, backend)
    checked(pool, backend)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda pool, a: pool.told_models(a, {"n": {}}), []),
        (lambda pool, a: pool.told_models(a, None), ["a"]),
        (lambda pool, a: refuse(pool, a), []),
        (_goes_up, ["a"]),
        (lambda pool, a: pool.update(replace(a.spec, models=("n",))), []),
        (lambda pool, a: pool.remove("a"), []),
        (lambda pool, a: add_up(pool, "b", "m"), ["a", "b"]),
    ],
    ids=["other models", "silence", "down", "back up", "override", "removed", "added"],
)
def test_an_answer_is_kept_only_until_something_changes(change, expected) -> None:  # type: ignore[no-untyped-def]
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    assert names(pool.candidates("m")) == ["a"]
    assert pool.candidates("m") is pool.candidates("m"), "it is worked out for each request"
    change(pool, backend)
    assert names(pool.candidates("m")) == expected


def test_names_that_clients_invent_do_not_fill_the_memory() -> None:
    pool = new_pool()
    add_up(pool, "silent")  # has whatever is asked for
    for number in range(10_000):
        assert names(pool.candidates(f"invented-{number}")) == ["silent"]
    assert names(pool.candidates("x" * 100_000)) == ["silent"]
    assert len(pool._by_model) <= 4096
    assert max(len(name or "") for name in pool._by_model) <= 256


def test_names_that_nobody_has_are_not_kept_at_all() -> None:
    pool = new_pool()
    add_up(pool, "a", "m")
    for number in range(100):
        assert pool.candidates(f"invented-{number}") == []
    assert len(pool._by_model) == 0


def test_the_models_there_are_are_those_of_servers_that_are_up() -> None:
    pool = new_pool()
    add_up(pool, "a", "m2", "m1", aliases={"alias": "m1"})
    add_up(pool, "silent")
    refuse(pool, add_up(pool, "down", "m3"))
    assert pool.model_names() == ["alias", "m1", "m2"]


def test_a_model_may_come_back_with_the_server_that_has_it() -> None:
    pool = new_pool()
    refuse(pool, add_up(pool, "down", "m"))
    assert pool.may_have("m")
    assert not pool.may_have("other")


def test_a_server_that_is_not_known_yet_may_have_anything() -> None:
    pool = new_pool()
    backend = pool.add(spec("new"))
    assert pool.may_have("m")
    pool.health(backend, lambda health: health.is_loading(1.0, "it is loading its model"))
    assert pool.may_have("m")
    refuse(pool, backend)
    assert not pool.may_have("m"), "a dead server is no reason to wait for a misspelt model"


def test_an_empty_pool_has_nothing() -> None:
    pool = new_pool()
    assert pool.candidates(None) == []
    assert pool.candidates("m") == []
    assert not pool.may_have("m")
    assert pool.model_names() == []

"""Who may be asked for a model: those that have it, else who may have it, else the least bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from pool_kit import Clock, add_up, checked, fail_checks, new_pool, open_circuit, refuse, spec

from mvllm_router.pool import Backend, Pool


def names(backends: Sequence[Backend]) -> list[str]:
    return [backend.name for backend in backends]


def resorts(pool: Pool, model: str | None = "m") -> list[list[str]]:
    """Return the names of those that rest, of those that are broken, and of those that are out."""
    return [names(sort) for sort in pool.last_resorts(model)]


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


def test_a_server_with_an_open_circuit_is_no_candidate_but_a_resort() -> None:
    pool = new_pool()
    add_up(pool, "good", "m")
    bad = add_up(pool, "bad", "m")
    open_circuit(pool, bad)
    assert names(pool.candidates("m")) == ["good"]
    assert names(pool.candidates(None)) == ["good"]
    assert resorts(pool) == [[], ["bad"], []]
    assert bad.is_up, "health checks find it well"


def test_a_circuit_that_is_half_open_takes_part_until_its_trial_has_begun() -> None:
    clock = Clock()
    pool = new_pool(clock)
    good, bad = add_up(pool, "good", "m"), add_up(pool, "bad", "m")
    open_circuit(pool, bad)
    clock.advance(1.0)
    assert names(pool.candidates("m")) == ["good", "bad"]
    trial = pool.lease(bad)
    assert trial.is_trial
    assert names(pool.candidates("m")) == ["good"]
    assert not pool.lease(good).is_trial
    trial.release()
    assert names(pool.candidates("m")) == ["good", "bad"]
    pool.request_succeeded(bad, clock())
    assert names(pool.candidates("m")) == ["good", "bad"]


def test_a_server_that_rests_is_no_candidate_until_its_rest_is_over() -> None:
    clock = Clock()
    pool = new_pool(clock)
    add_up(pool, "good", "m")
    busy = add_up(pool, "busy", "m")
    pool.is_busy(busy, 3.0)
    assert names(pool.candidates("m")) == ["good"]
    assert resorts(pool) == [["busy"], [], []]
    clock.advance(2.9)
    assert names(pool.candidates("m")) == ["good"]
    clock.advance(0.1)
    assert names(pool.candidates("m")) == ["good", "busy"]


def test_a_server_that_drains_is_neither_a_candidate_nor_a_resort() -> None:
    pool = new_pool()
    add_up(pool, "a", "m")
    assert names(pool.candidates("m")) == ["a"]
    pool.drain("a")
    assert names(pool.candidates("m")) == []
    pool.is_busy(pool.backends["a"], 3.0)
    assert resorts(pool) == [[], [], []]
    open_circuit(pool, pool.backends["a"])
    assert resorts(pool) == [[], [], []]
    fail_checks(pool, pool.backends["a"])
    assert resorts(pool) == [[], [], []]


def test_enable_ends_a_drain() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    pool.drain("a")
    pool.drain("a")
    assert backend.condition(0.0) == "drain"
    pool.enable("a")
    pool.enable("a")
    assert names(pool.candidates("m")) == ["a"]
    assert [e.kind for e in pool.events.last(2)] == ["drain", "enable"], "only changes are told"


def test_the_resorts_are_sorted_by_how_bad_they_are() -> None:
    pool = new_pool()
    rests, broken, both, out, gone = (
        add_up(pool, name, "m") for name in ("rests", "broken", "both", "out", "gone")
    )
    for backend in (rests, both):
        pool.is_busy(backend, 10.0)
    for backend in (broken, both):
        open_circuit(pool, backend)
    fail_checks(pool, out)
    refuse(pool, gone)
    assert names(pool.candidates("m")) == []
    assert resorts(pool) == [["rests"], ["broken", "both"], ["out"]]


def test_a_server_without_the_model_is_no_resort() -> None:
    pool = new_pool()
    rests, broken, out = (add_up(pool, name, "other") for name in ("rests", "broken", "out"))
    pool.is_busy(rests, 10.0)
    open_circuit(pool, broken)
    fail_checks(pool, out)
    assert resorts(pool, "m") == [[], [], []]
    assert resorts(pool, None) == [["rests"], ["broken"], ["out"]]


def test_one_that_does_not_say_what_it_has_is_a_resort_only_where_no_one_lists_the_model() -> None:
    pool = new_pool()
    for name, models in (("lists", ("m",)), ("silent", ())):
        pool.is_busy(add_up(pool, name, *models), 10.0)
    assert resorts(pool, "m")[0] == ["lists"]
    assert resorts(pool, "n")[0] == ["silent"]


def test_a_server_that_checks_find_gone_is_no_resort() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    refuse(pool, backend)
    assert names(pool.candidates("m")) == []
    assert resorts(pool) == [[], [], []]


def test_a_server_that_refuses_a_request_is_a_resort_no_longer() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    open_circuit(pool, backend)
    assert resorts(pool) == [[], ["a"], []]
    pool.request_refused(backend)
    assert resorts(pool) == [[], [], []]


def test_a_server_that_loads_is_no_resort() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    pool.health(backend, lambda health: health.is_loading(1.0, "it is loading its model"))
    assert resorts(pool) == [[], [], []]


def last_resorts_told(pool: Pool) -> int:
    return sum(event.kind == "last resort" for event in pool.events.last(99))


@pytest.mark.parametrize("how", ["up", "busy", "open", "down"])
def test_asking_one_that_is_not_well_is_counted_and_told(how: str) -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    if how == "busy":
        pool.is_busy(backend, 10.0)
    elif how == "open":
        open_circuit(pool, backend)
    elif how == "down":
        fail_checks(pool, backend)
    pool.lease(backend)
    assert backend.stats.last_resorts == (how != "up")
    told = [e.message for e in pool.events.last(99) if e.kind == "last resort"]
    condition = {"busy": "resting"}.get(how, how)
    expected = f"asked although it is {condition}: no server is better"
    assert told == ([] if how == "up" else [expected])


def test_last_resorts_are_all_counted_but_not_each_told() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend = add_up(pool, "a", "m")
    open_circuit(pool, backend)
    for _ in range(30):
        pool.lease(backend)
        clock.advance(0.01)
    assert (backend.stats.last_resorts, last_resorts_told(pool)) == (30, 1)
    clock.advance(10)
    pool.lease(backend)  # the trial
    pool.lease(backend)
    assert (backend.stats.last_resorts, last_resorts_told(pool)) == (31, 2)


def test_a_trial_is_no_last_resort() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend = add_up(pool, "a", "m")
    open_circuit(pool, backend)
    clock.advance(1.0)
    assert pool.lease(backend).is_trial
    assert backend.stats.last_resorts == 0


@pytest.mark.parametrize(
    ("what", "condition"),
    [
        (lambda pool, a: None, "up"),
        (lambda pool, a: pool.is_busy(a, 5.0), "resting"),
        (open_circuit, "open"),
        (lambda pool, a: (open_circuit(pool, a), pool.is_busy(a, 5.0)), "open"),
        (lambda pool, a: (open_circuit(pool, a), pool.drain("a")), "drain"),
        (lambda pool, a: (pool.drain("a"), refuse(pool, a)), "down"),
        (lambda pool, a: pool.health(a, lambda h: h.is_loading(1.0, "loading")), "loading"),
    ],
)
def test_one_word_says_why_a_server_gets_requests_or_not(what, condition: str) -> None:  # type: ignore[no-untyped-def]
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    what(pool, backend)
    assert backend.condition(pool.monotonic()) == condition


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
        (lambda pool, a: pool.drain("a"), []),
        (lambda pool, a: (pool.drain("a"), pool.candidates("m"), pool.enable("a")), ["a"]),
        (lambda pool, a: pool.request_refused(a), []),
        (open_circuit, []),
        (lambda pool, a: pool.is_leaving(a, "it is shutting down"), []),
        (lambda pool, a: pool.is_busy(a, None), []),
    ],
    ids=[
        *("other models", "silence", "down", "back up", "override", "removed", "added"),
        *("drained", "enabled", "refused", "broken", "leaving", "busy"),
    ],
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

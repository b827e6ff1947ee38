"""Sessions and prompts stay where they were, as long as there is room; load decides otherwise."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

import pytest
from pool_kit import add_up, new_pool, scraped

from mvllm_router.policies import Supposed
from mvllm_router.policies import session as sessions
from mvllm_router.policies.prefix import Prefix, PrefixIndex
from mvllm_router.policies.prompt import ENDS, blocks_of
from mvllm_router.policies.session import Session
from mvllm_router.pool import Backend, Pool

NOW = 1000.0


def of_session(name: str, model: str = "m") -> Supposed:
    return Supposed(model, headers={sessions.HEADER: name})


def chat(*contents: str, model: str = "m", **more: Any) -> Supposed:
    roles = ("system", "user", "assistant")
    messages = [
        {"role": roles[number and 2 - number % 2], "content": content}
        for number, content in enumerate(contents)
    ]
    body = {"model": model, "messages": messages, **more}
    return Supposed(model, json.dumps(body, separators=(",", ":")).encode())


def three(pool: Pool, capacity: int = 8) -> list[Backend]:
    return [add_up(pool, name, "m", capacity=capacity) for name in "abc"]


# --- sessions


def test_a_session_stays_where_it_was() -> None:
    backends = three(new_pool())
    policy = Session()
    home, why = policy.choose(backends, of_session("s"), NOW)
    assert why == "the lowest score, for a new session"
    for _ in range(20):
        assert policy.choose(backends, of_session("s"), NOW) == (home, "where its session is")


def test_sessions_spread_by_load() -> None:
    pool = new_pool()
    backends, policy = three(pool), Session()
    for number in range(24):
        pool.lease(policy.choose(backends, of_session(f"s{number}"), NOW)[0])
    assert [backend.in_flight for backend in backends] == [8, 8, 8]


def test_a_session_stays_at_a_server_that_is_fuller_but_has_room() -> None:
    pool = new_pool()
    backends, policy = three(pool), Session()
    home, _ = policy.choose(backends, of_session("s"), NOW)
    scraped(pool, home, running=3)
    assert policy.choose(backends, of_session("s"), NOW)[0] is home


def test_a_session_moves_away_from_a_server_that_is_too_busy_and_stays_there() -> None:
    pool = new_pool()
    backends, policy = three(pool), Session()
    home, _ = policy.choose(backends, of_session("s"), NOW)
    for _ in range(8):
        pool.lease(home)
    other, why = policy.choose(backends, of_session("s"), NOW)
    assert other is not home
    assert why == "the lowest score: where its session was is too busy or gone"
    assert policy.choose(backends, of_session("s"), NOW) == (other, "where its session is")


def test_a_session_stays_at_a_busy_server_that_would_begin_it_at_once() -> None:
    pool = new_pool()
    backends, policy = three(pool), Session()
    home, _ = policy.choose(backends, of_session("s"), NOW)
    scraped(pool, home, running=7)
    assert home.has_free_place
    assert policy.choose(backends, of_session("s"), NOW)[0] is home
    scraped(pool, home, running=90)
    assert home.open_for == 1.0, "others have filled it, and one at least goes on"
    assert policy.choose(backends, of_session("s"), NOW)[0] is not home


def test_a_session_whose_server_cannot_be_asked_moves() -> None:
    pool = new_pool()
    backends, policy = three(pool), Session()
    home, _ = policy.choose(backends, of_session("s"), NOW)
    others = [backend for backend in backends if backend is not home]
    assert policy.choose(others, of_session("s"), NOW)[0] in others


def test_a_session_is_over_after_an_hour() -> None:
    backends = three(new_pool())
    policy = Session()
    policy.choose(backends, of_session("s"), NOW)
    _, why = policy.choose(backends, of_session("s"), NOW + 3601)
    assert why == "the lowest score, for a new session"


def test_no_more_than_so_many_sessions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_MOST", 10)
    backends = three(new_pool())
    policy = Session()
    for number in range(30):
        policy.choose(backends, of_session(f"s{number}"), NOW)
    assert len(policy._homes) == 10
    assert policy.choose(backends, of_session("s29"), NOW)[1] == "where its session is"


def test_sessions_at_a_server_that_was_removed_are_forgotten() -> None:
    backends = three(new_pool())
    policy = Session()
    home, _ = policy.choose(backends, of_session("s"), NOW)
    policy.forget(home)
    assert not policy._homes


def test_each_model_has_sessions_of_its_own() -> None:
    backends = three(new_pool())
    policy = Session()
    policy.choose(backends, of_session("s", "m"), NOW)
    _, why = policy.choose(backends, of_session("s", "n"), NOW)
    assert why == "the lowest score, for a new session"


@pytest.mark.parametrize(
    ("headers", "body", "named"),
    [
        ({sessions.HEADER: "h"}, '{"session_id":"s"}', "h"),
        ({}, '{"user":"u","prompt_cache_key":"k","session_id":"s"}', "s"),
        ({}, '{"user":"u","prompt_cache_key":"k"}', "k"),
        ({}, '{"user":"u"}', "u"),
        ({}, '{"user":7}', ""),
        ({}, '{"user":', ""),
        ({}, "--form", ""),
        ({}, "", ""),
    ],
)
def test_a_session_is_named_by_a_header_or_a_field(
    headers: dict[str, str], body: str, named: str
) -> None:
    policy = Session()
    policy.choose(three(new_pool()), Supposed("m", body.encode(), headers), NOW)
    assert list(policy._homes) == ([hash(("m", named))] if named else [])


# --- prompts

SYSTEM = "You are a helpful assistant. " * 60


def test_the_next_turn_of_a_chat_goes_where_the_first_one_went() -> None:
    pool = new_pool()
    backends = three(pool)
    policy = Prefix(lambda: 0.5)
    home, why = policy.choose(backends, chat(SYSTEM, "first"), NOW)
    assert why == "the lowest score: no server knows the prompt"
    scraped(pool, home, running=2)  # fuller than the others
    turn = chat(SYSTEM, "first", "an answer " * 20, "second")
    assert policy.choose(backends, turn, NOW) == (home, "it knows the beginning of the prompt")


def test_of_two_that_know_a_prompt_the_one_that_knows_more_gets_it() -> None:
    a, b, c = three(new_pool())
    policy = Prefix(lambda: 0.5)
    policy.choose([a], chat(SYSTEM, "one"), NOW)
    policy.choose([b], chat(SYSTEM, "two " * 200), NOW)
    chosen, _ = policy.choose([a, b, c], chat(SYSTEM, "two " * 200, "and", "so on"), NOW)
    assert chosen is b


def test_one_prompt_that_all_use_makes_no_server_hot() -> None:
    pool = new_pool()
    backends, policy = three(pool, capacity=10), Prefix()
    for _ in range(30):
        lease = pool.lease(policy.choose(backends, chat(SYSTEM, "hot"), NOW)[0])
        assert max(backend.kept_score for backend in backends) <= max(
            0.7, min(backend.kept_score for backend in backends) + 0.25
        )
        assert lease.backend in backends
    assert [backend.in_flight for backend in backends] == [10, 10, 10]


def test_a_prompt_that_all_use_comes_to_all_servers_in_time() -> None:
    backends, policy = three(new_pool()), Prefix()
    reached = Counter(policy.choose(backends, chat(SYSTEM, "x"), NOW)[0].name for _ in range(2000))
    assert set(reached) == {"a", "b", "c"}


def test_what_begins_alike_for_less_than_a_glance_is_not_alike() -> None:
    policy = Prefix(lambda: 0.5)
    a, b, c = three(new_pool())
    policy.choose([a], chat("short", "one" * 10), NOW)
    _, why = policy.choose([a, b, c], chat("short", "one" * 10, "more " * 300), NOW)
    assert why == "the lowest score: no server knows the prompt"


def test_who_gets_the_prompts_of_a_server_that_is_down_knows_them_from_then_on() -> None:
    a, b, c = three(new_pool())
    policy = Prefix(lambda: 0.5)
    policy.choose([a], chat(SYSTEM, "one"), NOW)
    moved, why = policy.choose([b, c], chat(SYSTEM, "one"), NOW)
    assert why == "the lowest score: those that know the prompt are too busy"
    assert policy.choose([b, c], chat(SYSTEM, "one"), NOW)[0] is moved


def test_to_ask_where_a_prompt_would_go_changes_nothing() -> None:
    backends = three(new_pool())
    policy = Prefix(lambda: 0.5)
    for _ in range(3):
        _, why = policy.would_choose(backends, chat(SYSTEM, "one"), NOW)
        assert why == "the lowest score: no server knows the prompt"
    assert len(policy.index) == 0


def test_other_tools_or_another_model_make_another_prompt() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "d " * 300}}]
    same = blocks_of(chat(SYSTEM, "x"))
    assert blocks_of(chat(SYSTEM, "x")) == same
    assert not set(same) & set(blocks_of(chat(SYSTEM, "x", model="n")))
    assert not set(same) & set(blocks_of(chat(SYSTEM, "x", tools=tools)))
    assert same == blocks_of(chat(SYSTEM, "x", temperature=0.5, user="somebody"))


@pytest.mark.parametrize("body", [b"", b"--form", b'{"messages":', b"[1]", b'{"n":1}'])
def test_what_shows_no_prompt_goes_by_load(body: bytes) -> None:
    backends = three(new_pool())
    policy = Prefix(lambda: 0.5)
    assert blocks_of(Supposed("m", body)) == []
    assert policy.choose(backends, Supposed("m", body), NOW)[0] in backends


@pytest.mark.parametrize("key", ["prompt", "input", "instructions", "system"])
def test_the_prompts_of_other_routes_are_seen_as_well(key: str) -> None:
    wish = Supposed("m", json.dumps({"model": "m", key: SYSTEM}).encode())
    assert len(blocks_of(wish)) == sum(end <= len(SYSTEM) + 2 for end in ENDS)


def test_a_server_is_taken_to_remember_only_so_much() -> None:
    (backend,) = three(new_pool())[:1]
    index = PrefixIndex(remembered=20 * 1024)
    first = blocks_of(chat("prompt 0 " * 200))
    most = 0
    for number in range(100):
        prompt = blocks_of(chat(f"prompt {number} " * 200))
        index.add(backend, prompt)
        assert all(index.homes(block) == (backend,) for block in prompt)
        most = max(most, len(index))
    assert not any(index.homes(block) for block in first)
    assert len(first) * 8 <= most <= len(first) * 15, "of prompts of 1.4 to 2 kB"
    index.forget(backend)
    assert not len(index)


def test_what_is_used_again_is_remembered_for_longer() -> None:
    (backend,) = three(new_pool())[:1]
    index = PrefixIndex(remembered=5 * 1024)
    used, unused, new = (blocks_of(chat(f"{word} " * 400)) for word in ("used", "idle", "next"))
    for blocks in (used, unused, used, new):
        index.add(backend, blocks)
    assert all(index.homes(block) for block in used)
    assert not index.homes(unused[-1])


def test_a_block_has_those_homes_that_remember_it_and_each_once() -> None:
    dice, backends = Random(1), three(new_pool())
    index = PrefixIndex(remembered=12 * 1024)
    prompts = [blocks_of(chat(f"{dice.randrange(6)} " * 400, f"{n} " * 300)) for n in range(40)]
    for _ in range(2000):
        index.add(dice.choice(backends), dice.choice(prompts))
        if dice.random() < 0.01:
            index.forget(dice.choice(backends))
        remembered = {
            (block, backend)
            for backend, memory in index._memories.items()
            for block in memory.old | memory.young
        }
        homes = [(block, home) for block, found in index._homes.items() for home in found]
        assert len(homes) == len(remembered)
        assert set(homes) == remembered

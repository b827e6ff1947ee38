"""Where requests go whose prompts servers say that they have in their caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from kv_kit import SIZE, payload, stored
from pool_kit import add_up, new_pool, scraped

from mvllm_router.policies import Supposed
from mvllm_router.policies.kv_events import KvEvents
from mvllm_router.policies.kv_index import Prompt
from mvllm_router.policies.kv_wire import pack, read_events
from mvllm_router.policies.least_load import LeastLoad
from mvllm_router.pool import Backend

CACHED = "it has most of the prompt in its cache"
NEW = "the lowest score: no server has the prompt in its cache"
BUSY = "the lowest score: those that have the prompt in their caches are too busy"
UNREAD = "the lowest score: the tokens of the prompt are not known"

TOKENS = list(range(20 * SIZE))


class Bench:
    """A policy and servers with ten places each, which have so many blocks of one prompt cached."""

    def __init__(self, *blocks: int) -> None:
        self.pool = new_pool()
        self.policy = KvEvents(lambda: 0.0)
        self.backends: list[Backend] = []
        for number, cached in enumerate(blocks):
            backend = add_up(self.pool, f"s{number}", "m", capacity=10)
            self.backends.append(backend)
            source = self.policy.index.join(backend)
            if cached:
                event = stored(range(cached), TOKENS[: cached * SIZE])
                self.policy.index.apply(source, read_events(payload(event)))

    def busy(self, number: int, running: float) -> None:
        scraped(self.pool, self.backends[number], running)

    def choose(
        self, wanted: Sequence[int] | None = TOKENS, among: Sequence[int] | None = None, **more: Any
    ) -> tuple[str, str]:
        prompt = None if wanted is None else Prompt(pack(wanted), **more)
        candidates = [self.backends[n] for n in among] if among else self.backends
        wish = Supposed("m", prompt=prompt)
        backend, why = self.policy.choose(candidates, wish, 0.0)
        assert self.policy.would_choose(candidates, wish, 0.0) == (backend, why)
        assert backend in candidates
        return backend.name, why


def test_a_prompt_goes_where_most_of_it_is_cached() -> None:
    bench = Bench(8, 12, 10)
    assert bench.choose() == ("s1", CACHED)
    assert bench.choose(TOKENS[: 9 * SIZE])[1] == CACHED


def test_among_those_that_have_as_much_the_least_loaded_gets_it() -> None:
    bench = Bench(12, 12, 12)
    bench.busy(0, 3)
    bench.busy(1, 1)
    bench.busy(2, 2)
    assert bench.choose() == ("s1", CACHED)


def test_a_server_that_is_too_busy_gives_way_to_the_next_best_and_at_last_to_load() -> None:
    bench = Bench(12, 10, 0)
    bench.busy(0, 10)
    assert bench.choose() == ("s1", CACHED)
    bench.busy(1, 11)
    assert bench.choose() == ("s2", BUSY)


def test_one_that_may_not_be_asked_is_not() -> None:
    bench = Bench(12, 10, 0)
    assert bench.choose(among=[1, 2]) == ("s1", CACHED)
    assert bench.choose(among=[2]) == ("s2", BUSY)


def test_what_is_read_in_no_time_is_no_reason_to_go_anywhere() -> None:
    bench = Bench(0, 7)
    assert bench.choose() == ("s0", NEW)


def test_a_prompt_that_nobody_has_goes_by_load() -> None:
    bench = Bench(12, 0)
    bench.busy(0, 1)
    assert bench.choose(TOKENS[1:]) == ("s1", NEW)
    assert bench.choose(salt="other") == ("s1", NEW)
    assert bench.choose(adapter="other") == ("s1", NEW)


def test_without_tokens_load_decides_and_says_so() -> None:
    bench = Bench(0, 12)
    assert bench.choose(None) == ("s0", UNREAD)


def test_it_needs_tokens_as_long_as_somebody_publishes() -> None:
    bench = Bench(12)
    assert bench.policy.needs_tokens(bench.backends)
    assert not bench.policy.needs_tokens([add_up(bench.pool, "silent", "m")])
    assert not LeastLoad().needs_tokens(bench.backends)
    bench.policy.forget(bench.backends[0])
    assert not bench.policy.needs_tokens(bench.backends)
    assert bench.choose() == ("s0", NEW)


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=6),
    st.lists(st.floats(0, 20), min_size=6, max_size=6),
    st.sets(st.integers(0, 5), min_size=1),
)
def test_it_never_leaves_the_candidates_nor_makes_a_hot_server(
    blocks: list[int], running: list[float], among: set[int]
) -> None:
    bench = Bench(*blocks)
    for number in range(len(blocks)):
        bench.busy(number, running[number])
    candidates = sorted(among & set(range(len(blocks)))) or [0]
    name, _ = bench.choose(among=candidates)
    assert name in {f"s{number}" for number in candidates}
    scores = {f"s{number}": bench.backends[number].kept_score for number in candidates}
    has_room = scores[name] < 0.5 or bench.pool.backends[name].has_free_place
    assert has_room or scores[name] <= min(scores.values()) + 0.1

"""The index of what servers have in their caches, held against a plain model of caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kv_kit import CLEARED, SIZE, payload, removed, stored
from pool_kit import add_up, new_pool

from mvllm_router.policies import kv_index
from mvllm_router.policies.kv_index import KvIndex, Prompt
from mvllm_router.policies.kv_wire import pack, read_events
from mvllm_router.pool import Backend


def tokens(*blocks: int) -> list[int]:
    """Return the tokens of some blocks, each of which is known by a number."""
    return [block * 1000 + n for block in blocks for n in range(SIZE)]


def prompt(*blocks: int, **more: str) -> Prompt:
    return Prompt(pack([*tokens(*blocks), 1, 2, 3]), **more)


def backends(count: int) -> list[Backend]:
    pool = new_pool()
    return [add_up(pool, f"s{number}", "m") for number in range(count)]


class Cached:
    """An index and its sources, one for each server."""

    def __init__(self, count: int = 1, **index: Any) -> None:
        self.index = KvIndex(**index)
        self.backends = backends(count)
        self.sources = [self.index.join(backend) for backend in self.backends]

    def tell(self, number: int, *events: Any) -> None:
        self.index.apply(self.sources[number], read_events(payload(*events)))

    def runs(self, wanted: Prompt) -> list[tuple[int, list[str]]]:
        """Return the runs in blocks, with the names of servers."""
        found = self.index.runs(wanted)
        return [(length // SIZE, [one.name for one in homes]) for length, homes in found]


def test_the_longest_run_comes_first_and_ends_where_a_block_is_missing() -> None:
    cached = Cached(3)
    cached.tell(0, stored([1, 2, 3], tokens(1, 2, 3)))
    cached.tell(1, stored([91, 92], tokens(1, 2)), stored([93], tokens(9), 92))
    cached.tell(2, stored([1], tokens(2)))
    assert cached.runs(prompt(1, 2, 3, 4)) == [(3, ["s0"]), (2, ["s1"])]
    assert cached.runs(prompt(1, 2, 9)) == [(3, ["s1"]), (2, ["s0"])]
    assert cached.runs(prompt(2)) == [(1, ["s2"])]
    assert cached.runs(prompt(5)) == []
    assert cached.runs(Prompt(pack(tokens(1)[:-1]))) == []


def test_a_block_counts_only_behind_those_that_it_was_computed_behind() -> None:
    cached = Cached()
    cached.tell(0, stored([1, 2], tokens(1, 2)), stored([3], tokens(2)))
    assert cached.runs(prompt(2, 2)) == [(1, ["s0"])]


def test_a_block_whose_parent_is_not_known_is_not_found() -> None:
    cached = Cached()
    cached.tell(0, stored([2], tokens(2), 1))
    assert len(cached.index) == 0


def test_what_is_removed_or_cleared_is_not_found_any_more() -> None:
    cached = Cached(2)
    for number in range(2):
        cached.tell(number, stored([1, 2, 3], tokens(1, 2, 3)))
    cached.tell(0, removed(3), removed(77))
    assert cached.runs(prompt(1, 2, 3)) == [(3, ["s1"]), (2, ["s0"])]
    cached.tell(1, CLEARED)
    assert cached.runs(prompt(1, 2, 3)) == [(2, ["s0"])]


def test_adapters_and_salts_have_prompts_of_their_own() -> None:
    cached = Cached(4)
    cached.tell(0, stored([1, 2], tokens(1, 2)))
    cached.tell(1, stored([1, 2], tokens(1, 2), extra_keys=[["salty"], None]))
    both = [["poet", "salty"], ["poet"]]
    cached.tell(2, stored([1, 2], tokens(1, 2), lora_name="poet", extra_keys=[["poet"], ["poet"]]))
    cached.tell(3, stored([1, 2], tokens(1, 2), lora_name="poet", extra_keys=both))
    assert cached.runs(prompt(1, 2)) == [(2, ["s0"])]
    assert cached.runs(prompt(1, 2, salt="salty")) == [(2, ["s1"])]
    assert cached.runs(prompt(1, 2, adapter="poet")) == [(2, ["s2"])]
    assert cached.runs(prompt(1, 2, adapter="poet", salt="salty")) == [(2, ["s3"])]
    assert cached.runs(prompt(1, 2, adapter="painter")) == []


@pytest.mark.parametrize("keys", [[["picture", 3]], ["a salt", "and more"], [b"embeddings"]])
def test_neither_a_picture_nor_what_follows_it_is_found(keys: list[object]) -> None:
    cached = Cached()
    cached.tell(0, stored([1, 2, 3], tokens(1, 2, 3), extra_keys=[None, keys, None]))
    cached.tell(0, stored([4], tokens(4), 3))
    assert cached.runs(prompt(1, 2, 3, 4)) == [(1, ["s0"])]
    cached.tell(0, stored([5], tokens(5), extra_keys=[keys]))
    assert cached.runs(prompt(5)) == []


def test_of_several_kinds_of_attention_one_counts() -> None:
    cached = Cached()
    cached.tell(0, stored([1, 2], tokens(1, 2), group_idx=1))
    cached.tell(0, stored([1, 2, 3], tokens(1, 2, 3), group_idx=0), removed(1, group_idx=0))
    assert cached.runs(prompt(1, 2, 3)) == [(2, ["s0"])]
    cached.tell(0, removed(2, group_idx=1))
    assert cached.runs(prompt(1, 2, 3)) == [(1, ["s0"])]


def test_parts_of_blocks_are_left_out_whichever_comes_first() -> None:
    cached = Cached()
    half = tokens(7)[:8]
    cached.tell(0, stored([9], half, block_size=8), stored([1], tokens(1)))
    cached.tell(0, stored([8], half, 1, block_size=8))
    assert cached.runs(prompt(1)) == [(1, ["s0"])]
    assert len(cached.index) == 1


def test_servers_may_have_blocks_of_different_sizes() -> None:
    cached = Cached(2)
    cached.tell(0, stored([1, 2], tokens(1, 2)))
    cached.tell(1, stored([1], tokens(1, 2), block_size=2 * SIZE))
    assert cached.runs(prompt(1, 2)) in ([(2, ["s0"]), (2, ["s1"])], [(2, ["s1"]), (2, ["s0"])])


def test_ranks_of_one_server_have_runs_of_their_own() -> None:
    cached = Cached()
    second = cached.index.join(cached.backends[0])
    cached.index.drop(cached.index.join(cached.backends[0]))
    assert cached.index.follows(cached.backends[0])
    cached.tell(0, stored([1], tokens(1)))
    cached.index.apply(second, read_events(payload(stored([1, 2], tokens(1, 2)))))
    assert cached.runs(prompt(1, 2)) == [(2, ["s0"]), (1, ["s0"])]


def test_a_source_that_was_dropped_leaves_nothing_and_says_nothing_more() -> None:
    cached = Cached(2)
    for number in range(2):
        cached.tell(number, stored([1], tokens(1)))
    cached.index.drop(cached.sources[0])
    again = cached.index.join(cached.backends[0])  # it may get what stood for the old one
    cached.tell(0, stored([1], tokens(1)))
    cached.index.drop(cached.sources[0])
    assert cached.runs(prompt(1)) == [(1, ["s1"])]
    cached.index.forget(cached.backends[1])
    assert len(cached.index) == 0
    assert cached.index.follows(cached.backends[0])
    cached.index.drop(again)
    assert not cached.index.follows(cached.backends[0])


def test_of_very_many_servers_some_are_named_and_each_in_its_turn() -> None:
    cached = Cached(100)
    for number in range(100):
        cached.tell(number, stored([1], tokens(1)))
    named: set[str] = set()
    for _ in range(30):
        [(length, names)] = cached.runs(prompt(1))
        assert length == 1
        assert 0 < len(names) <= 32
        named.update(names)
    assert len(named) == 100


def test_a_full_index_keeps_beginnings() -> None:
    cached = Cached(most_blocks=3)
    cached.tell(0, stored([1, 2, 3, 4], tokens(1, 2, 3, 4)), stored([9], tokens(9)))
    assert cached.runs(prompt(1, 2, 3, 4)) == [(3, ["s0"])]
    cached.tell(0, removed(3), stored([9], tokens(9)))
    assert cached.runs(prompt(9)) == [(1, ["s0"])]


def test_what_a_source_lets_go_of_at_once_is_tidied_up_little_by_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kv_index, "_TIDIED", 2)
    cached = Cached(2)
    cached.tell(0, stored(range(9), tokens(*range(9))))
    cached.tell(1, stored([1], tokens(1)))
    cached.tell(0, CLEARED)
    assert cached.runs(prompt(*range(9))) == []
    assert len(cached.index) == 8
    cached.tell(0, stored([1], tokens(0)))
    assert cached.runs(prompt(*range(9))) == [(1, ["s0"])]
    assert len(cached.index) == 6
    for number in range(4):
        cached.tell(0, stored([10 + number], tokens(100 + number)))
    assert len(cached.index) == 6
    assert cached.runs(prompt(*range(9))) == [(1, ["s0"])]


# --- held against a model

SOURCES = 3
MOST = 6
# A chain of blocks, each of few: so that prompts begin alike.
CHAIN = st.lists(st.integers(1, 3), min_size=1, max_size=4)
SOURCE = st.integers(0, SOURCES - 1)
STORE = st.tuples(st.just("store"), SOURCE, CHAIN)
REMOVE = st.tuples(st.just("remove"), SOURCE, CHAIN)
OTHER = st.tuples(st.sampled_from(["clear", "drop", "forget"]), SOURCE, st.just([0]))


class Model:
    """Caches as sets of whole beginnings."""

    def __init__(self) -> None:
        self.caches: list[set[tuple[int, ...]]] = [set() for _ in range(SOURCES)]

    def step(self, what: str, source: int, chain: Sequence[int]) -> list[Any]:
        """Do it; return the events that tell of it."""
        cache = self.caches[source]
        if what == "store":
            new = [tuple(chain[: n + 1]) for n in range(len(chain))]
            new = [one for one in new if one not in cache]
            cache.update(new)
            return [stored([name(one)], tokens(one[-1]), name(one[:-1])) for one in new]
        if what != "remove":
            cache.clear()
            return [CLEARED]
        # As engines do: what follows a block goes before it.
        gone = [one for one in cache if one[: len(chain)] == tuple(chain)]
        cache.difference_update(gone)
        return [removed(*map(name, sorted(gone, key=len, reverse=True)))]

    def run(self, source: int, chain: Sequence[int]) -> int:
        length = 0
        while length < len(chain) and tuple(chain[: length + 1]) in self.caches[source]:
            length += 1
        return length


def name(chain: Sequence[int]) -> int | None:
    """Return what the engine calls the last block of a chain."""
    return int("".join(map(str, chain))) if chain else None


@given(st.lists(STORE | REMOVE | OTHER, max_size=30), CHAIN)
def test_it_says_what_a_plain_model_of_the_caches_says(
    steps: list[tuple[str, int, list[int]]], wanted: list[int]
) -> None:
    cached, model = Cached(SOURCES), Model()
    for what, source, chain in steps:
        events = model.step(what, source, chain)
        if what in ("store", "remove", "clear"):
            cached.tell(source, *events)
        else:
            if what == "drop":
                cached.index.drop(cached.sources[source])
            else:
                cached.index.forget(cached.backends[source])
            cached.sources[source] = cached.index.join(cached.backends[source])
    found = {one: length for length, names in cached.runs(prompt(*wanted)) for one in names}
    expected = {f"s{n}": model.run(n, wanted) for n in range(SOURCES)}
    assert found == {one: length for one, length in expected.items() if length}
    assert len(cached.index) == len(set.union(*model.caches))


@given(st.lists(STORE | REMOVE | OTHER, max_size=60))
def test_it_is_bounded_and_nothing_is_left_behind(
    steps: list[tuple[str, int, list[int]]],
) -> None:
    cached, model = Cached(SOURCES, most_blocks=MOST), Model()
    for what, source, chain in steps:
        cached.tell(source, *model.step(what, source, chain))
        assert all(len(one.numbers) <= MOST for one in cached.sources)
        assert len(cached.index) <= SOURCES * MOST
        numbers = {number for one in cached.sources for number in one.numbers.values()}
        assert len(cached.index) == len(numbers)
    for source in cached.sources:
        cached.index.drop(source)
    assert len(cached.index) == 0

"""The prefix cache of the simulated vLLM: what it finds and gives up, and what that saves."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from mvllm_router.sim import Profile, SimEngine
from mvllm_router.sim.prefix_cache import BLOCK, Held, PrefixCache
from mvllm_router.sim.text import BYTES_PER_TOKEN, count_tokens

A, B, C = (letter * BLOCK * BYTES_PER_TOKEN for letter in (b"a", b"b", b"c"))  # a block each


def ask(cache: PrefixCache, prompt: bytes, answer: bytes = b"") -> int:
    """Tokens that are found of a prompt, whose request runs to its end."""
    held = cache.begin(prompt)
    cache.end(held, answer)
    return held.found


def test_a_prompt_that_was_there_is_found_but_for_its_last_token() -> None:
    cache = PrefixCache(10)
    assert ask(cache, A + B) == 0
    assert ask(cache, A + B) == BLOCK  # the last token is computed, and its block with it
    assert ask(cache, A + B + b"x") == 2 * BLOCK
    assert ask(cache, A + b"x") == BLOCK


def test_only_full_blocks_are_kept() -> None:
    cache = PrefixCache(10)
    assert ask(cache, A[:-BYTES_PER_TOKEN]) == 0
    assert ask(cache, A + B) == 0


def test_a_block_is_found_only_behind_the_same_beginning() -> None:
    cache = PrefixCache(10)
    ask(cache, A + B)
    assert ask(cache, C + B) == 0
    assert ask(cache, B + C) == 0
    assert ask(cache, A + C + B) == BLOCK


def test_the_answer_is_found_when_the_chat_goes_on() -> None:
    cache = PrefixCache(10)
    half = len(B) // 2
    ask(cache, A + B[:half], answer=B[half:] + C)
    assert ask(cache, A + B + C + b"x") == 3 * BLOCK


def test_what_runs_is_found_before_it_has_ended() -> None:
    cache = PrefixCache(10)
    held = cache.begin(A + B)
    assert cache.in_use == 2
    other = cache.begin(A + B + C)
    assert other.found == 2 * BLOCK
    assert cache.in_use == 3
    cache.end(held, b"")
    assert cache.in_use == 3  # the other one uses them all
    cache.end(other, b"")
    assert cache.in_use == 0


def test_what_was_out_of_use_longest_goes_first_and_of_one_request_its_end() -> None:
    cache = PrefixCache(4)
    ask(cache, A + B)
    ask(cache, C + C)
    ask(cache, B)  # takes the place of A's second block
    assert ask(cache, A + B + b"x") == BLOCK
    cache = PrefixCache(4)
    ask(cache, A + B)
    ask(cache, C + C)
    # It uses A and B again, and takes the place of C's second block.
    assert ask(cache, A + B + b"x") == 2 * BLOCK
    assert ask(cache, C + C + b"x") == BLOCK


def test_a_block_in_use_is_not_given_up() -> None:
    cache = PrefixCache(3)
    held = cache.begin(A + B)
    for letter in (b"d", b"e", b"f"):
        ask(cache, letter * len(A))
    assert ask(cache, A + B) == BLOCK  # one block is left for it
    cache.end(held, b"")


def test_without_room_a_request_runs_without_blocks() -> None:
    cache = PrefixCache(2)
    held = cache.begin(A + B)
    assert ask(cache, C) == 0
    assert cache.begin(A + B + C) == Held(A + B + C)
    cache.end(held, answer=C)  # there is no room for the answer
    assert ask(cache, A + B) == BLOCK
    assert cache.in_use == 0


def test_it_never_has_more_blocks_than_there_are() -> None:
    cache = PrefixCache(8)
    running: list[Held] = []
    for number in range(1000):
        prompt = b"".join(b"%03d" % (number * 7 % size) * BLOCK for size in (3, 5, 11, 13))
        running.append(cache.begin(prompt))
        if len(running) == 3:
            cache.end(running.pop(number % 3), answer=b"%09d" % number * BLOCK)
        assert 0 <= cache.in_use <= 8
    for held in running:
        cache.end(held, b"")
    assert cache.in_use == 0
    assert len(cache._block_of) <= 8


# --- in an engine


def profile(**fields: Any) -> Profile:
    return Profile("vllm", ("tiny",), **fields)


async def counted(client: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    """Tokens that were looked up and found, as /metrics has them."""
    async with client.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    looked, found = (
        float(next(line.split()[1] for line in lines if line.startswith(f"{name}_total{{")))
        for name in ("vllm:prefix_cache_queries", "vllm:prefix_cache_hits")
    )
    return looked, found


async def answered(client: aiohttp.ClientSession, url: str, *texts: str, **fields: Any) -> str:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    body = {"model": "tiny", "messages": messages, **fields}
    async with client.post(f"{url}/v1/chat/completions", json=body) as response:
        content: str = (await response.json())["choices"][0]["message"]["content"]
        return content


async def test_a_chat_that_goes_on_finds_all_full_blocks(client: aiohttp.ClientSession) -> None:
    question = "who goes there? " * 20
    async with SimEngine(profile()) as engine:
        answer = await answered(client, engine.url, question, max_tokens=40)
        looked, found = await counted(client, engine.url)
        assert found == 0
        assert looked == count_tokens(f"<|user|>{question}\n<|assistant|>")
        await answered(client, engine.url, question, answer, "and now?")
        known = count_tokens(f"<|user|>{question}\n<|assistant|>{answer}")
        assert (await counted(client, engine.url))[1] == known // BLOCK * BLOCK


async def test_a_stream_whose_client_left_frees_its_blocks_and_leaves_them_known(
    client: aiohttp.ClientSession,
) -> None:
    question = "who goes there? " * 20
    async with SimEngine(profile()) as engine:
        engine.hold()
        body = {"messages": [{"role": "user", "content": question}], "stream": True}
        async with client.post(f"{engine.url}/v1/chat/completions", json=body):
            await engine.wait_for(lambda e: e.running == 1)
        await engine.wait_for(lambda e: e.aborted == 1)
        engine.release()
        await answered(client, engine.url, question)
        looked, found = await counted(client, engine.url)
        assert found == (looked / 2 - 1) // BLOCK * BLOCK


@pytest.mark.parametrize(("speed", "seconds"), [(1.0, 2.5), (0.5, 5.0)])
def test_only_what_is_not_found_takes_time(speed: float, seconds: float) -> None:
    fast = profile(prefill_seconds=0.5, prefill_tokens_per_second=1000)
    assert fast.prefill(2000) / speed == seconds
    assert fast.prefill(0) == 0.5
    assert profile(prefill_seconds=0.5).prefill(10**6) == 0.5


async def test_an_engine_becomes_slower_and_fast_again_from_outside(
    client: aiohttp.ClientSession,
) -> None:
    async with SimEngine(profile(tokens_per_second=100)) as engine:
        state, url = engine._core.state, f"{engine.url}/sim/speed"
        for factor, interval in ((0.5, 0.02), (2, 0.005), (1, 0.01)):
            async with client.post(url, json={"factor": factor}) as response:
                assert response.status == 200
            assert state.interval() == interval
        for wrong in ({"factor": 0}, {"factor": "fast"}, {}, []):
            async with client.post(url, json=wrong) as response:
                assert response.status == 400
        assert state.speed == 1
        assert engine.started == 0

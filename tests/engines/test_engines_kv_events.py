"""The policy `kv_events` with two real vLLM servers that publish what is in their caches."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest
from conftest import free_port
from support import StartRouter, until

from mvllm_router.engines.exposition import samples, total
from mvllm_router.policies.kv_events import KvEvents
from mvllm_router.server import Router

if TYPE_CHECKING:
    from conftest import EngineServer, StartVllm

CHAT = "/v1/chat/completions"
HITS = "vllm:prefix_cache_hits_total"
CHATS = 6


def publishing(*ports: int) -> list[str]:
    """Return the options of a vLLM that publishes, and can be asked for what was missed.

    Port 0 is a free one at the address VLLM_HOST_IP.
    """
    told = {"enable_kv_cache_events": True, "publisher": "zmq", "topic": "kv@here"}
    told |= {"endpoint": f"tcp://*:{ports[0]}", "replay_endpoint": f"tcp://*:{ports[1]}"}
    return ["--kv-events-config", json.dumps(told), "--block-size", "32"]


async def hits(http: aiohttp.ClientSession, server: EngineServer) -> float:
    """Return how many tokens of prompts a server has found in its cache."""
    async with http.get(f"{server.url}/metrics") as answer:
        return total(samples(await answer.text(), (HITS,)), HITS) or 0.0


def index_of(router: Router) -> int:
    policy = router.dispatch.policies.made("kv_events")
    assert isinstance(policy, KvEvents)
    return len(policy.index)


async def turn(
    http: aiohttp.ClientSession, router: Router, messages: list[dict[str, str]]
) -> tuple[str, str]:
    """Ask for the next message of a chat and add it; return the server, and why it was chosen."""
    body = {"model": "tiny", "messages": messages, "max_tokens": 4}
    async with http.post(router.url + CHAT, json=body) as answer:
        assert answer.status == 200, await answer.text()
        said = (await answer.json())["choices"][0]["message"]["content"]
        messages.append({"role": "assistant", "content": said or ""})
        return answer.headers["x-router-backend"], answer.headers["x-router-reason"]


@pytest.mark.timeout(400)  # two engines start, at the same time
async def test_the_next_turn_of_a_chat_goes_where_vllm_has_it_in_its_cache(
    start_vllm: StartVllm,
    start_router: StartRouter,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_HOST_IP", "127.0.0.1")
    options = publishing(0, 0), publishing(free_port(), free_port())
    servers = await asyncio.gather(
        *(asyncio.to_thread(start_vllm, extra=extra) for extra in options)
    )
    chats = [[{"role": "user", "content": f"{n} " + "dafi kenu " * 60}] for n in range(CHATS)]
    router = await start_router(*(server.url for server in servers), policy="kv_events")
    await until(lambda: all(one.is_up for one in router.pool.backends.values()), timeout=30)
    firsts = []
    for chat in chats:
        before = index_of(router)
        firsts.append((await turn(http, router, chat))[0])
        await until(lambda before=before: index_of(router) > before, timeout=30)  # type: ignore[misc]
    assert set(firsts) == {"s0", "s1"}, "one server has got everything"
    found = [await hits(http, server) for server in servers]
    for chat, first in zip(chats, firsts, strict=True):
        chat.append({"role": "user", "content": "sulo"})
        assert await turn(http, router, chat) == (first, "it has most of the prompt in its cache")
    after = [await hits(http, server) for server in servers]
    for name, one, other in zip(("s0", "s1"), found, after, strict=True):
        assert other - one >= 128 * firsts.count(name), f"{name} did not find them in its cache"
    second = await start_router(*(server.url for server in servers), policy="kv_events")
    await until(lambda: index_of(second) == index_of(router), timeout=30)

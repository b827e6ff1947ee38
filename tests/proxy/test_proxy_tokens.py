"""The tokens of prompts: which are asked for, of whom, how long, and what is remembered."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import aiohttp
import pytest
from pool_kit import Clock, add_up, new_pool
from support import StartRouter, StartSim, until

from mvllm_router.config import ServerSpec
from mvllm_router.policies import Policies
from mvllm_router.policies.kv_events import KvEvents
from mvllm_router.policies.kv_index import Prompt
from mvllm_router.policies.kv_wire import pack
from mvllm_router.pool import Backend
from mvllm_router.proxy import tokens as proxy_tokens
from mvllm_router.proxy.routes import KNOWN
from mvllm_router.proxy.tokens import Tokens
from mvllm_router.server import Router
from mvllm_router.sim.engine import SimEngine
from mvllm_router.sim.faults import Fault

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
LONG = "Tell me of the sea. " * 60
MESSAGES = [{"role": "user", "content": LONG}]


class Request:
    """What is asked of a request."""

    def __init__(self, path: str, body: bytes, model: str | None = "m") -> None:
        self.route = KNOWN[path]
        self.body = body
        self.model = model
        self.prompt: Prompt | None = None

    def header(self, name: str) -> str:
        return ""


class Bench:
    """Tokens over a pool with one vLLM that has the model `m`; it answers with `answer`."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pool = new_pool(self.clock)
        self.policies = Policies("kv_events")
        policy = self.policies.made("kv_events")
        assert isinstance(policy, KvEvents)
        self.policy = policy
        self.server = self.add("s0")
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.seconds: list[float] = []
        self.answer: bytes | None = b'{"count":3,"max_model_len":9,"tokens":[1,2,3]}'
        self.tokens = Tokens(self.pool, self.policies, self._ask)

    def add(self, name: str, engine: str = "vllm", **more: Any) -> Backend:
        backend = add_up(self.pool, name, "m", "poet", engine=engine, **more)
        self.policy.index.join(backend)
        return backend

    async def _ask(self, spec: ServerSpec, path: str, body: bytes, timeout: float) -> bytes | None:
        assert path == "/tokenize"
        self.asked.append((spec.name, json.loads(body)))
        self.seconds.append(timeout)
        return self.answer

    async def find(self, path: str = CHAT, model: str | None = "m", **body: Any) -> Prompt | None:
        whole = {"model": model, "max_tokens": 5, "temperature": 0.5, **body}
        return await self.find_raw(json.dumps(whole).encode(), path, model)

    async def find_raw(
        self, body: bytes, path: str = CHAT, model: str | None = "m"
    ) -> Prompt | None:
        request: Any = Request(path, body, model)
        await self.tokens.find(request)
        found: Prompt | None = request.prompt
        return found

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, body in self.asked]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    async def already() -> None:
        """A test runs in a task."""

    monkeypatch.setattr(proxy_tokens, "in_task", already)
    return Bench()


async def test_a_chat_is_split_as_the_server_would_for_its_answer(bench: Bench) -> None:
    template = {"chat_template_kwargs": {"thinking": True}, "tools": [{"type": "function"}]}
    found = await bench.find(messages=MESSAGES, stream=True, **template)
    assert found is not None
    assert found.tokens == pack([1, 2, 3])
    assert bench.bodies == [{"model": "m", "messages": MESSAGES, **template}]


async def test_so_is_the_prompt_of_a_completion(bench: Bench) -> None:
    found = await bench.find(COMPLETION, prompt=LONG, add_special_tokens=False, echo=True)
    assert found is not None
    assert bench.bodies == [{"prompt": LONG, "add_special_tokens": False, "model": "m"}]


async def test_a_prompt_of_tokens_is_not_asked_for(bench: Bench) -> None:
    ids = list(range(1000))
    found = await bench.find(COMPLETION, prompt=ids)
    assert found is not None
    assert found.tokens == pack(ids)
    assert bench.asked == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "hi"}]}),
        (CHAT, {"messages": [{"role": "user", "content": "long" * 200_000}]}),
        (CHAT, {"prompt": LONG}),
        (COMPLETION, {"messages": MESSAGES}),
        (COMPLETION, {"prompt": [LONG, LONG]}),
        (COMPLETION, {"prompt": [[1] * 500, [2] * 500]}),
        (COMPLETION, {"prompt": [-1] * 500}),
        ("/v1/embeddings", {"input": LONG}),
        ("/v1/messages", {"messages": MESSAGES}),
        (CHAT, {"messages": [{"content": [{"type": "image_url", "image_url": LONG}]}]}),
        (CHAT, {"messages": [{"content": [{"type": "input_audio", "input_audio": LONG}]}]}),
        (CHAT, {"messages": MESSAGES, "model": 5}),
    ],
)
async def test_what_is_short_or_huge_or_no_text_is_not_split(
    bench: Bench, path: str, body: dict[str, Any]
) -> None:
    assert await bench.find(path, **body) is None
    assert bench.asked == []


@pytest.mark.parametrize("body", [b"x" * 1000, b"[" * 1000, b'{"model":"m"' + b" " * 1000])
async def test_what_is_no_json_is_left_to_the_server(bench: Bench, body: bytes) -> None:
    assert await bench.find_raw(body) is None
    assert bench.asked == []


async def test_the_same_prompt_is_asked_for_once_whatever_else_differs(bench: Bench) -> None:
    first = await bench.find(messages=MESSAGES)
    assert await bench.find(messages=MESSAGES, temperature=1.0, stream=True) is first
    assert len(bench.asked) == 1
    longer = [*MESSAGES, {"role": "assistant", "content": "It is wet."}]
    assert await bench.find(messages=longer) is not first
    assert len(bench.asked) == 2


async def test_a_salt_and_an_adapter_are_part_of_it(bench: Bench) -> None:
    cards = {"m": {"id": "m", "parent": None}, "poet": {"id": "poet", "parent": "m"}}
    bench.pool.told_models(bench.server, cards)
    plain = await bench.find(messages=MESSAGES)
    salted = await bench.find(messages=MESSAGES, cache_salt="salty")
    adapted = await bench.find(model="poet", messages=MESSAGES)
    chains = [one.chain(3) for one in (plain, salted, adapted) if one is not None]
    assert len({tuple(chain) for chain in chains}) == 3
    assert chains[1] == Prompt(pack([1, 2, 3]), salt="salty").chain(3)
    assert chains[2] == Prompt(pack([1, 2, 3]), adapter="poet").chain(3)


async def test_the_server_is_asked_by_its_own_name_of_the_model(bench: Bench) -> None:
    bench.pool.remove("s0")
    bench.add("s1", aliases={"m": "poet"})
    assert await bench.find(messages=MESSAGES) is not None
    assert bench.bodies[0]["model"] == "poet"


async def test_only_vllm_is_asked_and_only_where_it_has_the_model(bench: Bench) -> None:
    bench.pool.remove("s0")
    bench.add("s1", engine="llama.cpp")
    bench.pool.told_models(bench.add("s2"), {"other": {"id": "other"}})
    assert await bench.find(messages=MESSAGES) is None
    assert bench.asked == []


async def test_nobody_is_asked_as_long_as_nobody_publishes(bench: Bench) -> None:
    bench.policy.index.forget(bench.server)
    assert await bench.find(messages=MESSAGES) is None
    bench.tokens.policies = Policies("least_load")
    assert await bench.find(messages=MESSAGES) is None
    assert bench.asked == []


@pytest.mark.parametrize(
    "answer", [None, b"", b"{}", b"[]", b'{"tokens":null}', b'{"tokens":["x"]}', b'{"tokens":[-1]}']
)
async def test_a_server_without_a_good_answer_is_left_alone_for_a_while(
    bench: Bench, answer: bytes | None
) -> None:
    bench.answer, good = answer, bench.answer
    assert await bench.find(messages=MESSAGES) is None
    bench.answer = good
    assert await bench.find(messages=MESSAGES) is None
    assert len(bench.asked) == 1
    bench.add("s1")
    assert await bench.find(messages=MESSAGES) is not None
    assert [name for name, _ in bench.asked] == ["s0", "s1"]
    bench.pool.remove("s1")
    bench.clock.advance(2.5)
    assert await bench.find(messages=MESSAGES, cache_salt="new") is not None


async def test_a_longer_prompt_may_take_longer(bench: Bench) -> None:
    await bench.find(messages=MESSAGES)
    await bench.find(messages=[{"role": "user", "content": "x" * 500_000}])
    assert 0.25 <= bench.seconds[0] < 0.26
    assert 0.7 < bench.seconds[1] < 0.8


async def test_what_is_remembered_is_bounded_and_the_least_used_goes_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_tokens, "_REMEMBERED", 7)  # each has three
    for salt in "abac":
        await bench.find(messages=MESSAGES, cache_salt=salt)
    assert len(bench.asked) == 3
    await bench.find(messages=MESSAGES, cache_salt="a")
    await bench.find(messages=MESSAGES, cache_salt="c")
    assert len(bench.asked) == 3
    await bench.find(messages=MESSAGES, cache_salt="b")
    assert len(bench.asked) == 4


# --- in a router


async def start(start_router: StartRouter, *servers: SimEngine | ServerSpec) -> Router:
    """Start a router that takes the first server for one that publishes."""
    router = await start_router(*servers, policy="kv_events")
    policy = router.dispatch.policies.made("kv_events")
    assert isinstance(policy, KvEvents)
    policy.index.join(router.pool.backends["s0"])
    return router


def split(*servers: SimEngine) -> int:
    return sum(one.path == "/tokenize" for server in servers for one in server.requests)


async def ask(http: aiohttp.ClientSession, router: Router, status: int = 200) -> dict[str, str]:
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 2}
    async with http.post(router.url + CHAT, json=body) as answer:
        assert answer.status == status, await answer.text()
        await answer.read()
        return dict(answer.headers)


async def test_a_request_waits_for_its_tokens_once_however_many_attempts_it_takes(
    start_sim: StartSim, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    one, other = await start_sim(), await start_sim()
    router = await start(start_router, one, other)
    router.dispatch.policies.use("kv_events", policy := KvEvents(lambda: 0.0))
    policy.index.join(router.pool.backends["s0"])
    one.inject(Fault.BUSY_503)
    headers = await ask(http, router)
    assert headers["x-router-attempts"] == "2"
    assert split(one, other) == 1


async def test_one_that_gets_no_tokens_goes_by_load_and_the_log_has_no_prompt(
    start_sim: StartSim,
    start_router: StartRouter,
    http: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = await start_sim("vllm", "other")
    router = await start(start_router, ServerSpec(url=engine.url, name="s0", models=("tiny",)))
    caplog.set_level(logging.DEBUG, "mvllm_router")
    headers = await ask(http, router, status=404)  # it does not have what the file says it has
    assert headers["x-router-reason"] == "the lowest score: the tokens of the prompt are not known"
    assert "s0: POST /tokenize answered 404" in caplog.text
    assert LONG[:40] not in caplog.text


async def test_a_server_that_is_gone_does_not_keep_a_request_from_another(
    start_sim: StartSim, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    gone, other = await start_sim(), await start_sim()
    router = await start(start_router, gone, other)
    await gone.stop()
    for _ in range(5):
        headers = await ask(http, router)
        assert headers["x-router-backend"] == "s1"


async def test_a_client_that_leaves_while_its_prompt_is_split_leaves_nothing_behind(
    start_sim: StartSim, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    engine = await start_sim()
    router = await start(start_router, engine)
    assert router.relay.tokens is not None
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hangs(*_: object) -> bytes | None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        return None

    router.relay.tokens._ask = hangs
    task = asyncio.ensure_future(ask(http, router))
    await begun.wait()
    task.cancel()
    await cancelled.wait()
    await until(lambda: router.pool.stats.in_flight == 0)
    assert not any(one.path == CHAT for one in engine.requests)

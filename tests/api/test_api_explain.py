"""POST /router/explain: where a request would go, why there, and why not elsewhere."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from admin_kit import Api, message
from pool_kit import Clock, add_up, fail_checks, new_pool, open_circuit, refuse, scraped
from support import StartRouter, StartSim

from mvllm_router.api.explain import explain_document
from mvllm_router.policies import Choice, Policies, Policy, Supposed, Wish
from mvllm_router.pool import Pool
from mvllm_router.proxy.dispatch import Dispatch, QueueRules


def explained(pool: Pool, model: str | None = "m", policy: str = "least_load") -> dict[str, Any]:
    dispatch = Dispatch(pool, Policies(policy), QueueRules())
    document = explain_document(pool, dispatch, Supposed(model))
    read: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    return read


def reasons(document: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["reason"] for one in document["candidates"]}


def test_the_lowest_score_is_chosen_and_shown_with_its_arithmetic() -> None:
    pool = new_pool()
    for name, running, waiting in (("a", 4.0, 2.0), ("b", 3.0, 1.0), ("c", 7.0, 0.0)):
        scraped(pool, add_up(pool, name, "m", capacity=8), running, waiting)
    document = explained(pool)
    assert (document["chosen"], document["refused"]) == ("b", "")
    assert [one["name"] for one in document["candidates"]] == ["b", "a", "c"]
    assert document["candidates"][0] == {
        "name": "b",
        "url": "http://b:8000",
        "eligible": True,
        "reason": "the lowest score",
        "score": 0.4375,
        "arithmetic": "(3 + 0.5·1)/8 = 0.44",
        "running": 3,
        "waiting": 1,
        "capacity": 8,
        "learned": "",
    }
    assert reasons(document)["a"] == "not the lowest score"


def test_it_says_that_one_of_several_is_drawn() -> None:
    pool = new_pool()
    for name in "abc":
        scraped(pool, add_up(pool, name, "m", capacity=8), running=name == "c")
    found = reasons(explained(pool))
    assert found["a"] == "the lowest score, as 2 have: one of them is drawn"
    assert found["b"] == "as good as a"
    assert found["c"] == "not the lowest score"


def test_what_was_learned_is_told_and_how() -> None:
    pool = new_pool()
    slow, fast = add_up(pool, "slow", "m"), add_up(pool, "fast", "m")
    for backend, gap in ((slow, 0.04), (fast, 0.02)):
        for _ in range(50):
            backend.stats.inter_token.observe(gap)
    for _ in range(2):
        scraped(pool, slow, running=3, waiting=1)
    scraped(pool, fast, running=2)
    pool.learning.look()
    found = {one["name"]: one for one in explained(pool)["candidates"]}
    assert found["slow"]["learned"] == (
        "runs 3 at once: beyond that, some waited there, 25 tokens/s for each request, "
        "50% of the speed of the fastest"
    )
    assert found["slow"]["arithmetic"] == "(3 + 0.5·1)/(3·0.5) = 2.33"
    assert found["fast"]["learned"] == (
        "ran 2 at once, and none waited, 50 tokens/s for each request"
    )


def test_where_affinity_decides_the_others_are_told_who_comes_first() -> None:
    pool = new_pool()
    for name in "ab":
        add_up(pool, name, "m", capacity=8)
    dispatch = Dispatch(pool, Policies("session"), QueueRules())
    wish = Supposed("m", headers={"x-session-id": "s"})
    home, _ = dispatch.policies.of(wish).choose(pool.candidates("m"), wish, 0.0)
    scraped(pool, home, running=1)
    found = reasons(explain_document(pool, dispatch, wish))
    other = "b" if home.name == "a" else "a"
    assert found == {
        home.name: "where its session is",
        other: f"{home.name} comes first: where its session is",
    }
    found = reasons(explain_document(pool, dispatch, Supposed("m")))
    assert found[home.name] == "not the lowest score"
    scraped(pool, home, running=0)
    found = reasons(explain_document(pool, dispatch, Supposed("m")))
    drawn = "the lowest score, as 2 have: one of them is drawn"
    assert sorted(found.values()) in ([f"as good as {name}", drawn] for name in "ab")


def test_each_reason_to_leave_a_server_out_is_told() -> None:
    clock = Clock()
    pool = new_pool(clock)
    add_up(pool, "good", "m")
    add_up(pool, "drained", "m")
    pool.drain("drained")
    refuse(pool, add_up(pool, "down", "m"))
    open_circuit(pool, add_up(pool, "open", "m"))
    pool.is_busy(add_up(pool, "busy", "m"), 3.0)
    add_up(pool, "other", "n")
    add_up(pool, "silent")
    document = explained(pool)
    assert document["chosen"] == "good"
    assert [one["eligible"] for one in document["candidates"]] == [True, *[False] * 6]
    found = reasons(document)
    assert found.pop("good") == "the only one that can be asked"
    assert found.pop("open").startswith("circuit open: 5 of 5 requests failed")
    assert found == {
        "drained": "draining",
        "down": "down: connection refused",
        "busy": "it said that it is busy, and rests for 3.0 s more",
        "other": "it does not have the model",
        "silent": "it does not say which models it has, and another one lists this",
    }


def test_a_last_resort_is_told_as_one() -> None:
    pool = new_pool()
    fail_checks(pool, add_up(pool, "a", "m"))
    document = explained(pool)
    assert document["chosen"] == "a"
    expected = "the only one that can be asked, the last resort (down: status 500)"
    assert reasons(document) == {"a": expected}


def test_a_full_server_is_told_as_one_and_that_the_request_would_wait() -> None:
    pool = new_pool(enforce=True)
    backend = add_up(pool, "a", "m", capacity=1)
    lease = pool.lease(backend)
    document = explained(pool)
    assert (document["chosen"], reasons(document)) == (None, {"a": "full: 1 of 1 requests"})
    assert document["refused"] == "No server has room: it would wait."
    lease.release()
    assert explained(pool)["chosen"] == "a"


def test_a_model_that_nobody_has_is_refused_as_a_client_would_be() -> None:
    pool = new_pool()
    add_up(pool, "a", "m")
    document = explained(pool, "huge")
    assert document["chosen"] is None
    assert document["refused"] == "The model `huge` does not exist. There are: m"


def test_round_robin_says_whose_turn_is_next_and_does_not_take_it() -> None:
    pool = new_pool()
    for name in "ab":
        add_up(pool, name, "m")
    dispatch = Dispatch(pool, Policies("round_robin"), QueueRules())
    for expected in "aabb"[::2]:
        for _ in range(3):
            document = explain_document(pool, dispatch, Supposed("m"))
            assert document["chosen"] == expected
        assert reasons(document)[expected] == "its turn"
        wish = Supposed("m")
        chosen, _ = dispatch.policies.of(wish).choose(pool.candidates("m"), wish, 0.0)
        assert chosen.name == expected


def test_where_chance_decides_none_is_chosen_beforehand() -> None:
    pool = new_pool()
    add_up(pool, "a", "m", capacity=1)
    add_up(pool, "b", "m", capacity=3)
    document = explained(pool, policy="random")
    assert document["chosen"] is None
    assert reasons(document)["b"] == "drawn at random, by capacity (75% of the capacity)"


def test_a_policy_of_somebody_else_need_not_explain_itself() -> None:
    class Mine(Policy):
        def choose(self, candidates: Any, wish: Wish, now: float) -> Choice:
            raise AssertionError("it was asked to choose")

    pool = new_pool()
    for name in "ab":
        add_up(pool, name, "m")
    dispatch = Dispatch(pool, Policies(), QueueRules())
    dispatch.policies.use("least_load", Mine())
    document = explain_document(pool, dispatch, Supposed("m"))
    assert document["chosen"] is None
    assert reasons(document)["a"] == "chosen by Mine (50% of the capacity)"


async def test_a_client_may_ask_and_nothing_is_taken(
    start_router: StartRouter, start_sim: StartSim, http: aiohttp.ClientSession
) -> None:
    router = await start_router(await start_sim(), api_key="client", admin_key="admin")
    api = Api(http, router)
    body = {"model": "tiny", "path": "/v1/chat/completions"}
    assert (await api.ask("POST", "/router/explain", body))[0] == 401
    for key in ("client", "admin"):
        answer = await api.ask("POST", "/router/explain", body, authorization=f"Bearer {key}")
        status, document = answer
        assert (status, document["chosen"], document["policy"]) == (200, "s0", "least_load")
    assert router.pool.backends["s0"].in_flight == 0
    assert router.pool.requests.newest == 1, "the one that was refused"


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"model": 1}, "`model` has to be a name"),
        ({"path": "/nothing"}, "`path` is none that is relayed"),
        ({"path": 1}, "`path` is none that is relayed"),
        ({"modell": "m"}, "Did you mean `model`?"),
        ([], "has to be a JSON object"),
    ],
)
async def test_a_question_that_is_not_understood_is_a_400(
    body: object, part: str, start_router: StartRouter, http: aiohttp.ClientSession
) -> None:
    answer = await Api(http, await start_router()).ask("POST", "/router/explain", body)
    assert answer[0] == 400
    assert part in message(answer)

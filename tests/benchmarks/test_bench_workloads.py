"""Workloads: the same for all that are compared, at the wanted rate, with chats that go on."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import pytest
from chats import WORKLOADS
from workloads import Request, draw, most_hits, rate_for

from mvllm_router.sim.dialects.base import answer_text


def drawn(name: str, rate: float = 20.0, settle: float = 5.0) -> list[Request]:
    return draw(WORKLOADS[name], rate, "seed", settle, 60.0)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_seed_alone_decides_what_is_counted(name: str) -> None:
    short, long = drawn(name, settle=5.0), drawn(name, settle=30.0)
    assert [one for one in short if one.due >= 0] == [one for one in long if one.due >= 0]
    assert min(one.due for one in short) >= -5
    assert min(one.due for one in long) < -20
    assert short == sorted(short, key=lambda one: one.due)
    assert draw(WORKLOADS[name], 20.0, "other", 5.0, 60.0) != short


@pytest.mark.parametrize(("name", "off"), [("poisson", 100), ("burst", 400), ("chats", 300)])
def test_requests_come_at_the_wanted_rate(name: str, off: int) -> None:
    assert len([one for one in drawn(name) if one.due >= 0]) == pytest.approx(1200, abs=off)


def test_a_load_of_one_is_all_that_the_slots_can_do() -> None:
    rate = rate_for(1.0, WORKLOADS["poisson"], slots=25.5)
    some = [one.seconds for one in drawn("poisson", rate)]
    assert rate * sum(some) / len(some) == pytest.approx(25.5, rel=0.05)


def bodies(requests: list[Request]) -> dict[str, list[dict[str, Any]]]:
    chats = defaultdict(list)
    for one in requests:
        chats[one.session].append(json.loads(one.body))
    return chats


def test_a_turn_repeats_the_last_one_and_the_answer_that_the_servers_give() -> None:
    chats = bodies(drawn("chats"))
    turns = [pair for each in chats.values() for pair in pairwise(each)]
    assert len(turns) > 100
    for body, later in turns:
        answer = {"role": "assistant", "content": answer_text(0, body)}
        assert later["messages"][:-1] == [*body["messages"], answer]
        assert later["user"] == body["user"]


def test_chats_share_system_prompts_of_which_one_may_be_hot() -> None:
    shares = {}
    for name in ("chats", "hot"):
        systems = Counter(
            each[0]["messages"][0]["content"] for each in bodies(drawn(name)).values()
        )
        shares[name] = systems.most_common(1)[0][1] / sum(systems.values())
    assert shares["chats"] < 0.35 < 0.6 < shares["hot"]


def test_single_requests_share_nothing_and_chats_much() -> None:
    assert most_hits(drawn("poisson")) == 0
    assert 0.75 < most_hits(drawn("chats")) < 0.95

"""A run can be had again from its seed, and leaves somebody to save what can be saved."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from chaos_engines import BOTH, plans
from chaos_schedule import KINDS, RESTART, WARM_UP, Incident, Schedule, draw, spares_one
from chaos_wishes import wishes

from mvllm_router.sim import Fault

MODELS = [plan.models for plan in plans(5)]
SEEDS = range(40)


def schedules() -> list[Schedule]:
    return [draw(seed, 60, MODELS) for seed in SEEDS]


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert draw(7, 30, MODELS) == draw(7, 30, MODELS)
    assert draw(7, 30, MODELS) != draw(8, 30, MODELS)


def test_every_kind_of_trouble_comes_up() -> None:
    assert {one.kind for each in schedules() for one in each.incidents} == set(KINDS)


def test_each_fault_is_one_that_the_engines_know() -> None:
    known = {kind.fault for kind in KINDS.values() if kind.fault}
    # REFUSE is what flapping is made of.
    assert known == {fault.value for fault in Fault} - {"refuse"}


def test_an_engine_has_one_trouble_at_a_time() -> None:
    for each in schedules():
        for number in range(len(MODELS)):
            own = [i for i in each.incidents if i.engine == number and i.kind != "reload"]
            for one, after in pairwise(own):
                assert one.end + KINDS[one.kind].settle <= after.begin


def test_all_ends_in_time_and_the_warm_up_is_calm() -> None:
    for each in schedules():
        for one in each.incidents:
            assert WARM_UP <= one.begin < one.end <= each.seconds


def test_most_of_the_time_every_model_has_an_engine_that_is_well() -> None:
    calm = checked = 0
    for each in schedules():
        for tenth in range(600):
            at = tenth / 10
            hit = {
                one.engine
                for one in each.incidents
                if one.begin <= at < one.end + KINDS[one.kind].settle
            }
            there = {name for n, names in enumerate(MODELS) if n not in hit for name in names}
            calm += there == set(BOTH)
            checked += 1
    assert calm / checked > 0.9


def test_the_last_rewrite_of_each_storm_names_all_engines() -> None:
    for each in schedules():
        ends = {one.end for one in each.incidents if one.kind == "reload"}
        last = [rewrite for rewrite in each.rewrites if rewrite.at in ends]
        assert len(last) == len(ends)
        assert all(set(one.weights) == set(range(5)) and not one.broken for one in last)


def test_an_engine_leaves_the_file_only_in_a_storm_that_says_so() -> None:
    for each in schedules():
        for rewrite in each.rewrites:
            leaving = {
                one.engine
                for one in each.incidents
                if one.kind == "reload" and one.begin <= rewrite.at <= one.end
            }
            assert set(range(5)) - set(rewrite.weights) <= leaving


@pytest.mark.parametrize(
    ("begin", "spared"), [(0.0, False), (5.0 + KINDS["kill"].settle + RESTART + 4.1, True)]
)
def test_the_last_engine_of_a_model_is_spared(begin: float, spared: bool) -> None:
    other = Incident("kill", 2, 3.0, 5.0)
    assert spares_one(Incident("kill", 3, begin, begin + 4.0), [other], MODELS) is spared


def test_requests_are_the_same_for_the_same_seed_and_no_two_are_alike() -> None:
    some = list(islice(wishes(3, BOTH), 500))
    assert some == list(islice(wishes(3, BOTH), 500))
    bodies = {str(wish.body()) for wish in some}
    assert len(bodies) == 500


def test_requests_are_of_all_sorts() -> None:
    some = list(islice(wishes(3, BOTH), 2000))
    assert {wish.model for wish in some} == set(BOTH)
    for word in ("stream", "chat", "slow"):
        assert {getattr(wish, word) for wish in some} == {True, False}
    assert max(wish.prompt_size for wish in some) > 100_000
    assert any(wish.leave_at_event for wish in some)
    assert min(wish.leave_after for wish in some if wish.leave_after is not None) < 0.02
    assert not any(wish.leave_at_event and not wish.stream for wish in some)

"""The health of a server: what takes it out, what brings it back, and what does neither."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pool_kit import Clock

from mvllm_router.config import Settings
from mvllm_router.pool import Health, HealthRules, State


def health_of(state: State, clock: Clock | None = None, **rules: Any) -> Health:
    """Return a health that is in `state` for reasons of checks."""
    health = Health(HealthRules(**rules), clock or Clock())
    if state is State.UP:
        health.check_passed(0.0, 0.01)
    elif state is State.DOWN:
        health.check_failed(0.0, "status 500")
    elif state is State.LOADING:
        health.is_loading(0.0, "loading")
    assert health.state is state
    return health


def passed(health: Health) -> None:
    health.check_passed(1.0, 0.01)


def failed(health: Health) -> None:
    health.check_failed(1.0, "status 500")


def refused(health: Health) -> None:
    health.check_failed(1.0, "connection refused", hopeless=True)


def loading(health: Health) -> None:
    health.is_loading(1.0, "it is loading its model")


def refused_request(health: Health) -> None:
    health.request_refused()


def trusted(health: Health) -> None:
    health.trust_again("tried again after 60 s")


CHECKING, LOADING, UP, DOWN = State.CHECKING, State.LOADING, State.UP, State.DOWN


@pytest.mark.parametrize(
    ("event", "after"),
    [
        # from              CHECKING, LOADING, UP, DOWN
        (passed, (UP, UP, UP, DOWN)),
        (failed, (DOWN, DOWN, UP, DOWN)),
        (refused, (DOWN, DOWN, DOWN, DOWN)),
        (loading, (LOADING, LOADING, LOADING, LOADING)),
        (refused_request, (DOWN, DOWN, DOWN, DOWN)),
        (trusted, (UP, UP, UP, UP)),
    ],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_what_one_observation_does_in_each_state(event, after) -> None:  # type: ignore[no-untyped-def]
    for state, expected in zip((CHECKING, LOADING, UP, DOWN), after, strict=True):
        health = health_of(state)
        event(health)
        assert health.state is expected, f"from {state.value}"


def test_before_the_first_check_nothing_is_claimed() -> None:
    health = Health(HealthRules(), Clock())
    assert (health.state, health.reason) == (CHECKING, "not checked yet")
    assert health.success_rate == 1.0
    assert health.last_check is None
    assert (health.good_checks, health.bad_checks) == (0, 0)
    assert health.hopeless
    assert health.progress == ""


def test_the_default_rules_are_the_default_settings() -> None:
    rules, settings = HealthRules(), Settings()
    assert rules.consecutive_failures == settings.health_check_consecutive_failures
    assert rules.min_success_rate == settings.health_check_min_success_rate
    assert rules.window == settings.health_check_window_size
    assert rules.max_response_time == settings.health_check_max_response_time


def test_three_failed_checks_in_a_row_take_a_server_out() -> None:
    health = health_of(UP)
    failed(health)
    failed(health)
    passed(health)
    failed(health)
    failed(health)
    assert health.state is UP
    failed(health)
    assert (health.state, health.reason) == (DOWN, "status 500")
    assert health.bad_checks == 3


def test_a_server_that_keeps_failing_now_and_then_is_out_when_the_window_is_full() -> None:
    health = health_of(UP, window=10, min_success_rate=0.8)
    for good in (True, False, True, True, False, True, True, True, True):
        (passed if good else failed)(health)
        assert health.state is UP, "the window is not full"
    failed(health)
    assert health.state is DOWN
    assert health.reason == "only 70% of recent checks passed"


def test_a_rate_at_the_limit_is_good_enough() -> None:
    health = health_of(UP, window=5, min_success_rate=0.8)
    for _ in range(4):
        passed(health)
    failed(health)
    assert health.success_rate == 0.8
    assert health.state is UP


def test_a_slow_check_counts_as_failed() -> None:
    health = health_of(UP, max_response_time=2.0, consecutive_failures=2)
    health.check_passed(5.0, 2.0)
    assert health.bad_checks == 0
    health.check_passed(6.0, 2.1)
    assert (health.bad_checks, health.last_seconds, health.state) == (1, 2.1, UP)
    health.check_passed(7.0, 3.0)
    assert (health.state, health.reason) == (DOWN, "health check took 3.0 s")


def test_two_good_checks_bring_a_server_back_after_a_hundred_bad_ones() -> None:
    health = health_of(DOWN)
    for _ in range(100):
        failed(health)
    passed(health)
    assert health.state is DOWN
    passed(health)
    assert (health.state, health.reason) == (UP, "2 health checks passed")


def test_the_two_good_checks_must_follow_each_other() -> None:
    health = health_of(DOWN)
    for event in (passed, failed, passed):
        event(health)
    assert health.state is DOWN
    passed(health)
    assert health.state is UP


def test_what_failed_while_it_was_out_does_not_count_afterwards() -> None:
    health = health_of(DOWN)
    for _ in range(20):
        failed(health)
    passed(health)
    passed(health)
    failed(health)
    failed(health)
    assert health.state is UP
    assert (health.success_rate, health.bad_checks) == (0.0, 2)


def test_good_checks_from_before_it_went_down_do_not_bring_it_back() -> None:
    health = health_of(UP)
    for _ in range(5):
        passed(health)
    refused_request(health)
    passed(health)
    assert health.state is DOWN
    passed(health)
    assert health.state is UP


def test_a_loaded_server_is_up_at_its_first_good_check() -> None:
    health = health_of(UP)
    loading(health)
    assert (health.state, health.reason) == (LOADING, "it is loading its model")
    passed(health)
    assert health.state is UP


def test_a_refused_request_takes_a_server_out_at_once() -> None:
    health = health_of(UP)
    refused_request(health)
    assert (health.state, health.reason) == (DOWN, "connection refused")


def test_a_refused_request_breaks_a_row_of_good_checks() -> None:
    health = health_of(DOWN)
    passed(health)
    refused_request(health)
    passed(health)
    assert health.state is DOWN
    passed(health)
    assert health.state is UP


@pytest.mark.parametrize(
    ("events", "hopeless"),
    [
        ((), False),  # it is up
        ((failed, failed, failed), False),  # somebody answers there, though not well
        ((refused,), True),
        ((refused_request,), True),
        ((loading,), True),
        ((refused, failed), False),  # somebody is there again
        ((refused, passed), False),  # not back yet, but somebody answers well
        ((failed, failed, failed, refused), True),
        ((failed, failed, failed, refused_request), True),
        ((failed, failed, failed, passed), False),
        ((refused, trusted), False),
        ((loading, failed), False),
    ],
    ids=lambda item: "-".join(e.__name__ for e in item) if isinstance(item, tuple) else "",
)
def test_a_server_is_hopeless_when_to_ask_it_would_be_in_vain(events, hopeless: bool) -> None:  # type: ignore[no-untyped-def]
    health = health_of(UP)
    for event in events:
        event(health)
    assert health.hopeless is hopeless


@pytest.mark.parametrize("state", [CHECKING, LOADING, DOWN])
def test_a_server_that_was_never_up_is_no_last_resort(state: State) -> None:
    health = health_of(state)
    failed(health)
    assert (health.state, health.hopeless) == (DOWN, True)


def test_progress_counts_down_to_the_other_state() -> None:
    health = health_of(UP)
    seen = [health.progress]
    for event in (failed, failed, passed, failed, failed, failed, failed, passed, passed):
        event(health)
        seen.append(health.progress)
    assert seen == ["", "up 2/3", "up 1/3", "", "up 2/3", "up 1/3", "", "", "down 1/2", ""]


def test_progress_never_says_that_it_is_down_while_it_is_up() -> None:
    health = health_of(UP, consecutive_failures=5)
    for _ in range(4):
        failed(health)
    health.adopt(HealthRules(consecutive_failures=2))
    assert (health.state, health.progress) == (UP, "up 1/2")


@pytest.mark.parametrize("state", [CHECKING, LOADING])
def test_what_is_not_known_yet_makes_no_progress(state: State) -> None:
    assert health_of(state).progress == ""


def test_since_is_when_the_state_began_not_when_it_was_confirmed() -> None:
    clock = Clock(7.0)
    assert Health(HealthRules(), clock).since == 7.0
    clock.advance(3)
    health = health_of(UP, clock)
    clock.advance(5)
    passed(health)
    assert health.since == 10.0
    refused(health)
    assert health.since == 15.0
    clock.advance(5)
    refused(health)
    assert health.since == 15.0


def test_checks_and_their_times_are_counted() -> None:
    health = Health(HealthRules(), Clock())
    health.check_passed(100.0, 0.5)
    health.check_failed(101.0, "status 500", seconds=1.5)
    health.is_loading(102.0, "loading")
    assert (health.checks, health.last_check, health.seconds_total) == (3, 102.0, 2.0)


def test_other_rules_hold_from_now_on_and_keep_what_is_known() -> None:
    health = health_of(UP, window=10)
    for good in (True, False, True, True):
        (passed if good else failed)(health)
    health.adopt(HealthRules(window=3, min_success_rate=0.7))
    assert list(health.recent) == [False, True, True]
    failed(health)
    assert health.state is DOWN
    health.adopt(HealthRules(window=20))
    assert list(health.recent) == [True, True, False]
    assert health.recent.maxlen == 20


def test_in_any_order_of_events_the_flags_agree_with_the_state() -> None:
    draw = random.Random(11)
    events = (passed, failed, refused, loading, refused_request, trusted)
    health = Health(HealthRules(), Clock())
    for _ in range(20_000):
        before = health.state
        draw.choice(events)(health)
        assert not health.hopeless or health.state is not UP
        assert health.hopeless or health.state in (UP, DOWN)
        assert health.state is not CHECKING or before is CHECKING
        assert health.good_checks < 2 or health.state is not DOWN
        assert health.progress.startswith(health.state.value) or not health.progress
        assert health.reason

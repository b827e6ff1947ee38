"""The circuit of a server: what opens it, how long it waits, whom it lets try, what closes it."""

from __future__ import annotations

from typing import Any

import pytest
from pool_kit import Clock, add_up, checked, fail_checks, new_pool, open_circuit, refuse

from mvllm_router.config import Settings
from mvllm_router.pool import Circuit, CircuitRules, CircuitState

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class Bench:
    """A circuit with a clock; requests take a hundredth of a second."""

    def __init__(self, **rules: Any) -> None:
        self.clock = Clock()
        self.circuit = Circuit(CircuitRules(**rules), self.clock())

    @property
    def state(self) -> CircuitState:
        return self.circuit.state(self.clock())

    @property
    def lets_through(self) -> bool:
        return self.circuit.lets_through(self.clock())

    @property
    def failures(self) -> int:
        return self.circuit.failures(self.clock())

    @property
    def wait(self) -> float:
        """Seconds until a trial may begin."""
        return round(self.circuit.retry_at - self.clock(), 6)

    def begin(self) -> float:
        began = self.clock()
        self.clock.advance(0.01)
        return began

    def fail(self, times: int = 1, *, began: float | None = None) -> list[bool]:
        return [self._fail(began) for _ in range(times)]

    def _fail(self, began: float | None) -> bool:
        began = self.begin() if began is None else began
        return self.circuit.failed("connection reset", began, self.clock())

    def succeed(self, times: int = 1, *, began: float | None = None) -> list[bool]:
        return [self._succeed(began) for _ in range(times)]

    def _succeed(self, began: float | None) -> bool:
        began = self.begin() if began is None else began
        return self.circuit.succeeded(began, self.clock())

    def open(self) -> None:
        assert any(self.fail(self.circuit.rules.threshold))

    def begin_trial(self) -> float:
        """Wait until a trial may begin, and begin it."""
        self.clock.advance(max(0.0, self.circuit.retry_at - self.clock()))
        assert self.lets_through
        self.circuit.begin_trial()
        return self.begin()

    def fail_trial(self) -> None:
        began = self.begin_trial()
        self.fail(began=began)
        self.circuit.end_trial(began)


def test_the_default_rules_are_the_default_settings() -> None:
    rules, settings = CircuitRules(), Settings()
    assert rules.threshold == settings.failure_threshold
    assert rules.window == settings.failure_window
    assert rules.longest_wait == settings.auto_recovery_threshold


def test_a_new_circuit_is_closed_and_lets_all_through() -> None:
    bench = Bench()
    assert (bench.state, bench.failures, bench.circuit.openings) == (CLOSED, 0, 0)
    for _ in range(3):
        assert bench.lets_through


# --- what opens it


@pytest.mark.parametrize("threshold", [1, 2, 5])
def test_it_opens_at_the_threshold_and_says_so_once(threshold: int) -> None:
    bench = Bench(threshold=threshold)
    told = bench.fail(threshold + 3)
    assert told == [False] * (threshold - 1) + [True] + [False] * 3
    assert (bench.state, bench.lets_through) == (OPEN, False)
    assert bench.circuit.openings == 1


def test_the_reason_says_how_many_failed_and_how() -> None:
    bench = Bench(threshold=3)
    bench.succeed(2)
    bench.fail(3)
    assert bench.circuit.reason == "3 of 5 requests failed, the last one: connection reset"


def test_it_stays_closed_while_more_than_half_go_well() -> None:
    bench = Bench(threshold=5)
    for _ in range(50):
        assert bench.succeed(2) == [False, False]
        assert bench.fail() == [False]
    assert bench.state is CLOSED


def test_half_is_enough_to_open_it() -> None:
    bench = Bench(threshold=5)
    bench.succeed(5)
    assert bench.fail(4) == [False] * 4
    bench.succeed(1)
    assert bench.fail(2) == [False, True]


def test_failures_that_are_older_than_the_window_do_not_count() -> None:
    bench = Bench(threshold=5, window=30.0)
    bench.fail(4)
    bench.clock.advance(29)
    assert bench.failures == 4
    bench.clock.advance(1)
    assert bench.failures == 0
    assert bench.fail(4) == [False] * 4


@pytest.mark.parametrize("seen_after", [16.0, 20.0, 29.9])
def test_no_failure_counts_for_longer_than_the_window_whenever_it_is_looked_at(
    seen_after: float,
) -> None:
    bench = Bench(threshold=5, window=30.0)
    bench.fail(4)
    failed_at = bench.clock()
    bench.clock.advance(seen_after)
    assert bench.failures == 4, "it is not older than the window"
    bench.clock.advance(30.1 - seen_after)
    assert bench.clock() - failed_at > 30
    assert bench.failures == 0
    assert bench.fail() == [False]


def test_failures_of_the_former_half_of_the_window_count_still() -> None:
    bench = Bench(threshold=5, window=30.0)
    bench.clock.advance(14)
    bench.fail(4)
    bench.clock.advance(14.5)
    assert bench.fail() == [True]


def test_successes_that_are_older_than_the_window_do_not_count_either() -> None:
    bench = Bench(threshold=5, window=30.0)
    bench.succeed(100)
    bench.clock.advance(31)
    assert bench.fail(5)[-1]


def test_successes_in_both_halves_of_the_window_weigh_against_failures() -> None:
    bench = Bench(threshold=5, window=30.0)
    bench.clock.advance(10)
    bench.succeed(4)
    bench.clock.advance(10)
    bench.succeed(2)
    assert bench.fail(4) == [False] * 4
    bench.succeed(2)
    assert bench.fail(4) == [False] * 3 + [True]


def test_failures_one_after_the_other_open_it_however_well_it_did_before() -> None:
    """Else a busy server that now fails at once would draw hundreds of requests."""
    bench = Bench(threshold=5, window=30.0)
    bench.succeed(1000)
    assert bench.fail(5) == [False] * 4 + [True]


def test_old_requests_that_still_end_well_do_not_break_a_row_of_failures() -> None:
    bench = Bench(threshold=5, window=30.0)
    began = bench.clock()
    bench.succeed(1000)
    bench.fail(4)
    bench.succeed(3, began=began)
    assert bench.fail() == [True]


def test_a_request_that_went_there_since_and_ended_well_breaks_the_row() -> None:
    bench = Bench(threshold=5, window=30.0)
    bench.succeed(1000)
    bench.fail(4)
    bench.succeed()
    assert bench.fail(4) == [False] * 4


def test_a_server_that_fails_now_and_then_stays_in_for_ever() -> None:
    bench = Bench(threshold=5, window=30.0)
    for _ in range(1000):
        assert bench.fail() == [False]
        bench.clock.advance(8)


def test_it_opens_at_once_for_a_reason_that_is_certain() -> None:
    bench = Bench()
    bench.succeed(100)
    assert bench.circuit.open("it is shutting down", bench.clock())
    assert (bench.state, bench.circuit.reason) == (OPEN, "it is shutting down")
    assert bench.circuit.openings == 1


def test_being_told_so_again_changes_nothing_while_it_waits() -> None:
    bench = Bench()
    bench.circuit.open("it is shutting down", bench.clock())
    bench.clock.advance(0.5)
    assert not bench.circuit.open("it is shutting down", bench.clock())
    assert bench.wait == 0.5


def test_a_trial_that_is_told_so_again_has_failed() -> None:
    bench = Bench()
    bench.circuit.open("it is shutting down", bench.clock())
    began = bench.begin_trial()
    assert not bench.circuit.open("it is shutting down", bench.clock()), "it was not closed"
    bench.circuit.end_trial(began)
    assert (bench.state, bench.wait) == (OPEN, 2.0)
    assert bench.circuit.openings == 1


# --- requests that began before


def test_failures_that_began_before_it_opened_do_not_keep_it_open() -> None:
    bench = Bench()
    began = bench.begin()
    bench.open()
    retry_at = bench.circuit.retry_at
    assert bench.fail(20, began=began) == [False] * 20
    assert bench.circuit.retry_at == retry_at


def test_a_success_that_began_before_it_opened_does_not_close_it() -> None:
    bench = Bench()
    began = bench.begin()
    bench.open()
    assert bench.succeed(began=began) == [False]
    assert bench.state is OPEN


def test_failures_that_began_before_it_opened_do_not_open_it_again_once_it_is_closed() -> None:
    bench = Bench()
    began = bench.begin()
    bench.open()
    bench.succeed(began=bench.begin_trial())
    assert bench.fail(20, began=began) == [False] * 20
    assert (bench.state, bench.failures) == (CLOSED, 0)


def test_failures_that_began_before_the_server_went_away_do_not_count_when_it_is_back() -> None:
    bench = Bench()
    began = bench.begin()
    bench.circuit.reset(bench.clock())
    assert bench.fail(20, began=began) == [False] * 20
    assert (bench.state, bench.failures) == (CLOSED, 0)


def test_neither_do_successes() -> None:
    bench = Bench(threshold=5)
    began = bench.begin()
    bench.circuit.reset(bench.clock())
    bench.succeed(100, began=began)
    assert bench.fail(5)[-1]


def test_last_resorts_that_fail_while_it_waits_make_the_wait_no_longer() -> None:
    bench = Bench()
    bench.open()
    for _ in range(20):
        assert bench.fail() == [False]
    assert bench.wait == 0.8


def test_a_last_resort_that_is_answered_well_closes_it_before_its_wait_is_over() -> None:
    bench = Bench()
    bench.open()
    bench.clock.advance(0.1)
    assert bench.succeed() == [True]
    assert bench.state is CLOSED


def test_a_last_resort_from_before_the_trial_that_fails_leaves_the_trial_to_decide() -> None:
    bench = Bench()
    bench.open()
    began = bench.begin()
    trial = bench.begin_trial()
    bench.fail(began=began)
    assert bench.circuit.trial
    assert bench.succeed(began=trial) == [True]


# --- trials


def test_when_its_wait_is_over_it_lets_one_try_and_only_one() -> None:
    bench = Bench()
    bench.open()
    bench.clock.advance(0.999)
    assert (bench.state, bench.lets_through) == (OPEN, False)
    bench.clock.advance(0.001)
    assert (bench.state, bench.lets_through) == (HALF_OPEN, True)
    bench.circuit.begin_trial()
    assert (bench.state, bench.lets_through) == (HALF_OPEN, False)
    bench.clock.advance(1000)
    assert not bench.lets_through


def test_a_trial_that_succeeds_closes_it() -> None:
    bench = Bench()
    bench.open()
    began = bench.begin_trial()
    assert bench.succeed(began=began) == [True]
    bench.circuit.end_trial(began)
    assert (bench.state, bench.circuit.reason, bench.failures) == (CLOSED, "", 0)
    assert bench.lets_through
    assert bench.fail(4) == [False] * 4, "what failed before it closed was counted"


def test_a_trial_that_fails_opens_it_again_for_twice_as_long() -> None:
    bench = Bench()
    bench.open()
    began = bench.begin_trial()
    assert bench.fail(began=began) == [False], "it was open before"
    bench.circuit.end_trial(began)
    assert (bench.state, bench.wait) == (OPEN, 2.0)
    assert bench.circuit.reason == "connection reset"
    assert bench.circuit.openings == 1


def test_a_trial_that_ended_without_a_verdict_lets_the_next_one_try() -> None:
    bench = Bench()
    bench.open()
    bench.circuit.end_trial(bench.begin_trial())
    assert (bench.state, bench.lets_through) == (HALF_OPEN, True)
    assert bench.succeed(began=bench.begin_trial()) == [True]


def test_a_trial_from_before_another_opening_does_not_end_the_one_after_it() -> None:
    bench = Bench()
    bench.open()
    first = bench.begin_trial()
    bench.fail()  # a last resort that began as late
    bench.begin_trial()
    bench.circuit.end_trial(first)
    assert bench.circuit.trial
    assert not bench.lets_through
    assert bench.succeed(began=first) == [False]


def test_waits_double_up_to_the_longest() -> None:
    bench = Bench(longest_wait=10.0)
    bench.open()
    waits = [bench.wait]
    for _ in range(6):
        bench.fail_trial()
        waits.append(bench.wait)
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_no_wait_is_longer_than_the_longest_not_even_the_first() -> None:
    bench = Bench(longest_wait=0.2)
    bench.open()
    assert bench.wait == 0.2


def test_waits_go_on_growing_when_it_fails_soon_after_it_closed() -> None:
    bench = Bench(window=30.0)
    bench.open()
    for expected in (2.0, 4.0, 8.0):
        bench.succeed(began=bench.begin_trial())
        bench.clock.advance(29)
        bench.open()
        assert bench.wait == expected


def test_waits_begin_anew_after_a_window_without_an_opening() -> None:
    bench = Bench(window=30.0)
    bench.open()
    bench.fail_trial()
    bench.succeed(began=bench.begin_trial())
    bench.clock.advance(31)
    bench.open()
    assert bench.wait == 1.0


def test_each_opening_is_counted_but_no_failed_trial() -> None:
    bench = Bench()
    for expected in (1, 2, 3):
        bench.open()
        bench.fail_trial()
        bench.fail_trial()
        assert bench.circuit.openings == expected
        bench.succeed(began=bench.begin_trial())


def test_a_reset_closes_it_and_forgets_everything_but_how_often_it_opened() -> None:
    bench = Bench()
    bench.open()
    bench.fail_trial()
    bench.begin_trial()
    bench.circuit.reset(bench.clock())
    assert (bench.state, bench.lets_through, bench.failures) == (CLOSED, True, 0)
    assert (bench.circuit.reason, bench.circuit.trial) == ("", False)
    assert bench.circuit.openings == 1
    bench.open()
    assert bench.wait == 1.0


def test_new_rules_hold_at_once() -> None:
    bench = Bench(threshold=5)
    bench.fail(2)
    bench.circuit.rules = CircuitRules(threshold=3, longest_wait=0.5)
    assert bench.fail() == [True]
    assert bench.wait == 0.5


# --- in the pool


def test_the_pool_tells_of_each_opening_and_closing() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend = add_up(pool, "a", "m")
    open_circuit(pool, backend)
    clock.advance(1)
    trial = pool.lease(backend)
    pool.request_failed(backend, "status 500", trial.began)
    trial.release()
    clock.advance(2)
    trial = pool.lease(backend)
    pool.request_succeeded(backend, trial.began)
    trial.release()
    pool.is_leaving(backend, "it is shutting down")
    pool.is_leaving(backend, "it is shutting down")
    assert [(e.kind, e.message) for e in pool.events.last(3)] == [
        ("open", "circuit open: 5 of 5 requests failed, the last one: connection reset"),
        ("closed", "circuit closed: a trial succeeded"),
        ("open", "circuit open: it is shutting down"),
    ]


def test_only_the_lease_that_tries_is_a_trial() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend = add_up(pool, "a", "m")
    before = pool.lease(backend)
    open_circuit(pool, backend)
    resort = pool.lease(backend)
    clock.advance(1)
    trial, second = pool.lease(backend), pool.lease(backend)
    assert [lease.is_trial for lease in (before, resort, trial, second)] == [
        *(False, False, True, False)
    ]
    for lease in (before, resort, second):
        lease.release()
        assert backend.circuit.trial
    trial.release()
    trial.release()
    assert not backend.circuit.trial


def test_a_server_that_was_away_comes_back_with_a_closed_circuit_and_rested() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    pool.is_busy(backend, 60.0)
    open_circuit(pool, backend)
    refuse(pool, backend)
    assert not backend.circuit.is_closed
    checked(pool, backend)
    checked(pool, backend)
    assert backend.condition(pool.monotonic()) == "up"
    assert pool.candidates("m") == [backend]


def test_a_server_that_health_checks_never_took_out_stays_broken() -> None:
    pool = new_pool(consecutive_failures=2)
    backend = add_up(pool, "a", "m")
    open_circuit(pool, backend)
    pool.health(backend, lambda health: health.check_failed(2.0, "status 500"))
    checked(pool, backend)
    assert backend.condition(pool.monotonic()) == "open"


def test_failures_of_a_server_that_is_down_open_its_circuit_all_the_same() -> None:
    pool = new_pool()
    backend = add_up(pool, "a", "m")
    fail_checks(pool, backend)
    open_circuit(pool, backend)
    assert not backend.circuit.is_closed
    assert backend.condition(pool.monotonic()) == "down"


def test_the_circuit_of_a_removed_server_touches_nobody_else() -> None:
    pool = new_pool()
    goes, stays = add_up(pool, "goes", "m"), add_up(pool, "stays", "m")
    pool.remove("goes")
    heard: list[str] = []
    pool.listeners.append(lambda: heard.append("changed"))
    open_circuit(pool, goes)
    pool.is_busy(goes, None)
    assert heard == []
    assert pool.candidates("m") == [stays]
    assert not pool._unwell


def test_nothing_is_kept_of_a_broken_server_that_is_removed() -> None:
    pool = new_pool()
    open_circuit(pool, add_up(pool, "goes", "m"))
    pool.remove("goes")
    assert not pool._unwell


def test_any_answer_makes_the_next_rest_short_again() -> None:
    clock = Clock()
    pool = new_pool(clock)
    backend = add_up(pool, "a", "m")
    for _ in range(5):
        pool.is_busy(backend, None)
        clock.advance(backend.rest.until - clock())
    pool.request_succeeded(backend, clock())
    pool.is_busy(backend, None)
    assert backend.rest.until - clock() == 0.25

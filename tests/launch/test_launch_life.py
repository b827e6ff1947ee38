"""When a server is started again, given up, and taken for hung: with a clock of our own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mvllm_router.launch.life import Facts, Life, Phase, Rules
from mvllm_router.launch.reasons import Reason

RULES = Rules(first_pause=1, longest_pause=4, most_failures=5, settled_after=60)
CRASH = Reason("RuntimeError: boom")


def started(now: float = 0.0) -> Life:
    life = Life(RULES, now)
    life.started(now)
    return life


def ready(now: float = 0.0) -> Life:
    life = started(now)
    life.is_ready(now)
    return life


def pauses(life: Life, times: int) -> list[float]:
    """Let it end at once after each start; return how long it pauses each time."""
    found = []
    for _ in range(times):
        life.ended(CRASH, 100.0)
        found.append(life.retry_at - 100.0)
        life.started(100.0)
    return found


def test_it_waits_starts_and_is_ready() -> None:
    life = Life(RULES, 0.0)
    assert life.phase is Phase.WAITING
    assert life.is_over(0.0)
    life.started(1.0)
    assert (life.phase, life.since, life.starts) == (Phase.STARTING, 1.0, 1)
    life.is_ready(31.0)
    assert (life.phase, life.since) == (Phase.READY, 31.0)


def test_pauses_grow_up_to_a_bound() -> None:
    assert pauses(started(), 4) == [1.0, 2.0, 4.0, 4.0]


def test_a_pause_is_over_when_its_time_has_come() -> None:
    life = started()
    life.ended(CRASH, 10.0)
    assert life.phase is Phase.PAUSING
    assert not life.is_over(10.9)
    assert life.is_over(11.0)
    assert (life.phase, life.reason) == (Phase.WAITING, "RuntimeError: boom")


def test_after_five_failures_in_a_row_it_is_given_up() -> None:
    life = started()
    pauses(life, 4)
    life.ended(CRASH, 100.0)
    assert (life.phase, life.failures, life.reason) == (Phase.FAILED, 5, "RuntimeError: boom")
    assert not life.is_over(10_000.0)


def test_what_cannot_come_right_is_given_up_at_once() -> None:
    life = started()
    life.ended(Reason("unrecognized arguments: --x", hopeless=True), 1.0)
    assert life.phase is Phase.FAILED


def test_what_has_worked_before_is_not_hopeless() -> None:
    life = ready()
    life.ended(Reason("No such file or directory", hopeless=True), 1.0)
    assert life.phase is Phase.PAUSING


def test_failures_are_over_once_it_has_worked_for_a_while() -> None:
    life = started()
    pauses(life, 3)
    life.is_ready(100.0)
    life.ended(CRASH, 159.0)
    assert life.failures == 4
    life.started(160.0)
    life.is_ready(160.0)
    life.ended(CRASH, 220.0)
    assert (life.failures, life.phase) == (1, Phase.PAUSING)


def test_a_restart_that_was_asked_for_has_a_clean_record() -> None:
    life = started()
    pauses(life, 4)
    life.ended(CRASH, 100.0)
    life.again(101.0)
    assert (life.phase, life.failures, life.reason) == (Phase.WAITING, 0, "")
    assert life.is_over(101.0)


@pytest.mark.parametrize(("silent", "fault"), [(599.0, ""), (600.0, "printed nothing for 600 s")])
def test_one_that_starts_and_says_nothing_is_hung(silent: float, fault: str) -> None:
    found = started().fault(Facts(silent_for=silent))
    assert fault in found
    assert bool(found) == bool(fault)


@pytest.mark.parametrize(("unwell", "fault"), [(59.0, ""), (60.0, "for 60 s: no answer in 5 s")])
@pytest.mark.parametrize("make", [started, ready])
def test_one_that_runs_and_is_not_well_is_hung(
    make: Callable[[], Life], unwell: float, fault: str
) -> None:
    found = make().fault(Facts(unwell_for=unwell, complaint="no answer in 5 s"))
    assert fault in found
    assert bool(found) == bool(fault)


def test_one_that_is_ready_may_be_silent() -> None:
    assert ready().fault(Facts(silent_for=1e6)) == ""


def test_one_that_drains_is_not_judged() -> None:
    life = ready()
    life.drains(5.0)
    assert life.phase is Phase.DRAINING
    assert life.fault(Facts(1e6, 1e6)) == ""

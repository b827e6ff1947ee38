"""How long a server that says "busy" is left in peace."""

from __future__ import annotations

import pytest
from pool_kit import Clock

from mvllm_router.pool.rest import Rest


class Bench:
    """A rest with a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.rest = Rest()

    @property
    def left(self) -> float:
        """Seconds that it rests from now; 0 when the rest is over."""
        left = max(0.0, self.rest.until - self.clock())
        assert self.rest.is_over(self.clock()) is (left == 0)
        return round(left, 6)

    def busy(self, asked: float | None = None) -> float:
        self.rest.busy(self.clock(), asked)
        return self.left

    def wait(self) -> None:
        self.clock.advance(self.left)


def test_a_new_one_is_over() -> None:
    assert Bench().left == 0


def test_it_is_over_when_its_time_is() -> None:
    bench = Bench()
    assert bench.busy() == 0.25
    bench.clock.advance(0.24)
    assert bench.left > 0
    bench.clock.advance(0.01)
    assert bench.left == 0


def test_each_that_follows_without_another_answer_is_twice_as_long_up_to_a_limit() -> None:
    bench = Bench()
    lengths = []
    for _ in range(8):
        lengths.append(bench.busy())
        bench.wait()
    assert lengths == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_it_never_grows_beyond_the_limit_nor_out_of_the_numbers() -> None:
    bench = Bench()
    for _ in range(5000):
        assert bench.busy() <= 8.0
        bench.wait()


def test_another_answer_makes_the_next_one_short_again() -> None:
    bench = Bench()
    for _ in range(4):
        bench.busy()
        bench.wait()
    bench.rest.answered()
    assert bench.busy() == 0.25


def test_an_answer_to_an_older_request_does_not_end_it() -> None:
    bench = Bench()
    bench.busy(3.0)
    bench.rest.answered()
    assert bench.left == 3.0


def test_a_burst_that_is_refused_at_once_is_one_refusal() -> None:
    bench = Bench()
    for _ in range(50):
        assert bench.busy() == 0.25
    bench.wait()
    assert bench.busy() == 0.5


def test_those_that_are_refused_during_the_rest_prolong_it_but_do_not_double_it() -> None:
    bench = Bench()
    bench.busy()
    bench.clock.advance(0.1)
    assert bench.busy() == 0.25


def test_the_server_may_say_how_long() -> None:
    bench = Bench()
    assert bench.busy(7.0) == 7.0
    bench.wait()
    assert bench.busy(1.0) == 1.0, "its word counts, also where it is less than ours"


@pytest.mark.parametrize("asked", [60.0, 61.0, 1e9, float("inf")])
def test_but_not_for_ever(asked: float) -> None:
    assert Bench().busy(asked) == 60.0


@pytest.mark.parametrize("asked", [0.0, 0.001])
def test_nor_so_short_that_all_requests_come_back_at_once(asked: float) -> None:
    assert Bench().busy(asked) == 0.25


def test_a_short_rest_does_not_cut_a_long_one() -> None:
    bench = Bench()
    bench.busy(10.0)
    assert bench.busy() == 10.0
    assert bench.busy(1.0) == 10.0


def test_an_end_ends_it_and_makes_the_next_one_short_again() -> None:
    bench = Bench()
    for _ in range(4):
        bench.wait()
        bench.busy()
    bench.busy(60.0)
    bench.rest.end()
    assert bench.left == 0
    assert bench.busy() == 0.25


def test_an_answer_in_mid_rest_makes_none_shorter_than_the_first() -> None:
    bench = Bench()
    bench.busy()
    bench.rest.answered()
    bench.clock.advance(0.2)
    assert bench.busy() == 0.25

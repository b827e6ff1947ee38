"""The histogram counts exactly, and its quantiles are those of Prometheus."""

from __future__ import annotations

import math
import random
from itertools import accumulate

import pytest

from mvllm_router.histogram import SECONDS, Histogram, Recent


def test_an_observation_at_a_bound_belongs_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.0001):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.count == 5
    assert histogram.total == pytest.approx(6.5001)


def test_a_value_counts_in_the_first_bucket_that_holds_it() -> None:
    histogram, draw = Histogram(), random.Random(7)
    values = [draw.expovariate(0.2) for _ in range(500)] + [0.001, 300.0]
    for value in values:
        histogram.observe(value)
    limits = [*histogram.bounds, math.inf]
    for limit, count in zip(limits, accumulate(histogram.counts), strict=True):
        assert count == sum(value <= limit for value in values)


def test_the_bounds_rise() -> None:
    assert list(SECONDS) == sorted(set(SECONDS))


def test_an_empty_histogram_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


def test_quantiles_are_linear_within_a_bucket() -> None:
    histogram = Histogram((1.0, 3.0))
    for _ in range(4):
        histogram.observe(2.0)
    assert histogram.quantile(0.5) == 2.0
    assert histogram.quantile(0.25) == 1.5
    assert histogram.quantile(1.0) == 3.0


def test_the_first_bucket_begins_at_zero() -> None:
    histogram = Histogram((1.0, 3.0))
    histogram.observe(0.9)
    assert histogram.quantile(0.5) == 0.5


def test_empty_buckets_are_passed_over() -> None:
    histogram = Histogram((1.0, 2.0, 3.0, 4.0))
    histogram.observe(0.5)
    histogram.observe(3.5)
    assert histogram.quantile(0.5) == 1.0
    assert histogram.quantile(0.75) == 3.5


def test_a_quantile_in_the_open_bucket_is_its_lower_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(100.0)
    assert histogram.quantile(0.5) == 2.0


def filled(recent: Recent, histogram: Histogram, *values: float) -> None:
    """One value between two looks."""
    for value in values:
        histogram.observe(value)
        recent.note()


def test_recent_figures_leave_out_what_is_older_than_the_oldest_copy() -> None:
    histogram = Histogram((1.0, 2.0, 3.0))
    recent = Recent(histogram, 3)
    assert recent.quantiles() == {"p50": None, "p99": None}
    filled(recent, histogram, 0.5, 0.5)
    assert list(recent.below()) == [2, 2, 2, 2], "all of it, as long as it is young"
    filled(recent, histogram, 1.5, 2.5)
    histogram.observe(9.0)
    assert list(recent.below()) == [0, 1, 2, 3]
    assert recent.quantiles() == {"p50": 2.5, "p99": 3.0}
    assert histogram.counts == [2, 1, 1, 1]


def test_recent_figures_are_none_once_all_is_old() -> None:
    histogram = Histogram((1.0,))
    recent = Recent(histogram, 3)
    filled(recent, histogram, 0.5)
    for _ in range(2):
        assert recent.quantiles()["p50"] == 0.5
        recent.note()
    assert recent.quantiles() == {"p50": None, "p99": None}


def test_one_more_of_many_is_shown_with_the_next_copy_and_one_of_few_at_once() -> None:
    histogram = Histogram((1.0, 2.0))
    recent = Recent(histogram, 3)
    shown = []
    for _ in range(60):
        histogram.observe(0.5)
        shown.append(recent.below()[-1])
    assert shown == [*range(1, 51), *[50] * 10]
    recent.note()
    assert recent.below()[-1] == 60


def test_copies_of_an_idle_histogram_take_no_memory() -> None:
    recent = Recent(Histogram(), 13)
    for _ in range(50):
        recent.note()
    assert len(recent._copies) == 13
    assert len({id(copy) for copy in recent._copies}) == 1

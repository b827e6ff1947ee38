"""Numbers as people read them: stable widths, and a dash for what is not known."""

from __future__ import annotations

import pytest
from dash_kit import text_of

from mvllm_router.dashboard import figures
from mvllm_router.dashboard.lines import cut, fit, plain, spread, width_of


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"), (0, "0"), (4.21, "4.2"), (42, "42"), (99.97, "100"), (187.4, "187"),
        (999.96, "1.0k"), (2600, "2.6k"), (18_204, "18.2k"), (123_456, "123k"), (1.9e6, "1.9M"),
    ],
)  # fmt: skip
def test_counts_are_short(value: float | None, expected: str) -> None:
    assert figures.compact(value) == expected


def test_a_rate_keeps_its_decimal_so_that_it_does_not_jitter() -> None:
    assert [figures.rate(value) for value in (0.0, 3.0, 99.9, 120.0)] == [
        "0.0",
        "3.0",
        "99.9",
        "120",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (0.0, "0.00"),
        (0.001, "0.001"),
        (0.004, "0.004"),
        (0.005, "0.01"),
        (1.5, "1.50"),
    ],
)
def test_the_smallest_weights_are_not_shown_as_nothing(value: float | None, expected: str) -> None:
    assert figures.decimal(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, "–"), (0.0634, "63 ms"), (0.9996, "1.00 s"), (1.2, "1.20 s")]
)
def test_times_have_their_unit(seconds: float | None, expected: str) -> None:
    assert figures.latency(seconds) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, "–"),
        (0, "0 MiB"),
        (812 * 2**20, "812 MiB"),
        (2**30 - 1, "1.0 GiB"),
        (75e9, "69.8 GiB"),
    ],
)
def test_sizes_have_their_unit(size: float | None, expected: str) -> None:
    assert figures.size(size) == expected


def test_times_in_columns_are_never_wider_than_five_signs() -> None:
    assert [figures.milliseconds(s) for s in (0.07, 9.9, 12.34, 120.0)] == [
        "70",
        "9900",
        "12.3s",
        "120.0s",
    ]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.44, "0.4s"), (12, "12s"), (200, "3m"), (7300, "2h"), (200_000, "2d"), (-1, "0.0s")],
)
def test_ages_have_one_unit(seconds: float, expected: str) -> None:
    assert figures.age(seconds) == expected


def test_long_times_have_two() -> None:
    assert [figures.span(s) for s in (5, 65, 7980, 90_000)] == ["5s", "1m 05s", "2h 13m", "1d 01h"]


@pytest.mark.parametrize("part", [-1, 0, 0.01, 0.5, 0.73, 1, 7])
def test_a_bar_is_always_as_wide(part: float) -> None:
    filled, rest = figures.bar(part, 8)
    assert len(filled + rest) == 8


def test_lines_are_brought_to_a_width() -> None:
    line = (("ab", "plain"), ("cdef", "bad"))
    assert text_of(fit(line, 8)) == "abcdef  "
    assert text_of(fit(line, 8, right=True)) == "  abcdef"
    assert text_of(fit(line, 4)) == "abc…"
    assert fit(line, 0) == ()
    assert width_of(fit(plain("千问千问"), 5)) == 5
    assert text_of(spread(plain("left"), plain("right"), 12)) == "left   right"


def test_names_are_cut_in_their_middle() -> None:
    assert cut("Qwen3-235B-A22B-FP8", 9) == "Qwen…-FP8"
    assert cut("short", 9) == "short"
    assert cut("x", 0) == ""

"""Charts of braille signs."""

from __future__ import annotations

import pytest
from dash_kit import text_of

from mvllm_router.dashboard.chart import ceiling, plot
from mvllm_router.dashboard.lines import width_of


@pytest.mark.parametrize(
    ("top", "expected"), [(0.0, 4), (3.9, 4), (4.1, 5), (5, 5), (51, 100), (187, 200), (0.5, 4)]
)
def test_a_scale_ends_at_a_round_number(top: float, expected: float) -> None:
    assert ceiling([[None, top]], 4) == expected


def test_a_scale_below_one_is_round_as_well() -> None:
    assert ceiling([[0.206], [0.063]], 0.01) == pytest.approx(0.5)


def test_the_lowest_and_the_highest_value_are_at_the_borders() -> None:
    lines = plot([[0, 0, 8, 8]], ["good"], (2, 2), 8.0)
    assert [text_of(line) for line in lines] == [" ⡏", "⣀⠇"]


def test_a_gap_is_not_joined() -> None:
    (line,) = plot([[4, None, None, 0]], ["good"], (2, 1), 4.0)
    assert text_of(line) == "⠁⢀"


def test_each_line_has_its_tone() -> None:
    lines = plot([[8, 8], [0, 0]], ["bad", "good"], (1, 2), 8.0)
    assert [line[0][1] for line in lines] == ["bad", "good"]


def test_a_plot_is_as_wide_as_it_was_asked_for() -> None:
    lines = plot([[None] * 20, list(range(20))], ["bad", "good"], (10, 3), 19.0)
    assert [width_of(line) for line in lines] == [10] * 3

"""Work for many servers is spread, in the order in which it was asked for."""

from __future__ import annotations

import pytest

from mvllm_router.control.pace import Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_who_comes_alone_need_not_wait() -> None:
    clock = Clock()
    pace = Pace(0.5, clock)
    for _ in range(3):
        assert pace.take() == 0.0
        clock.now += 0.5


def test_those_that_come_together_get_places_one_after_the_other() -> None:
    pace = Pace(0.5, Clock())
    assert [pace.take() for _ in range(4)] == pytest.approx([0.0, 0.5, 1.0, 1.5])


def test_time_without_work_saves_no_places_up() -> None:
    clock = Clock()
    pace = Pace(0.5, clock)
    pace.take()
    clock.now += 1000.0
    assert [pace.take() for _ in range(3)] == pytest.approx([0.0, 0.5, 1.0])

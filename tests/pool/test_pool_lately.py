"""What a server's requests took lately: the same answer for as long as nothing changes."""

from __future__ import annotations

from mvllm_router.histogram import Histogram
from mvllm_router.pool.lately import Lately


def two() -> tuple[Histogram, Histogram, Lately]:
    ttft, duration = Histogram(), Histogram()
    return ttft, duration, Lately(3, ttft=ttft, duration=duration)


def test_each_histogram_has_its_own_quantiles() -> None:
    ttft, duration, lately = two()
    ttft.observe(0.0005)
    duration.observe(200.0)
    found = lately.quantiles()
    assert (found["ttft"]["p50"], found["duration"]["p50"]) == (0.0005, 210.0)


def test_the_answer_is_the_same_object_until_one_of_few_more_is_counted_in_any_of_them() -> None:
    ttft, duration, lately = two()
    answers = [lately.quantiles(), lately.quantiles()]
    for histogram in (ttft, duration):
        histogram.observe(0.3)
        answers += [lately.quantiles(), lately.quantiles()]
    assert [answers[0] is answers[1], answers[2] is answers[3], answers[4] is answers[5]] == [
        True
    ] * 3
    assert len({id(answer) for answer in answers}) == 3


def test_among_many_one_more_is_shown_with_the_next_note() -> None:
    ttft, duration, lately = two()
    for histogram in (ttft, duration):
        for _ in range(60):
            histogram.observe(0.3)
    before = lately.quantiles()
    ttft.observe(100.0)
    assert lately.quantiles() is before
    lately.note()
    assert lately.quantiles()["ttft"] != before["ttft"]
    assert lately.quantiles()["duration"] == before["duration"]


def test_a_note_that_changes_nothing_leaves_the_same_answer() -> None:
    _, _, lately = two()
    before = lately.quantiles()
    for _ in range(5):
        lately.note()
        assert lately.quantiles() is before


def test_what_is_too_old_is_forgotten_also_by_who_asked_before() -> None:
    ttft, _, lately = two()
    ttft.observe(0.3)
    for asked in (True, False):
        for _ in range(3):
            lately.note()
            if asked:
                lately.quantiles()
        assert lately.quantiles()["ttft"]["p50"] is None
        ttft.observe(0.3)

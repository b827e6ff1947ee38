"""The way to the router: when it counts as lost, and when it is asked again."""

from __future__ import annotations

from dash_kit import text_of

from mvllm_router.dashboard.link import Link


def words(link: Link, now: float, *, paused: bool = False) -> str:
    return text_of(link.words(now, paused=paused))


def test_it_is_live_while_the_router_answers() -> None:
    link = Link(1.0)
    assert words(link, 10) == "CONNECTING"
    link.succeeded(10)
    assert words(link, 11) == "LIVE"
    assert words(link, 11, paused=True) == "PAUSED"
    assert link.pause == 1.0


def test_a_router_that_is_gone_leaves_a_stale_picture_with_its_age() -> None:
    link = Link(1.0)
    link.succeeded(10)
    link.failed("no router answers", "start one")
    assert words(link, 14) == "STALE 4.0s"
    assert (link.problem, link.hint) == ("no router answers", "start one")
    link.succeeded(20)
    assert words(link, 20) == "LIVE"
    assert link.problem == ""


def test_a_router_that_does_not_answer_in_time_is_stale_before_anything_fails() -> None:
    link = Link(1.0)
    link.succeeded(10)
    assert not link.is_stale(12)
    assert link.is_stale(14)


def test_pauses_grow_and_are_bounded() -> None:
    link = Link(0.5)
    pauses = []
    for _ in range(12):
        link.failed("gone")
        pauses.append(link.pause)
    assert pauses[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert max(pauses) == 10.0


def test_nobody_there_from_the_start() -> None:
    link = Link(1.0)
    link.failed("gone")
    assert words(link, 5) == "NO ANSWER"

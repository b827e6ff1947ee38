"""The judge of the chaos runs blames the router for what it could have saved, and only for that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from chaos_answers import Reading, Seen
from chaos_judge import Story, Trouble, World, violation
from chaos_report import Report
from chaos_wishes import Wish

WISH = Wish(1, "common", stream=True, tokens=5, prompt_size=5)
MODELS = {"s0": ("common",), "s1": ("common", "rare"), "s2": ("rare",)}


def story(seen: Seen, *, wish: Wish = WISH, **fields: Any) -> Story:
    """A request from second 100 to second 101 and what was seen of it."""
    reading = Reading(seen, **{k: fields.pop(k) for k in list(fields) if hasattr(Reading, k)})
    return Story(wish, 100.0, 101.0, reading, **fields)


def world(*troubles: Trouble, **fields: Any) -> World:
    return World(MODELS, troubles=list(troubles), **fields)


def on(engine: str, kind: str, begin: float = 99.0, end: float | None = 102.0) -> Trouble:
    return Trouble(kind, engine, begin, end)


REFUSED = story(Seen.REFUSED, status=502, code="all_attempts_failed")
BROKEN = story(Seen.BROKEN, status=200, backend="s0", attempts=1)
SILENT = story(Seen.REFUSED, status=504)
AT_S0 = {1: [("s0", "silent for too long")]}


@pytest.mark.parametrize("seen", [Seen.COMPLETE, Seen.LEFT])
def test_nothing_is_wrong_with_a_good_end(seen: Seen) -> None:
    assert violation(story(seen), world()) == ""


def test_what_no_client_may_see_is_always_wrong() -> None:
    assert violation(story(Seen.WRONG, detail="mixed"), world(on("s0", "kill"))) == "mixed"


def test_an_error_is_wrong_while_an_engine_of_the_model_is_well() -> None:
    assert "s0, s1 was well" in violation(REFUSED, world())
    assert "s1 was well" in violation(REFUSED, world(on("s0", "kill")))
    assert violation(REFUSED, world(on("s0", "kill"), on("s1", "hang"))) == ""


@pytest.mark.parametrize(
    ("trouble", "blamed"),
    [
        (on("s1", "kill", 90.0, 98.0), True),  # over for long
        (on("s1", "kill", 90.0, 99.0), False),  # just over
        (on("s1", "reload", 90.0, 97.5), False),  # which takes longer to be forgotten
        (on("s1", "kill", 100.9, None), False),  # begins in the request's last moment
        (on("s1", "kill", 101.5, None), True),
    ],
)
def test_an_engine_is_well_only_some_time_after_its_trouble(trouble: Trouble, blamed: bool) -> None:
    assert bool(violation(REFUSED, world(on("s0", "kill"), trouble))) is blamed


def test_an_engine_without_the_model_saves_nobody() -> None:
    rare = replace(REFUSED, wish=replace(WISH, model="rare"))
    assert "s2 was well" in violation(rare, world(on("s1", "kill")))
    assert violation(rare, world(on("s1", "kill"), on("s2", "kill"))) == ""


def test_a_stream_breaks_off_only_where_its_engine_does() -> None:
    assert "s0 was well" in violation(BROKEN, world(on("s1", "kill")))
    assert "s0 was well" in violation(BROKEN, world(on("s0", "reload")))
    assert "s0 was well" in violation(BROKEN, world(on("s0", "drain")))
    assert violation(BROKEN, world(on("s0", "kill"))) == ""


def test_a_stream_is_never_just_cut() -> None:
    cut = story(Seen.CUT, status=200, backend="s0")
    assert violation(cut, world(on("s0", "kill"))) == "a stream was cut without an error event"
    whole = replace(cut, wish=replace(WISH, stream=False))
    assert violation(whole, world(on("s0", "kill"))) == ""
    assert violation(whole, world()) != ""


def test_done_after_an_error_is_only_an_engine_s() -> None:
    both = story(Seen.BROKEN, status=200, backend="s0", done_after_error=True)
    assert "[DONE]" in violation(both, world(on("s0", "kill")))
    assert violation(both, world(on("s0", "death"))) == ""


@pytest.mark.parametrize("code", ["429", "503"])
def test_busy_in_the_first_event_is_an_error_before_the_first_byte(code: str) -> None:
    busy = story(Seen.BROKEN, status=200, backend="s0", code=code, first=True)
    hit = on("s0", "busy_in_stream")
    assert "s1 was well" in violation(busy, world(hit))
    assert violation(busy, world(hit, on("s1", "kill"))) == ""


def test_silence_is_right_at_an_engine_that_was_silent() -> None:
    assert violation(SILENT, world(on("s0", "pause"), failed=AT_S0)) == ""
    assert "s0 was not silent" in violation(SILENT, world(on("s1", "pause"), failed=AT_S0))
    assert "does not say where" in violation(SILENT, world(on("s0", "pause")))


def test_an_engine_s_own_500_is_passed_on_but_nobody_else_s() -> None:
    failed = story(Seen.REFUSED, status=500, backend="s0", code="500")
    assert violation(failed, world(on("s0", "error_500"))) == ""
    assert violation(failed, world(on("s1", "error_500"))) != ""
    assert violation(replace(failed, backend=""), world(on("s0", "error_500"))) != ""


def test_a_500_of_an_engine_that_ends_is_not_the_request_s_fault() -> None:
    hit = on("s0", "draining_500")
    leaving = story(
        Seen.REFUSED,
        status=500,
        backend="s0",
        attempts=1,
        detail="cannot schedule new futures after shutdown",
    )
    assert "s1 was well" in violation(leaving, world(hit))
    died = story(Seen.REFUSED, status=500, backend="s0", detail="EngineCore encountered an issue.")
    assert "s1 was well" in violation(replace(died, attempts=1), world(on("s0", "death")))
    assert violation(replace(died, attempts=2), world(on("s0", "death"))) == ""


@pytest.mark.parametrize("status", [400, 401, 404, 413])
def test_no_client_made_a_mistake(status: int) -> None:
    everywhere = world(on("s0", "kill"), on("s1", "kill"))
    assert violation(story(Seen.REFUSED, status=status), everywhere) != ""


def test_a_full_queue_may_refuse_and_no_other() -> None:
    full = story(Seen.REFUSED, status=429, code="overloaded", others=6)
    assert violation(full, world()) != ""
    limited = world(max_queue=6, queue_timeout=1.5)
    assert violation(full, limited) == ""
    assert violation(replace(full, others=5), limited) != ""
    assert violation(replace(full, others=5, end=101.6), limited) == ""


def test_a_router_that_is_told_to_stop_may_say_so() -> None:
    assert violation(REFUSED, world(stopping_from=100.5)) == ""
    assert violation(REFUSED, world(stopping_from=101.5)) != ""


def test_nobody_is_blamed_for_a_machine_that_stood_still() -> None:
    assert violation(REFUSED, world(stalls=[(97.0, 99.0)])) == ""
    assert violation(REFUSED, world(stalls=[(90.0, 97.0)])) != ""
    mixed = story(Seen.WRONG, detail="mixed")
    assert violation(mixed, world(stalls=[(97.0, 99.0)])) == "mixed"


def test_a_report_counts_by_what_the_request_may_have_met() -> None:
    there = world(on("s0", "kill"), on("s1", "hang"))
    report = Report()
    report.add(story(Seen.COMPLETE, status=200, backend="s0", attempts=1), there)
    report.add(story(Seen.COMPLETE, status=200, backend="s1", attempts=2), there)
    report.add(story(Seen.COMPLETE, status=200, backend="s2", attempts=1), there)
    saved = "complete, not at the first server"
    assert report.table == {
        ("kill", "complete"): 1,
        ("kill", saved): 1,
        ("hang", saved): 1,
        ("nothing", "complete"): 1,
    }
    assert report.totals == {"complete": 2, saved: 1}
    assert report.good


def test_a_report_tells_each_violation_with_its_story() -> None:
    report = Report()
    report.add(BROKEN, world(on("s1", "kill"), failed=AT_S0))
    assert not report.good
    (found,) = report.document()["violations"]
    assert found["request"] == "chaos-1"
    assert found["meanwhile"] == ["s1 kill"]
    assert found["failed"] == [("s0", "silent for too long")]
    assert any("s0 was well" in line for line in report.lines())

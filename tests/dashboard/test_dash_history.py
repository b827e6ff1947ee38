"""Rates out of counters: what a restart, a gap and a server that goes do to them."""

from __future__ import annotations

import pytest
from dash_kit import server, snapshot

from mvllm_router.dashboard.history import LONGEST, History


def fed(seconds: range, **more: object) -> History:
    history = History()
    for second in seconds:
        history.add(snapshot(second, **more), 1000.0 + second)
    return history


def test_nothing_is_known_of_a_rate_before_the_second_snapshot() -> None:
    history = fed(range(1))
    assert (history.now.requests, history.now.tokens) == (None, None)
    assert history.tokens_per_second("gpu-00") is None
    assert history.now.in_flight == 40


def test_rates_are_those_of_the_last_seconds() -> None:
    history = fed(range(60))
    assert history.now.requests == pytest.approx(42)
    assert history.now.tokens == pytest.approx(2600)
    assert history.tokens_per_second("gpu-01") == pytest.approx(110)
    for later in (6, 11):  # nothing has come in all of the window
        history.add(snapshot(59, uptime_seconds=8039.0 + later), 1059.0 + later)
    assert history.now.requests == 0


def test_the_share_of_errors_is_that_of_a_minute() -> None:
    history = History()
    for second in range(0, 121, 10):
        counts = {"total": second * 10, "errors": second}
        history.add(snapshot(second, requests=counts), 1000.0 + second)
    assert history.now.errors == pytest.approx(0.1)
    for second in range(130, 200, 10):
        counts = {"total": second * 10, "errors": 120}
        history.add(snapshot(second, requests=counts), 1000.0 + second)
    assert history.now.errors == 0


def test_no_request_in_a_minute_is_no_share_of_errors() -> None:
    assert fed(range(3), requests={"total": 5, "errors": 1}).now.errors is None


def test_a_restart_is_no_negative_rate_and_said() -> None:
    history = fed(range(10))
    assert history.add(snapshot(0, pid=78, uptime_seconds=1.0), 1010.0)
    assert history.now.requests is None
    assert not history.add(snapshot(1, pid=78, uptime_seconds=2.0), 1011.0)
    assert history.now.requests == pytest.approx(42)


def test_an_answer_that_was_long_under_way_is_no_restart() -> None:
    history = fed(range(10))
    # Written at once, and 3.5 s on the way here; the next one is on time again.
    assert not history.add(snapshot(10), 1013.5, took=3.5)
    assert not history.add(snapshot(14), 1014.0)
    assert history.now.requests is not None
    # Or the router took as long before it wrote it.
    assert not history.add(snapshot(20), 1020.0, took=3.5)


def test_a_restart_with_the_same_number_of_process_is_seen_though_its_answer_is_slow() -> None:
    history = fed(range(10), pid=1)
    assert history.add(snapshot(0, pid=1, uptime_seconds=0.5), 1014.0, took=3.5)


def test_counters_that_go_back_begin_anew() -> None:
    history = fed(range(10))
    history.add(snapshot(10, tokens_out=5), 1010.0)
    assert history.now.tokens is None
    history.add(snapshot(11, tokens_out=15), 1011.0)
    assert history.now.tokens == pytest.approx(10)


def test_a_server_that_goes_is_forgotten() -> None:
    history = fed(range(5))
    history.add(snapshot(5, count=1), 1005.0)
    assert history.tokens_per_second("gpu-02") is None
    assert history.tokens_per_second("gpu-00") is not None


def test_a_line_keeps_its_peaks_and_breaks_where_nothing_was_seen() -> None:
    history = History()
    for second in (*range(30), *range(50, 60)):
        history.add(snapshot(second, in_flight=99 if second == 7 else 5), 1000.0 + second)
    line = history.line(lambda point: point.in_flight, 60.0, 12, 1059.0)
    assert 99 in line
    assert line[-1] == 5
    assert None in line[6:10]


def test_snapshots_that_come_seldom_still_make_a_line() -> None:
    history = History()
    for second in range(0, 60, 10):
        history.add(snapshot(second), 1000.0 + second)
    line = history.line(lambda point: point.in_flight, 60.0, 60, 1050.0)
    assert None not in line[10:]


def test_what_is_kept_is_bounded() -> None:
    history = History()
    for second in range(0, 3 * int(LONGEST), 10):
        history.add({"uptime_seconds": float(second)}, float(second))
    line = history.line(lambda point: point.at, LONGEST, 10, 3 * LONGEST)
    assert line[0] is not None
    assert len(history._points) <= LONGEST / 10 + 1


def test_an_older_router_has_its_tokens_and_times_taken_from_its_servers() -> None:
    history = History()
    for second in (0, 1):
        one = server(0, completion_tokens=100 * second, ttft_seconds={"p50": 0.1, "p99": 0.5})
        del one["tokens_out"]
        document = {"uptime_seconds": second, "servers": [one]}
        history.add(document, 1000.0 + second)
    assert history.now.tokens == pytest.approx(100)
    assert (history.now.ttft_p50, history.now.ttft_p99) == (0.1, 0.5)

"""The board: lists that grow, rows that do not jump, and what depends on one server alone."""

from __future__ import annotations

from dash_kit import in_state, request, server, snapshot, text_of

from mvllm_router.dashboard import panes
from mvllm_router.dashboard.board import KEPT, Board, Ring, only_server_of


def names(board: Board, now: float) -> list[str]:
    return [row.name for row in board.rows(now)]


def with_waiting(*waiting: int) -> dict[str, object]:
    return snapshot(servers=[server(n, waiting=count) for n, count in enumerate(waiting)])


def test_rows_keep_their_order_for_a_while_though_the_numbers_change() -> None:
    board = Board()
    board.take(with_waiting(1, 3, 2), 100.0)
    board.view.sort_by("wait")
    assert names(board, 100.0) == ["gpu-01", "gpu-02", "gpu-00"]
    board.take(with_waiting(9, 3, 2), 101.0)
    assert names(board, 101.0) == ["gpu-01", "gpu-02", "gpu-00"]
    assert names(board, 106.0) == ["gpu-00", "gpu-01", "gpu-02"]


def test_a_new_server_and_a_new_column_reorder_at_once() -> None:
    board = Board()
    board.take(with_waiting(1, 3), 100.0)
    board.view.sort_by("wait")
    board.rows(100.0)
    board.take(with_waiting(1, 3, 5), 101.0)
    assert names(board, 101.0) == ["gpu-02", "gpu-01", "gpu-00"]
    board.view.sort_by("wait")
    assert names(board, 101.0) == ["gpu-00", "gpu-01", "gpu-02"]


def test_a_ring_takes_what_is_new_and_is_bounded() -> None:
    ring = Ring()
    ring.extend([request(1), request(2)])
    ring.extend([request(2), request(3)])
    assert [one["number"] for one in ring.entries] == [1, 2, 3]
    ring.extend(request(n) for n in range(4, 2000))
    assert len(ring.entries) == KEPT
    assert ring.gone == 1999 - KEPT


def test_what_was_left_out_of_a_list_stands_in_it_and_nothing_after_a_restart() -> None:
    ring = Ring()
    ring.extend([{"number": 7}, {"number": 8}, {"number": 12}])
    ring.restart()
    ring.extend([{"number": 3}])
    assert list(ring.entries) == [
        {"number": 7}, {"number": 8}, {"left_out": 3}, {"number": 12}, {"number": 3}
    ]  # fmt: skip
    (line,) = panes.event_lines([ring.entries[2]])
    assert text_of(line) == " … 3 more"


def test_after_a_restart_numbers_begin_anew_and_what_was_seen_stays() -> None:
    board = Board()
    board.take(snapshot(0), 100.0)
    board.events.extend([{"number": 40, "message": "before"}])
    board.take(snapshot(0, pid=78, uptime_seconds=0.5), 101.0)
    board.events.extend([{"number": 1, "message": "after"}])
    assert [one["message"] for one in board.events.entries] == ["before", "after"]


def test_the_only_server_of_a_model_is_known() -> None:
    servers = [server(0, models=["a"]), server(1, models=["a", "b"]), in_state(2, "down")]
    assert only_server_of(servers, "gpu-01") == ["b"]
    assert only_server_of(servers, "gpu-00") == []
    assert only_server_of(servers, "gpu-02") == []  # it has no traffic to lose
    assert only_server_of(servers, "nobody") == []

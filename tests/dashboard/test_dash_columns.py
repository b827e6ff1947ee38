"""Which columns a terminal shows, how wide they are, and how rows are sorted."""

from __future__ import annotations

import pytest
from dash_kit import in_state, server, servers, text_of

from mvllm_router.dashboard.columns import COLUMNS, SETS, Row, layout, ordered
from mvllm_router.dashboard.lines import width_of

ROWS = [Row(one, tokens=12.5) for one in servers(9)]


def headings(width: int, chosen: str = "overview") -> list[str]:
    return [column.heading for column, _ in layout(ROWS, width, chosen).columns]


@pytest.mark.parametrize("chosen", SETS)
@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
def test_every_line_fits_and_has_the_same_width(width: int, chosen: str) -> None:
    shown = layout(ROWS, width, chosen)
    lines = [shown.heading("", descending=False), *(shown.row(row) for row in ROWS)]
    assert len({width_of(line) for line in lines}) == 1
    assert width_of(lines[0]) < width


def test_a_narrow_terminal_has_the_columns_that_matter_most() -> None:
    assert headings(80) == ["server", "state", "run/cap", "wait", "load", "kv", "p50 ms", "tok/s"]
    assert {"engine", "model", "p99 ms", "err"} <= set(headings(120))
    assert {"score", "retry", "seen"} <= set(headings(150))


def test_every_column_of_a_set_exists_and_every_column_is_in_a_set() -> None:
    assert {key for keys in SETS.values() for key in keys} == set(COLUMNS)


def test_what_an_older_router_does_not_tell_is_a_dash() -> None:
    line = text_of(layout([Row({"name": "old", "state": "up"})], 200).row(Row({"name": "old"})))
    assert "None" not in line
    assert line.count("–") >= 10


def test_a_long_name_is_cut_in_its_middle() -> None:
    long = Row(server(0, name="rack-12-node-with-a-very-long-name-gpu-0"))
    line = text_of(layout([long], 80).row(long))
    assert "…" in line
    assert "gpu-0 " in line


def test_wide_signs_do_not_move_the_columns() -> None:
    shown = layout([Row(server(0, models=["千问" * 20]))], 120)
    wide, plain = Row(server(0, models=["千问" * 20])), Row(server(1))
    assert width_of(shown.row(wide)) == width_of(shown.row(plain))


def test_unknown_values_come_last_in_both_directions() -> None:
    rows = [Row(server(1)), Row(in_state(2, "down")), Row(server(3))]
    names = [row.name for row in ordered(rows, "p50", descending=False)]
    assert names == ["gpu-01", "gpu-03", "gpu-02"]
    names = [row.name for row in ordered(rows, "p50", descending=True)]
    assert names == ["gpu-03", "gpu-01", "gpu-02"]


def test_states_are_sorted_by_how_good_they_are() -> None:
    rows = [Row(in_state(n, state)) for n, state in enumerate(("down", "drain", "up"))]
    assert [row.name for row in ordered(rows, "state", descending=False)] == [
        "gpu-02",
        "gpu-01",
        "gpu-00",
    ]


def test_the_column_that_sorts_has_an_arrow() -> None:
    shown = layout(ROWS, 120)
    assert "load▴" in text_of(shown.heading("load", descending=False))
    plain = text_of(shown.heading("", descending=True))
    for column, _ in shown.columns:
        heading = text_of(shown.heading(column.key, descending=True))
        assert heading.count("▾") == 1
        # Beside the word, of which no letter is lost, and nothing moves.
        assert heading.replace("▾", " ") == plain, column.key


def test_a_click_finds_the_column_it_is_in() -> None:
    shown = layout(ROWS, 120)
    line = text_of(shown.heading("", descending=False))
    found = shown.column_at(line.index("run/cap"))
    assert found is not None
    assert found.key == "run"
    assert shown.column_at(500) is None


def test_a_change_of_state_counts_along() -> None:
    row = Row(server(0, state="up", progress="up 2/3"))
    assert "● up 2/3" in text_of(layout([row], 80).row(row))

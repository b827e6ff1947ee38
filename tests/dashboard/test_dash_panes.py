"""The lines of the tabs, the head and the details."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from dash_kit import (
    CONFIG,
    EXPLAINED,
    REQUESTS,
    in_state,
    request,
    server,
    snapshot,
    text_of,
    texts,
    tried,
)

from mvllm_router.dashboard import panes
from mvllm_router.dashboard.board import Board, Ring
from mvllm_router.dashboard.columns import SETS, Row, layout, ordered
from mvllm_router.dashboard.details import detail_lines
from mvllm_router.dashboard.header import figure_lines, state_line
from mvllm_router.dashboard.history import Point
from mvllm_router.dashboard.lines import cut, plain, width_of

LONG = "gpu-node-with-a-long-name.cluster.local:8000"


def test_a_request_names_every_server_that_was_tried_and_why_it_was_left() -> None:
    lines = texts(panes.RequestLines().of(REQUESTS, 120))
    assert "gpu-06 (connection refused) → gpu-00" in lines[1]
    assert "the queue is full" in lines[2]
    assert "the client left" in lines[3]
    assert "every attempt failed" in lines[4]
    assert "embed" in lines[5]


def test_what_steers_a_terminal_is_shown_and_not_done() -> None:
    bad = request(1, model="\x1b[2Jx", error="a\nb\x07", status=400)
    line = texts(panes.RequestLines().of([bad], 120))[0]
    assert "\x1b" not in line
    assert "\n" not in line
    assert "\\x1b" in line
    event = {"message": "\x1b[2J\nb\x1b", "kind": "up", "backend": "a"}
    assert "\x1b" not in "".join(texts(panes.event_lines([event])))
    assert "\x1b" not in text_of(panes.log_line("x \x1b[31m"))


def test_an_event_of_several_lines_stands_under_its_first_one() -> None:
    told = "it is refused:\nerror: no TOML\n --> servers.toml:13:6\n   |\n13 | x = 1"
    event = {"kind": "reload", "backend": "a", "message": told}
    lines = texts(panes.event_lines([event, {"kind": "up", "message": ""}]))
    assert lines[0].endswith("reload       a: it is refused:")
    assert lines[2].index("--> servers") == lines[1].index("error: no TOML") + 1
    assert lines[4].endswith("13 | x = 1")
    assert len(lines) == 6


def test_times_and_tokens_have_their_place_beside_long_names_of_servers() -> None:
    one = request(1, tried=[tried(LONG)], model="Qwen3-32B-FP8")
    for width, last in ((80, "328 tok"), (120, "lowest score, 0.31 of 3"), (200, "of 3")):
        line = texts(panes.RequestLines().of([one], width))[0]
        assert last in line[:width]
        assert (LONG in line) == (width == 200)


def test_requests_that_were_left_out_are_counted() -> None:
    ring = Ring()
    ring.extend([request(1), request(2), request(412)])
    lines = texts(panes.RequestLines().of(list(ring.entries), 120))
    assert [line.strip() for line in lines if "more" in line] == ["… 409 more"]
    assert len(lines) == 4


def test_the_line_of_a_request_is_made_once_for_a_width() -> None:
    lines = panes.RequestLines()
    one, two = (request(number, tried=[tried(LONG)]) for number in (1, 2))
    first, again = lines.of([one], 200), lines.of([one, two], 200)
    assert again[0] is first[0]
    for width in (80, 200):
        assert lines.of([one, two], width) == panes.RequestLines().of([one, two], width)
    assert lines.of([one], 80) != first


def test_a_request_that_takes_the_memory_of_another_has_its_own_line() -> None:
    lines = panes.RequestLines()
    for number in range(50):
        request = dict(REQUESTS[0], status=200 + number)
        assert f" {200 + number} " in texts(lines.of([request], 120))[0]
        del request


def test_settings_that_somebody_chose_come_before_the_defaults() -> None:
    lines = texts(panes.config_lines(CONFIG, {}, 120))
    place = {name: n for n, line in enumerate(lines) for name in ("policy", "port") if name in line}
    assert place["policy"] < place["port"]
    assert [line for line in lines if "/etc" in line] == [" file  /etc/router/servers.toml"]
    assert any("  servers.toml:12" in line for line in lines)
    assert any("gpu-01" in line and line.endswith("admin API  weight=2.0") for line in lines)
    assert any(
        line.endswith("servers.toml:3  api_key=*** max_concurrent_requests=32") for line in lines
    )
    assert any("a restart changes it" in line for line in lines)


def test_settings_have_the_width_that_there_is_and_long_ones_are_whole() -> None:
    long = "https://" + "x" * 60
    settings = {
        "port": {"value": 8888, "from": "default", "live": True},
        "cors_origins": {"value": long, "from": "file", "place": "f:1", "live": True},
    }
    names = [{"name": LONG, "url": "http://a"}, {"name": "b", "url": "http://b"}]
    lines = texts(panes.config_lines({"settings": settings, "servers": names}, {}, 120))
    assert f" cors_origins  {long}  f:1" in lines
    assert next(line for line in lines if "port" in line).index("default") == lines[-2].index("f:1")
    assert any(line.startswith(f" {LONG}  http://a") for line in lines)
    lines = texts(panes.config_lines({"settings": settings}, {}, 60))
    assert f" cors_origins  {long}  f:1" in lines
    assert " default" in next(line for line in lines if "port" in line)[:60]


def test_a_router_that_does_not_tell_its_settings_is_no_error() -> None:
    lines = texts(panes.config_lines(None, snapshot(), 120, "It does not."))
    assert any("least_load" in line for line in lines)
    assert any("It does not." in line for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_the_line_of_state_always_fits_and_ends_with_how_live_it_is(width: int) -> None:
    line = state_line(snapshot(count=9), "http://x", plain("LIVE"), width)
    assert width_of(line) == width
    assert text_of(line).rstrip().endswith("LIVE")


def test_changes_that_are_not_in_the_file_and_a_stop_are_said() -> None:
    line = text_of(state_line(snapshot(live_changes=2), "http://x", plain("LIVE"), 160))
    assert "2 not in the file" in line
    assert "stopping" in text_of(
        state_line(snapshot(state="draining"), "http://x", plain("LIVE"), 160)
    )


def test_a_narrow_line_of_state_keeps_what_should_be_known_and_uses_its_room() -> None:
    servers = [server(n) for n in range(3)]
    known = snapshot(live_changes=1, servers=servers)
    line = text_of(state_line(known, "http://x", plain("LIVE"), 80))
    assert "1 not in the file" in line
    assert "● 3 up" in line
    assert "least_load" not in line
    line = text_of(state_line(known, "http://x", plain("LIVE"), 68))
    assert "1 not in the file" in line
    assert "● 3 up" in line


def test_figures_keep_their_places() -> None:
    before, names = figure_lines(Point(1.0, requests=9.9, tokens=None, errors=0.0), 120)
    after, _ = figure_lines(Point(1.0, requests=12_000.0, tokens=7.0, errors=0.5), 120)
    assert width_of(before) == width_of(after) == width_of(names)
    assert text_of(after).index("7.0") == text_of(names).index("tok/s")


def test_details_show_the_arithmetic_and_why_others_are_left_out() -> None:
    lines = texts(detail_lines(server(1), EXPLAINED, 110.0))
    assert any("→ gpu-00" in line for line in lines)
    assert any("(7 + 0.5·1) / 32 = 0.23" in line for line in lines)
    assert any("it drains" in line for line in lines)


def test_details_keep_the_columns_of_the_candidates_under_each_other() -> None:
    candidates = [
        {"name": "a", "eligible": True, "reason": "!low", "arithmetic": "(3 + 0.5·0)/16 = 0.19"},
        {"name": LONG, "eligible": True, "arithmetic": "(4 + 0.5·0)/(16·0.34) = 0.74",
         "reason": "!not low"},
        *({"name": f"b{n}", "reason": "!no", "arithmetic": "1"} for n in range(7)),
        {"name": "last:8000", "reason": "!drains", "arithmetic": "(9 + 0.5·0)/(16·0.34) = 1.65"},
    ]  # fmt: skip
    explained = {"candidates": candidates}
    own = server(1, name="last:8000")
    lines = [line for line in texts(detail_lines(own, explained, None)) if "!" in line]
    assert len(lines) == 9
    assert len({line.index("!") for line in lines}) == 1
    assert lines[1].index("(4") == lines[-1].index("(9") == lines[0].index("(3")
    assert lines[1].split()[0] == cut(LONG, 24)
    assert lines[1].index("!") <= 60  # in 80 columns there is room for a reason


def test_details_show_what_was_learned_and_how_a_slower_server_counts() -> None:
    own = {"name": "gpu-01", "learned": "runs 12 at once: beyond that, some waited there"}
    explained = {**EXPLAINED, "candidates": [own]}
    slow = server(1, running=8, waiting=0, speed=0.5, score=0.5)
    lines = texts(detail_lines(slow, explained, None))
    assert any("runs 12 at once" in line for line in lines)
    lines = texts(detail_lines(slow, None, None))
    assert any("(8 + 0.5·0) / (32·0.5) = 0.50" in line for line in lines)


def test_details_do_without_an_explanation() -> None:
    lines = texts(detail_lines(server(1, running=7, waiting=1), None, None))
    assert any("(7 + 0.5·1) / 32 = 0.23" in line for line in lines)
    assert "None" not in "".join(texts(detail_lines({"name": "x"}, None, None)))


def test_details_of_a_server_that_is_not_used_say_why() -> None:
    text = "\n".join(texts(detail_lines(in_state(5, "down"), None, None)))
    assert "connection refused" in text


def test_details_show_the_memory_of_a_server_that_the_router_has_started() -> None:
    def memory(**more: object) -> list[str]:
        lines = texts(detail_lines(server(1, **more), None, None))
        return [line.split(maxsplit=1)[1] for line in lines if line.startswith("memory")]

    both = memory(memory_bytes=812 * 2**20, gpu_memory_bytes=int(70.3 * 2**30))
    assert both == ["812 MiB   70.3 GiB on its GPUs"]
    assert memory(memory_bytes=3 * 2**30, gpu_memory_bytes=None) == ["3.0 GiB"]
    assert memory(memory_bytes=None, gpu_memory_bytes=None) == memory() == []


# --- documents that are not what they should be


def with_junk(document: Any, junk: object) -> Iterator[Any]:
    """Yield the document with each of its values in turn replaced."""
    yield junk
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(pairs):
        if isinstance(value, (dict, list)):
            for changed in with_junk(value, junk):
                copy = json.loads(json.dumps(document))
                copy[key] = changed
                yield copy
        else:
            copy = json.loads(json.dumps(document))
            copy[key] = junk
            yield copy


JUNK = (None, "x", -5, 1e300, float("nan"), True, [], {}, [None], {"a": "\x1b[2J"})


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_no_document_fails_the_screen(junk: object) -> None:
    shown = 0
    for document in with_junk(snapshot(count=2), junk):
        if not isinstance(document, dict):
            continue  # what is no object is no answer of a router
        board = Board()
        board.take(snapshot(), 100.0)
        board.take(document, 101.0)
        rows = board.rows(101.0)
        for name in SETS:
            shape = layout(rows, 160, name)
            lines = [shape.row(row) for row in ordered(rows, "p50", descending=True)]
            lines += [shape.heading("", descending=False)]
        lines += [line for row in rows for line in detail_lines(row.server, EXPLAINED, row.tokens)]
        lines += [
            state_line(document, "x", plain("LIVE"), 100),
            *figure_lines(board.history.now, 90),
        ]
        assert not any("\x1b" in text_of(line) for line in lines)
        shown += 1
    assert shown > 80


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_no_list_fails_its_tab(junk: object) -> None:
    for one in with_junk(REQUESTS[1], junk):
        if isinstance(one, dict):
            panes.RequestLines().of([one], 120)
    for config in with_junk(CONFIG, junk):
        if isinstance(config, dict):
            panes.config_lines(config, {}, 120)
    for explained in with_junk(EXPLAINED, junk):
        if isinstance(explained, dict):
            detail_lines(server(0), explained, None)
    panes.event_lines([{"at": junk, "kind": junk, "backend": junk, "message": junk}])
    assert Row({"name": junk}).name is not None

"""Every key of the dashboard does what the help says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dash_kit import EVENTS, FakeRouter, Running, dashboard, request, server
from support import until
from textual.widgets import Input

from mvllm_router.client import Refused
from mvllm_router.dashboard.keys import KEYS, MOVES
from mvllm_router.dashboard.lines import width_of
from mvllm_router.dashboard.screens.dialog import Dialog
from mvllm_router.dashboard.screens.reader import Details, Reader, help_lines
from mvllm_router.dashboard.widgets.chart import Chart
from mvllm_router.dashboard.widgets.paint import Scrolled

WRITING = [key.keys.partition(",")[0] for key in KEYS if key.writes]


def top_line(running: Running, pane: Scrolled) -> str:
    """Return what stands in the first line of a list, without the scrollbar."""
    return running.screen()[pane.region.y][:60]


async def test_moving_is_by_arrows_and_letters() -> None:
    async with dashboard(FakeRouter(50)) as running:
        for key, expected in (
            ("j", 1), ("down", 2), ("k", 1), ("up", 0),
            ("G", 49), ("g", 0), ("end", 49), ("home", 0),
        ):  # fmt: skip
            await running.press(key)
            assert running.app.table.chosen is not None
            assert running.app.table.chosen.name == f"gpu-{expected:02}", key
        await running.press("pagedown")
        assert running.app.table.chosen.name > "gpu-05"


async def test_the_lists_and_the_pages_move_by_letters_as_the_table_does() -> None:
    router = FakeRouter()
    router.requests = [request(n) for n in range(1, 200)]
    async with dashboard(router, size=(80, 24)) as running:
        await running.press("tab")
        pane = running.app.query_one("#requests", Scrolled)
        await running.press("g")
        await until(lambda: pane.scroll_offset.y == 0)
        await running.press("j", "j", "k")
        await until(lambda: pane.scroll_offset.y == 1)
        await running.press("G")
        await until(lambda: pane.is_at_end)
        await running.press("question_mark", "j", "j", "k")
        page = running.app.screen.query_one("#page", Scrolled)
        await until(lambda: page.scroll_offset.y == 1)


async def test_a_long_line_of_a_list_is_read_to_its_end() -> None:
    async with dashboard(size=(80, 24)) as running:
        running.router.logs = {"gpu-00": ["begin " + "·" * 150 + " end", *["short"] * 40]}
        await running.press("l")
        await running.pass_time(1)
        pane = running.app.query_one("#log", Scrolled)
        await running.press("right")
        assert pane.scroll_offset.x == 0, "the table has the focus"
        await running.press("tab", "home")
        await until(lambda: "begin" in running.text())
        assert top_line(running, pane)[0] == " "
        await running.press(*["right"] * 30)
        line = running.screen()[pane.region.y]
        assert line.rstrip(" ▁▂▃▄▅▆▇█").endswith("· end")
        assert len(line) <= 80
        assert pane.scroll_offset.x == pane.max_scroll_x == 161 - 79
        await running.press("left")
        assert running.screen()[pane.region.y].rstrip(" ▁▂▃▄▅▆▇█").endswith("…")
        await running.press(*["left"] * 30)
        assert pane.scroll_offset.x == 0


async def test_who_reads_to_the_right_still_sees_the_newest_line_and_stays_there() -> None:
    async with dashboard() as running:
        running.router.logs = {"gpu-00": [f"{n:03} " + "x" * 200 + f" {n}." for n in range(90)]}
        await running.press("l")
        await running.pass_time(1)
        await running.press("tab", *["right"] * 30)
        assert " 89." in running.text()
        running.router.logs["gpu-00"].append("090 " + "x" * 200 + " 90.")
        await running.pass_time(1)
        assert " 90." in running.text()


async def test_what_fits_does_not_go_sideways() -> None:
    async with dashboard(size=(200, 60)) as running:
        await running.press("tab", *["right"] * 30)
        assert running.app.query_one("#requests").scroll_offset.x == 0


async def test_enter_opens_the_details_and_escape_closes_them() -> None:
    async with dashboard() as running:
        await running.press("j", "enter")
        await running.pass_time(1)
        assert isinstance(running.app.screen, Details)
        assert "(7 + 0.5·1) / 32 = 0.23" in running.text()
        await running.press("escape")
        assert "Requests" in running.text()


async def test_a_filter_is_typed_kept_and_taken_away() -> None:
    async with dashboard(FakeRouter(9)) as running:
        await running.press("slash", *"state:down")
        assert "gpu-05" in running.text()
        assert "gpu-01  " not in "\n".join(running.screen()[3:8])
        await running.press("enter")
        assert not running.app.query_one("#filter", Input).has_class("-on")
        assert "filter `state:down`" in running.text()
        await running.press("escape")
        assert running.app.board.view.typed == ""
        assert len(running.app.board.rows(running.clock())) == 9


async def test_letters_in_the_filter_are_text_and_no_keys() -> None:
    async with dashboard() as running:
        await running.press("slash", *"qdx")
        assert running.app.board.view.typed == "qdx"
        assert running.router.sent == []
        assert "None of 3 servers has the filter `qdx`" in running.text()


async def test_f_shows_only_faults() -> None:
    async with dashboard(FakeRouter(9)) as running:
        await running.press("f")
        assert "faults only" in running.text()
        assert len(running.app.board.rows(running.clock())) == 6
        await running.press("f")
        assert len(running.app.board.rows(running.clock())) == 9


async def test_sorting_goes_on_and_is_turned_around() -> None:
    async with dashboard() as running:
        await running.press("s")
        assert "server▴" in running.text()
        await running.press("S")
        assert "server▾" in running.text()
        assert running.screen()[4].startswith(" gpu-02")
        await running.press("s")
        assert "state▾" in running.text()


async def test_the_cursor_stays_on_its_server_when_the_order_changes() -> None:
    async with dashboard() as running:
        await running.press("j", "s", "S")
        assert running.app.table.chosen is not None
        assert running.app.table.chosen.name == "gpu-01"


async def test_the_cursor_is_in_sight_wherever_a_new_order_takes_its_server() -> None:
    async with dashboard(FakeRouter(500)) as running:
        await running.press("j", "j", "s", "S")
        assert running.app.table.chosen is not None
        assert running.app.table.chosen.name == "gpu-02"
        assert any(line.startswith(" gpu-02 ") for line in running.screen())
        await running.press("S")
        assert any(line.startswith(" gpu-02 ") for line in running.screen())


async def test_a_table_that_was_scrolled_away_from_the_cursor_stays_there() -> None:
    async with dashboard(FakeRouter(500)) as running:
        running.app.table.scroll_to(y=100, animate=False)
        await running.pass_time(2)
        assert running.app.table.scroll_offset.y == 100


async def test_w_shows_other_columns() -> None:
    async with dashboard() as running:
        for heading in ("gap p99", "tok in", "version", "run/cap"):
            await running.press("w")
            assert heading in running.text()


@pytest.mark.parametrize(
    ("key", "text"),
    [("1", "lowest"), ("2", "drained"), ("3", "where the router runs"), ("4", "servers.toml:12")],
)  # fmt: skip
async def test_digits_open_the_tabs(key: str, text: str) -> None:
    async with dashboard() as running:
        await running.press(key)
        await running.pass_time(1)
        assert text in running.text()


async def test_l_follows_the_log_of_the_chosen_server_and_goes_back_to_the_routers() -> None:
    async with dashboard() as running:
        running.router.logs = {"gpu-00": [f"line {n}" for n in range(90)], "gpu-01": ["other"]}
        await running.press("l")
        await running.pass_time(1)
        assert "log of gpu-00" in running.text()
        assert "line 89" in running.text()
        running.router.logs["gpu-00"].append("ERROR out of memory")
        await running.pass_time(1)
        assert "ERROR out of memory" in running.text()
        assert running.router.asked[-1] == "/router/logs/gpu-00?after=90"
        await running.press("j", "l")
        await running.pass_time(1)
        assert "other" in running.text()
        assert "line 89" not in running.text()
        await running.press("l")
        assert "where the router runs" in running.text()


async def test_escape_goes_back_from_the_log_of_a_server_and_other_tabs_keep_it() -> None:
    async with dashboard() as running:
        running.router.logs = {"gpu-00": ["line 0"]}
        await running.press("l", "2", "escape", "3")
        await running.pass_time(1)
        assert "line 0" in running.text()
        await running.press("escape")
        assert "where the router runs" in running.text()
        asked = len(running.router.asked)
        await running.pass_time(1)
        assert not any("/logs/" in path for path in running.router.asked[asked:])


async def test_another_log_is_shown_at_its_end_whatever_was_read_before() -> None:
    async with dashboard() as running:
        running.router.logs = {
            name: [f"{name} {n}" for n in range(90)] for name in ("gpu-00", "gpu-01")
        }
        await running.press("l")
        await running.pass_time(1)
        await running.press("tab", "home")
        assert "gpu-00 0" in running.text()
        running.app.action_log_of("gpu-01")
        await running.pass_time(2)
        assert "gpu-01 89" in running.text()


@pytest.mark.parametrize(
    ("barred", "said"),
    [((), "No server `gpu-00` was started here."), (("logs/gpu-00",), "admin key")],
)
async def test_a_log_that_the_router_does_not_tell_is_said_and_leaves_the_rest_live(
    barred: tuple[str, ...], said: str
) -> None:
    async with dashboard() as running:
        running.router.barred = barred
        await running.press("l")
        await running.pass_time(1)
        assert said in running.text()
        assert "LIVE" in running.text()
        running.router.barred, running.router.logs = (), {"gpu-00": ["here it is"]}
        await running.pass_time(1)
        assert "here it is" in running.text()
        assert said not in running.text()


async def test_c_hides_the_charts_and_brackets_change_their_time() -> None:
    async with dashboard() as running:
        await running.press("right_square_bracket")
        assert "30 min" in running.text()
        await running.press("left_square_bracket", "left_square_bracket", "left_square_bracket")
        assert "· 1 min" in running.text()
        await running.press("c")
        assert "TTFT  p50" not in running.text()
        await running.press("c")
        assert running.app.query(Chart).first().size.height > 3


@pytest.mark.parametrize("key", ["p", "space"])
async def test_a_picture_that_is_held_still_stays_while_the_router_goes_on(key: str) -> None:
    async with dashboard() as running:
        await running.press(key)
        before = running.screen()[1:]
        await running.pass_time(3)
        assert running.screen()[1:] == before
        assert "PAUSED" in running.screen()[0]
        await running.press(key)
        assert "LIVE" in running.screen()[0]
        assert running.screen()[1:] != before


async def test_r_asks_the_router_at_once() -> None:
    async with dashboard() as running:
        asked = len(running.router.asked)
        await running.press("r")
        await running.pilot.pause()
        assert len(running.router.asked) > asked


async def test_x_and_ctrl_s_write_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with dashboard() as running:
        await running.press("x", "ctrl+s")
        (document,) = sorted(tmp_path.glob("*.json"))  # noqa: ASYNC240
        assert json.loads(document.read_text())["policy"] == "least_load"
        (picture,) = sorted(tmp_path.glob("*.svg"))  # noqa: ASYNC240
        assert "<svg" in picture.read_text()


async def test_a_still_is_taken_of_whatever_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for key, shown in (("question_mark", "Help"), ("D", "Remove"), ("slash", "engine:")):
        async with dashboard() as running:
            await running.press(key, "ctrl+s")
            (picture,) = sorted(tmp_path.glob("*.svg"))  # noqa: ASYNC240
            assert shown in picture.read_text()
            picture.unlink()


async def test_x_writes_what_no_encoding_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with dashboard(FakeRouter(policy="half a \ud83d sign")) as running:
        await running.press("x")
        (document,) = sorted(tmp_path.glob("*.json"))  # noqa: ASYNC240
        assert json.loads(document.read_text())["policy"] == "half a \ud83d sign"


async def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    async with dashboard(size=(160, 40)) as running:
        await running.press("x")
        assert "cannot write" in running.text()


async def test_the_help_has_every_key() -> None:
    async with dashboard(size=(120, 60)) as running:
        await running.press("question_mark")
        assert isinstance(running.app.screen, Reader)
        shown = running.text()
        for key in KEYS:
            assert key.help in shown
        for keys, _ in MOVES:
            assert keys in shown


async def test_the_help_fits_into_the_smallest_usual_terminal() -> None:
    async with dashboard(size=(80, 24)) as running:
        await running.press("question_mark", "end")
        page = running.app.screen.query_one("#page", Scrolled)
        room = page.scrollable_content_region.width
        assert max(width_of(line) for line in help_lines(read_only=False)) <= room


async def test_text_ends_before_the_scrollbar() -> None:
    async with dashboard() as running:
        running.router.logs = {"gpu-00": ["x" * 300] * 90}
        await running.press("l")
        await running.pass_time(1)
        pane = running.app.query_one("#log", Scrolled)
        row = pane.region.y + 1
        room = pane.scrollable_content_region.width
        assert room < pane.size.width
        assert running.screen()[row][room - 1] == "…"


async def test_the_palette_finds_what_can_be_done_to_a_server() -> None:
    async with dashboard() as running:
        await running.press("ctrl+p")
        await running.press(*"drain gpu-00")
        await running.pilot.pause(0.3)
        await running.press("down", "enter")
        await running.pilot.pause(0.2)
        await running.settle()
        assert ("PATCH", "/router/backends/gpu-00", {"state": "drain"}) in running.router.sent


async def test_the_palette_has_of_textuals_own_commands_the_theme_alone() -> None:
    async with dashboard() as running:
        (command,) = running.app.get_system_commands(running.app.screen)
        assert "theme" in command.title.lower()


async def test_brackets_in_the_name_of_a_server_are_shown_wherever_it_stands() -> None:
    async with dashboard(FakeRouter(servers=[server(0, name="gpu[A]")])) as running:
        for key, title in (("enter", "─ gpu[A] ─"), ("C", "─ Capacity of gpu[A] ─")):
            await running.press(key)
            assert title in running.text()
            await running.press("escape")
        await running.press("ctrl+p", *"gpu[A]")
        await until(lambda: "Details of gpu[A]" in running.text())


async def test_q_and_ctrl_c_leave() -> None:
    for key in ("q", "ctrl+c", "ctrl+q"):
        async with dashboard() as running:
            await running.pilot.press(key)
            assert running.app.left_on_purpose, key


async def test_the_palette_leaves_as_q_does() -> None:
    async with dashboard() as running:
        await running.app.run_action("quit")
        assert running.app.left_on_purpose


# --- what changes the router


async def test_drain_and_enable_send_their_change_and_tell_of_it() -> None:
    async with dashboard() as running:
        await running.press("d", "e")
        assert running.router.sent == [
            ("PATCH", "/router/backends/gpu-00", {"state": "drain"}),
            ("PATCH", "/router/backends/gpu-00", {"state": "enabled"}),
        ]
        assert "gpu-00 takes requests again" in running.text()
        await running.press("2")
        assert "you" in running.text()


async def test_draining_the_last_server_of_a_model_asks_once() -> None:
    router = FakeRouter(1)
    async with dashboard(router) as running:
        await running.press("d")
        assert isinstance(running.app.screen, Dialog)
        assert "Qwen3-32B-FP8" in running.text()
        await running.press("enter")  # Cancel has the focus
        assert router.sent == []
        await running.press("d", "y")
        assert router.sent == [("PATCH", "/router/backends/gpu-00", {"state": "drain"})]


async def test_plus_and_minus_change_the_weight() -> None:
    async with dashboard() as running:
        await running.press("plus", "minus")
        assert [body for _, _, body in running.router.sent] == [{"weight": 1.1}, {"weight": 1.0}]


async def test_a_refusal_with_many_mistakes_does_not_cover_the_screen() -> None:
    router = FakeRouter()
    mistakes = [{"place": "servers.toml", "line": n, "message": "wrong"} for n in range(20)]
    router.refusal = Refused("error: wrong\n --> servers.toml", 400, {"problems": mistakes})
    async with dashboard(router) as running:
        await running.press("R", "y")
        assert "servers.toml:2: wrong" in running.text()
        assert "servers.toml:3: wrong" not in running.text()
        assert "… and 17 more (2)" in running.text()


async def test_every_press_of_plus_counts_however_quickly_they_come() -> None:
    async with dashboard() as running:
        running.router.answers.clear()
        await running.pilot.press(*["plus"] * 5)
        running.router.answers.set()
        await running.settle()
        assert running.router.weights == {"gpu-00": 1.5}


async def test_a_message_takes_the_place_of_the_last_one_about_the_same_server() -> None:
    async with dashboard(size=(80, 24)) as running:
        await running.press(*["plus"] * 5)
        assert running.text().count("has the weight") == 1
        assert "gpu-00 has the weight 1.5" in running.text()
        await running.press("j", "e")
        assert "gpu-00 has the weight 1.5" in running.text()
        assert "gpu-01 takes requests again" in running.text()


async def test_changes_go_out_one_after_the_other() -> None:
    async with dashboard() as running:
        running.router.answers.clear()
        await running.pilot.press("d", "e")
        assert [body for _, _, body in running.router.sent] == [{"state": "drain"}]
        running.router.answers.set()
        await running.settle()
        assert [body["state"] for _, _, body in running.router.sent] == ["drain", "enabled"]


async def test_the_capacity_is_typed_and_written_to_the_file() -> None:
    async with dashboard() as running:
        await running.press("C", "backspace", "backspace", *"64", "tab", "tab", "space", "enter")
        # Enter on the box only ticks it; the button is behind it.
        if isinstance(running.app.screen, Dialog):
            await running.pilot.click("#yes")
            await running.settle()
        (sent,) = running.router.sent
        assert sent[:2] == ("PATCH", "/router/backends/gpu-00")
        assert sent[2]["max_concurrent_requests"] == 64
        assert running.router.matches == ['"1"']


async def test_what_is_no_number_is_not_sent() -> None:
    async with dashboard() as running:
        await running.press("C", *"x", "enter")
        assert running.router.sent == []
        assert "is no number" in running.text()


async def test_a_mistake_is_said_in_the_dialog_which_keeps_what_was_typed() -> None:
    async with dashboard(size=(80, 24)) as running:
        await running.press("a", *"ftp://gpu9", "tab", "tab", "tab", *"hidden", "enter")
        assert isinstance(running.app.screen, Dialog)
        assert "does not begin with http:// or https://" in running.text()
        assert "Cancel" in running.text()
        await running.press("shift+tab", "shift+tab", "shift+tab", "home", *["delete"] * 6)
        await running.press("enter")
        body = {"url": "http://gpu9", "api_key": "hidden"}
        assert running.router.sent == [("POST", "/router/backends", body)]


async def test_the_fields_have_the_capacity_and_the_weight_to_the_last_digit() -> None:
    one = server(0, max_concurrent_requests=12345678, weight=0.12345678)
    async with dashboard(FakeRouter(servers=[one])) as running:
        await running.press("C", "enter")
        assert "nothing was changed" in running.text()


async def test_a_server_is_added() -> None:
    async with dashboard() as running:
        await running.press("a", *"http://gpu9:8000", "tab", *"nine", "tab", "tab", *"hidden")
        assert "hidden" not in running.text()
        await running.press("enter")
        body = {"url": "http://gpu9:8000", "name": "nine", "api_key": "hidden"}
        assert running.router.sent == [("POST", "/router/backends", body)]


async def test_removing_asks_and_can_be_written_to_the_file() -> None:
    async with dashboard() as running:
        await running.press("D", "n")
        assert running.router.sent == []
        await running.press("D")
        assert "servers.toml: no" in running.text()
        await running.pilot.click("#write")
        await running.settle()
        assert "servers.toml: yes" in running.text()
        await running.press("y")
        assert running.router.sent == [("DELETE", "/router/backends/gpu-00", {"write": True})]


async def test_a_reload_tells_what_has_changed() -> None:
    async with dashboard() as running:
        await running.press("R", "y")
        assert running.router.sent == [("POST", "/router/reload", {})]
        assert "added: gpu-09" in running.text()


async def test_what_the_router_refuses_is_said_in_its_words() -> None:
    router = FakeRouter()
    router.refusal = Refused("This needs [the] admin key", 403, {})
    async with dashboard(router) as running:
        await running.press("d")
        assert "This needs [the] admin key" in running.text()
        await running.press("2")
        assert "not done" in running.text()


async def test_keys_on_the_page_of_a_server_are_for_that_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with dashboard(FakeRouter(3)) as running:
        running.app.action_details_of("gpu-02")
        await running.press("d", "e", "plus", "minus", "x", "C")
        assert "Capacity of gpu-02" in running.text()
        await running.press("escape", "D", "y")
        path = "/router/backends/gpu-02"
        assert [(method, path) for method, path, _ in running.router.sent] == [
            *[("PATCH", path)] * 4,
            ("DELETE", path),
        ]
        assert isinstance(running.app.screen, Details)
        assert len(sorted(tmp_path.glob("*.json"))) == 1  # noqa: ASYNC240


@pytest.mark.parametrize("words", ['`[A="x` is wrong', "no key [A], [_]", "[/x] [b]no[/b] \\[a]"])
async def test_a_message_is_shown_as_it_is_whatever_brackets_it_has(words: str) -> None:
    async with dashboard() as running:
        running.app.tell(words)
        await running.settle()
        assert words in running.text()


@pytest.mark.parametrize("key", WRITING)
async def test_read_only_refuses_whatever_changes_the_router(key: str) -> None:
    async with dashboard(read_only=True) as running:
        await running.press(key)
        assert not isinstance(running.app.screen, Dialog)
        assert running.router.sent == []
        assert "--read-only" in running.text()


def test_the_help_says_what_read_only_takes_away() -> None:
    text = "".join(part for line in help_lines(read_only=True) for part, _ in line)
    assert text.count("(--read-only)") == len(WRITING)


# --- the mouse


async def test_a_click_chooses_a_row_a_second_one_opens_it() -> None:
    async with dashboard() as running:
        await running.pilot.click("#table", offset=(3, 2))
        await running.settle()
        assert running.app.table.chosen is not None
        assert running.app.table.chosen.name == "gpu-01"
        await running.pilot.click("#table", offset=(3, 2))
        await running.settle()
        assert isinstance(running.app.screen, Details)


async def test_clicks_on_heads_tabs_and_keys() -> None:
    async with dashboard() as running:
        heading = running.screen()[3].index("run/cap")
        await running.pilot.click("#table", offset=(heading, 0))
        await running.settle()
        assert running.app.board.view.sort == "run"
        await running.pilot.click("#tabs", offset=(15, 0))
        await running.settle()
        assert running.app.tab == "events"
        foot = running.screen()[-1].index("Help")
        await running.pilot.click("#foot", offset=(foot, 0))
        await running.settle()
        assert isinstance(running.app.screen, Reader)


async def test_a_list_that_was_scrolled_up_stays_where_it_is_read() -> None:
    router = FakeRouter()
    router.requests = [request(n) for n in range(1, 200)]
    async with dashboard(router) as running:
        pane = running.app.query_one("#requests")
        assert running.screen()[-2].startswith(" 12:03:20")
        await running.press("tab", "pageup")
        before = pane.scroll_offset.y
        router.requests = [request(n) for n in range(200, 220)]
        router.more = {"requests_number": 219}
        await running.pass_time(1)
        assert pane.scroll_offset.y == before


@pytest.mark.parametrize("tab", ["requests", "events", "log"])
async def test_what_is_read_keeps_its_place_though_a_full_list_loses_its_first_lines(
    tab: str,
) -> None:
    router = FakeRouter()
    async with dashboard(router) as running:

        async def bring(first: int, last: int) -> None:
            """Let entries come, and as many lines of a log."""
            router.requests = [request(n) for n in range(first, last)]
            router.events = [{**EVENTS[1], "number": n, "at": n} for n in range(first, last)]
            router.logs = {"gpu-00": [f"line {n}" for n in range(last * 4)]}
            router.more = {"requests_number": last - 1, "events_number": last - 1}
            await running.pass_time(1)

        if tab == "log":
            running.app.action_log_of("gpu-00")
        running.app.action_tab(tab)
        pane = running.app.query_one(f"#{tab}", Scrolled)
        await bring(7, 600)
        pane.focus()
        await running.press("pageup", "pageup")
        before, place = top_line(running, pane), pane.scroll_offset.y
        await bring(600, 640)
        await bring(650, 660)
        assert top_line(running, pane) == before
        assert pane.scroll_offset.y < place
        await bring(660, 3000)
        assert pane.scroll_offset.y == 0


async def test_a_list_that_follows_its_end_follows_it_in_a_lower_terminal_too() -> None:
    router = FakeRouter()
    router.requests = [request(n) for n in range(1, 200)]
    async with dashboard(router, size=(80, 24)) as running:
        pane = running.app.query_one("#requests", Scrolled)
        for height in (20, 24, 30, 16, 36):
            await running.pilot.resize_terminal(80, height)
            await until(lambda height=height: running.app.size.height == height)
            await running.settle()
            assert pane.is_at_end
        await running.press("tab", "g")
        await running.pilot.resize_terminal(80, 20)
        await running.settle()
        assert pane.scroll_offset.y == 0


async def test_an_order_by_a_column_that_has_no_room_is_said() -> None:
    async with dashboard(size=(80, 24)) as running:
        running.app.action_sort_by("kv")
        await running.settle()
        assert "sorted by" not in running.text()
        running.app.action_sort_by("score")
        await running.settle()
        assert "sorted by score ▾" in running.text()
        await running.press("S")
        assert "sorted by score ▴" in running.text()
        await running.pilot.resize_terminal(200, 60)
        await running.settle()
        assert "sorted by" not in running.text()
        assert "▴score" in running.text()
        await running.press("w")
        assert "sorted by score ▴" in running.text()

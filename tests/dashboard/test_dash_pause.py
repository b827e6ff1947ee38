"""A picture that is held still: what it shows stays, and may be looked at as any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dash_kit import EVENTS, EXPLAINED, REQUESTS, FakeRouter, Running, dashboard, request

from mvllm_router.client import Unreachable


def body(running: Running) -> list[str]:
    """Return the screen without the line that says how live it is."""
    return running.screen()[1:]


async def test_another_tab_opens_while_the_picture_is_held() -> None:
    async with dashboard() as running:
        await running.press("p", "2")
        assert "drained" in running.text()
        await running.press("4")
        await running.pass_time(1)
        assert "servers.toml:12" in running.text()


async def test_filter_order_and_columns_work_on_a_picture_that_is_held() -> None:
    async with dashboard(FakeRouter(9)) as running:
        await running.press("p", "slash", *"state:down", "enter")
        assert "gpu-05" in running.text()
        assert "gpu-01  " not in "\n".join(running.screen()[3:8])
        await running.press("escape", "w")
        assert "gap p99" in running.text()
        await running.press("s", "S")
        assert running.screen()[4].startswith(" gpu-08")


async def test_a_picture_that_is_held_fits_a_terminal_with_another_size() -> None:
    async with dashboard(size=(90, 26)) as running:
        await running.press("p")
        await running.pilot.resize_terminal(120, 36)
        await running.settle()
        assert "TTFT p99" in running.screen()[2]
        assert "tokens/s" in running.text()
        assert running.screen()[2].index("errors") > 90


async def test_details_open_while_the_picture_is_held_and_stay() -> None:
    async with dashboard() as running:
        await running.press("p", "j", "enter")
        await running.pass_time(1)
        before = running.screen()
        assert "(7 + 0.5·1) / 32 = 0.23" in running.text()
        asked = len(running.router.asked)
        running.router.explained = {**EXPLAINED, "policy": "round_robin"}
        await running.pass_time(2)
        assert running.screen() == before
        assert running.router.asked[asked:] == ["/router/snapshot"] * 2


@pytest.mark.parametrize("tab", ["1", "2", "4"])
async def test_what_a_tab_shows_is_held_and_nothing_of_it_is_missing_later(tab: str) -> None:
    router = FakeRouter()
    async with dashboard(router) as running:
        await running.press(tab)
        await running.pass_time(1)
        await running.press("p")
        before = body(running)
        router.requests = [*REQUESTS, *(request(n) for n in range(7, 200))]
        router.events = [*EVENTS, {**EVENTS[1], "number": 5, "message": "down: again"}]
        router.config = {**router.config, "path": "/etc/router/other.toml"}
        for newest in range(56, 200, 50):
            router.more = {"requests_number": newest, "events_number": 5}
            await running.pass_time(1)
        assert body(running) == before
        await running.press("p")
        await running.pass_time(1)
        assert body(running) != before
        assert " more" not in running.text()
        assert len(running.app.board.requests.entries) == (199 if tab == "1" else 6)


async def test_requests_that_were_not_asked_for_are_asked_for_once_when_they_are_opened() -> None:
    router = FakeRouter()
    router.requests = []
    router.more = {"requests_number": 0}
    async with dashboard(router) as running:
        await running.press("2")
        await running.pass_time(1)
        router.requests, router.more = REQUESTS, {}
        await running.pass_time(1)
        await running.press("p", "1")
        await running.pass_time(1)
        assert "gpu-06 (connection refused)" in running.text()
        before = body(running)
        router.requests = [*REQUESTS, request(7)]
        router.more = {"requests_number": 7}
        await running.pass_time(1)
        assert body(running) == before


async def test_the_log_is_held_and_one_that_is_opened_is_shown() -> None:
    async with dashboard() as running:
        running.router.logs = {"gpu-00": ["line 0"], "gpu-01": ["other"]}
        await running.press("l")
        await running.pass_time(1)
        await running.press("p")
        running.router.logs["gpu-00"].append("line 1")
        await running.pass_time(2)
        assert "line 0" in running.text()
        assert "line 1" not in running.text()
        await running.press("j", "l")
        await running.pass_time(1)
        assert "other" in running.text()
        await running.press("p", "k", "l")
        await running.pass_time(1)
        assert "line 1" in running.text()


class Growing:
    """A router's log that has one more line whenever it is read."""

    gone = 0

    def __init__(self) -> None:
        self._lines: list[str] = []

    def lines(self) -> list[str]:
        self._lines.append(f"logged {len(self._lines)}.")
        return list(self._lines)

    def exit_code(self) -> int | None:
        return None


async def test_the_routers_own_log_is_held_as_it_was_also_where_it_is_opened_later() -> None:
    async with dashboard(log=Growing()) as running:
        await running.press("p", "3")
        assert "logged 0." in running.text()
        await running.pass_time(2)
        assert "logged 1." not in running.text()
        await running.press("p")
        assert "logged 1." in running.text()


async def test_a_look_that_fails_leaves_a_picture_that_is_held_and_paints_it_grey() -> None:
    async with dashboard() as running:
        await running.press("p")
        before, figures = body(running), running.screen()[1]
        await running.pass_time(2)
        running.router.error = Unreachable("nobody answers")
        await running.pass_time(1)
        assert "STALE" in running.screen()[0]
        assert running.app.table.grey
        assert running.screen()[2] == figures  # under the banner
        running.router.error = None
        await running.pass_time(1)
        assert body(running) == before


async def test_the_charts_have_no_hole_where_the_picture_was_held() -> None:
    async with dashboard() as running:
        await running.pass_time(100)
        await running.press("p")
        before = body(running)
        await running.pass_time(50)
        assert body(running) == before
        await running.press("p")
        board, now = running.app.board.shown(running.clock())
        line = board.history.line(lambda point: point.in_flight, 150.0, 30, now)
        assert None not in line[2:]


async def test_what_is_changed_while_the_picture_is_held_is_judged_by_the_router_as_it_is() -> None:
    """A server that was not the only one of its model may be that now."""
    async with dashboard(FakeRouter(3)) as running:
        await running.press("p")
        running.router.count = 1
        await running.pass_time(1)
        await running.press("d")
        assert "No other server that is up has Qwen3-32B-FP8." in running.text()


async def test_the_file_that_x_writes_has_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with dashboard() as running:
        await running.press("p")
        await running.pass_time(5)
        await running.press("x")
        (document,) = sorted(tmp_path.glob("*.json"))  # noqa: ASYNC240
        assert json.loads(document.read_text())["uptime_seconds"] == 7980.0


async def test_nothing_is_held_before_there_is_anything() -> None:
    router = FakeRouter()
    router.error = Unreachable("nobody answers")
    async with dashboard(router) as running:
        await running.press("p")
        router.error = None
        await running.pass_time(1)
        assert "gpu-00" in running.text()
        assert "LIVE" in running.screen()[0]

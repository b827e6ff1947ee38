"""What the dashboard shows when the router is slow, gone, another one, or wants a key."""

from __future__ import annotations

import asyncio

import pytest
from dash_kit import FakeRouter, dashboard
from support import until

from mvllm_router.client import NotAuthorised, Unreachable
from mvllm_router.dashboard import panes
from mvllm_router.dashboard.app import Dashboard
from mvllm_router.dashboard.screens.dialog import Dialog
from mvllm_router.dashboard.screens.reader import Details

GONE = Unreachable("no router answers: connection refused")


class Ended:
    """The log of a router that has ended, or has not."""

    gone = 0

    def __init__(self, code: int | None) -> None:
        self.code = code

    def lines(self) -> list[str]:
        return ["12:00:00 ERROR   it broke"]

    def exit_code(self) -> int | None:
        return self.code


async def test_the_last_picture_of_a_router_that_is_gone_stays_with_its_age() -> None:
    async with dashboard() as running:
        running.router.error = GONE
        await running.pass_time(4)
        assert "STALE 4.0s" in running.screen()[0]
        assert "connection refused" in running.screen()[1]
        assert "gpu-01" in running.text()
        assert running.app.table.grey
        running.router.error = None
        await running.pass_time(1)
        assert "LIVE" in running.screen()[0]
        assert "connection refused" not in running.screen()[1]
        assert not running.app.table.grey


async def test_a_router_that_was_never_there_is_waited_for() -> None:
    router = FakeRouter()
    router.error = GONE
    async with dashboard(router) as running:
        assert "NO ANSWER" in running.screen()[0]
        router.error = None
        await running.pass_time(1)
        assert "gpu-00" in running.text()


async def test_80_columns_have_room_for_when_a_router_that_is_gone_is_asked_again() -> None:
    router = FakeRouter()
    router.error = GONE
    async with dashboard(router, size=(80, 24)) as running:
        assert running.screen()[1].endswith("connection refused · asked again in 1h")


async def test_a_router_that_wants_a_key_says_which() -> None:
    router = FakeRouter()
    router.error = NotAuthorised("http://127.0.0.1:8888 wants an API key")
    async with dashboard(router, size=(160, 40)) as running:
        assert "wants an API key" in running.screen()[1]
        assert "ROUTER_API_KEY" in running.screen()[1]


async def test_a_router_that_is_slow_does_not_freeze_the_screen() -> None:
    async with dashboard() as running:
        running.router.answers.clear()
        look = asyncio.ensure_future(running.app.look())
        await running.press("question_mark")
        assert "all about a server" in running.text()
        assert not look.done()
        running.router.answers.set()
        await look


async def test_a_slow_answer_is_not_taken_for_another_router() -> None:
    async with dashboard() as running:
        running.router.answers.clear()
        look = asyncio.ensure_future(running.app.look())
        await running.pilot.pause()
        running.clock.now += 3.5
        running.router.answers.set()
        await look
        await running.pass_time(1)
        assert len(running.app.board.events.entries) == 4
        assert [path for path in running.router.asked if "/requests" in path] == [
            "/router/requests?limit=500&after=0"
        ]


async def test_the_dashboard_looks_again_by_itself() -> None:
    async with dashboard() as running:
        running.app.link.interval = 0.01
        running.app.look_now()
        asked = len(running.router.asked)
        await until(lambda: len(running.router.asked) > asked + 5)


async def test_an_older_router_is_shown_as_far_as_it_goes() -> None:
    router = FakeRouter(events_number=None, requests_number=None)
    router.lacking = ("requests", "events", "config", "explain")
    async with dashboard(router) as running:
        assert "too old for this (GET /router/requests)" in running.text()
        asked = len(running.router.asked)
        await running.pass_time(3)
        assert len(running.router.asked) == asked + 3  # what it lacks is not asked for again
        await running.press("4")
        await running.pass_time(1)
        assert "too old for this (GET /router/config)" in running.text()
        await running.press("enter")
        await running.pass_time(1)
        assert "= 0.00" in running.text()


async def test_after_the_first_look_only_so_many_requests_are_asked_for() -> None:
    router = FakeRouter()
    async with dashboard(router) as running:
        await running.pass_time(1)
        router.more["requests_number"] = 9000
        await running.pass_time(1)
    asked = [path for path in router.asked if path.startswith("/router/requests")]
    assert asked == ["/router/requests?limit=500&after=0", "/router/requests?limit=100&after=6"]


async def test_what_a_key_does_not_show_leaves_the_rest_live() -> None:
    router = FakeRouter()
    router.barred = ("requests", "config")
    async with dashboard(router) as running:
        assert "needs the router's admin key" in running.text()
        assert "LIVE" in running.text()
        await running.press("4")
        await running.pass_time(3)
        assert "needs the router's admin key" in running.text()
        assert "LIVE" in running.text()
        asked = [path.partition("?")[0] for path in router.asked]
        assert (asked.count("/router/requests"), asked.count("/router/config")) == (1, 1)


async def test_a_page_that_is_not_there_yet_or_any_more_is_no_error() -> None:
    page = Details("gpu-00")
    page.show(panes.message("before it is on the screen"))
    async with dashboard() as running:
        await running.app.push_screen(page)
        await running.settle()
        await page.query_one("#page").remove()
        page.show(panes.message("as it goes"))
        await running.pass_time(1)
        assert "LIVE" in running.text()


async def test_something_else_that_answers_is_no_router() -> None:
    async with dashboard(FakeRouter(servers=None)) as running:
        assert "not as a router does" in running.screen()[1]


async def test_no_servers_and_no_requests_say_what_to_do() -> None:
    router = FakeRouter(0, in_flight=0)
    router.requests = []
    async with dashboard(router) as running:
        assert "No servers yet" in running.text()
        assert "curl http://127.0.0.1:8888/v1/chat/completions" in running.text()


async def test_no_request_is_asked_for_of_a_router_that_does_not_answer_or_has_some() -> None:
    router = FakeRouter(in_flight=3)
    router.requests = []
    router.error = GONE
    async with dashboard(router) as running:
        assert "The router does not answer." in running.text()
        assert "curl" not in running.text()
        router.error = None
        await running.pass_time(1)
        assert "No request has finished yet: 3 run." in running.text()
        assert "curl" not in running.text()
        router.more["in_flight"] = 1
        await running.pass_time(1)
        assert "No request has finished yet: 1 runs." in running.text()


async def test_a_router_that_has_ended_says_so_with_its_last_words() -> None:
    async with dashboard(log=Ended(3)) as running:
        await running.press("3")
        assert "exit code 3" in running.screen()[1]
        assert "it broke" in running.text()
        await running.pilot.press("q")
        assert running.app.left_on_purpose


async def test_a_dashboard_that_fails_says_where_and_no_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(app: Dashboard) -> None:
        key = "sk-" + "TOPSECRET"
        raise RuntimeError(f"it broke with {len(key)} signs")

    monkeypatch.setattr(Dashboard, "action_help", fail)
    with pytest.raises(RuntimeError):
        async with dashboard() as running:
            await running.pilot.press("question_mark")
    printed = capsys.readouterr().err
    assert "it broke with 12 signs" in printed
    assert "TOPSECRET" not in printed.replace('"sk-" + "TOPSECRET"', "")


async def test_leaving_asks_while_requests_run_on_a_router_that_would_stop() -> None:
    async with dashboard(log=Ended(None)) as running:
        await running.press("q")
        assert isinstance(running.app.screen, Dialog)
        assert "40 requests run" in running.text()
        await running.press("escape")
        assert not running.app.left_on_purpose
        await running.press("q")
        await running.pilot.press("y")
        assert running.app.left_on_purpose


async def test_leaving_does_not_ask_when_nothing_runs() -> None:
    async with dashboard(FakeRouter(in_flight=0), log=Ended(None)) as running:
        await running.pilot.press("q")
        assert running.app.left_on_purpose


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (120, 36), (200, 60), (20, 8)])
async def test_a_resize_brings_the_columns_and_charts_that_fit(size: tuple[int, int]) -> None:
    async with dashboard(FakeRouter(9)) as running:
        await running.pilot.resize_terminal(*size)
        await running.settle()
        lines = running.screen()
        assert len(lines) == size[1]
        assert max(len(line) for line in lines) <= size[0]
        assert any("gpu-00" in line for line in lines)


@pytest.mark.parametrize("theme", ["router-light", "textual-ansi", "ansi-dark", "nord"])
async def test_other_themes_show_the_same(theme: str) -> None:
    async with dashboard(FakeRouter(9)) as running:
        if theme not in running.app.available_themes:
            pytest.skip(f"this Textual has no theme {theme}")
        before = running.screen()
        running.app.theme = theme
        await running.settle()
        assert running.screen() == before


async def test_without_colours_everything_is_still_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with dashboard(FakeRouter(9)) as running:
        assert "○ down" in running.text()
        assert "LIVE" in running.screen()[0]


async def test_five_hundred_servers_are_shown_from_the_first_to_the_last() -> None:
    async with dashboard(FakeRouter(500)) as running:
        await running.press("G")
        assert any(line.startswith(" gpu-499") for line in running.screen())

"""The dashboard: puts what the board has on the screen, once for each look at the router."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual import events, on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.widgets import Input

from mvllm_router.dashboard import figures, panes
from mvllm_router.dashboard.board import Board
from mvllm_router.dashboard.changing import Changing
from mvllm_router.dashboard.columns import COLUMNS, arrow_of
from mvllm_router.dashboard.details import detail_lines
from mvllm_router.dashboard.header import figure_lines, state_line
from mvllm_router.dashboard.keys import KEYS
from mvllm_router.dashboard.lines import Line, plain
from mvllm_router.dashboard.screens.commands import Commands
from mvllm_router.dashboard.screens.reader import Details
from mvllm_router.dashboard.sizes import share_out
from mvllm_router.dashboard.source import Source
from mvllm_router.dashboard.theme import DARK, LIGHT
from mvllm_router.dashboard.widgets.bar import Bar, Item
from mvllm_router.dashboard.widgets.chart import PLOTS, Chart
from mvllm_router.dashboard.widgets.paint import Painted, Scrolled
from mvllm_router.dashboard.widgets.table import ServerTable

# Seconds between two looks at the clock: how old the picture is, also when the router is silent.
_TICK = 1.0


class Dashboard(Changing):
    """One screen for one router."""

    CSS_PATH = Path(__file__).parent / "theme.tcss"
    TITLE = "router"
    AUTO_FOCUS = "ServerTable"
    COMMANDS: ClassVar = App.COMMANDS | {Commands}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(key.keys, key.action, key.word, show=False, priority=key.always)
            for key in KEYS
            if key.action != "command_palette"  # Textual has it
        ),
        Binding("ctrl+c,ctrl+q", "leave", "Quit", show=False, priority=True),
        # Raw terminals give it as a key, and every program is expected to heed it.
        Binding("ctrl+z", "suspend_process", "To the shell", show=False, priority=True),
    ]

    def __init__(self, source: Source, **more: Any) -> None:
        """Show the router of `source`; for the other arguments see `Core`."""
        super().__init__(source, **more)
        self._look_now = asyncio.Event()
        self._requests = panes.RequestLines()

    def compose(self) -> ComposeResult:
        yield Painted(id="state")
        yield Painted(id="banner")
        yield Painted(id="figures")
        yield ServerTable(id="table")
        with Horizontal(id="charts"):
            for number, shown in enumerate(PLOTS):
                yield Chart(shown, id=f"chart-{number}")
        yield Bar(id="tabs")
        with Container(id="panes"):
            for name in panes.TABS:
                yield Scrolled(id=name, follow=name != "config")
        yield Input(id="filter", placeholder="words, !word, model: engine: state: tag:")
        yield Bar(id="foot")

    def on_mount(self) -> None:
        self.heed_signals()
        self._dress()
        self.query_one("#filter", Input).can_focus = False
        self.show()
        self.run_worker(self._follow(), exclusive=True, group="follow")
        self.set_interval(_TICK, self._show_state)

    def _dress(self) -> None:
        """Take a theme of ours, unless TEXTUAL_THEME names another one."""
        for theme in (DARK, LIGHT):
            self.register_theme(theme)
        named = self.theme
        if named in ("textual-dark", DARK.name, LIGHT.name):
            # Textual did not know ours and painted its own: only for a change does it paint anew.
            self.set_reactive(App.theme, "textual-dark")
            self.theme = LIGHT.name if named == LIGHT.name else DARK.name

    async def on_unmount(self) -> None:
        await self.source.close()

    # --- looking

    async def _follow(self) -> None:
        """Look at the router for ever. One that is slow or gone costs the screen nothing."""
        while True:
            await self.look()
            self.show()
            waiter = asyncio.ensure_future(self._look_now.wait())
            try:
                await asyncio.wait([waiter], timeout=self.link.pause)
            finally:
                waiter.cancel()
            self._look_now.clear()

    async def look(self) -> None:
        """Ask the router for all that the screen shows."""
        page = self._page
        if page is None or (self.board.held is not None and page.explained is not None):
            await self.feed.look(self.tab)
        else:
            page.explained = await self.feed.look(self.tab, page.server)

    def look_now(self) -> None:
        """Do not wait for the next look."""
        self._look_now.set()

    # --- showing

    def show(self) -> None:
        """Put the board on the screen, or what is held of it."""
        if not self._is_there:
            return
        with self.batch_update():
            self._show_state()
            self._show_all()

    @property
    def _is_there(self) -> bool:
        """Return whether there is a screen: not before the start, nor at the end."""
        return bool(self.screen_stack) and bool(self.base.query("#foot"))

    @property
    def _page(self) -> Details | None:
        """Return the page of a server, where it is open."""
        top = self.screen_stack[-1] if self.screen_stack else None
        return top if isinstance(top, Details) else None

    def _show_all(self) -> None:
        board, now = self.board.shown(self.clock())
        grey, view = self.is_stale, board.view
        rows = board.rows(now)
        self._share_out(len(rows))
        lines = figure_lines(board.history.now, self.size.width)
        self.base.query_one("#figures", Painted).show(lines, grey=grey)
        self.base.query_one("#table", ServerTable).show(
            rows,
            columns=view.columns,
            sort=view.sort,
            descending=view.descending,
            empty=self._empty_table(board),
            grey=grey,
        )
        for chart in self.base.query(Chart):
            chart.draw(board.history, view.span, now, grey=grey)
        self._show_pane(board, grey)
        if (page := self._page) is not None:
            self._show_details(page, board, grey)

    def _share_out(self, rows: int) -> None:
        sizes = share_out(self.size.width, self.size.height, rows, charts=self.board.view.charts)
        self.base.query_one("#table").styles.height = sizes.table
        charts = self.base.query_one("#charts")
        charts.styles.height = sizes.charts
        charts.set_class(not sizes.charts, "-off")
        for number, chart in enumerate(self.base.query(Chart)):
            chart.set_class(number >= sizes.number_of_charts, "-off")

    def _empty_table(self, board: Board) -> list[Line]:
        if self.link.last is None:
            return panes.message("Looking for the router ...") if not self.link.failures else []
        view = board.view
        return panes.empty_servers(view.typed, view.faults_only, len(board.servers))

    def _show_state(self) -> None:
        """Show the line of state, the tabs and the keys, which tell also of a silent router."""
        if not self._is_there:
            return
        board, _ = self.board.shown(now := self.clock())
        words = self.link.words(now, paused=board is not self.board)
        line = state_line(board.snapshot, self.source.url, words, self.size.width)
        self.base.query_one("#state", Painted).show([line])
        banner = self.base.query_one("#banner", Painted)
        banner.set_class(bool(problem := self._problem()), "-on")
        banner.show([plain(f" {problem}")])
        self.base.query_one("#tabs", Bar).offer(self._tabs(), end=self._chosen_words())
        keys = [key for key in KEYS if key.foot]
        dim = [self.read_only and key.writes for key in keys]
        items = [
            Item(key.shown, key.word, key.action, "dim" if off else "plain")
            for key, off in zip(keys, dim, strict=True)
        ]
        end = "read-only" if self.read_only else "ctrl+p palette"
        self.base.query_one("#foot", Bar).offer(items, end=end)

    def _problem(self) -> str:
        if self.exit_code is not None:
            return (
                f"the router has ended with exit code {self.exit_code}: its last words are in the "
                "log (3), q quits"
            )
        if not self.link.problem:
            return ""
        hint = f" · {self.link.hint}" if self.link.hint else ""
        return f"{self.link.problem}{hint} · asked again in {figures.age(self.link.pause)}"

    def _tabs(self) -> Sequence[Item]:
        return [
            Item(
                str(number + 1),
                name.capitalize(),
                f"tab('{name}')",
                "chosen" if name == self.tab else "plain",
            )
            for number, name in enumerate(panes.TABS)
        ]

    def _chosen_words(self) -> str:
        """Say what the person chose that is not the usual."""
        view = self.board.view
        words = []
        if view.typed:
            words.append(f"filter `{view.typed}`")
        if view.faults_only:
            words.append("faults only")
        if view.columns != "overview":
            words.append(f"columns: {view.columns}")
        if view.sort and not self.table.shows(view.sort):  # else its head has the arrow
            heading = COLUMNS[view.sort].heading
            words.append(f"sorted by {heading} {arrow_of(view.descending)}")
        if self.tab == "log" and (log := self.board.server_log) is not None:
            words.append(f"log of {log.name}")
        return " · ".join(words)

    def _show_pane(self, board: Board, grey: bool) -> None:
        for name in panes.TABS:
            self.base.query_one(f"#{name}").set_class(name == self.tab, "-on")
        pane = self.base.query_one(f"#{self.tab}", Scrolled)
        is_own = self.tab == "log" and self.board.server_log is None  # and not the router's word
        lines = self._pane_lines(board, pane.size.width or 80)
        pane.show(lines, grey=grey and not is_own, gone=self._gone(board))

    def _gone(self, board: Board) -> int:
        """Return how many lines of the open tab are kept no more."""
        lists = {
            "requests": board.requests,
            "events": board.events,
            "log": self.board.server_log or self.log_source,
        }
        shown = lists.get(self.tab)
        return shown.gone if shown is not None else 0

    def _pane_lines(self, board: Board, width: int) -> list[Line]:
        if self.tab == "requests":
            return self._request_lines(board, width)
        if self.tab == "events":
            found = panes.event_lines(list(board.events.entries))
            return found or panes.message("Nothing has happened yet.")
        if self.tab == "config":
            why_not = self.feed.why_not("config")
            return panes.config_lines(board.config, board.snapshot, width, why_not)
        return self._log_lines()

    def _log_lines(self) -> list[Line]:
        if (log := self.board.server_log) is not None:
            return panes.server_log_lines(log)
        if self.log_source is None:
            return panes.message(
                "The log is where the router runs.",
                "`router run` on a terminal starts a router with its log here.",
                "l shows the log of a server that the router has started.",
            )
        if self.board.held is None:
            self.read_log()
        return [panes.log_line(line) for line in self.board.router_log]

    def _request_lines(self, board: Board, width: int) -> list[Line]:
        found = self._requests.of(list(board.requests.entries), width)
        if found:
            return found
        if why_not := self.feed.why_not("requests"):
            return panes.message(why_not)
        if self.link.failures:
            return panes.message("The router does not answer.")
        if self.link.last is None:
            return []
        return panes.empty_requests(board.snapshot, self.source.url)

    def _show_details(self, page: Details, board: Board, grey: bool) -> None:
        server = board.server(page.server)
        if server is None:
            page.show(panes.message(f"There is no server {page.server} any more."), grey=grey)
            return
        tokens = board.history.tokens_per_second(page.server)
        page.show(detail_lines(server, page.explained, tokens), grey=grey)

    # --- events of the terminal

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self.show)
        # Once more when the widgets have their new sizes, which the charts are drawn for.
        self.call_after_refresh(self.call_later, self.show)

    @on(ServerTable.HeadClicked)
    def _head_clicked(self, message: ServerTable.HeadClicked) -> None:
        self.action_sort_by(message.key)

    @on(ServerTable.Opened)
    def _opened(self, message: ServerTable.Opened) -> None:
        self.action_details_of(message.name)

    @on(Input.Changed, "#filter")
    def _filter_typed(self, message: Input.Changed) -> None:
        self.board.view.typed = message.value.strip()
        self.show()

    @on(Input.Submitted, "#filter")
    def _filter_done(self) -> None:
        self.close_filter()

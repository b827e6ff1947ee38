"""What the keys do that change the picture, and nothing of the router."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from textual.widgets import Input

from mvllm_router.dashboard import panes
from mvllm_router.dashboard.columns import SETS
from mvllm_router.dashboard.core import Core
from mvllm_router.dashboard.document import number
from mvllm_router.dashboard.log import ServerLog
from mvllm_router.dashboard.screens.dialog import Dialog
from mvllm_router.dashboard.screens.reader import Details, Reader, help_lines
from mvllm_router.dashboard.widgets.paint import Scrolled


class Looking(Core):
    """Filter, order, tabs, charts, pages to read, files to write, and leaving."""

    # --- pages

    def action_details(self) -> None:
        if (server := self.table.chosen) is not None:
            self.action_details_of(server.name)

    def action_details_of(self, name: str) -> None:
        self.push_screen(Details(name), lambda _: self.show())
        self.call_after_refresh(self.show)
        self.look_now()

    def action_help(self) -> None:
        self.push_screen(Reader("keys", help_lines(read_only=self.read_only)))

    # --- which servers, in which order

    def action_filter(self) -> None:
        field = self.base.query_one("#filter", Input)
        field.can_focus = True
        field.set_class(True, "-on")
        self.base.query_one("#foot").set_class(True, "-off")
        field.focus()

    def close_filter(self) -> None:
        """Take the field away; what was typed stays in force."""
        field = self.base.query_one("#filter", Input)
        field.set_class(False, "-on")
        self.base.query_one("#foot").set_class(False, "-off")
        field.can_focus = False
        self.table.focus()

    def action_faults(self) -> None:
        self.board.view.faults_only = not self.board.view.faults_only
        self.show()

    def action_step_back(self) -> None:
        """Take one thing back: the field of the filter, the filter, the faults, a server's log."""
        field = self.base.query_one("#filter", Input)
        view = self.board.view
        if field.has_class("-on") or view.typed:
            field.value = ""
            view.typed = ""
            self.close_filter()
        elif view.faults_only:
            view.faults_only = False
        elif self.tab == "log" and self.board.server_log is not None:
            self.board.server_log = None
        else:
            self.table.focus()
        self.show()

    def action_sort(self, step: int) -> None:
        keys = ["", *SETS[self.board.view.columns]]
        sort = self.board.view.sort
        index = keys.index(sort) if sort in keys else 0
        self._sort(keys[(index + step) % len(keys)])

    def action_sort_by(self, key: str) -> None:
        self._sort(key)

    def _sort(self, key: str) -> None:
        self.board.view.sort_by(key)
        self.show()

    def action_reverse(self) -> None:
        self.board.view.descending = not self.board.view.descending
        self.show()

    def action_columns(self) -> None:
        self.board.view.next_columns()
        self.show()

    # --- charts, tabs, pause

    def action_charts(self) -> None:
        self.board.view.charts = not self.board.view.charts
        self.show()
        self.call_after_refresh(self.show)

    def action_span(self, step: int) -> None:
        self.board.view.next_span(step)
        self.show()

    def action_tab(self, name: str) -> None:
        if name not in panes.TABS:
            return
        had_focus = isinstance(self.focused, Scrolled)
        self.tab = name
        self.show()
        if had_focus:
            self.base.query_one(f"#{name}").focus()
        self.call_after_refresh(self.show)
        self.look_now()

    def action_log(self) -> None:
        """Show the log of the chosen server; where it is shown, that of the router."""
        if (server := self.table.chosen) is not None:
            log = self.board.server_log
            is_shown = self.tab == "log" and log is not None and log.name == server.name
            self.action_log_of("" if is_shown else server.name)

    def action_log_of(self, name: str) -> None:
        """Open the tab with the log of a server, or with the router's for ""."""
        self.board.server_log = ServerLog(name) if name else None
        self.action_tab("log")
        self.base.query_one("#log", Scrolled).to_end()

    def action_pause(self) -> None:
        """Hold the picture, once there is one, or let it go on."""
        if self.board.held is not None:
            self.board.let_go()
            self.look_now()
        elif self.board.snapshot:
            self.read_log()
            self.board.hold(self.clock())
        self.show()

    def read_log(self) -> None:
        """Bring the router's log up to date, where the dashboard has started it."""
        if self.log_source is not None:
            self.board.router_log = self.log_source.lines()

    def action_refresh_now(self) -> None:
        self.look_now()

    # --- files

    def action_export(self) -> None:
        name = f"router-{self._stamp()}.json"
        shown, _ = self.board.shown(self.clock())
        content = json.dumps(shown.snapshot, indent=2)  # ASCII: names may be half a sign
        self._write(name, lambda path: path.write_text(content + "\n", encoding="utf-8"))

    def action_still(self) -> None:
        name = f"router-{self._stamp()}.svg"
        picture = self.export_screenshot(title="router top")
        self._write(name, lambda path: path.write_text(picture, encoding="utf-8"))

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self.wall()).strftime("%Y%m%d-%H%M%S")

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        path = Path.cwd() / name
        try:
            write(path)
        except OSError as error:
            self.tell(f"cannot write {path}: {error.strerror}", is_error=True)
        else:
            self.tell(f"wrote {path}")

    # --- leaving

    def action_leave(self) -> None:
        """Leave; where that stops a router which has requests, ask once."""
        running = number(self.board.snapshot, "in_flight") or 0
        stops = self.log_source is not None and self.exit_code is None
        if not stops or not running or isinstance(self.screen, Quit):
            self.leave()
            return
        what = "1 request runs" if running == 1 else f"{running:.0f} requests run"
        self.push_screen(Quit(what), lambda answer: self.leave() if answer else None)

    async def action_quit(self) -> None:
        """Leave: what the palette calls it."""
        self.action_leave()

    def leave(self) -> None:
        self.left_on_purpose = True
        self.exit()


class Quit(Dialog):
    """Asks before a router with requests is stopped."""

    def __init__(self, what: str) -> None:
        lines = (
            f"{what} on this router. It stops with the dashboard:",
            "it takes no new requests, and lets those that run finish.",
        )
        super().__init__("Stop the router?", lines, yes="Stop it")

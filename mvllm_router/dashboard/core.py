"""What the dashboard knows, and what its keys and its screen share."""

from __future__ import annotations

import asyncio
import signal
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any

from rich.markup import escape
from rich.traceback import Traceback
from textual.app import App, SystemCommand
from textual.notifications import Notification, Notify
from textual.screen import Screen

from mvllm_router.dashboard.board import Board
from mvllm_router.dashboard.document import text
from mvllm_router.dashboard.feed import Feed
from mvllm_router.dashboard.link import Link
from mvllm_router.dashboard.log import Log
from mvllm_router.dashboard.screens.reader import Details
from mvllm_router.dashboard.source import Source
from mvllm_router.dashboard.widgets.table import ServerTable

# Textual 1 reads every message as Rich's markup; those after it read none unless they are told to.
_READS_MARKUP = "markup" not in {field.name for field in fields(Notification)}


class Core(App[None]):
    """The state of the dashboard; those above it add what keys do, and the screen."""

    def __init__(
        self,
        source: Source,
        *,
        interval: float = 1.0,
        read_only: bool = False,
        log: Log | None = None,
        signals: Sequence[signal.Signals] = (),
        on_hang_up: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Show the router of `source`.

        Args:
            interval: seconds between two looks.
            read_only: nothing is changed, whatever is pressed.
            log: that of a router which the dashboard has started, None for any other.
            signals: those that end the dashboard, so that the router behind it can be stopped.
            on_hang_up: called at once when one of them comes: without a terminal, leaving the
                screen may take for ever.
            clock: monotonic seconds.
            wall: wall-clock seconds.
        """
        super().__init__()
        self.source, self.read_only, self.log_source = source, read_only, log
        self.clock, self.wall = clock, wall
        self.board = Board()
        self.link = Link(interval)
        self.feed = Feed(source, self.board, self.link, clock)
        self.tab = "requests"
        # Set when a person leaves; else the dashboard has ended for another reason.
        self.left_on_purpose = False
        self.hung_up = False
        self._told: dict[str, Notification] = {}  # the last message about each server
        self._signals = signals
        self._on_hang_up = on_hang_up

    def heed_signals(self) -> None:
        """Let the signals end the dashboard. Needs the running loop."""
        for number in self._signals:
            try:
                asyncio.get_running_loop().add_signal_handler(number, self._hang_up)
            except NotImplementedError:  # Windows, which ends the process
                return

    def _hang_up(self) -> None:
        if not self.hung_up:
            self.hung_up = True
            self._on_hang_up()
            self.exit()

    def _fatal_error(self) -> None:
        """End with a traceback that has no values in it: keys are among them."""
        self.panic(Traceback(show_locals=False))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Leave to the palette of Textual's own commands what is no key here: the theme."""
        for command in super().get_system_commands(screen):
            if command.callback == self.action_change_theme:
                yield command

    @abstractmethod
    def show(self) -> None:
        """Put the board on the screen."""

    @abstractmethod
    def look_now(self) -> None:
        """Ask the router without waiting for the next look."""

    @property
    def base(self) -> Screen[Any]:
        """Return the screen below all dialogs."""
        return self.screen_stack[0]

    @property
    def table(self) -> ServerTable:
        return self.base.query_one("#table", ServerTable)

    @property
    def exit_code(self) -> int | None:
        """Return that of the router which the dashboard has started, None while it runs."""
        return self.log_source.exit_code() if self.log_source else None

    @property
    def is_stale(self) -> bool:
        return self.link.is_stale(self.clock()) or self.exit_code is not None

    def server_names(self) -> list[str]:
        return [text(server, "name") for server in self.board.servers]

    @property
    def chosen(self) -> str:
        """Return the server that keys are for: of the page that is open, else under the cursor."""
        if isinstance(self.screen, Details):
            return self.screen.server
        return self.table.chosen.name if self.table.chosen else ""

    def tell(self, message: str, about: str = "", *, is_error: bool = False) -> None:
        """Show a message for a moment, in the place of the last one about the same server."""
        told = Notification(
            escape(message) if _READS_MARKUP else message,
            severity="error" if is_error else "information",
            timeout=8 if is_error else 4,
        )
        if (last := self._told.get(about)) is not None:
            self._unnotify(last, refresh=False)
        self._told[about] = told
        self.post_message(Notify(told))

    def record(self, server: str, message: str) -> None:
        """Add a line of a person's own to the events."""
        event = {"at": self.wall(), "kind": "you", "backend": server, "message": message}
        self.board.events.keep(event)

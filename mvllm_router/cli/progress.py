"""How servers that start are shown: a table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from mvllm_router.config.problems import printable
from mvllm_router.launch.life import Phase

if TYPE_CHECKING:
    from rich.table import Table

    from mvllm_router.launch.keeper import Keeper
    from mvllm_router.launch.supervisor import Supervisor

log = logging.getLogger(__name__)

# Seconds between two looks; between two lines about a server where there is no terminal.
_TICK = 0.25
_LINE_EVERY = 15.0
_GLYPHS = {Phase.READY: ("●", "green"), Phase.FAILED: ("○", "red"), Phase.WAITING: ("◌", "dim")}


class Row(NamedTuple):
    """What is shown of one server. `seconds`: of one that is ready, how long that took."""

    name: str
    phase: Phase
    state: str
    seconds: int
    line: str


def row_of(keeper: Keeper, now: float) -> Row:
    """Return what is to be shown of a server at `now` (monotonic seconds)."""
    life = keeper.life
    state, line = life.phase.value, keeper.journal.last
    if life.phase is Phase.STARTING:
        state = keeper.stage or state
    elif life.phase in (Phase.FAILED, Phase.PAUSING):
        line = life.reason
    if life.phase is Phase.READY:
        seconds = life.since - keeper.begun
    else:
        seconds = now - (keeper.begun if life.phase is Phase.STARTING else life.since)
    return Row(keeper.name, life.phase, state, int(seconds), printable(line))


def is_over(rows: Sequence[Row]) -> bool:
    """Tell whether all have come up or been given up."""
    return all(row.phase in (Phase.READY, Phase.FAILED) for row in rows)


async def follow_start(supervisor: Supervisor) -> bool:
    """Show how servers start, until all have come up or been given up; tell whether any is up."""
    with _shown() as show:
        while True:
            now = time.monotonic()
            rows = [row_of(keeper, now) for keeper in supervisor.keepers.values()]
            show(rows)
            if is_over(rows):
                return not rows or any(row.phase is Phase.READY for row in rows)
            await asyncio.sleep(_TICK)


@contextmanager
def _shown() -> Iterator[Callable[[Sequence[Row]], None]]:
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
    ]
    if not (handlers and sys.stderr.isatty()):
        yield _Lines(time.monotonic).show
        return
    from rich.console import Console
    from rich.file_proxy import FileProxy
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for handler in handlers:  # lines of the log go above the table
            handler.setStream(FileProxy(console, sys.__stderr__ or sys.stderr))
        try:
            yield lambda rows: live.update(_table(rows), refresh=True)
        finally:
            for handler in handlers:
                handler.setStream(sys.__stderr__ or sys.stderr)


def _table(rows: Sequence[Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, expand=True)
    for width in (None, 10, 7):
        table.add_column(no_wrap=True, width=width)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        glyph, colour = _GLYPHS.get(row.phase, ("◐", "yellow"))
        state = Text(f"{glyph} {row.state}", colour)
        table.add_row(Text(row.name), state, Text(f"{row.seconds} s", "dim"), Text(row.line, "dim"))
    return table


class _Lines:
    """Logs what has changed since the last line about a server, now and then."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._said: dict[str, tuple[float, str]] = {}

    def show(self, rows: Sequence[Row]) -> None:
        now = self._monotonic()
        for row in rows:
            at, line = self._said.setdefault(row.name, (now, ""))
            if row.phase is Phase.STARTING and now - at >= _LINE_EVERY and line != row.line:
                self._said[row.name] = (now, row.line)
                log.info("%s: %s after %d s: %s", row.name, row.state, row.seconds, row.line)

"""`router top`: the dashboard of any running router."""

from __future__ import annotations

import os
import signal
import threading

import typer

from mvllm_router.cli.attended import GRACE, HANGUPS, is_attended, let_others_first
from mvllm_router.cli.output import Exit, fail
from mvllm_router.client import Unreachable

_TERMINATED = 128 + signal.SIGTERM  # the exit code that shells give to who was asked to end


def show_dashboard(url: str, key: str | None, *, interval: float, read_only: bool) -> None:
    """Show a running router until the person leaves; a router that is gone is waited for."""
    if not is_attended():
        hint = "`router status` prints once, and `router status --json` for programs"
        fail("the dashboard needs a terminal", Exit.USAGE, hint=hint)
    from mvllm_router.dashboard.app import Dashboard
    from mvllm_router.dashboard.source import HttpSource

    try:
        source = HttpSource(url, key)
    except Unreachable as error:
        fail(str(error), Exit.USAGE)
    let_others_first()
    app = Dashboard(
        source,
        interval=interval,
        read_only=read_only,
        signals=HANGUPS,
        on_hang_up=_end_in_any_case,
    )
    app.run()
    if app.hung_up:
        raise typer.Exit(_TERMINATED)
    if not app.left_on_purpose:
        fail("the dashboard has failed; the router was not touched", Exit.FAILED)


def _end_in_any_case() -> None:
    """End soon, though leaving the screen may never end where the terminal is gone."""
    timer = threading.Timer(GRACE, os._exit, (_TERMINATED,))
    timer.daemon = True
    timer.start()

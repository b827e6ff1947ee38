"""The command line. Commands import what they need when they run, so that help is quick."""

from __future__ import annotations

import io
import signal
import sys
from types import FrameType

_INTERRUPTED = 130


def main(name: str | None = None) -> None:
    """Run `router`; `router run` puts its own signal handlers in place of this one.

    `name` is what help and completion call it; None for the name that it was called by.
    """
    signal.signal(signal.SIGINT, _interrupted)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a glyph or a model's name gets a question mark.
        sys.stdout.reconfigure(errors="replace")
    from mvllm_router.cli.app import app

    app(prog_name=name)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise SystemExit(_INTERRUPTED)

"""`router run` on a terminal: the router as a child process, and the dashboard in front of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

import typer

from mvllm_router.dashboard.child import Announced, Child, DidNotStart

# Seconds between two looks at a log that is printed.
_TICK = 0.2
_NICE = 10
# Seconds that the way out of the screen may take when there is no terminal any more.
GRACE = 2.0


HANGUPS = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


def let_others_first() -> None:
    """Be drawn when the machine has nothing better to do: what is shown comes before the screen."""
    if hasattr(os, "nice"):
        os.nice(_NICE)


class _Hangup(Exception):
    """The terminal is gone, or this process is asked to end."""


def run_attended(arguments: Sequence[str], log_file: str) -> None:
    """Start the router with these arguments, show its dashboard, and stop it at the end.

    The command ends as the router does, with its exit code.

    Args:
        arguments: those of the command line, `run` and what follows it.
        log_file: where the router's log goes by its settings, "" for stderr.
    """
    child = Child(arguments, log_file)
    _heed_hangups(child)
    try:
        code = _attend(child)
    except _Hangup:
        code = child.wait() or 0
    finally:
        child.close()
    raise typer.Exit(_as_exit_code(code))


def _heed_hangups(child: Child) -> None:
    """Let the end of the terminal and SIGTERM stop the router, from now on."""

    def hang_up(number: int, frame: FrameType | None) -> None:
        _ignore_hangups()
        child.ask_to_stop()
        raise _Hangup

    for number in HANGUPS:
        signal.signal(number, hang_up)


def _ignore_hangups() -> None:
    """Heed no second one: a shell may send its own, and a router asked twice ends at once."""
    for number in HANGUPS:
        signal.signal(number, signal.SIG_IGN)


def _attend(child: Child) -> int:
    """Show the router until it or the person ends it; return its exit code."""
    try:
        announced = child.announced()
    except DidNotStart as error:
        typer.echo(error.said, err=True, nl=False)
        for line in child.new_lines():
            typer.echo(line, err=True)
        return error.code
    let_others_first()
    if not _show(child, announced):
        return _in_plain_view(child, announced.url)
    code = child.exit_code()
    if code is not None:
        _last_words(child, code)
        return code
    return _stop(child)


def _show(child: Child, announced: Announced) -> bool:
    """Show the dashboard; return whether the person left it, rather than that it failed."""
    from mvllm_router.dashboard.app import Dashboard
    from mvllm_router.dashboard.source import HttpSource

    # It is on this machine, and its certificate may be for the name of another one.
    source = HttpSource(announced.url, announced.key, verify=False)
    app = Dashboard(
        source, log=child, signals=HANGUPS, on_hang_up=lambda: _end_without_screen(child)
    )
    try:
        app.run()
    except Exception as error:  # whatever it is: the router has to go on
        if not app.hung_up:
            typer.echo(f"error: the dashboard failed: {error!r}", err=True)
    _heed_hangups(child)  # the dashboard's event loop has taken its handlers with it
    if app.hung_up:
        _ignore_hangups()
        raise _Hangup
    return app.left_on_purpose


def _end_without_screen(child: Child) -> None:
    """Stop the router, and this process with it, though leaving the screen may never end.

    Textual writes from a thread of its own. Where the terminal is gone that thread is too, and who
    waits for it to take one more write waits for ever.
    """
    child.ask_to_stop()

    def end() -> None:
        code = child.wait() or 0
        time.sleep(GRACE)  # the usual way out is the better one
        child.close()
        os._exit(_as_exit_code(code))

    threading.Thread(target=end, name="hang-up", daemon=True).start()


def _in_plain_view(child: Child, url: str) -> int:
    """Print the log as it comes, until the router ends or Ctrl-C stops it."""
    typer.echo(
        f"the dashboard has failed, the router goes on at {url}; its log follows, Ctrl-C stops it",
        err=True,
    )
    child.new_lines()  # what was in the Log tab is not printed again
    with contextlib.suppress(KeyboardInterrupt), _interrupting():
        while child.exit_code() is None:
            _print(child)
            time.sleep(_TICK)
    return _stop(child)


def _stop(child: Child) -> int:
    """Let the router finish what runs; a second Ctrl-C ends it at once."""
    child.ask_to_stop()
    with _interrupting():
        code = None
        while code is None:
            try:
                code = child.wait(_TICK)
                _print(child)
            except KeyboardInterrupt:
                child.ask_to_stop()
    _print(child)
    return code


@contextlib.contextmanager
def _interrupting() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, where elsewhere it ends the command."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _print(child: Child) -> None:
    for line in child.new_lines():
        typer.echo(line, err=True)


def _last_words(child: Child, code: int) -> None:
    """Say that the router ended by itself, with the last lines of its log."""
    for line in child.lines()[-10:]:
        typer.echo(line, err=True)
    typer.echo(f"error: the router has ended by itself with exit code {code}", err=True)


def _as_exit_code(code: int) -> int:
    """Return the code of a shell: a process that a signal ended has a negative one."""
    return code if code >= 0 else 128 - code


def is_attended() -> bool:
    """Return whether a person is at a terminal that can show a dashboard."""
    # The dashboard reads the first and paints on the last one.
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return all(one.isatty() for one in streams) and os.environ.get("TERM") != "dumb"

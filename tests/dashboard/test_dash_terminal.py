"""`router run` and `router top` in a real terminal: from the start to the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from cli_kit import PATIENCE, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no ptys")


class Terminal:
    """A command on a terminal of its own, which a test reads and types into."""

    def __init__(self, words: tuple[str, ...], cwd: Path, program: Sequence[str]) -> None:
        self.master, slave = pty.openpty()
        self.resize(120, 36)
        env = environment(TERM="xterm-256color", TEXTUAL_ANIMATIONS="none")
        del env["COLUMNS"]  # the size is that of the terminal
        self.process = subprocess.Popen(
            [sys.executable, *program, *words],
            cwd=cwd,
            env=env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = ""

    def resize(self, columns: int, rows: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read_until(self, part: str) -> str:
        """Read until a text is on the terminal; return all since the last call of this."""
        end = time.monotonic() + PATIENCE
        while part not in re.sub(r"\x1b\[[0-9;?$>]*[A-Za-z]", "", self.seen):
            assert time.monotonic() < end, f"no {part!r} in {self.seen[-3000:]!r}"
            if select.select([self.master], [], [], 0.1)[0] and not self._read():
                raise AssertionError(f"it ended without {part!r}: {self.seen[-3000:]!r}")
        seen, self.seen = self.seen, ""
        return seen

    def _read(self) -> bool:
        try:
            chunk = os.read(self.master, 65536)
        except OSError:  # what Linux says when nobody has the other end any more
            return False
        self.seen += chunk.decode(errors="replace")
        return bool(chunk)

    def end(self) -> int:
        """Read until the command ends; return its exit code."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, "it does not end"
            if select.select([self.master], [], [], 0.1)[0]:
                self._read()
        self._read_rest()
        return self.process.wait()

    def until_stopped(self) -> None:
        """Read until the command is stopped, as job control does that."""
        end = time.monotonic() + PATIENCE
        while not os.waitpid(self.process.pid, os.WUNTRACED | os.WNOHANG)[0]:
            assert time.monotonic() < end, "it is not stopped"
            if select.select([self.master], [], [], 0.1)[0]:
                self._read()
        self._read_rest()

    def _read_rest(self) -> None:
        while select.select([self.master], [], [], 0)[0] and self._read():
            pass

    def children(self) -> list[int]:
        """Return the processes that this one has started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in path.read_text().split()] if path.exists() else []


@contextmanager
def terminal(
    *words: str, cwd: Path, program: Sequence[str] = ("-m", "mvllm_router")
) -> Iterator[Terminal]:
    running = Terminal(words, cwd, program)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
        os.close(running.master)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for_end(pid: int) -> None:
    end = time.monotonic() + PATIENCE
    while is_alive(pid):
        assert time.monotonic() < end, f"process {pid} still runs"
        time.sleep(0.05)


# Nobody listens there: the router itself is what is tested.
SERVER = "http://127.0.0.1:9"


def test_run_shows_the_dashboard_and_q_stops_the_router(tmp_path: Path) -> None:
    with terminal("run", SERVER, "--port", "0", cwd=tmp_path) as shown:
        shown.read_until("LIVE")
        shown.type("3")
        shown.read_until("policy least_load")  # of the log
        shown.resize(80, 24)
        shown.process.send_signal(signal.SIGWINCH)
        shown.read_until("Requests")
        (router,) = shown.children()
        shown.type("q")
        assert shown.end() == 0
        assert "stopped" in shown.seen
        assert not is_alive(router)


def test_a_router_that_cannot_start_says_why_in_plain_text(tmp_path: Path) -> None:
    (tmp_path / "servers.toml").write_text("[servers\n")
    with terminal("run", cwd=tmp_path) as shown:
        assert shown.end() == 2
        assert "servers.toml:1" in shown.seen
        assert "\x1b[?1049h" not in shown.seen


def test_a_port_in_use_is_said_in_plain_text(tmp_path: Path) -> None:
    with terminal("run", SERVER, "--port", "0", "--host", "256.1.1.1", cwd=tmp_path) as shown:
        assert shown.end() == 2
        assert "error:" in shown.seen
        assert "\x1b[?1049h" not in shown.seen


def test_a_terminal_that_closes_stops_the_router(tmp_path: Path) -> None:
    with terminal("run", SERVER, "--port", "0", cwd=tmp_path) as shown:
        shown.read_until("LIVE")
        (router,) = shown.children()
        os.close(shown.master)
        shown.master = os.open(os.devnull, os.O_RDONLY)
        shown.process.wait(PATIENCE)
        wait_for_end(router)


def test_a_request_to_end_stops_the_router(tmp_path: Path) -> None:
    with terminal("run", SERVER, "--port", "0", cwd=tmp_path) as shown:
        shown.read_until("LIVE")
        (router,) = shown.children()
        shown.process.send_signal(signal.SIGTERM)
        assert shown.end() == 0
        wait_for_end(router)


def test_a_dashboard_that_is_killed_takes_the_router_with_it(tmp_path: Path) -> None:
    with terminal("run", SERVER, "--port", "0", cwd=tmp_path) as shown:
        shown.read_until("LIVE")
        (router,) = shown.children()
        shown.process.kill()
        shown.process.wait()
        wait_for_end(router)


def test_a_router_that_dies_is_told_of_with_its_exit_code(tmp_path: Path) -> None:
    with terminal("run", SERVER, "--port", "0", cwd=tmp_path) as shown:
        shown.read_until("LIVE")
        (router,) = shown.children()
        os.kill(router, signal.SIGKILL)
        shown.read_until("has ended with exit code -9")
        shown.type("q")
        assert shown.end() == 128 + 9
        assert "has ended by itself" in shown.seen


# `router` with a dashboard that fails when it is to show what the router said.
BROKEN = """
from mvllm_router.cli import main
from mvllm_router.dashboard.app import Dashboard

def fail(self):
    if self.board.snapshot:
        raise RuntimeError("a mistake of ours")

Dashboard._show_all = fail
main("router")
"""


def test_a_dashboard_that_fails_leaves_the_router_running(tmp_path: Path) -> None:
    with terminal("run", SERVER, "--port", "0", cwd=tmp_path, program=("-c", BROKEN)) as shown:
        seen = shown.read_until("Ctrl-C stops it")
        (router,) = shown.children()
        assert is_alive(router)
        found = re.search(r"goes on at (http://\S+);", seen + shown.seen)
        assert found is not None
        with urllib.request.urlopen(f"{found[1]}/health", timeout=PATIENCE) as answer:
            assert answer.status == 200
        shown.type("\x03")
        assert shown.end() == 0
        assert "stopped" in shown.seen
        wait_for_end(router)


def test_console_has_no_dashboard(tmp_path: Path) -> None:
    with terminal("run", SERVER, "--port", "0", "--console", cwd=tmp_path) as shown:
        seen = shown.read_until("(Ctrl-C to stop)")
        assert "\x1b[?1049h" not in seen
        shown.type("\x03")
        assert shown.end() == 0


def test_top_waits_for_a_router_and_leaves_with_q(tmp_path: Path) -> None:
    with terminal("top", SERVER, "--read-only", cwd=tmp_path) as shown:
        shown.read_until("connection refused")
        shown.type("q")
        assert shown.end() == 0


# What a terminal is told at the end of a full screen: the usual one, the cursor, no mouse.
LEFT = ("\x1b[?1049l", "\x1b[?25h", "\x1b[?1000l")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_leaves_the_terminal_as_it_was(
    number: signal.Signals, tmp_path: Path
) -> None:
    with terminal("top", SERVER, cwd=tmp_path) as shown:
        before = termios.tcgetattr(shown.master)
        shown.read_until("connection refused")
        assert termios.tcgetattr(shown.master) != before
        shown.process.send_signal(number)
        assert shown.end() == 128 + signal.SIGTERM
        assert all(sequence in shown.seen for sequence in LEFT)
        assert termios.tcgetattr(shown.master) == before


def test_a_terminal_that_closes_ends_top(tmp_path: Path) -> None:
    with terminal("top", SERVER, cwd=tmp_path) as shown:
        shown.read_until("connection refused")
        os.close(shown.master)
        shown.master = os.open(os.devnull, os.O_RDONLY)
        shown.process.wait(PATIENCE)


def test_ctrl_z_gives_the_terminal_back_until_the_dashboard_is_continued(tmp_path: Path) -> None:
    with terminal("top", SERVER, cwd=tmp_path) as shown:
        before = termios.tcgetattr(shown.master)
        shown.read_until("connection refused")
        shown.type("?")
        shown.read_until("esc closes")
        shown.type("\x1a")
        shown.until_stopped()
        assert all(sequence in shown.seen for sequence in LEFT)
        assert termios.tcgetattr(shown.master) == before
        shown.process.send_signal(signal.SIGCONT)
        shown.read_until("esc closes")
        shown.type("qq")
        assert shown.end() == 0


# `router` with a theme from the environment.
THEMED = """
import os
os.environ.update(TEXTUAL_THEME="router-light", COLORTERM="truecolor")
from mvllm_router.cli import main
main("router")
"""


def test_a_theme_of_ours_is_taken_from_the_environment(tmp_path: Path) -> None:
    with terminal("top", SERVER, cwd=tmp_path, program=("-c", THEMED)) as shown:
        shown.read_until("connection refused")
        shown.type("?")
        page = shown.read_until("esc closes")
        assert "48;2;243;244;246" in page  # the surface of the light one
        shown.type("qq")
        assert shown.end() == 0


@pytest.mark.parametrize("url", ["ftp://gpu1", "http://", "http://gpu1:888888", "http://[::1"])
def test_top_does_not_wait_for_what_is_no_address(url: str, tmp_path: Path) -> None:
    with terminal("top", url, cwd=tmp_path) as shown:
        assert shown.end() == 2
        assert f"{url} is no address of a router" in shown.seen
        assert "\x1b[?1049h" not in shown.seen


def test_top_needs_a_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mvllm_router", "top"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert "router status" in done.stderr

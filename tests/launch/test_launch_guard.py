"""What a router has started ends with it, also when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mvllm_router.launch.guard import Guard, is_there, signalled

PATIENCE = 20.0  # seconds

# It says when it ignores SIGTERM, starts a child that does so too, and stays.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", code])
print("ready", flush=True)
time.sleep(600)
"""
GENTLE = "import time; print('ready', flush=True); time.sleep(600)"
# A router: it starts a guard, lets it watch the group that is named, and waits to be killed.
ROUTER = """
import sys, time
from mvllm_router.launch.guard import Guard
guard = Guard(lambda groups: None)
guard.watch(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(600)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")
Started = list["subprocess.Popen[str]"]


@pytest.fixture
def started() -> Iterator[Started]:
    """Give a list of processes that are killed with their groups at the end."""
    processes: Started = []
    yield processes
    for process in processes:
        signalled(process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def start(started: Started, code: str, *words: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def until_gone(process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    process.wait(PATIENCE)
    while is_there(process.pid):
        assert time.monotonic() < end, "the group is still there"
        time.sleep(0.02)


def test_a_router_that_is_killed_takes_its_servers_with_it(started: Started) -> None:
    server = start(started, STUBBORN)
    router = start(started, ROUTER, str(server.pid))
    os.kill(router.pid, signal.SIGKILL)
    until_gone(server)
    assert server.returncode == -signal.SIGKILL


def test_what_it_was_told_to_forget_is_left_alone(started: Started) -> None:
    kept, ended = start(started, GENTLE), start(started, GENTLE)
    guard = Guard(lambda groups: None)
    guard.watch(kept.pid)
    guard.watch(ended.pid)
    guard.forget(kept.pid)
    guard.close()
    until_gone(ended)
    assert kept.poll() is None


def test_a_guard_that_was_killed_gets_a_successor_that_knows_all(started: Started) -> None:
    first, second = start(started, GENTLE), start(started, GENTLE)
    guard = Guard(lambda groups: None)
    guard.watch(first.pid)
    guard._process.kill()
    guard._process.wait()
    guard.watch(second.pid)
    guard.close()
    until_gone(first)
    until_gone(second)


def test_a_guard_that_was_killed_is_missed_at_the_next_look(started: Started) -> None:
    server = start(started, GENTLE)
    guard = Guard(lambda groups: None)
    guard.watch(server.pid)
    killed = guard._process
    guard.look()
    assert guard._process is killed
    killed.kill()
    killed.wait()
    guard.look()
    assert guard._process.pid != killed.pid
    guard.close()
    until_gone(server)


def test_all_groups_that_are_watched_are_told_at_each_change(started: Started) -> None:
    told: list[set[int]] = []
    guard = Guard(lambda groups: told.append(set(groups)))
    guard.watch(-1)
    guard.watch(-2)
    guard.forget(-1)
    assert told == [{-1}, {-1, -2}, {-2}]
    guard.forget(-2)
    guard.close()


def test_a_signal_to_nobody_says_so(started: Started) -> None:
    process = start(started, "print('ready')")
    process.wait()
    assert not signalled(process.pid, signal.SIGTERM)

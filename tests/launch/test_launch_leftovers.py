"""Servers whose router and guard were both killed are ended by the next router."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mvllm_router.launch import leftovers
from mvllm_router.launch.guard import is_there, signalled
from mvllm_router.launch.leftovers import Ledger, end_leftovers, when_began

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")

SLEEPS = "import time; print('ready', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"


class Processes:
    """Processes with groups of their own."""

    def __init__(self) -> None:
        self.all: list[subprocess.Popen[str]] = []

    def start(self, code: str = SLEEPS) -> int:
        """Start one and wait for its first word; return its number."""
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.all.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process.pid

    def reap(self) -> None:
        for process in self.all:
            process.poll()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    made = Processes()
    look = leftovers.is_there

    def is_there_once_reaped(group: int) -> bool:
        made.reap()  # who is left behind has no parent that it could wait for
        return look(group)

    monkeypatch.setattr(leftovers, "is_there", is_there_once_reaped)
    yield made
    for process in made.all:
        signalled(process.pid, signal.SIGKILL)
        process.communicate()


def left_by_a_dead_router(folder: Path, *servers: int) -> Path:
    """Write the list of servers of a router that is no more."""
    ledger = Ledger(folder / "8888")
    ledger.keep(servers)
    (path,) = folder.glob("*/servers-*.json")
    document = json.loads(path.read_text("utf-8"))
    document["router"] = {str(os.getpid()): "another moment"}
    path.write_text(json.dumps(document), "utf-8")
    return path


def test_what_a_dead_router_has_left_is_ended(processes: Processes, tmp_path: Path) -> None:
    server = processes.start()
    path = left_by_a_dead_router(tmp_path, server)
    end_leftovers(tmp_path)
    assert not is_there(server)
    assert not path.exists()


def test_what_ignores_sigterm_is_killed(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_GRACE", 0.3)
    server = processes.start(DEAF)
    left_by_a_dead_router(tmp_path, server)
    end_leftovers(tmp_path)
    assert not is_there(server)


def test_the_servers_of_a_router_that_runs_are_left_alone(
    processes: Processes, tmp_path: Path
) -> None:
    server = processes.start()
    Ledger(tmp_path / "8888").keep([server])  # by this very process, which runs
    end_leftovers(tmp_path)
    assert when_began(server) is not None
    assert len(list(tmp_path.glob("*/*"))) == 1


def test_a_process_that_was_given_the_same_number_is_left_alone(
    processes: Processes, tmp_path: Path
) -> None:
    server = processes.start()
    path = left_by_a_dead_router(tmp_path, server)
    document = json.loads(path.read_text("utf-8"))
    document["servers"] = {str(server): "long ago"}
    path.write_text(json.dumps(document), "utf-8")
    end_leftovers(tmp_path)
    assert when_began(server) is not None
    assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="others have no boot id, and dates instead")
@pytest.mark.parametrize("is_other_container", [False, True])
def test_a_list_from_before_the_boot_or_of_another_container_tells_of_others(
    processes: Processes, tmp_path: Path, is_other_container: bool
) -> None:
    server = processes.start()
    path = left_by_a_dead_router(tmp_path, server)
    document = json.loads(path.read_text("utf-8"))
    boot, _, namespace = document["where"].partition(" ")
    document["where"] = f"{boot} pid:[1]" if is_other_container else f"before {namespace}"
    path.write_text(json.dumps(document), "utf-8")
    end_leftovers(tmp_path)
    assert when_began(server) is not None
    assert path.exists() == is_other_container


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"where": "", "router": 1, "servers": {}}'])
def test_a_list_that_cannot_be_made_out_is_removed(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "8888" / "servers-12.json"
    path.parent.mkdir()
    path.write_text(text)
    end_leftovers(tmp_path)
    assert not path.exists()
    assert f"{path} cannot be read" in caplog.text


def test_the_list_is_gone_with_the_last_server(processes: Processes, tmp_path: Path) -> None:
    first, second = processes.start(), processes.start()
    ledger = Ledger(tmp_path / "8888")
    ledger.keep([first, second])
    (path,) = tmp_path.glob("8888/*")
    assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0
    ledger.keep([second])
    assert list(json.loads(path.read_text("utf-8"))["servers"]) == [str(second)]
    ledger.keep([])
    assert list(tmp_path.glob("8888/*")) == []


def test_a_list_that_cannot_be_written_does_not_keep_servers_from_starting(
    processes: Processes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    Ledger(tmp_path / "file").keep([processes.start()])
    assert "cannot be written" in caplog.text


def test_a_process_that_is_over_never_began(processes: Processes) -> None:
    pid = processes.start("print('ready', flush=True)")
    processes.all[0].wait()
    assert when_began(pid) is None
    assert when_began(os.getpid()) == when_began(os.getpid())

"""How many files the router may open, and how many clients that makes."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from mvllm_router import files

posix = pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")

INFINITE = -1


@dataclass
class System:
    """Stands in for the module `resource`: takes a soft limit up to `takes`."""

    soft: int
    hard: int
    takes: int = 2**63
    RLIMIT_NOFILE: int = 7
    asked: list[tuple[int, int]] = field(default_factory=list)

    def getrlimit(self, what: int) -> tuple[int, int]:
        return self.soft, self.hard

    def setrlimit(self, what: int, limits: tuple[int, int]) -> None:
        self.asked.append(limits)
        if limits[0] > self.takes:
            raise ValueError("current limit exceeds maximum limit")
        self.soft = limits[0]


@posix
@pytest.mark.parametrize(
    ("system", "expected", "asked"),
    [
        (System(1024, 524_288), 524_288, [(524_288, 524_288)]),
        (System(256, 4096), 4096, [(4096, 4096)]),
        (System(1024, 1024), 1024, []),
        (System(1024, INFINITE), 1_048_576, [(1_048_576, INFINITE)]),
        (System(1024, 2**63 - 1), 1_048_576, [(1_048_576, 2**63 - 1)]),
        (System(1024, 1_000_000_000), 1_048_576, [(1_048_576, 1_000_000_000)]),
        (System(INFINITE, INFINITE), 1_048_576, []),
        (System(1_000_000_000, 1_000_000_000), 1_048_576, []),
        (System(2**21, 2**22), 1_048_576, []),
    ],
)
def test_the_soft_limit_becomes_the_hard_one_within_reason(
    system: System, expected: int, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "resource", system)
    assert files.raise_limit() == expected
    assert system.asked == asked


@posix
def test_a_system_that_promises_more_than_it_takes_gives_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = System(256, 2**63 - 1, takes=10_240)
    monkeypatch.setattr(files, "resource", system)
    assert files.raise_limit() == 10_240
    system = System(256, 2**63 - 1, takes=0)
    monkeypatch.setattr(files, "resource", system)
    assert files.raise_limit() == 256
    system = System(20_000, 2**63 - 1, takes=0)
    monkeypatch.setattr(files, "resource", system)
    assert files.raise_limit() == 20_000
    assert [limit for limit, _ in system.asked] == [1_048_576]


@posix
def test_a_raised_limit_is_said_at_debug(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mvllm_router")
    monkeypatch.setattr(files, "resource", System(1024, 4096))
    files.raise_limit()
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("DEBUG", "up to 4096 open files instead of 1024")
    ]


@posix
def test_it_is_raised_for_the_process() -> None:
    code = (
        "import resource as r; from mvllm_router.files import raise_limit;"
        "r.setrlimit(r.RLIMIT_NOFILE, (100, 200)); raise_limit();"
        "print(*r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["200", "200"], done.stderr


@pytest.mark.parametrize(
    ("limit", "clients"), [(128, 32), (1024, 480), (1_048_576, 524_256), (64, 16), (0, 16)]
)
def test_half_of_the_files_are_for_clients(limit: int, clients: int) -> None:
    assert files.most_connections(limit) == clients


def test_a_lack_of_files_is_known() -> None:
    assert files.is_out_of_files(OSError(errno.EMFILE, "x"))
    assert files.is_out_of_files(OSError(errno.ENFILE, "x"))
    assert not files.is_out_of_files(ConnectionRefusedError(errno.ECONNREFUSED, "x"))
    assert not files.is_out_of_files(ValueError(errno.EMFILE))

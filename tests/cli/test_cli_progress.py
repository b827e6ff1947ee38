"""What is shown of servers that start."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mvllm_router.cli.progress import Row, _Lines, _table, is_over, row_of
from mvllm_router.launch.life import Life, Phase, Rules
from mvllm_router.launch.reasons import Reason


def keeper(life: Life, *, stage: str = "", last: str = "", begun: float = 0.0) -> Any:
    """Return what progress looks at of a keeper."""
    journal = SimpleNamespace(last=last)
    return SimpleNamespace(name="q-0", life=life, journal=journal, stage=stage, begun=begun)


def starting(now: float = 0.0) -> Life:
    life = Life(Rules(), now)
    life.started(now)
    return life


def row(phase: Phase, line: str = "x", name: str = "q-0") -> Row:
    return Row(name, phase, phase.value, 3, line)


def test_one_that_starts_shows_its_stage_its_time_and_its_last_line() -> None:
    life = starting()
    assert row_of(keeper(life, last="hi"), 2.9) == Row("q-0", Phase.STARTING, "starting", 2, "hi")
    shown = row_of(keeper(life, stage="loading", last="1/4\x1b[2J"), 5.0)
    assert shown == Row("q-0", Phase.STARTING, "loading", 5, "1/4\\x1b[2J")


def test_one_that_is_ready_shows_how_long_that_took() -> None:
    life = starting(10.0)
    life.is_ready(41.5)
    assert row_of(keeper(life, begun=10.0), 99.0).seconds == 31


def test_one_that_ended_shows_why() -> None:
    life = starting()
    life.ended(Reason("boom"), 1.0)
    assert row_of(keeper(life, last="bye"), 2.0).line == "boom"


def test_it_is_over_when_each_is_ready_or_given_up() -> None:
    assert is_over([row(Phase.READY), row(Phase.FAILED)])
    assert is_over([])
    assert not is_over([row(Phase.READY), row(Phase.PAUSING)])


def test_the_table_fits_a_narrow_terminal() -> None:
    console = Console(width=50, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(_table([row(Phase.STARTING, "y" * 200), row(Phase.FAILED)]))
    lines = console.export_text().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 50 for line in lines)
    assert "○ failed" in lines[1]


def test_without_a_terminal_there_is_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = iter((0.0, 5.0, 16.0, 20.0, 32.0))
    lines = _Lines(lambda: next(clock))
    with caplog.at_level(logging.INFO, "mvllm_router"):
        for text in ("a", "b", "c", "d", "c"):
            lines.show([row(Phase.STARTING, text), row(Phase.READY, text, "q-1")])
    assert caplog.messages == ["q-0: starting after 3 s: c"]

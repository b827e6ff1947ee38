"""A router under faults loses nothing that could have been saved; see CONTRIBUTING.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from chaos_aborts import aborts
from chaos_report import Report
from chaos_run import Options, Run
from chaos_soak import soak
from chaos_streams import allow_descriptors, descriptors_wanted, streams

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP and SIGHUP"),
    pytest.mark.xdist_group("chaos"),  # each of them is busy enough
]

SECONDS = 20.0
STREAMS = 500


def told(report: Report) -> str:
    return "\n".join(report.lines())


async def test_faults_cost_only_what_nobody_could_have_saved(tmp_path: Path) -> None:
    report = await Run(Options(seed=2231, seconds=SECONDS), tmp_path, print).run()
    print(told(report))
    assert report.good, told(report)
    assert report.totals["complete"] > 200, told(report)
    assert report.totals["complete, not at the first server"] > 10, told(report)


async def test_so_it_is_with_a_queue_and_with_an_end_under_load(tmp_path: Path) -> None:
    options = Options(seed=2918, seconds=SECONDS, max_queue=6, stop_under_load=True)
    report = await Run(options, tmp_path, print).run()
    print(told(report))
    assert report.good, told(report)
    assert report.totals["complete"] > 200, told(report)


async def test_clients_that_leave_at_any_moment_leave_nothing_behind(tmp_path: Path) -> None:
    report = await aborts(2000, seed=1, folder=tmp_path)
    assert report.good, told(report)
    assert report.totals["left"] > 1000, told(report)


async def test_memory_is_flat_over_many_requests(tmp_path: Path) -> None:
    report = await soak(30_000, tmp_path)
    assert report.good, told(report)


async def test_many_streams_are_open_at_once_and_all_end_well(tmp_path: Path) -> None:
    if not allow_descriptors(descriptors_wanted(STREAMS)):
        pytest.skip("the system allows too few file descriptors")
    report = await streams(STREAMS, tmp_path)
    assert report.good, told(report)
    assert report.totals["complete"] == STREAMS

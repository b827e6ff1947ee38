"""How much memory of their GPUs servers take, as NVML or nvidia-smi tell it by process.

Where the shapes come from: NVML's list of compute processes as nvidia-ml-py gives it, with None for
memory that the driver does not know, and the CSV from `nvidia-smi --help-query-compute-apps`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from launch_kit import SIM, commanded, gpu
from support import until

from mvllm_router.launch import gpu_memory, supervisor
from mvllm_router.launch.gpu_memory import GpuMemory, parse_compute_apps, read_processes, sum_up

if TYPE_CHECKING:
    from conftest import StartLaunched

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")

OWN, GROUP = os.getpid(), os.getpgrp()
GONE = 2**22 + 1  # no process has this number
MIB = 2**20
A, B = gpu(0).uuid, gpu(1).uuid


class Nvml:
    """Answers as the module `pynvml` does; `running` has processes and bytes by UUID."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.running: dict[str, list[tuple[int, int | None]]] = {}
        self.answers = threading.Event()  # while it is not set, the driver hangs
        self.answers.set()
        self.fault = ""
        self.asked_in: list[str] = []
        self.open = 0

    def nvmlInit(self) -> None:
        self.asked_in.append(threading.current_thread().name)
        self.answers.wait()
        if self.fault:
            raise self.NVMLError(self.fault)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> str:
        if uuid.decode() not in self.running:
            raise self.NVMLError("GPU is lost")
        return uuid.decode()

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in self.running[handle]]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nvml]:
    made = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    yield made
    made.answers.set()


def test_a_servers_memory_is_that_of_its_processes_on_all_its_gpus() -> None:
    used = {A: [(OWN, 5 * MIB), (1, 9 * MIB), (GONE, MIB)], B: [(OWN, 7 * MIB)]}
    assert sum_up({GROUP: [A, B]}, used) == {GROUP: 12 * MIB}
    assert sum_up({GROUP: [A]}, used) == {GROUP: 5 * MIB}


@pytest.mark.parametrize(
    "used",
    [
        {A: [(OWN, 5), (OWN, None)], B: []},  # the driver does not know a part
        {A: [(OWN, 5)]},  # one of its GPUs does not answer
        {A: [(1, 5)], B: [(GONE, 5)]},  # none of its processes is seen
    ],
)
def test_what_is_known_in_part_is_not_known(used: gpu_memory.Used) -> None:
    assert sum_up({GROUP: [A, B]}, used) == {}


def test_a_gpu_that_does_not_tell_leaves_the_others_as_they_are(nvml: Nvml) -> None:
    nvml.running = {A: [(OWN, 5)]}
    assert read_processes(nvml, [B, A]) == ({A: [(OWN, 5)]}, f"{B}: GPU is lost")


def test_the_lines_of_nvidia_smi_are_read() -> None:
    text = f"{A}, 12, 70312\n{A}, 13, [N/A]\nGPU-other, 14, 5\nNo devices were found\n"
    assert parse_compute_apps(text, [A, B]) == {A: [(12, 70312 * MIB), (13, None)], B: []}
    assert parse_compute_apps("", [A]) == {A: []}


async def test_nvidia_smi_is_asked_where_there_is_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # its import fails
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\n[ $# = 2 ] && echo "{A}, {OWN}, 3"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert await GpuMemory().of({GROUP: [A]}) == {GROUP: 3 * MIB}


async def test_the_driver_is_asked_in_a_thread_that_nobody_waits_for(nvml: Nvml) -> None:
    nvml.running = {A: [(OWN, 5)]}
    asked = GpuMemory()
    assert await asked.of({GROUP: [A]}) == {GROUP: 5}
    assert await asked.of({}) == {}  # and not at all where there is nothing to ask
    assert (nvml.asked_in, nvml.open) == (["gpu-memory"], 0)


async def test_a_fault_is_told_once_and_again_when_it_comes_back(
    nvml: Nvml, caplog: pytest.LogCaptureFixture
) -> None:
    asked = GpuMemory()
    nvml.running = {A: [(OWN, 5)]}
    for fault in ("Driver/library version mismatch", "Driver/library version mismatch", ""):
        nvml.fault = fault
        assert await asked.of({GROUP: [A]}) == ({} if fault else {GROUP: 5})
    assert caplog.text.count("Driver/library version mismatch") == 1
    nvml.fault = "GPU is lost"
    await asked.of({GROUP: [A]})
    assert "is not known: NVMLError: GPU is lost" in caplog.text


async def test_a_driver_that_hangs_is_not_asked_a_second_time_and_holds_up_nothing(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpu_memory, "_PATIENCE", 0.01)
    nvml.running = {A: [(OWN, 5)]}
    nvml.answers.clear()
    asked = GpuMemory()
    assert await asked.of({GROUP: [A]}) == {}
    assert await asked.of({GROUP: [A]}) == {}
    assert len(nvml.asked_in) == 1
    (thread,) = (one for one in threading.enumerate() if one.name == "gpu-memory")
    assert thread.daemon  # else the router could not end
    assert caplog.text.count("no answer of the driver") == 1
    nvml.answers.set()
    await asyncio.to_thread(thread.join)
    monkeypatch.setattr(gpu_memory, "_PATIENCE", 30.0)
    assert await asked.of({GROUP: [A]}) == {GROUP: 5}


async def test_a_keeper_knows_what_its_server_takes_of_nvidias_gpus_alone(
    start_launched: StartLaunched, nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_BETWEEN_MEASUREMENTS", 0.05)
    launches = [commanded(*SIM, name="a", gpus=("0",)), commanded(*SIM, name="b", gpus=("1",))]
    router = await start_launched(*launches, there=[gpu(0), gpu(1, vendor="amd")])
    assert router.supervisor is not None
    first, second = router.supervisor.keepers["a-0"], router.supervisor.keepers["b-0"]
    await until(lambda: None not in (first.pid, second.pid), timeout=20)
    assert first.pid is not None
    assert second.pid is not None
    nvml.running = {A: [(first.pid, 5), (second.pid, 7)], B: [(second.pid, 9)]}
    await until(lambda: first.gpu_memory == 5, timeout=20)
    assert second.gpu_memory is None

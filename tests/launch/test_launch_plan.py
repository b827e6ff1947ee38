"""What is to be started where: programs and GPUs of this machine put together."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from launch_kit import commanded, gpus, launch

from mvllm_router.launch import plan as module
from mvllm_router.launch.faults import CannotLaunch
from mvllm_router.launch.plan import make_plan


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "vllm"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_servers_get_the_gpus_that_the_environment_leaves(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find", lambda: gpus(4))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    found = make_plan([launch(engine_path=program)], parallel=1)
    assert [gpu.number for gpu in found.gpus] == [1, 2]
    assert found.parallel == 1
    commands = [command.shown() for _, command in found.commands()]
    assert [line.split()[:2] for line in commands] == [
        ["CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=1"],
        ["CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=2"],
    ]
    assert len({line.partition("--port ")[2] for line in commands}) == 2


def test_gpus_are_not_looked_for_where_none_is_wanted(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find() -> None:
        raise AssertionError("a driver was asked")

    monkeypatch.setattr(module, "find", find)
    assert make_plan([launch(engine_path=program, gpus=())]).gpus == ()
    assert make_plan([launch(engine="mlx", engine_path=program)]).gpus == ()


def test_without_a_gpu_that_is_said_and_the_server_is_started_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "find", lambda: ())
    with caplog.at_level("INFO", "mvllm_router"):
        found = make_plan([commanded(sys.executable)])
    assert [place.name for place in found.places] == ["sim-0"]
    assert "no GPU of NVIDIA or AMD" in caplog.text


def test_on_windows_nothing_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "platform", "win32")
    with pytest.raises(CannotLaunch, match="on Linux and macOS only"):
        make_plan([launch()])

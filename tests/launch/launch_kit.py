"""What tests of launching share: GPUs, launches, and commands that behave as they are told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mvllm_router.config import LaunchSpec
from mvllm_router.launch.gpus import Gpu
from mvllm_router.launch.placement import place
from mvllm_router.launch.plan import Plan
from mvllm_router.launch.programs import Program

GIB = 2**30
PYTHON = sys.executable
# A simulated engine: the only one of these programs that serves anything.
SIM = (PYTHON, "-m", "mvllm_router.sim", "--model", "tiny", "--port", "{port}")


def gpu(number: int, *, used: float = 0.5, name: str = "H100", vendor: Any = "nvidia") -> Gpu:
    """Return a GPU of 80 GiB; `used` are those that are taken."""
    return Gpu(number, f"GPU-{number:04d}", name, 80 * GIB, int(used * GIB), vendor)


def gpus(count: int) -> tuple[Gpu, ...]:
    return tuple(gpu(number) for number in range(count))


def split(number: int, parts: int) -> tuple[Gpu, ...]:
    """Return the parts of a GPU that MIG has split."""
    return tuple(
        replace(
            gpu(number, used=0.0, name="H100 MIG 1g.10gb"),
            uuid=f"MIG-{number:04d}-{part}",
            total=10 * GIB,
            part=part,
            whole=f"GPU-{number:04d}",
        )
        for part in range(parts)
    )


def launch(**more: Any) -> LaunchSpec:
    return LaunchSpec(**{"name": "qwen", "engine": "vllm", "model": "Qwen/Qwen3-8B", **more})


def plan_of(*launches: LaunchSpec, there: Sequence[Gpu] = (), parallel: int | None = None) -> Plan:
    """Return a plan of commands; nothing of this machine is looked for."""
    programs = {one.name: Program("command", one.args) for one in launches}
    return Plan(tuple(place(launches, there)), programs, tuple(there), parallel)


def commanded(*argv: str, name: str = "sim", **more: Any) -> LaunchSpec:
    """Return the launch of a command."""
    values = {"name": name, "engine": "command", "model": "", "args": argv, "replicas": 1}
    return launch(**{**values, **more})


def script(code: str, *words: str) -> tuple[str, ...]:
    """Return the command that runs some lines of Python."""
    return (PYTHON, "-u", "-c", code, *words)

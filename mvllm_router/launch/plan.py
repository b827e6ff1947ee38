"""What is to be started where, worked out before anything starts."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mvllm_router.config import LaunchSpec
from mvllm_router.launch.commands import Command, command
from mvllm_router.launch.faults import CannotLaunch
from mvllm_router.launch.gpus import Gpu, find, visible
from mvllm_router.launch.placement import ON_GPUS, Place, place
from mvllm_router.launch.ports import Ports
from mvllm_router.launch.programs import Program, find_program

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """All servers to start, the programs of their launches by name, and the GPUs there are.

    `parallel` is how many may start at the same time; None: all of them.
    """

    places: tuple[Place, ...]
    programs: Mapping[str, Program]
    gpus: tuple[Gpu, ...] = ()
    parallel: int | None = None

    def commands(self) -> list[tuple[Place, Command]]:
        """Return the commands that would run, each with a port that is free now."""
        ports = Ports()
        try:
            return [
                (one, command(one, self.programs[one.launch.name], ports.take()))
                for one in self.places
            ]
        finally:
            ports.close()


def make_plan(launches: Sequence[LaunchSpec], parallel: int | None = None) -> Plan:
    """Find programs and GPUs for all launches.

    Raises:
        CannotLaunch: something is not there, or does not fit.
    """
    programs, gpus = look(launches)
    return Plan(tuple(place(launches, gpus)), programs, gpus, parallel)


def look(
    launches: Sequence[LaunchSpec], known: Sequence[Gpu] = ()
) -> tuple[dict[str, Program], tuple[Gpu, ...]]:
    """Find the programs of launches, by their names, and the GPUs that may be used.

    Args:
        known: GPUs that were found before; else they are looked for where one is wanted.

    Raises:
        CannotLaunch: an engine or a model is not there.
    """
    if sys.platform == "win32":
        raise CannotLaunch(
            "servers are launched on Linux and macOS only",
            "start them by yourself, and name them as `[servers]`",
        )
    programs = {launch.name: find_program(launch) for launch in launches}
    wants_gpus = any(launch.engine in ON_GPUS and launch.gpus != () for launch in launches)
    if known:
        return programs, tuple(known)
    gpus = visible(find(), os.environ) if wants_gpus else ()
    if wants_gpus and not gpus:
        log.info("no GPU of NVIDIA or AMD is there to be used: servers start without")
    return programs, gpus

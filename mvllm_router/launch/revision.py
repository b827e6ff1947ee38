"""What a new file asks of the servers that run: worked out before anything changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mvllm_router.config import LaunchSpec, launch_change
from mvllm_router.config.diff import NEEDS_RESTART
from mvllm_router.launch.gpus import Gpu
from mvllm_router.launch.plan import look
from mvllm_router.launch.programs import Program


@dataclass(frozen=True, slots=True)
class Revision:
    """What becomes of launches: those to start, to end, and to change; the rest stays.

    `programs` are those of `added` and `changed`, by name. `gpus` are all that there are.
    """

    added: tuple[LaunchSpec, ...]
    removed: tuple[LaunchSpec, ...]
    changed: tuple[LaunchSpec, ...]
    programs: Mapping[str, Program]
    gpus: tuple[Gpu, ...]


def revise(
    running: Mapping[str, LaunchSpec], wanted: Sequence[LaunchSpec], gpus: Sequence[Gpu]
) -> Revision:
    """Compare what runs with what the file has, and find what that needs on this machine.

    What would need other places than it has is left as it is.

    Args:
        running: launches by name.
        gpus: those that are known; where there are none, they are looked for.

    Raises:
        CannotLaunch: an engine or a model is not there.
    """
    becomes = {one.name: launch_change(running.get(one.name), one) for one in wanted}
    added = tuple(one for one in wanted if becomes[one.name] == "added")
    changed = tuple(one for one in wanted if becomes[one.name] not in ("", "added", NEEDS_RESTART))
    removed = tuple(one for one in running.values() if one.name not in becomes)
    programs, gpus = look((*added, *changed), gpus)
    return Revision(added, removed, changed, programs, gpus)

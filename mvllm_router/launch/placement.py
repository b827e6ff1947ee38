"""Which server gets which GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mvllm_router.config import LaunchSpec
from mvllm_router.launch.faults import CannotLaunch
from mvllm_router.launch.gpus import Gpu, gpu_called

# Engines that run on one GPU or another. A command does as it likes; MLX has Apple's.
ON_GPUS = ("vllm", "llama.cpp", "llama-cpp-python", "command")


@dataclass(frozen=True, slots=True)
class Place:
    """One server to be: the `number`th of its launch, on `gpus` (none: on the CPU, or Apple's)."""

    launch: LaunchSpec
    number: int
    gpus: tuple[Gpu, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.launch.name}-{self.number}"


def place(
    launches: Sequence[LaunchSpec], gpus: Sequence[Gpu], others: Sequence[Gpu] = ()
) -> list[Place]:
    """Give each server of all launches its GPUs; those that say how many servers come first.

    One launch that does not say it gets what is left, several get one server each.

    Args:
        gpus: all that this router may use.
        others: those that servers of other launches have.

    Raises:
        CannotLaunch: they do not fit.
    """
    open_ones = [launch for launch in launches if launch.replicas is None]
    taken = list(others)
    placed: dict[str, list[Place]] = {}
    for launch in sorted(launches, key=lambda one: one.replicas is None):
        replicas = launch.replicas
        if replicas is None and len(open_ones) > 1:
            replicas = 1
        added = place_more(launch, range(replicas) if replicas else None, gpus, taken)
        taken += [gpu for one in added for gpu in one.gpus]
        placed[launch.name] = added
    return [one for launch in launches for one in placed[launch.name]]


def place_more(
    launch: LaunchSpec, numbers: Sequence[int] | None, gpus: Sequence[Gpu], taken: Sequence[Gpu]
) -> list[Place]:
    """Give the servers `numbers` of a launch their GPUs, None: as many servers as there is room.

    Args:
        gpus: all that this router may use.
        taken: those that its other servers have.

    Raises:
        CannotLaunch: they do not fit.
    """
    allowed = _allowed(launch, gpus)
    if not allowed:
        return [Place(launch, number) for number in numbers or range(1)]
    free = [gpu for gpu in allowed if gpu not in taken]
    usable = free if launch.force else [gpu for gpu in free if not gpu.is_in_use]
    groups = _groups(usable, launch.tp)
    wanted = len(groups) if numbers is None else len(numbers)
    if wanted > len(groups) and launch.force and len(allowed) >= launch.tp:
        shared = _groups(allowed, launch.tp)
        groups += [shared[n % len(shared)] for n in range(wanted - len(groups))]
    if not wanted or wanted > len(groups):
        raise _does_not_fit(launch, max(wanted, 1), allowed, taken)
    numbers = range(wanted) if numbers is None else numbers
    return [Place(launch, number, group) for number, group in zip(numbers, groups, strict=False)]


def _allowed(launch: LaunchSpec, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Return the GPUs that a launch may use, in the order in which it names them.

    Raises:
        CannotLaunch: it names one that there is not, or wants several where there is none.
    """
    if launch.engine not in ON_GPUS:
        return []
    if launch.gpus is None:
        allowed = list(gpus)
    else:
        allowed = [_named(launch, text, gpus) for text in dict.fromkeys(launch.gpus)]
    if not allowed and launch.tp > 1 and not launch.force:
        raise CannotLaunch(
            f"{launch.name}: a server of {launch.tp} GPUs, and no GPU is there to be used", _LOOK
        )
    return allowed


_LOOK = (
    "NVIDIA's are found with `pip install nvidia-ml-py` or nvidia-smi, AMD's with amd-smi or "
    "rocm-smi; CUDA_VISIBLE_DEVICES and ROCR_VISIBLE_DEVICES are heeded"
)


def _named(launch: LaunchSpec, text: str, gpus: Sequence[Gpu]) -> Gpu:
    gpu = gpu_called(gpus, text)
    if gpu is None:
        there = "; ".join(one.describe() for one in gpus) or "none"
        raise CannotLaunch(f"{launch.name}: there is no GPU {text} to be used", f"found: {there}")
    return gpu


def _groups(gpus: Sequence[Gpu], size: int) -> list[tuple[Gpu, ...]]:
    """Put GPUs of one kind together, neighbours first: links between these are the fastest.

    A group that begins at a multiple of its size comes before one that lies across.
    """
    if size > 1:  # CUDA shows a process one part of a split GPU at most
        gpus = [gpu for gpu in gpus if gpu.part is None]
    groups: list[tuple[Gpu, ...]] = []
    for kind in dict.fromkeys((gpu.name, gpu.total) for gpu in gpus):
        alike = [gpu for gpu in gpus if (gpu.name, gpu.total) == kind]
        whole = _whole(alike, size)
        used = {gpu for group in whole for gpu in group}
        rest = [gpu for gpu in alike if gpu not in used]
        groups += whole
        groups += [tuple(rest[at : at + size]) for at in range(0, len(rest) - size + 1, size)]
    return groups


def _whole(gpus: Sequence[Gpu], size: int) -> list[tuple[Gpu, ...]]:
    if size == 1:
        return [(gpu,) for gpu in gpus]
    blocks: dict[int, list[Gpu]] = {}
    for gpu in gpus:
        blocks.setdefault(gpu.number // size, []).append(gpu)
    return [tuple(block) for block in blocks.values() if len(block) == size]


def _does_not_fit(
    launch: LaunchSpec, servers: int, allowed: Sequence[Gpu], taken: Sequence[Gpu]
) -> CannotLaunch:
    each = f" of {launch.tp} GPUs" if launch.tp > 1 else ""
    wanted = f"{servers} servers{each}" if servers > 1 else f"a server{each}"
    states = [f"{gpu.describe()}{_state(gpu, taken)}" for gpu in allowed]
    in_use = any(gpu.is_in_use for gpu in allowed if gpu not in taken)
    hint = "--force (force = true) uses GPUs that are in use as well" if in_use else ""
    if servers > 1:
        hint = hint or "ask for fewer with --replicas, or --force lets servers share a GPU"
    does = "do" if servers > 1 else "does"
    return CannotLaunch(f"{launch.name}: {wanted} {does} not fit: {'; '.join(states)}", hint)


def _state(gpu: Gpu, taken: Sequence[Gpu]) -> str:
    if gpu in taken:
        return " has another server"
    return " is in use" if gpu.is_in_use else ""

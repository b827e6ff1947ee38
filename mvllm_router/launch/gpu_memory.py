"""How much memory of NVIDIA's GPUs launched servers take.

The driver says what each process takes on each GPU; those of a server are its process group. What
AMD's tools say of processes differs from version to version, and is not read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import threading
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

log = logging.getLogger(__name__)

# Seconds that the driver may take. Where a GPU has failed, it may never answer.
_PATIENCE = 10.0
_MIB = 2**20
_SMI = (
    "nvidia-smi",
    "--query-compute-apps=gpu_uuid,pid,used_memory",
    "--format=csv,noheader,nounits",
)

Servers = Mapping[int, Collection[str]]  # process groups, with the UUIDs of their GPUs
Used = dict[str, list[tuple[int, int | None]]]  # by UUID: process, and bytes where they are known


class GpuMemory:
    """Asks the driver again and again; a question that it has not answered is the only one."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._fault = ""  # why some of it was not known the last time

    async def of(self, servers: Servers) -> dict[int, int]:
        """Return bytes by process group; one of which it is not known is left out."""
        if not servers or (self._thread is not None and self._thread.is_alive()):
            return {}
        answer: Future[tuple[dict[int, int], str]] = Future()
        answer.set_running_or_notify_cancel()
        # One of asyncio's own threads would keep the router from ending when the driver hangs.
        self._thread = threading.Thread(
            target=lambda: answer.set_result(_ask(servers)), name="gpu-memory", daemon=True
        )
        self._thread.start()
        waiting = asyncio.wrap_future(answer)
        try:
            await asyncio.wait([waiting], timeout=_PATIENCE)
            found, fault = waiting.result() if waiting.done() else ({}, "no answer of the driver")
        finally:
            waiting.cancel()
        self._tell(fault)
        return found

    def _tell(self, fault: str) -> None:
        if fault and not self._fault:  # once, and not every few seconds
            log.warning("how much GPU memory launched servers take is not known: %s", fault)
        self._fault = fault


def _ask(servers: Servers) -> tuple[dict[int, int], str]:
    """Return bytes by process group, and what went wrong, else ""."""
    try:
        used, fault = _used({uuid for uuids in servers.values() for uuid in uuids})
    except Exception as error:  # NVML of another version raises more than its own errors
        return {}, f"{type(error).__name__}: {error}"
    return sum_up(servers, used), fault


def _used(uuids: Collection[str]) -> tuple[Used, str]:
    try:
        import pynvml
    except ImportError:
        done = subprocess.run(_SMI, capture_output=True, text=True, timeout=_PATIENCE, check=True)
        return parse_compute_apps(done.stdout, uuids), ""
    pynvml.nvmlInit()
    try:
        return read_processes(pynvml, uuids)
    finally:
        pynvml.nvmlShutdown()


def read_processes(nvml: Any, uuids: Iterable[str]) -> tuple[Used, str]:
    """Read from NVML what runs on GPUs; one that does not tell is left out, and the fault said."""
    used: Used = {}
    fault = ""
    for uuid in uuids:
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid.encode())  # older versions want bytes
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except nvml.NVMLError as error:
            fault = f"{uuid}: {error}"
            continue
        used[uuid] = [(process.pid, process.usedGpuMemory) for process in processes]
    return used, fault


def parse_compute_apps(text: str, uuids: Iterable[str]) -> Used:
    """Read the lines of nvidia-smi, such as `GPU-4d4b2ba5-..., 1234, 70312`, in MiB."""
    used: Used = {uuid: [] for uuid in uuids}
    for line in text.splitlines():
        uuid, *cells = (cell.strip() for cell in line.split(","))
        if uuid in used and len(cells) == 2 and cells[0].isdecimal():
            # "[N/A]" where the driver does not know it
            size = int(cells[1]) * _MIB if cells[1].isdecimal() else None
            used[uuid].append((int(cells[0]), size))
    return used


def sum_up(servers: Servers, used: Used) -> dict[int, int]:
    """Return bytes by process group. One is left out of which a part is not known, or which no
    GPU has seen: in a container the driver may tell of other processes, or of none.
    """
    groups = {pid: _group_of(pid) for entries in used.values() for pid, _ in entries}
    found: dict[int, int] = {}
    for group, uuids in servers.items():
        entries = [entry for uuid in uuids for entry in used.get(uuid, ())]
        sizes = [size for pid, size in entries if groups[pid] == group]
        known = [size for size in sizes if size is not None]
        if known and len(known) == len(sizes) and used.keys() >= set(uuids):
            found[group] = sum(known)
    return found


def _group_of(pid: int) -> int | None:
    with suppress(OSError):  # it has just ended, or cannot be seen from here
        return os.getpgid(pid)
    return None
